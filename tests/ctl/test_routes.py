from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_every_route_with_its_tier(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("routes", str(example))
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["ROUTE", "HOSTS", "MATCH", "ACTION", "TIER", "WHY", "NO", "LOWER"]
    rows = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert rows == ["exact", "shared", "shared", "by-id", "beta", "old", "teapot", "slow", "turns"]
    assert "prefix /orders, POST or PUT" in lines[2]
    assert "-> users 90%, canary 10%" in lines[2]
    assert lines[-1] == "The tiers are those of the plan. For now tier 3 serves all: no offload is installed."


def test_tiers_of_a_machine_with_an_offload(
    rautactl: Callable[..., Any], example: Path, install: Callable[..., None]
) -> None:
    install()
    out = rautactl("routes").out
    assert "of the plan" not in out
    assert rautactl("routes", "--json").document["offload"]["name"] == "toy"


def test_as_json(rautactl: Callable[..., Any], example: Path) -> None:
    document = rautactl("routes", "--json").document
    assert document["version"] == 1
    tiers = {route["name"]: route["tier"] for route in document["routes"]}
    assert tiers["exact"] == 1
    assert {tiers[name] for name in ("by-id", "beta", "old", "teapot", "slow", "turns")} == {3}
    shared = next(route for route in document["routes"] if route["name"] == "shared")
    assert shared["matches"][0] == {
        "hosts": ["api.example.com"],
        "path": {"prefix": "/orders"},
        "methods": ["POST", "PUT"],
        "headers": [],
        "query": [],
        "plugins": [],
    }
    old = next(route for route in document["routes"] if route["name"] == "old")
    assert [why["code"] for why in old["why_no_lower"]] == ["action"]
    assert old["action"]["redirect"]["prefix"] == "/new"


def test_listeners_and_priorities_are_shown_where_they_differ(rautactl: Callable[..., Any], example: Path) -> None:
    text = example.read_text().replace("listeners:\n", 'listeners:\n  admin: {address: "127.0.0.1:9090"}\n')
    example.write_text(text.replace("{name: beta,", "{name: beta, listeners: [web], priority: 7,"))
    lines = rautactl("routes").out.splitlines()
    assert lines[0].split()[:3] == ["ROUTE", "PRIORITY", "LISTENERS"]
    beta = next(line for line in lines if line.startswith("beta"))
    assert beta.split()[1:3] == ["7", "web"]


def test_no_route_at_all(rautactl: Callable[..., Any], example: Path) -> None:
    example.write_text('version: 1\nlisteners: {web: {address: ":80"}}\n')
    assert "every request is answered 404" in rautactl("routes").out
    assert rautactl("routes", "--json").document["routes"] == []


def test_a_bad_file(rautactl: Callable[..., Any], example: Path) -> None:
    example.write_text("version: 1\n")
    assert rautactl("routes").code == 2
    assert rautactl("routes", "--json").document["error"]["problems"]


def test_what_holds_for_every_route_is_told_once(rautactl: Callable[..., Any], example: Path) -> None:
    text = example.read_text()
    start = text.index("offload:")
    end = text.find("\n", start) + 1
    while text[end : end + 1] == " ":
        end = text.find("\n", end) + 1
    example.write_text(text[:start] + text[end:])
    out = rautactl("routes").out
    assert out.count("the configuration has no offload section") == 1
    assert out.splitlines()[-1] == "Of all routes: the configuration has no offload section."
    why = rautactl("routes", "--json").document["routes"][0]["why_no_lower"]
    assert "the configuration has no offload section" in [reason["message"] for reason in why]
