"""What the README shows can be typed: its commands exist, with those options, and its file is good."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BIN = Path(sys.executable).parent


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


COMMANDS = [shlex.split(line, comments=True) for block in _blocks("sh") for line in block.splitlines() if line]
SCRIPTS = sorted(set(re.findall(r"\./scripts/[a-z]+\.sh|\.ci/run", README.read_text())))
CONTROL = [words for words in COMMANDS if words[0] == "rautactl"]
GATEWAY = [words for words in COMMANDS if words[:3] == ["python", "-m", "rauta.proxy"]]


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    assert CONTROL
    assert GATEWAY
    others = [words for words in COMMANDS if words not in CONTROL and words not in GATEWAY]
    assert {words[0] for words in others} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_can_be_run(checkout: Path, script: str) -> None:
    path = checkout / script
    assert os.access(path, os.X_OK)
    assert _run("bash", "-n", path, cwd=checkout).returncode == 0


@pytest.fixture
def folder(checkout: Path, tmp_path: Path) -> Path:
    """Where the commands are typed: the README's file is there, and so are the examples."""
    (tmp_path / "rauta.yaml").write_text(_blocks("yaml")[0])
    (tmp_path / "examples").symlink_to(checkout / "examples")
    return tmp_path


@pytest.mark.parametrize("words", CONTROL, ids=shlex.join)
def test_rautactl_command_succeeds(folder: Path, words: list[str]) -> None:
    done = _run(BIN / words[0], *words[1:], cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("words", GATEWAY, ids=shlex.join)
def test_gateway_takes_these_options(folder: Path, words: list[str]) -> None:
    done = _run(sys.executable, *words[1:], "--check", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
