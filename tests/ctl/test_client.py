"""Which gateway rautactl asks, and what it says where none answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl import client, files
from support.adminsocket import AdminSocket

DONE = {"ok": True, "text": "done"}
FILE = 'version: 1\nadmin: {socket: %s}\nlisteners: {web: {address: ":80"}}\nroutes: [{name: all, respond: {}}]\n'


@pytest.fixture(autouse=True)
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default socket, and no gateway of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAUTA_SOCKET", raising=False)
    monkeypatch.setattr(client, "ADMIN_SOCKET", str(tmp_path / "default.sock"))
    monkeypatch.setattr(files, "DEFAULT_FILES", (Path("rauta.yaml"), tmp_path / "etc.yaml"))
    return tmp_path / "default.sock"


def write(path: Path, text: str = FILE % "own.sock") -> None:
    path.write_text(text)


@pytest.mark.parametrize(
    ("there", "words", "variable", "asked"),
    [
        (["default.sock"], [], None, "default.sock"),
        (["default.sock", "rauta.yaml"], [], None, "default.sock"),  # the system's gateway comes first
        (["rauta.yaml"], [], None, "own.sock"),
        (["etc.yaml"], [], None, "own.sock"),
        (["default.sock", "rauta.yaml"], [], "named.sock", "named.sock"),
        (["rauta.yaml"], [], "", "own.sock"),
        (["default.sock"], ["--config", "other.yaml"], "named.sock", "own.sock"),
        (["default.sock"], ["--socket", "named.sock"], "default.sock", "named.sock"),
    ],
)
def test_which_gateway_is_asked(
    rautactl: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: list[str],
    words: list[str],
    variable: str | None,
    asked: str,
) -> None:
    for name in (*there, "other.yaml"):
        if name.endswith(".yaml"):
            write(tmp_path / name)
    if variable is not None:
        monkeypatch.setenv("RAUTA_SOCKET", variable)
    sockets = {asked, "named.sock", "own.sock", *(name for name in there if name.endswith(".sock"))}
    opened = {name: AdminSocket(tmp_path / name, reopen=[DONE]) for name in sockets}
    try:
        ended = rautactl("reopen", *words)
    finally:
        for one in opened.values():
            one.__exit__()
    guessed = "default.sock" not in there and not words and not variable
    where = "./rauta.yaml" if "rauta.yaml" in there else f"{tmp_path}/etc.yaml"
    first = f"the gateway at {tmp_path}/own.sock (as {where} says; there is no "
    *told, done = ended.out.splitlines()
    assert (ended.code, done, len(told)) == (0, "done", guessed)
    assert all(line.startswith(first) for line in told)
    assert [name for name, one in opened.items() if one.asked] == [asked]


def test_the_file_here_goes_before_that_of_the_system(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "rauta.yaml")
    write(tmp_path / "etc.yaml", FILE % "system.sock")
    assert "own.sock (as ./rauta.yaml says; there is no " in rautactl("status").err


@pytest.mark.parametrize(
    ("files_there", "words", "told"),
    [
        ({}, [], "default.sock (the default; neither rauta.yaml here nor {etc} is there to name another): is it"),
        (
            {"rauta.yaml": FILE % "own.sock"},
            [],
            "own.sock (as ./rauta.yaml says; there is no {default}): is it running",
        ),
        ({"rauta.yaml": FILE % "default.sock"}, [], "default.sock (the default, and that of rauta.yaml): is it"),
        ({}, ["--socket", "x.sock"], "x.sock (as --socket says): is it running"),
        ({"a.yaml": FILE % "own.sock"}, ["--config", "a.yaml"], "own.sock (as a.yaml says): is it running"),
    ],
)
def test_without_an_answer_it_says_where_it_has_looked(
    rautactl: Callable[..., Any],
    tmp_path: Path,
    default: Path,
    files_there: dict[str, str],
    words: list[str],
    told: str,
) -> None:
    for name, text in files_there.items():
        write(tmp_path / name, text)
    ended = rautactl("status", *words)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("rautactl: no gateway listens at ")
    assert told.format(etc=tmp_path / "etc.yaml", default=default) in ended.err
    assert "name the socket by --socket PATH or RAUTA_SOCKET, or the gateway's file by --config FILE" in ended.err


def test_a_file_that_nobody_named_and_that_does_not_say(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "rauta.yaml", (FILE % "x").replace("admin: {socket: x}\n", ""))
    ended = rautactl("status")
    assert ended.code == 1
    first, second = ended.err.splitlines()
    assert first.startswith("rautactl: rauta.yaml has no `admin` section")
    assert second.startswith(f"rautactl: rauta.yaml was read since there is no {tmp_path}/default.sock: name the ")
    write(tmp_path / "rauta.yaml", "version: 1\nlistners: {}\n")
    ended = rautactl("status", "--json")
    assert ended.code == 1
    assert ended.document["error"]["problems"]
    assert "rauta.yaml was read since" in ended.document["error"]["message"]
    assert rautactl("status", "--config", "rauta.yaml").code == 2  # it was asked for


def test_a_default_that_may_not_be_looked_at_is_there(
    rautactl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder that others may not enter: who may not ask the system's gateway does not get another one."""
    write(tmp_path / "rauta.yaml")
    refused = str(tmp_path / "default.sock")
    stat = os.stat

    def guarded(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if str(path) == refused:
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", guarded)
    assert client.admin_socket(None, None, {}) == client.AdminSocket(refused, "the default")
