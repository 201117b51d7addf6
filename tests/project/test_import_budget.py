"""Processes import no more than they need: start-up time and memory are paid once per worker.

Figures are measured by `benchmarks/imports.py`; here is what must not creep in.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What a process may load beyond the standard library and rauta, by top-level name.
MODEL = {"regex", "re2"}
THIRD_PARTY = {
    "rauta.routing.table": MODEL,
    "rauta.config": MODEL | {"yaml", "_yaml"},
    # Reads the file and passes it on; HTTP and the fast loop are for workers.
    "rauta.runtime.supervisor": MODEL | {"yaml", "_yaml"},
    # Gets the configuration ready-made, and must not carry a parser of files.
    "rauta.runtime.worker": MODEL | {"uvloop"},
    "rauta.ctl.cli": MODEL | {"yaml", "_yaml"},
}
# Parts of the standard library that are big and that no process of the gateway has a use for.
HEAVY = {"distutils", "http.client", "multiprocessing.pool", "sqlite3", "tkinter", "unittest", "urllib.request", "xml"}
# Parts of rauta that a process must not carry.
OWN = {
    "rauta.routing.table": {"rauta.config", "rauta.proxy", "rauta.offload", "rauta.runtime", "rauta.ctl"},
    "rauta.config": {"rauta.proxy", "rauta.offload", "rauta.runtime", "rauta.ctl"},
    "rauta.runtime.supervisor": {"rauta.proxy.http1", "rauta.proxy.dataplane", "rauta.ctl"},
    "rauta.runtime.worker": {"rauta.config", "rauta.ctl"},
    "rauta.ctl.cli": {"rauta.proxy", "rauta.runtime"},
}
# Finders of editable installs, and what compiled modules leave behind in sys.modules.
NO_PACKAGES = ("__editable__", "_cython_", "cython_runtime")

SCRIPT = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def _loaded_by(module: str) -> set[str]:
    done = subprocess.run([sys.executable, "-I", "-c", SCRIPT, module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def _within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", THIRD_PARTY)
def test_third_party_packages_are_those_it_needs(module: str) -> None:
    top = {name.partition(".")[0] for name in _loaded_by(module)}
    surplus = {name for name in top - sys.stdlib_module_names - {"rauta"} if not name.startswith(NO_PACKAGES)}
    assert surplus <= THIRD_PARTY[module]


@pytest.mark.parametrize("module", THIRD_PARTY)
def test_no_heavy_part_of_the_standard_library(module: str) -> None:
    assert not {name for name in _loaded_by(module) if _within(name, HEAVY)}


@pytest.mark.parametrize("module", OWN)
def test_no_part_of_rauta_that_belongs_to_others(module: str) -> None:
    assert not {name for name in _loaded_by(module) if _within(name, OWN[module])}
