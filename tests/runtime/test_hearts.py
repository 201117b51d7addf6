from __future__ import annotations

from collections.abc import Iterator

import pytest

from rauta.proxy.counters import Column
from rauta.routing.defaults import HANG_TIMEOUT
from rauta.runtime import segment
from rauta.runtime.hearts import LOOK_INTERVAL, Hearts


@pytest.fixture
def memory() -> Iterator[list[int]]:
    fds = segment.create(2)
    yield fds
    segment.close(fds)


def looks(hearts: Hearts, last: float, started: dict[int, float]) -> dict[int, float]:
    """What is silent after looks at the usual interval, up to `last`."""
    found: dict[int, float] = {}
    now = 1000.0
    while now < last:
        now += LOOK_INTERVAL
        found = hearts.silent(now, started)
    return found


def beat(column: Column, seconds: float) -> None:
    column.beat(int(seconds * 1000))


def columns(memory: list[int]) -> list[Column]:
    return [segment.column(fd) for fd in memory]


def test_one_that_has_stopped_is_seen_and_the_other_is_not(memory: list[int]) -> None:
    first, second = columns(memory)
    hearts = Hearts(memory, 1000.0)
    beat(first, 1001.0)
    beat(second, 1001.0 + HANG_TIMEOUT)
    late = 1001.0 + HANG_TIMEOUT + LOOK_INTERVAL
    assert looks(hearts, late, {0: 900.0, 1: 900.0}).keys() == {0}


def test_one_that_has_just_started_gets_its_time(memory: list[int]) -> None:
    first, _ = columns(memory)
    beat(first, 10.0)  # of a predecessor, long ago
    assert looks(Hearts(memory, 1000.0), 1100.0, {0: 1095.0}) == {}


def test_one_that_never_moved_is_seen(memory: list[int]) -> None:
    assert looks(Hearts(memory, 1000.0), 1100.0, {1: 1000.0}).keys() == {1}


def test_after_a_pause_of_all_nobody_is_blamed(memory: list[int]) -> None:
    first, _ = columns(memory)
    hearts = Hearts(memory, 1000.0)
    beat(first, 1004.0)
    assert hearts.silent(1005.0, {0: 900.0}) == {}
    assert hearts.silent(5000.0, {0: 900.0}) == {}
    beat(first, 5001.0)
    assert hearts.silent(5005.0, {0: 900.0}) == {}
