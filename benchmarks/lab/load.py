"""Load by wrk (HTTP/1.1) and h2load (HTTP/2), from the client's namespace, and the CPU time that the gateway's
processes used meanwhile."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.namespaces import Lab

_TICKS = os.sysconf("SC_CLK_TCK")
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
GRPC_FRAME = b"\0\0\0\0\x1e" + b"thirty bytes of a small body.\n"  # not compressed, its length, the message


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of load. `body` is that of a POST in bytes; `close` makes a connection for each request; `other` is the
    path of every second request; with `lossy`, one of 100 packets that come to the client and the backends is lost.
    With `streams`, it is HTTP/2 with so many requests at a time on each connection; with `grpc`, they are unary calls.
    """

    name: str
    path: str
    connections: int
    body: int = 0
    close: bool = False
    other: str = ""
    lossy: bool = False
    tls: bool = False
    streams: int = 0
    grpc: bool = False


CASES = (
    Case(name="30 B, 32 connections", path="/small", connections=32),
    Case(name="30 B, 1 connection", path="/small", connections=1),
    Case(name="30 B, 256 connections", path="/small", connections=256),
    Case(name="64 KiB, 32 connections", path="/64k", connections=32),
    Case(name="a connection per request", path="/small", connections=32, close=True),
    Case(name="POST 4 KiB, 32 connections", path="/post", connections=32, body=4096),
    Case(name="regex route, 32 connections", path="/re/4711", connections=32),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One run: requests per second, median latency and CPU time of the gateway per request in us, and failures."""

    case: str
    peer: str
    rate: float
    latency: float
    cpu: float
    failures: int

    def as_json(self) -> dict[str, object]:
        """For the file of raw rounds."""
        return asdict(self)


def measure(
    place: Lab, case: Case, peer: str, target: str, pid: int | None, seconds: float, environment: tuple[str, ...] = ()
) -> Round:
    """One run of a case against `target` (host:port); `pid` is the gateway's first process, `environment` the client's
    in the form NAME=VALUE."""
    with tempfile.TemporaryDirectory(prefix="rauta-load-") as home:
        log = Path(home) / "log"
        words = _h2load(case, seconds, log) if case.streams else _wrk(case, seconds, Path(home))
        url = f"{'https' if case.tls else 'http'}://{target}{case.path}"
        before = 0.0 if pid is None else cpu_of(pid)
        done = subprocess.run(
            place.command(place.client, "env", *environment, *words, url),
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 30,
        )
        used = 0.0 if pid is None else cpu_of(pid) - before
        requests, rate, latency, failures = read_h2load(done.stdout, log, case) if case.streams else read(done.stdout)
    return Round(
        case=case.name,
        peer=peer,
        rate=round(rate, 1),
        latency=round(latency, 1),
        cpu=round(used * 1e6 / max(requests, 1), 2),
        failures=failures,
    )


def read(report: str) -> tuple[int, float, float, int]:
    """Requests, requests per second, median latency in us, and failures of a wrk report."""
    requests = int(_one(r"(\d+) requests in", report)[1])
    rate = float(_one(r"Requests/sec:\s+([\d.]+)", report)[1])
    median = _one(r"50%\s+([\d.]+)(us|ms|s)\b", report)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    statuses = re.search(r"Non-2xx or 3xx responses: (\d+)", report)
    failures = sum(map(int, errors.groups())) if errors else 0
    return requests, rate, float(median[1]) * _UNITS[median[2]], failures + (int(statuses[1]) if statuses else 0)


def read_h2load(report: str, log: Path, case: Case) -> tuple[int, float, float, int]:
    """The same of an h2load report, and its log of requests."""
    if case.tls and not ("TLS Protocol: TLSv1.3" in report and "Application protocol: h2" in report):
        raise SystemExit(f"this is not HTTP/2 over TLS 1.3:\n{report}")
    counts = [int(count) for count in _one(r"requests: (.*)", report)[1].replace(",", "").split()[::2]]
    statuses = [int(count) for count in re.findall(r"(\d+) [2345]xx", report)]
    rate = float(_one(r"finished in .*?, ([\d.]+) req/s", report)[1])
    times = [int(line.split(b"\t")[2]) for line in log.read_bytes().splitlines()]
    failures = sum(counts[4:]) + sum(statuses[1:])
    return counts[2], rate, float(statistics.median(times)) if times else 0.0, failures


def cpu_of(pid: int) -> float:
    """User and system time in seconds of a process and all below it that live."""
    total = 0.0
    for child in family(pid):
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def _wrk(case: Case, seconds: float, home: Path) -> list[str]:
    words = ["wrk", "-t1", f"-c{case.connections}", f"-d{seconds:g}s", "--latency", "--timeout", "5s"]
    if case.close:
        words += ["-H", "Connection: close"]
    text = ""
    if case.body:
        text = f'wrk.method = "POST"\nwrk.body = string.rep("x", {case.body})\n'
    elif case.other:
        # wrk does not tell connections apart. With an odd number of them, each gets one or the other at random.
        text = f"""local made, turn = {{}}, 1
function init(args) made = {{wrk.format("GET", "{case.path}"), wrk.format("GET", "{case.other}")}} end
function request() turn = 3 - turn; return made[turn] end
"""
    if text:
        script = home / "load.lua"
        script.write_text(text)
        words += ["-s", str(script)]
    return words


def _h2load(case: Case, seconds: float, log: Path) -> list[str]:
    words = ["h2load", "-t1", f"-c{case.connections}", f"-m{case.streams}", f"-D{seconds:g}", f"--log-file={log}"]
    if case.grpc:
        frame = log.with_name("frame")
        frame.write_bytes(GRPC_FRAME)
        words += ["-d", str(frame), "-H", "content-type: application/grpc", "-H", "te: trailers"]
    return words


def _one(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"wrk said something else than expected:\n{text}")
    return found
