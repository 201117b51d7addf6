"""The container recipe, as far as it can be judged without following it (./scripts/container.sh does that, as root)."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from rauta.config import load

FOLDER = Path("packaging")


def _instructions(checkout: Path, word: str) -> list[str]:
    return re.findall(rf"^{word} (.*)$", (checkout / FOLDER / "Dockerfile").read_text(), re.MULTILINE)


def _copied(checkout: Path) -> list[str]:
    """What comes from the checkout."""
    lines = [shlex.split(line) for line in _instructions(checkout, "COPY")]
    return [name for words in lines if not words[0].startswith("--from") for name in words[:-1]]


def test_what_is_copied_exists_and_is_sent_to_the_engine(checkout: Path) -> None:
    kept = re.findall(r"^!(.*)$", (checkout / ".dockerignore").read_text(), re.MULTILINE)
    copied = _copied(checkout)
    assert "rauta" in copied
    for name in copied:
        assert (checkout / name).exists()
        assert any(name == path or name.startswith(f"{path}/") for path in kept)
    assert {path for path in kept if not any(fnmatch(name, f"{path}*") for name in copied)} == set()


def test_everything_that_the_wheel_needs_is_copied(checkout: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    needed = {"setup.cfg", "pyproject.toml", "rauta", "bpf", settings["metadata"]["long_description"].split()[-1]}
    needed |= {name for name in settings["metadata"]["license_files"].split() if "/" not in name}
    assert needed <= set(_copied(checkout))


def test_commands_user_and_port_are_those_that_there_are(checkout: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    commands = {line.split()[0] for line in settings["options.entry_points"]["console_scripts"].strip().splitlines()}
    (start,) = _instructions(checkout, "ENTRYPOINT")
    (check,) = _instructions(checkout, "HEALTHCHECK")
    assert {start.strip('[]"'), check.partition('["')[2].partition('"')[0]} <= commands
    (user,) = re.findall(r"^ID=(\d+)$", (checkout / FOLDER / "container" / "install.sh").read_text(), re.MULTILINE)
    assert _instructions(checkout, "USER") == [f"{user}:{user}"]
    (listener,) = load(checkout / FOLDER / "container" / "rauta.yaml").configuration.listeners
    assert _instructions(checkout, "EXPOSE") == [str(listener.address.port)]


def test_the_script_names_its_parts(checkout: Path) -> None:
    script = checkout / FOLDER / "container" / "install.sh"
    done = subprocess.run([script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "install.sh: which part? usage: install.sh build|runtime\n")
    parts = {line.split()[-1] for line in _instructions(checkout, "RUN")}
    assert parts == {"build", "runtime"}


def test_the_script_passes_shellcheck(checkout: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([program, checkout / FOLDER / "container" / "install.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
