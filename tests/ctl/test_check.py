from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

UNUSED = '  unused: {backends: [{address: "10.9.9.9:80"}]}\nroutes:\n'


def test_a_good_file(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("check", str(example))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{example}: good (1 listener, 4 services, 8 routes)\n"


def test_the_default_is_the_file_here(rautactl: Callable[..., Any], example: Path) -> None:
    assert rautactl("check").out.startswith("rauta.yaml: good")


def test_without_any_file(rautactl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = rautactl("check")
    assert ended.code == 2
    assert ended.err == (
        "rautactl: there is neither rauta.yaml here nor /etc/rauta/rauta.yaml: name the file by --config FILE\n"
    )


def test_problems_are_told_one_a_line(rautactl: Callable[..., Any], example: Path) -> None:
    text = example.read_text()
    example.write_text(text.replace("service: slow}", "service: slwo}").replace("weight: 9}", "weight: -9}"))
    ended = rautactl("check")
    assert ended.code == 2
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert all(line.startswith("rautactl: rauta.yaml:") for line in lines)
    row = 1 + next(i for i, line in enumerate(text.splitlines()) if "name: shared" in line) + 4
    assert any(line.startswith(f"rautactl: rauta.yaml:{row}:") and "-9" in line for line in lines)


def test_problems_as_json(rautactl: Callable[..., Any], example: Path) -> None:
    text = example.read_text()
    example.write_text(text.replace("service: slow}", "service: slwo}"))
    ended = rautactl("check", "--json")
    assert (ended.code, ended.err) == (2, "")
    document = ended.document
    assert (document["version"], document["good"], document["more_problems"]) == (1, False, 0)
    (problem,) = document["problems"]
    assert problem["severity"] == "error"
    assert problem["file"] == "rauta.yaml"
    assert "slwo" in problem["message"]
    row = 1 + next(i for i, line in enumerate(text.splitlines()) if "{name: slow," in line)
    assert problem["line"] == row
    assert problem.keys() == {"severity", "file", "line", "column", "key", "message"}


def test_a_warning_is_told_and_passes(rautactl: Callable[..., Any], example: Path) -> None:
    example.write_text(example.read_text().replace("routes:\n", UNUSED))
    ended = rautactl("check")
    assert ended.code == 0
    warning, verdict = ended.out.splitlines()
    assert warning.startswith("warning: rauta.yaml:")
    assert "unused" in warning
    assert verdict == "rauta.yaml: good (1 listener, 5 services, 8 routes, 1 warning)"


def test_strict_refuses_warnings(rautactl: Callable[..., Any], example: Path) -> None:
    assert rautactl("check", "--strict").code == 0
    example.write_text(example.read_text().replace("routes:\n", UNUSED))
    ended = rautactl("check", "--strict")
    assert ended.code == 2
    assert "refused: --strict allows no warnings" in ended.out
    document = rautactl("check", "--strict", "--json").document
    assert document["good"] is False
    assert [problem["severity"] for problem in document["problems"]] == ["warning"]


def test_a_good_file_as_json(rautactl: Callable[..., Any], example: Path) -> None:
    document = rautactl("check", "--json").document
    assert document == {
        "version": 1,
        "file": "rauta.yaml",
        "good": True,
        "files": document["files"],
        "counts": {"listeners": 1, "services": 4, "routes": 8},
        "problems": [],
        "more_problems": 0,
    }
    assert [Path(name).name for name in document["files"]] == ["rauta.yaml"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b"version: 1\n\tx: 1\n", b"a: 1\na: 2\n"])
def test_what_is_no_configuration(rautactl: Callable[..., Any], example: Path, content: bytes) -> None:
    example.write_bytes(content)
    ended = rautactl("check")
    assert ended.code == 2
    assert ended.err.startswith("rautactl: rauta.yaml:")
    assert "Traceback" not in ended.err
    document = rautactl("check", "--json").document
    assert not document["good"]
    assert document["problems"]


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_what_is_no_file(rautactl: Callable[..., Any], example: Path, name: str) -> None:
    ended = rautactl("check", name)
    assert ended.code == 2
    assert name in ended.err


def test_a_default_that_cannot_be_looked_at_is_not_taken_for_absent(
    rautactl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rauta.yaml").symlink_to("rauta.yaml")
    ended = rautactl("check")
    assert ended.code == 2
    assert ended.err.startswith("rautactl: rauta.yaml: ")
