"""Which command a successor is; that it takes over is in test_takeover.py."""

from __future__ import annotations

import sys
from pathlib import Path

from rauta.runtime.upgrade import command


def test_an_installed_script_is_run_by_its_path(tmp_path: Path) -> None:
    script = tmp_path / "rauta"
    script.write_text("#!/bin/true\n")
    script.chmod(0o755)
    argv = [str(script), "--config", "x"]
    assert command(argv, ["/old/python", *argv]) == [*argv, "--takeover"]
    assert command([*argv, "--takeover"], []) == [*argv, "--takeover"]


def test_a_module_is_run_by_this_python(tmp_path: Path) -> None:
    module = tmp_path / "__main__.py"
    module.write_text("")
    original = ["python3", "-P", "-m", "rauta.proxy", "--config", "x"]
    assert command([str(module), "--config", "x"], original) == [sys.executable, *original[1:], "--takeover"]
