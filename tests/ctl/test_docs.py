"""What docs/rautactl.md shows is what rautactl writes."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rauta import routing
from rauta.ctl import codes
from rauta.offload import Passed, Reason
from rauta.offload.bcc import BccOffload, btf
from rauta.proxy.reasons import REASONS
from rauta.routing.settings import OffloadSettings

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs" / "rautactl.md").read_text()
COLUMNS = 118
# The machine of the page: Debian 12 with its own kernel, on which the shipped offload says this.
KERNEL = "6.1.0-44-amd64"
OLD = f"the kernel is {KERNEL}, 6.9 is needed (bpf_sk_assign_tcp_reqsk)"
BLOCKS = [block.splitlines() for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)]
REFUSALS = {"RequestError", "PathError", "HostError"}
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
    install: Callable[..., None],
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
    if arguments == ["plugins"]:  # this machine may have more of them, and rauta another version
        written = on_a_terminal(COLUMNS, *arguments, NO_COLOR="1", PYTHONPATH=str(CHECKOUT))
        assert {tuple(line.split()[:3]) for line in shown.splitlines()} <= {
            tuple(line.split()[:3]) for line in written.splitlines()
        }
    else:
        install(name="bcc", missing=OLD)
        written = on_a_terminal(COLUMNS, *arguments, NO_COLOR="1")
        assert written.rstrip() == shown.rstrip()


def test_the_offload_says_of_an_old_kernel_what_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=KERNEL))
    monkeypatch.setattr(btf, "function_ids", lambda names: {})
    assert BccOffload().missing(OffloadSettings()) == OLD


def test_the_page_shows_every_command_that_has_a_text_form() -> None:
    shown = {command.rpartition("rautactl ")[2].split()[0] for command, _ in sessions()}
    assert shown == {"check", "explain", "routes", "plugins"}


# --- JSON -----------------------------------------------------------------------------------------------


def test_explain_has_its_keys_in_the_table(
    rautactl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rauta.yaml").write_text(
        "version: 1\nlisteners: {web: {address: ':8080'}}\n"
        "services: {s: {backends: [{address: '127.0.0.1:1'}], health: http, tls: {}}}\n"
        "routes: [{name: all, service: s}]\n"
    )
    monkeypatch.chdir(tmp_path)
    document = rautactl("explain", "GET", "/", "--json").document
    table = PAGE.split("**explain**:\n")[1].split("\n**")[0]
    told = dict(line[2:-2].split(" | ", 1) for line in table.splitlines() if line.startswith("| `"))
    assert {key for row in told for key in re.findall(r"`(\w+)`", row)} == document.keys() - {"version"}
    service = document["service"]
    for row, keys in (
        ("`listener`", document["listener"]),
        ("`service`", {**service, **service["health"], **service["tls"], **service["backends"][0]}),
    ):
        assert not keys.keys() - {*re.findall(r"`(\w+)`", told[row])}


# --- codes ----------------------------------------------------------------------------------------------


def rows(*header: str) -> list[tuple[str, ...]]:
    """The rows of the page's table with these columns."""
    lines = PAGE.splitlines()
    found: list[tuple[str, ...]] = []
    for line in lines[lines.index(f"| {' | '.join(header)} |", lines.index("### Codes")) + 2 :]:
        if not line.startswith("| "):
            break
        found.append(
            tuple(cell.strip("`") if number == 0 else cell for number, cell in enumerate(line[2:-2].split(" | ")))
        )
    return found


def test_the_codes_are_those_of_the_program() -> None:
    assert rows("code", "meaning") == [*codes.WHY.items()]
    assert rows("reason", "status", "meaning") == [
        (name, str(status), text) for name, (status, text) in codes.ANSWERS.items()
    ]


def test_every_reason_of_the_planner_has_a_code_of_its_own() -> None:
    members = [*(reason.value for reason in Reason), *map(codes.of_request, Passed), codes.BEYOND_TIER_1]
    assert sorted(members) == sorted(codes.WHY)


def test_answers_have_the_names_and_statuses_of_the_access_log() -> None:
    logged = {name: REASONS[name].status for name in codes.ANSWERS if name in REASONS}
    assert logged == {name: status for name, (status, _) in codes.ANSWERS.items() if name != "options"}


def test_every_reason_to_refuse_a_request_is_an_answer() -> None:
    raised = {
        node.args[0].value
        for path in Path(routing.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSALS
        if isinstance(node.args[0], ast.Constant)
    }
    assert "bad_path" in raised
    assert raised <= codes.ANSWERS.keys()
