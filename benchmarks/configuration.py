"""What a configuration costs: the time to load 10,000 routes, and the memory of 1,000 routes on 100 services.

    .venv/bin/python benchmarks/configuration.py [--rounds 7]

Each figure comes from a process of its own. Loading is from YAML to a finished `Table`; memory is the private memory
(USS) of a process that did what a worker does (unpickle the configuration, build the table, use every route and every
service's Maglev table once), less that of one with a single route.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LOAD = """
import json, sys, time
from rauta.config import load
from rauta.routing.table import Table
started, used = time.perf_counter(), time.process_time()
loaded = load(sys.argv[1])
read = time.perf_counter()
Table(loaded.configuration)
print(json.dumps([read - started, time.perf_counter() - read, time.process_time() - used]))
"""

PICKLE = """
import pickle, sys
from rauta.config import load
with open(sys.argv[2], "wb") as file:
    pickle.dump(load(sys.argv[1]).configuration, file, pickle.HIGHEST_PROTOCOL)
"""

MEMORY = """
import gc, json, pickle, sys
from rauta.routing.request import RequestView
from rauta.routing.table import Table
with open(sys.argv[1], "rb") as file:
    configuration = pickle.load(file)
table = Table(configuration)
for route in configuration.routes:
    for match in route.matches:
        host = str(match.hosts[0])
        outcome = table.match("web", RequestView(method="GET", host=host, path=match.path.value))
        assert outcome.route is route, (route, outcome)
        table.pick(outcome.service, ("192.0.2.1", 40000), lambda backend: 0)
gc.collect()
fields = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup").read().splitlines()[1:])
print(json.dumps(sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))))
"""


def text_of(routes: int, services: int) -> str:
    """A file of exact and prefix routes on 100 hosts, in block style as people write it."""
    lines = ["version: 1", "listeners:", '  web: {address: "127.0.0.1:8080"}', "services:"]
    for i in range(services):
        lines += [f"  service-{i}:", "    backends:"]
        lines += [f'      - {{address: "10.{i // 250}.{i % 250}.{n}:80"}}' for n in (1, 2, 3, 4)]
    lines.append("routes:")
    for i in range(routes):
        lines += [
            f"  - name: route-{i}",
            "    match:",
            f"      hosts: [host-{i % 100}.example.com]",
            f"      path: {{{'exact' if i % 2 else 'prefix'}: /api/v1/things/{i}}}",
            "      methods: [GET, POST]",
            f"    service: service-{i % services}",
        ]
    return "\n".join(lines) + "\n"


def run(code: str, *arguments: str) -> str:
    """The output of that code in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def bench_load(folder: Path, rounds: int) -> None:
    """YAML to table."""
    file = folder / "big.yaml"
    file.write_text(text_of(10_000, 100))
    runs = [json.loads(run(LOAD, str(file))) for _ in range(rounds)]
    load, table, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
    worst = max(a + b for a, b, _ in runs)
    print("| 10,000 routes | median, s |\n|---|---|")
    print(f"| file to model ({file.stat().st_size >> 10} KiB of YAML) | {load:.2f} |")
    print(f"| model to table | {table:.2f} |")
    print(f"| both, worst of {rounds} | {worst:.2f} |")
    print(f"| CPU time of both | {cpu:.2f} |")


def bench_memory(folder: Path, rounds: int) -> None:
    """1,000 routes on 100 services in a worker."""
    sizes: dict[str, list[int]] = {}
    for name, routes, services in (("one", 1, 1), ("many", 1000, 100)):
        file = folder / f"{name}.yaml"
        file.write_text(text_of(routes, services))
        run(PICKLE, str(file), str(folder / name))
    for _ in range(rounds):
        for name in ("one", "many"):
            sizes.setdefault(name, []).append(json.loads(run(MEMORY, str(folder / name))))
    one, many = (statistics.median(sizes[name]) / 1024 for name in ("one", "many"))
    print("\n| in a worker | USS, MiB |\n|---|---|")
    print(f"| 1 route on 1 service | {one:.1f} |\n| 1,000 routes on 100 services | {many:.1f} |")
    print(f"| added | {many - one:.1f} |")


def main() -> None:
    """Both benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bench_load(Path(folder), rounds)
        bench_memory(Path(folder), rounds)


if __name__ == "__main__":
    main()
