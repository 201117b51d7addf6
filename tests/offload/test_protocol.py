"""The life cycle of an offload: every pair of state and call is either in the table or an error."""

from __future__ import annotations

from dataclasses import asdict, fields
from itertools import product
from pathlib import Path

import pytest

from rauta.offload import Attachment, Counters, Gauges, MapUse, Offload, OffloadError, RequestKey, State
from rauta.offload import protocol as protocol_module
from rauta.offload.protocol import TRANSITIONS, LifeCycle

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/offload-plan.md", "docs/plugins.md")

CALLS = ("start", "prepare", "commit", "abort", "usable", "counters", "stop")

# As in the docstring of the module.
TABLE = {
    ("new", "start"): "started",
    ("started", "prepare"): "prepared",
    ("prepared", "commit"): "started",
    ("prepared", "abort"): "started",
    ("started", "usable"): "started",
    ("prepared", "usable"): "prepared",
    ("started", "counters"): "started",
    ("prepared", "counters"): "prepared",
    ("new", "stop"): "stopped",
    ("started", "stop"): "stopped",
    ("prepared", "stop"): "stopped",
    ("stopped", "stop"): "stopped",
}


def test_the_table() -> None:
    assert {(state.value, call): after.value for (state, call), after in TRANSITIONS.items()} == TABLE
    assert all(f"{call}" in (protocol_module.__doc__ or "") for _, call in TABLE)


@pytest.mark.parametrize(("state", "call"), [*product(State, CALLS)], ids=str)
def test_every_call_in_every_state(state: State, call: str) -> None:
    life = LifeCycle()
    life.state = state
    after = TABLE.get((state.value, call))
    if after is not None:
        life.check(call)
        assert life.state is state, "check changes nothing"
        life.done(call)
        assert life.state.value == after
        return
    for tried in (life.check, life.done):
        with pytest.raises(OffloadError, match=f"{call} of an offload that is {state.value}: now it takes "):
            tried(call)
    assert life.state is state


def test_the_calls_of_the_table_are_those_of_the_protocol() -> None:
    assert {call for _, call in TRANSITIONS} == set(CALLS)
    assert all(callable(getattr(Offload, call)) for call in CALLS)


def test_requests_are_counted_by_the_labels_of_their_metric() -> None:
    labels = {"listener", "route", "service", "code", "method", "protocol", "tier"}
    assert {field.name for field in fields(RequestKey)} == labels | {"hook"}


def test_gauges_are_plain_data_and_empty_by_default() -> None:
    assert Counters().gauges == Gauges(flows=0, maps={}, interfaces={})
    gauges = Gauges(flows=2, maps={"flows": MapUse(2, 4096)}, interfaces={"eth0": Attachment("xdp", "native")})
    assert asdict(Counters(gauges=gauges))["gauges"] == {
        "flows": 2,
        "maps": {"flows": {"used": 2, "size": 4096}},
        "interfaces": {"eth0": {"hook": "xdp", "mode": "native", "why": ""}},
    }


def test_it_says_that_it_is_provisional() -> None:
    pages = [protocol_module.__doc__ or "", *((ROOT / page).read_text() for page in PAGES)]
    for page in pages:
        text = " ".join(page.replace("**", "").split())
        assert "provisional" in text
        assert "semantic versions do not cover it yet" in text
