"""What it costs to start: time and memory of the modules that each process imports.

    python benchmarks/imports.py

Each is imported by a fresh interpreter, several times; the median is told. Memory is the growth of the resident set
over an interpreter that has imported nothing. `tests/project/test_import_budget.py` says what may be imported at all.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

RUNS = 7
MODULES = (
    "asyncio",
    "uvloop",
    "regex",
    "re2",
    "yaml",
    "rauta.routing.table",
    "rauta.config",
    "rauta.ctl.cli",
    "rauta.runtime.cli",
    "rauta.runtime.supervisor",
    "rauta.runtime.worker",
)

# The resident set as the kernel counts it now, in KiB: ru_maxrss would tell the peak, which imports may exceed.
SCRIPT = """
import importlib, json, sys
from time import perf_counter
def resident():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Rss:"))
names, before, start = set(sys.modules), resident(), perf_counter()
importlib.import_module(sys.argv[1])
print(json.dumps([(perf_counter() - start) * 1000, resident() - before, len(set(sys.modules) - names)]))
"""


def measure(module: str) -> tuple[float, float, int]:
    """Milliseconds, KiB and number of modules of one import; medians."""
    runs = []
    for _ in range(RUNS):
        done = subprocess.run([sys.executable, "-c", SCRIPT, module], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    milliseconds, kibibytes, modules = (statistics.median(column) for column in zip(*runs, strict=True))
    return milliseconds, kibibytes, int(modules)


def main() -> None:
    """Print the table."""
    print(f"{'import':<28}{'time':>10}{'memory':>12}{'modules':>10}")
    for module in MODULES:
        milliseconds, kibibytes, modules = measure(module)
        print(f"{module:<28}{milliseconds:>7.1f} ms{kibibytes / 1024:>8.1f} MiB{modules:>10}")


if __name__ == "__main__":
    main()
