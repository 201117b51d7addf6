"""The demo's second part, run for real: the kernel tiers do what it says, and however it ends, nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rauta.offload.bcc import BccOffload
from rauta.offload.bcc.places import ROOT
from rauta.routing.settings import OffloadSettings
from support.kernelpath import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MISSING = BccOffload().missing(OffloadSettings())
on_this_kernel = pytest.mark.skipif(MISSING is not None, reason=f"the kernel tiers: {MISSING}")


@pytest.fixture(scope="module")
def copy(clone: Callable[[], Path]) -> Path:
    return clone()


@pytest.fixture
def others() -> set[str]:
    """Pins of other gateways on this machine."""
    return _pins()


@contextmanager
def _demo(folder: Path, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo of a copy, as ./scripts/demo.sh starts it."""
    process = subprocess.Popen(
        [sys.executable, "scripts/demo", "--kernel", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    lines = []
    while text not in (line := process.stdout.readline()):
        assert line, "".join(lines)
        lines.append(line)
    return "".join([*lines, line])


def _left(process: subprocess.Popen[str], folder: Path, others: set[str]) -> list[str]:
    """Namespaces, processes and pins of a demo; but not pins of `others`, which were there before. What was killed just
    now may need a moment."""
    wait_until(lambda: not _found(process, folder, others))
    return _found(process, folder, others)


def _found(process: subprocess.Popen[str], folder: Path, others: set[str]) -> list[str]:
    namespaces = [path.name for path in Path("/run/netns").glob(f"rauta-{process.pid}-*")]
    processes = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink() == folder:
                processes.append(path.parent.joinpath("cmdline").read_text())
        except OSError:
            continue  # it has ended
    return [*namespaces, *filter(None, processes), *sorted(_pins() - others)]


def _pins() -> set[str]:
    return {str(path) for path in [*ROOT.glob("[0-9]*"), *ROOT.parent.glob("offload-*")]}


@on_this_kernel
def test_every_row_is_right_and_nothing_is_left(copy: Path, others: set[str]) -> None:
    with _demo(copy) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    tables = said.partition("The kernel tiers")[2]
    found = re.search(r"([0-9]+) of ([0-9]+) rows are what they should be", tables)
    assert found is not None, said
    assert found[1] == found[2] == str(tables.count("  ok\n"))
    for pattern in (
        r"GET /api/users +users +1 +hit_first 1 +blue +200 ",
        r"\.\.\. .*POST /api/orders/7 +orders +2 +hit_next_2 1 +blue +200 ",
        r"\.\.\. .*GET /users/42 +user-by-id +3 +handed_over_later 1 +green +200 ",
        r"20,000 requests that the kernel answered",
        r"GET /shared/7 x 40 +shared +2: [0-9]+, 3: ([0-9]+) +refused \1 +blue 40 +200 ",
        r"it is dead.* kept connections +[1-9][0-9,]* answered, 0 failed",
        r"it is dead.* new connections +[1-9][0-9,]* answered, 0 failed",
        r"no program and no map is left in the kernel",
    ):
        assert re.search(pattern, tables), (pattern, said)
    assert _left(process, copy, others) == []


@on_this_kernel
@pytest.mark.parametrize("when", ["  green is killed", "  rauta is there "])
def test_ctrl_c_leaves_nothing(copy: Path, others: set[str], when: str) -> None:
    with _demo(copy) as process:
        _read_until(process, when)  # what follows is a kill -9 of rauta, after which nobody but the demo cleans up
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "Stopped." in said
    assert _left(process, copy, others) == []


@on_this_kernel
def test_request_that_goes_astray_is_red(clone: Callable[[], Path], others: set[str]) -> None:
    folder = clone()
    example = folder / "examples" / "kernel.yaml"
    text = example.read_text()
    assert "methods: [GET]}, service: blue}" in text
    # Tier 3 cannot be left: rewriting is not for the kernel.
    kept = "methods: [GET]}, service: blue, filters: [{rewrite: {path: {full: /api/users}}}]}"
    example.write_text(text.replace("methods: [GET]}, service: blue}", kept))
    with _demo(folder) as process:
        said = _read_until(process, "rauta is there ")
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert re.search(
        r"GET /api/users +users +3 +hit_first 0 +blue .* WRONG\n +tier should be 1; the kernel counted ", said
    )
    assert _left(process, folder, others) == []


@on_this_kernel
def test_kept_demo_can_be_tried(copy: Path, others: set[str]) -> None:
    with _demo(copy, "--keep") as process:
        said = _read_until(process, "Ctrl-C stops")
        commands = re.findall(r"^    (nsenter .*|.*rautactl .*)$", said, re.MULTILINE)
        assert len(commands) >= 4, said
        for command in commands:
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 0
    assert _left(process, copy, others) == []


def test_machine_that_lacks_something_is_told_what(copy: Path, tmp_path: Path) -> None:
    for name in ("nginx", "curl", "setpriv"):  # and neither ip nor nsenter
        found = shutil.which(name)
        if found is not None:
            (tmp_path / name).symlink_to(found)
    with _demo(copy, PATH=str(tmp_path)) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "15 of 15 rows are what they should be" in said
    assert f"\n  Tiers 1 and 2, in the kernel, are not shown: {MISSING or 'ip is not installed'}.\n" in said
