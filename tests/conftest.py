"""What holds for every test: the environment, hypothesis' profile, and that no process outlives the run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

# A wall-clock deadline per example says more about the machine than about the code; pytest-timeout ends hangs.
hypothesis.settings.register_profile("rauta", deadline=None, print_blob=True)
hypothesis.settings.load_profile("rauta")

# Peers on loopback are never reached through a proxy, and messages of the system are in English.
for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
os.environ["LC_ALL"] = "C.UTF-8"
# Debian keeps servers (nginx) where ordinary users do not look.
os.environ["PATH"] = os.pathsep.join([*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"])
# Kernel programs are compiled once for all tests that start a gateway, and nothing is left of them.
os.environ["CACHE_DIRECTORY"] = tempfile.mkdtemp(prefix="rauta-tests-cache-")
atexit.register(shutil.rmtree, os.environ["CACHE_DIRECTORY"], ignore_errors=True)


def _children() -> dict[int, str]:
    """Processes that this one started and that still run, with their command lines; zombies do not count."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                command = Path("/proc", child, "cmdline").read_bytes()
            except FileNotFoundError:
                continue  # ended while we looked
            if command:  # empty for zombies
                found[int(child)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long set, too: see scripts/test-long.sh")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long set runs by a command of its own."""
    if not config.getoption("--long"):
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_BEFORE] = frozenset(_children())


_BEFORE = pytest.StashKey[frozenset[int]]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A process that outlives the tests is a bug of a test or of rauta: name it and be red."""
    before = session.config.stash.get(_BEFORE, frozenset())
    for pid, command in _children().items():
        if pid in before or "multiprocessing.resource_tracker" in command:
            continue
        print(f"\nleft running by a test: pid {pid}: {command}")  # noqa: T201
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
