"""What `rautactl offload` makes of the gateway's answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl.offload import GROUPS, grouped
from rauta.offload.bcc.events import EVENTS
from support.adminsocket import AdminSocket

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rautactl.md").read_text()
NONE = {"name": "null", "reason": "no kernel offload: offload.mode is none", "live": False, "time": None}
ANSWER: dict[str, Any] = {
    "name": "bcc",
    "reason": "kernel offload 'bcc'",
    "live": True,
    "time": 1.0,
    "interfaces": [{"name": "eth0", "hook": "tc", "mode": "tcx"}],
    "flows": 12,
    "maps": [{"name": "flows", "used": 12, "size": 65536}, {"name": "paths", "used": 15000, "size": 16384}],
    "requests": [
        {
            "listener": "web",
            "route": route,
            "service": "users",
            "tier": tier,
            "hook": "tc",
            "requests": requests,
            "packets": 3 * requests,
            "bytes": 400 * requests,
        }
        for route, tier, requests in (("users", 1, 9200), ("rest", 2, 310))
    ],
    "events": {
        "syn_answered": 220,
        "hit_first": 190,
        "hit_first_2": 10,
        "hit_next": 9010,
        "hit_next_2": 300,
        "miss_head": 0,
        "miss_method": 2,
        "miss_route": 18,
        "bound_to_backend": 200,
        "local_assigned": 20,
        "handed_over_later": 4,
        "drop_not_yet": 3,
    },
}


def shown(title: str) -> str:
    """What the page shows of that command."""
    found = re.search(rf"```text\n\$ {title}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_shows_what_it_writes(on_a_terminal: Callable[..., str], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", offload=[ANSWER]) as admin:
        written = on_a_terminal(118, "offload", "--socket", admin.path, NO_COLOR="1")
    assert written.splitlines() == shown("rautactl offload").splitlines()


@pytest.mark.parametrize("answer", [NONE, ANSWER])
def test_as_json_it_is_the_answer(rautactl: Callable[..., Any], tmp_path: Path, answer: dict[str, Any]) -> None:
    with AdminSocket(tmp_path / "admin", offload=[answer]) as admin:
        ended = rautactl("offload", "--json", "--socket", admin.path)
    assert (ended.code, ended.document) == (0, {"version": 1, "offload": answer})


def test_without_an_offload_it_is_one_line(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", offload=[NONE]) as admin:
        ended = rautactl("offload", "--socket", admin.path)
    assert (ended.code, ended.out, ended.err) == (0, NONE["reason"] + "\n", "")


def test_one_that_is_busy_is_not_shown_as_one_that_does_nothing(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", offload=[{**ANSWER, "time": None, "events": {}}]) as admin:
        ended = rautactl("offload", "--socket", admin.path)
    assert ended.out == "kernel offload 'bcc'; it is busy and has not told yet what it counts\n"


def test_a_map_that_is_nearly_full_stands_out(on_a_terminal: Callable[..., str], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", offload=[ANSWER]) as admin:
        written = on_a_terminal(118, "offload", "--socket", admin.path)
    assert re.findall("\x1b\\[31m(.*?)\x1b", written) == ["91.6%"]


def test_events_are_grouped_by_what_they_are_about() -> None:
    found = grouped(dict.fromkeys(EVENTS, 1))
    assert [name for counts in found.values() for name in counts] != []
    assert sum(map(len, found.values())) == len(EVENTS)
    assert {name.partition("_")[0] for name in found["hits"]} == {"hit"}
    assert {name.partition("_")[0] for name in found["misses"]} == {"miss"}
    assert {name.partition("_")[0] for name in found["drops"]} == {"drop"}
    assert set(found["hand-overs"]) == {"local_assigned", "local_failed", "local_no_listener", "handed_over_later"}
    assert set(found["binds"]) == {"bound_to_backend", "backend_accepted", "backend_silent", "refused"}
    assert found.keys() == GROUPS.keys()


def test_detach_is_told_to_the_gateway(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", detach=[{"ok": True, "text": "detached"}]) as admin:
        ended = rautactl("offload", "detach", "--socket", admin.path)
        assert (ended.code, ended.out) == (0, "detached\n")
        assert admin.asked == ["POST /v1/offload/detach"]


def test_what_could_not_be_removed_is_a_failure_and_no_bad_configuration(
    rautactl: Callable[..., Any], tmp_path: Path
) -> None:
    refused = (409, {"error": {"code": "failed", "text": "something is left"}})
    with AdminSocket(tmp_path / "admin", detach=[refused]) as admin:
        ended = rautactl("offload", "detach", "--socket", admin.path)
    assert (ended.code, ended.out, ended.err) == (1, "", "rautactl: something is left\n")


def test_what_cannot_be_done_with_it(rautactl: Callable[..., Any]) -> None:
    assert rautactl("offload", "attach").code == 2
