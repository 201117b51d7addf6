"""The folder rules are kept, and would be seen if they were not: each is broken once in a copy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# module, what it must not import, the contract that says so
FORBIDDEN = [
    ("rauta/routing/hosts.py", "import asyncio", "Routing is pure"),
    ("rauta/routing/hosts.py", "import yaml", "Routing is pure"),
    ("rauta/routing/hosts.py", "import rauta.config", "Dependencies point one way"),
    ("rauta/config/__init__.py", "import rauta.offload", "Dependencies point one way"),
    ("rauta/config/__init__.py", "import uvloop", "The file format needs no network"),
    ("rauta/proxy/__init__.py", "import rauta.config", "Dependencies point one way"),
    ("rauta/proxy/__init__.py", "import yaml", "The data plane knows no BPF"),
    ("rauta/proxy/__init__.py", "import rauta.runtime", "Only the shim and the public surface"),
    ("rauta/offload/__init__.py", "import rauta.proxy", "Dependencies point one way"),
    ("rauta/offload/__init__.py", "import httptools", "The offload parses no HTTP"),
    ("rauta/runtime/__init__.py", "import rauta.embed", "Dependencies point one way"),
    ("rauta/ctl/__init__.py", "import rauta.proxy", "rautactl runs without data plane"),
    ("rauta/ctl/__init__.py", "import rauta.runtime", "Only the shim and the public surface"),
]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    # The program's folder is not on its path: point it to the copy, before the editable install.
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def copy(clone: Callable[[], Path]) -> Path:
    return clone()


def test_rules_are_kept(checkout: Path) -> None:
    done = _lint(checkout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "statement", "contract"), FORBIDDEN)
def test_rule_is_seen_to_be_broken(copy: Path, module: str, statement: str, contract: str) -> None:
    path = copy / module
    before = path.read_text()
    # At the end, where no docstring or future import is displaced.
    path.write_text(f"{before}\n{statement}\n")
    try:
        done = _lint(copy)
    finally:
        path.write_text(before)
    broken = [line for line in done.stdout.splitlines() if " BROKEN" in line]
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(line.startswith(contract) for line in broken), done.stdout


def test_tasks_start_only_through_the_helper(checkout: Path) -> None:
    source = "import asyncio\n\n\nasync def start() -> None:\n    asyncio.create_task(start())\n"
    command = [sys.executable, "-m", "ruff", "check", "--output-format=concise", "--stdin-filename", "rauta/proxy/x.py"]
    done = subprocess.run(command, cwd=checkout, input=source, capture_output=True, text=True)
    assert done.returncode == 1
    assert "TID251 `asyncio.create_task` is banned" in done.stdout
