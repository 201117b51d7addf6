"""The offload that answers nothing keeps to the protocol all the same."""

from __future__ import annotations

import pytest

from rauta.offload import Capabilities, Counters, NullOffload, Offload, OffloadError, plan
from rauta.routing.settings import Address, Hook, OffloadSettings
from support.build import configuration

PLAN = plan(configuration())
SETTINGS = OffloadSettings()


@pytest.fixture
def started() -> NullOffload:
    offload = NullOffload("nothing is there")
    offload.start(OffloadSettings())
    return offload


def test_it_is_an_offload() -> None:
    offload = NullOffload("nothing is there")
    assert isinstance(offload, Offload)
    assert offload.missing(OffloadSettings()) == "nothing is there"
    assert offload.capabilities == Capabilities()


def test_generations(started: NullOffload) -> None:
    first = started.prepare(PLAN, SETTINGS, 1)
    assert (first.plan, first.settings, first.generation) == (PLAN, SETTINGS, 1)
    started.commit(first)
    moved = OffloadSettings(interfaces=("eth1",), hook=Hook.TC)
    second = started.prepare(PLAN, moved, 2)
    assert (second.settings, second.generation) == (moved, 2)
    started.abort(second)
    assert started.counters() == Counters()
    started.commit(started.prepare(PLAN, SETTINGS, 3))
    started.stop(detach=True)
    started.stop(detach=False)


def test_a_generation_goes_live_once(started: NullOffload) -> None:
    first = started.prepare(PLAN, SETTINGS, 1)
    started.commit(first)
    with pytest.raises(OffloadError, match="commit of an offload that is started"):
        started.commit(first)
    second = started.prepare(PLAN, SETTINGS, 2)
    with pytest.raises(OffloadError, match="commit of generation 1, which is not the one that was prepared"):
        started.commit(first)
    started.commit(second)


def test_one_generation_at_a_time(started: NullOffload) -> None:
    started.prepare(PLAN, SETTINGS, 1)
    with pytest.raises(OffloadError, match="prepare of an offload that is prepared: now it takes commit, abort"):
        started.prepare(PLAN, SETTINGS, 2)


def test_nothing_works_before_start_or_after_stop(started: NullOffload) -> None:
    started.stop(detach=True)
    for offload in (started, NullOffload()):
        with pytest.raises(OffloadError):
            offload.prepare(PLAN, SETTINGS, 1)
        with pytest.raises(OffloadError):
            offload.counters()
        with pytest.raises(OffloadError):
            offload.usable("s", None)


def test_the_health_of_backends_changes_no_state(started: NullOffload) -> None:
    started.usable("s", [Address("10.0.0.1", 80)])
    prepared = started.prepare(PLAN, SETTINGS, 1)
    started.usable("s", ())
    started.usable("s", None)
    started.commit(prepared)
