"""The example package, installed by pip as a user would, into a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "examples" / "plugins"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the package is installed. It is built from a copy: a build writes beside the sources."""
    base = tmp_path_factory.mktemp("example")
    copy = base / "source"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*_cache"))
    target = base / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    ended = subprocess.run(
        [*pip, "--no-index", "--no-build-isolation", "--no-deps", "--target", str(target), str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return target


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """Of a process that has the package: rauta first, since what is tested is this checkout."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(installed)]), "PYTHONWARNINGS": "error"}


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(environment: dict[str, str]) -> Run:
    """Run Python with the package installed."""

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=cwd,
            timeout=60,
        )

    return run


@pytest.fixture
def rautactl(python: Run) -> Callable[..., tuple[int, Any]]:
    """Run rautactl with --json; its exit code and document."""

    def run(*arguments: str, cwd: Path | None = None) -> tuple[int, Any]:
        ended = python("-m", "rauta.ctl.cli", *arguments, "--json", cwd=cwd)
        assert ended.stderr == ""
        return ended.returncode, json.loads(ended.stdout)

    return run
