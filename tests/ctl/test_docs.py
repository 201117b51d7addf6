"""What docs/rautactl.md shows is what rautactl writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rautactl.md").read_text()
COLUMNS = 118
BLOCKS = [block.splitlines() for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
SED = re.compile(r"sed -i '([^']*)' rauta.yaml && ")


def sessions() -> list[tuple[str, str]]:
    """Commands with what the page shows below them."""
    found: list[tuple[str, str]] = []
    for lines in BLOCKS:
        for line in lines:
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                command, shown = found[-1]
                found[-1] = (command, f"{shown}{line}\n")
    return found


def words(command: str) -> list[str]:
    return [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]


def edited(text: str, script: str) -> str:
    """The part of sed that the page needs: the first match in each line."""
    for old, new in re.findall(r"s/([^/]*)/([^/]*)/", script):
        text = "".join(line.replace(old, new, 1) for line in text.splitlines(keepends=True))
    return text


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=[command[:60] for command, _ in sessions()])
def test_the_page_shows_what_it_writes(
    on_a_terminal: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    shown: str,
) -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    text = found[1]
    if edit := SED.match(command):
        text, command = edited(text, edit[1]), command[edit.end() :]
    (tmp_path / "rauta.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    program, *arguments = words(command)
    assert program == "rautactl"
    written = on_a_terminal(COLUMNS, *arguments, NO_COLOR="1")
    if arguments == ["plugins"]:  # this machine may have more of them, and rauta another version
        assert {tuple(line.split()[:3]) for line in shown.splitlines()} <= {
            tuple(line.split()[:3]) for line in written.splitlines()
        }
    else:
        assert written.rstrip() == shown.rstrip()


def test_the_page_shows_every_command_that_has_a_text_form() -> None:
    shown = {command.rpartition("rautactl ")[2].split()[0] for command, _ in sessions()}
    assert shown == {"check", "explain", "routes", "plugins"}
