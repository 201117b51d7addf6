"""rauta beside nginx, HAProxy, Envoy, Caddy and an aiohttp proxy: requests per second, latency, CPU time.

    sudo ./scripts/benchmark.sh throughput [--rounds 3] [--seconds 3] [--only CASE] [--out FILE]
    ./scripts/benchmark.sh throughput --print FILE

Network namespaces for a client, the gateways and two backends (nginx); two workers for every gateway; the runs are
interleaved (all gateways, then the next round), so that what else the machine does meets all alike. The raw rounds go
to a file; tables are printed from it (docs/benchmarks.md holds a run).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.load import CASES, measure
from lab.namespaces import Lab, lab
from lab.peers import PEERS, PRIOR_KNOWLEDGE, TLS, Doors, Peer
from lab.report import grouped, tables

BACKEND = """worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  log_format handshakes "$ssl_protocol $ssl_session_reused";
  access_log off; keepalive_requests 1000000000; client_max_body_size 0; sendfile on; tcp_nodelay on;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  server {{
    listen 80 backlog=4096; listen 81 backlog=4096; root {home}; default_type text/plain;
    {doors}
    location = /small {{ return 200 "thirty bytes of a small body.\\n"; }}
    location = /port {{ return 200 $server_port; }}
    location /re/ {{ return 200 "thirty bytes of a small body.\\n"; }}
    location = /other {{ return 200 "thirty bytes of a small body.\\n"; }}
    location = /post {{ return 200 "thirty bytes of a small body.\\n"; }}
  }}
}}
"""

BACKEND_DOORS = """listen {tls} ssl http2 backlog=4096; listen {prior} http2 backlog=4096;
    ssl_certificate {doors.certificate}; ssl_certificate_key {doors.key}; ssl_protocols TLSv1.2 TLSv1.3;
    location = /handshakes {{ access_log {home}/handshakes handshakes; return 200 "seen"; }}"""


@contextmanager
def running(words: list[str], what: str) -> Iterator[int]:
    """A process for as long as it is used; its output is shown if it ends by itself."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(words, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            yield process.pid
        finally:
            ended = process.poll() is not None
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            if ended:
                output.seek(0)
                raise SystemExit(f"{what} ended by itself: {output.read().decode(errors='replace')[-2000:]}")


def wait_for(place: Lab, url: str, what: str, *options: str) -> None:
    """Until `url` answers with 200, as seen by the client; `options` are curl's."""
    deadline = time.monotonic() + 20
    words = place.command(place.client, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options, url)
    while subprocess.run(words, capture_output=True, text=True, check=False).stdout != "200":
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} does not answer at {url}")
        time.sleep(0.1)


def start(
    place: Lab, stack: ExitStack, home: Path, peers: list[Peer], backend_count: int = 2, doors: Doors | None = None
) -> dict[str, tuple[str, int | None]]:
    """Backends and gateways; where each gateway is, and its first process. Backends have doors as far above port 80 as
    gateways above theirs."""
    for name, namespace in zip(("b1", "b2"), place.backends, strict=True):
        folder = home / name
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "64k").write_bytes(b"x" * 65536)
        more = ""
        if doors is not None:
            more = BACKEND_DOORS.format(tls=80 + TLS, prior=80 + PRIOR_KNOWLEDGE, doors=doors, home=folder)
        (folder / "nginx.conf").write_text(BACKEND.format(home=folder, doors=more))
        stack.enter_context(
            running(place.command(namespace, "nginx", "-c", str(folder / "nginx.conf")), f"backend {name}")
        )
    targets: dict[str, tuple[str, int | None]] = {"direct": (f"{place.backend_addresses[0]}:80", None)}
    for peer in peers:
        folder = home / peer.name
        folder.mkdir()
        addresses = place.kernel_backends if peer.kernel else place.backend_addresses
        backends = tuple(f"{address}:80" for address in addresses[:backend_count])
        namespace = place.kernel if peer.kernel else place.gateway
        pid = stack.enter_context(running(place.command(namespace, *peer.write(folder, backends, doors)), peer.name))
        address = place.kernel_address if peer.kernel else place.gateway_address
        targets[peer.name] = (f"{address}:{peer.port}", pid)
    silent = {peer.name for peer in peers if not peer.plain}
    for name, (target, _) in targets.items():
        if name not in silent:
            wait_for(place, f"http://{target}/small", name)
    return targets


def measure_all(arguments: argparse.Namespace, peers: list[Peer]) -> list[dict[str, object]]:
    """All rounds, interleaved."""
    rounds: list[dict[str, object]] = []
    cases = [case for case in CASES if not arguments.only or arguments.only in case.name]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rauta-bench-")))
        home.chmod(0o755)
        place = stack.enter_context(lab())
        targets = start(place, stack, home, peers)
        for case in cases:
            for number in range(arguments.rounds):
                for name, (target, pid) in targets.items():
                    done = measure(place, case, name, target, pid, arguments.seconds)
                    rounds.append({"round": number, **done.as_json()})
                    print(f"{case.name:30} {number} {name:8} {done.rate:10.0f}/s  {done.cpu:6.1f} us", file=sys.stderr)
    return rounds


def main() -> None:
    """Measure and print, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", metavar="CASE", help="cases whose name contains this")
    parser.add_argument("--peers", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--out", metavar="FILE", help="where the raw rounds go")
    parser.add_argument("--print", metavar="FILE", help="measure nothing, print the tables of a file")
    arguments = parser.parse_args()
    if arguments.print:
        print(tables(grouped(json.loads(Path(arguments.print).read_text())["rounds"])))
        return
    if os.geteuid():
        parser.error("network namespaces need root")
    wanted = arguments.peers.split(",") if arguments.peers else [peer.name for peer in PEERS]
    peers = [peer for peer in PEERS if peer.name in wanted]
    for program in ("wrk", "curl", "nginx", *(name for name in wanted if name not in ("rauta", "pure", "aiohttp"))):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed: ./scripts/benchmark.sh installs what is needed")
    rounds = measure_all(arguments, peers)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"machine": machine, "rounds": rounds}, indent=0) + "\n")
    print(tables(grouped(rounds)))


if __name__ == "__main__":
    main()
