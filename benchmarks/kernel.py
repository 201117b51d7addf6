"""The kernel tiers beside plain forwarding and other gateways: requests per second, latency, CPU time of processes.

    sudo ./scripts/benchmark.sh kernel [--rounds 10] [--seconds 2] [--only CASE] [--out FILE]
    ./scripts/benchmark.sh kernel --print FILE

As `throughput`, but with one backend for all, and rauta twice: `kernel` with its programs at TC (in a namespace of its
own, so that they are on nobody else's way), `tier3` without. The regex route is what the kernel leaves to tier 3.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from lab.load import CASES, Case, measure
from lab.namespaces import lab
from lab.peers import KERNEL, PEERS
from lab.report import grouped, tables
from throughput import start

NAMES = ("nginx", "haproxy", "envoy", "caddy")
KERNEL_CASES = (
    *CASES,
    Case(name="two services, 31 connections", path="/small", other="/other", connections=31),
    Case(name="30 B, 32 connections, 1 % loss", path="/small", connections=32, lossy=True),
    Case(name="64 KiB, 32 connections, 1 % loss", path="/64k", connections=32, lossy=True),
    Case(name="regex route, a connection per request", path="/re/4711", connections=32, close=True),
)


def measure_all(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """All rounds, interleaved."""
    rounds: list[dict[str, object]] = []
    tier_3 = replace(next(peer for peer in PEERS if peer.name == "rauta"), name="tier3")
    peers = [KERNEL, tier_3, *(peer for peer in PEERS if peer.name in NAMES)]
    if arguments.peers:
        peers = [peer for peer in peers if peer.name in arguments.peers.split(",")]
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rauta-bench-")))
        home.chmod(0o755)
        place = stack.enter_context(lab())
        targets = start(place, stack, home, peers, backend_count=1)
        for case in KERNEL_CASES:
            if arguments.only and arguments.only not in case.name:
                continue
            with place.lossy() if case.lossy else nullcontext():
                for number in range(arguments.rounds):
                    for name, (target, pid) in targets.items():
                        done = measure(place, case, name, target, pid, arguments.seconds)
                        rounds.append({"round": number, **done.as_json()})
                        told = f"{case.name:40} {number} {name:8} {done.rate:10.0f}/s  {done.cpu:6.1f} us"
                        print(told, file=sys.stderr)
    return rounds


def main() -> None:
    """Measure and print, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", metavar="CASE", help="cases whose name contains this")
    parser.add_argument("--peers", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--out", metavar="FILE", help="where the raw rounds go")
    parser.add_argument("--print", metavar="FILE", help="measure nothing, print the tables of a file")
    arguments = parser.parse_args()
    if arguments.print:
        print(tables(grouped(json.loads(Path(arguments.print).read_text())["rounds"]), us="kernel"))
        return
    if os.geteuid():
        parser.error("network namespaces need root")
    rounds = measure_all(arguments)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"machine": machine, "rounds": rounds}, indent=0) + "\n")
    print(tables(grouped(rounds), us="kernel"))


if __name__ == "__main__":
    main()
