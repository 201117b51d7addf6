"""What commands to a running gateway make of its answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.adminsocket import AdminSocket


@pytest.fixture
def answering(rautactl: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """rautactl, where the gateway answers one path with one document."""

    def run(*words: str, **answer: Any) -> Any:
        with AdminSocket(tmp_path / "s", **{name: [document] for name, document in answer.items()}) as admin:
            ended = rautactl(*words, "--socket", admin.path)
        (tmp_path / "s").unlink()
        return ended

    return run


def backends(*health: str, **weights: int) -> list[dict[str, Any]]:
    """One of each health; the weight of one is given by `w0`, `w1`, ..."""
    return [
        {"address": f"10.0.0.{i}:80", "weight": weights.get(f"w{i}", 1), "health": one, "failure": None}
        for i, one in enumerate(health)
    ]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (backends("healthy", "unhealthy", "unknown"), "s: failing 1 of 3, the rest gets their requests"),
        (backends("unhealthy", "unhealthy"), "s: failing 2 of 2, requests are answered 503 (no_backend)"),
        (
            backends("unhealthy", "unhealthy", "healthy", w2=0),
            "s: failing 2 of 2, requests are answered 503 (no_backend)",
        ),
        (backends("healthy", "unhealthy", w1=0), None),  # nobody expects anything of it
        (backends("healthy", "unknown", "unchecked"), None),
        ([], None),
    ],
)
def test_a_service_says_how_many_of_its_backends_fail(
    answering: Callable[..., Any], found: list[dict[str, Any]], told: str | None
) -> None:
    well = {"name": "well", "backends": backends("healthy")}
    ended = answering("services", services={"services": [{"name": "s", "backends": found}, well]})
    assert ended.code == 0
    table, _, below = ended.out.partition("\n\n")
    assert len(table.splitlines()) == len(found) + 2
    assert (below.strip() or None) == told


STRANGE: dict[str, list[Any]] = {
    "status": [{}, [], 1, {"reloads": 1}, (500, {"error": "no"}), (500, [])],
    "services": [{"services": {"a": 1}}, {"services": [{}]}, None],
    "stats": [{"routes": [{"listener": []}]}, {"routes": None}],
    "certificates": [{"listeners": [{"name": 1}]}, {"listeners": [], "services": 0}],
    "offload": [{"live": True}],
    "config": ["text"],
    "reload": [{"ok": True}, "done"],
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(("name", "answer"), [(name, one) for name, answers in STRANGE.items() for one in answers])
def test_what_answers_is_no_rauta(answering: Callable[..., Any], name: str, answer: Any, as_json: bool) -> None:
    command = {"certificates": "certs", "config": "dump"}.get(name, name)
    ended = answering(command, *(("--json",) if as_json else ()), **{name: answer})
    if as_json:  # objects are passed on as they are
        assert (ended.code, "error" in ended.document) in ((0, False), (1, True))
    else:
        assert (ended.code, ended.err.count("\n"), "Traceback" in ended.err) == (1, 1, False)
        assert isinstance(answer, tuple) or "is no rauta, or one of another version: " in ended.err


def test_it_says_why_each_of_them_fails(answering: Callable[..., Any]) -> None:
    found = [{"address": "10.0.0.1:80", "weight": 1, "health": "unhealthy", "failure": "connection refused"}]
    (_, row, *_) = answering("services", services={"services": [{"name": "s", "backends": found}]}).out.splitlines()
    assert re.split(r"  +", row) == ["s", "10.0.0.1:80", "1", "unhealthy", "connection refused"]
