from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.routing.balancers import BUILT_IN


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution, as far as its metadata tell; importing its modules would fail."""
    info = tmp_path / "zoo_plugins-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-plugins\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[rauta.matchers]\nzebra = zoo.absent:Zebra\nape = zoo.absent:Ape\n"
        "[rauta.balancers]\nbear = zoo.absent:Bear\n[rauta.offloads]\nyak = zoo.absent:Yak\n[other]\nx = y\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_plugins_are_listed_by_kind_and_name_without_import(rautactl: Callable[..., Any], package: None) -> None:
    ended = rautactl("plugins", "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.document["plugins"]
    assert [(one["kind"], one["name"]) for one in found if one["package"] == "zoo-plugins"] == [
        ("matcher", "ape"),
        ("matcher", "zebra"),
        ("balancer", "bear"),
        ("offload", "yak"),
    ]
    ape = next(one for one in found if one["name"] == "ape")
    assert ape == {
        "kind": "matcher",
        "name": "ape",
        "package": "zoo-plugins",
        "version": "1.2",
        "group": "rauta.matchers",
        "value": "zoo.absent:Ape",
        "built_in": False,
    }


def test_built_in_balancers_come_first(rautactl: Callable[..., Any], package: None) -> None:
    found = [one for one in rautactl("plugins", "--json").document["plugins"] if one["kind"] == "balancer"]
    assert [one["name"] for one in found[: len(BUILT_IN)]] == list(BUILT_IN)
    assert all(one["built_in"] and one["group"] is None for one in found[: len(BUILT_IN)])


def test_as_a_table(rautactl: Callable[..., Any], package: None) -> None:
    lines = rautactl("plugins").out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "PACKAGE", "VERSION", "GROUP", "OBJECT"]
    rows = {tuple(line.split()) for line in lines[1:]}
    assert ("matcher", "ape", "zoo-plugins", "1.2", "rauta.matchers", "zoo.absent:Ape") in rows
    assert any(row[:2] == ("balancer", "maglev") and row[-2:] == ("(built", "in)") for row in rows)
