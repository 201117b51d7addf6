"""A large download beside small requests on one HTTP/2 connection, and what memory and CPU time the gateway used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.load import cpu_of, family
from lab.namespaces import Lab

SIZE = 1 << 30
RATE = 100  # small requests per second
_CLIENT = Path(__file__).with_name("download_client.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """One run. Times of the small requests in ms; `client`: the client's share, at p99; `busy`: its share of a CPU;
    `rate` in MiB/s; `memory`: how much more the gateway's processes held at their most, in MiB; `cpu` in seconds."""

    case: str
    peer: str
    rate: float
    requests: int
    p50: float
    p99: float
    worst: float
    client: float
    busy: float
    memory: float
    cpu: float
    failures: int

    def as_json(self) -> dict[str, object]:
        """For the file of raw rounds."""
        return asdict(self)


def measure_download(place: Lab, case: str, peer: str, target: str, pid: int | None, *, tls: bool) -> Download:
    """One download from `target` (host:port); `pid` is the gateway's first process."""
    processes = [] if pid is None else family(pid)
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")  # the most that it held is from now on
    memory = sum(_held(process, "VmRSS") for process in processes)
    before = 0.0 if pid is None else cpu_of(pid)
    words = [sys.executable, str(_CLIENT), *target.split(":"), "tls" if tls else "plain", "/gib", "/small", str(RATE)]
    done = subprocess.run(place.command(place.client, *words), capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise SystemExit(f"{case}, {peer}: {done.stderr[-2000:]}")
    seen = json.loads(done.stdout)
    if done.stderr:
        print(f"{case}, {peer}: {done.stderr.strip()}", file=sys.stderr)
    return Download(
        case=case,
        peer=peer,
        rate=round(seen["bytes"] / (1 << 20) / seen["seconds"], 1),
        requests=seen["requests"],
        p50=seen["p50"],
        p99=seen["p99"],
        worst=seen["worst"],
        client=seen["client"],
        busy=seen["busy"],
        memory=round((sum(_held(process, "VmHWM") for process in processes) - memory) / 1024, 2),
        cpu=round(0.0 if pid is None else cpu_of(pid) - before, 2),
        failures=seen["failures"] + (seen["bytes"] != SIZE and not done.stderr),
    )


def _held(pid: int, what: str) -> int:
    """KiB of a process, of /proc/PID/status."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return 0 if found is None else int(found[1])
