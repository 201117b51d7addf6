"""The life cycle of an offload: every pair of state and call is either in the table or an error."""

from __future__ import annotations

from itertools import product

import pytest

from rauta.offload import Offload, OffloadError, State
from rauta.offload import protocol as protocol_module
from rauta.offload.protocol import TRANSITIONS, LifeCycle

CALLS = ("start", "prepare", "commit", "abort", "counters", "stop")

# As in the docstring of the module.
TABLE = {
    ("new", "start"): "started",
    ("started", "prepare"): "prepared",
    ("prepared", "commit"): "started",
    ("prepared", "abort"): "started",
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
