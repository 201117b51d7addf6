"""The timer wheel, turned by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.wheel import NEVER, TICK, Expiring, Wheel
from support.compiled import plain_only

pytestmark = plain_only


class FakeHandle:
    def cancel(self) -> None:
        pass


class FakeLoop:
    """A loop whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay, call):
        self.due = call
        return FakeHandle()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now + TICK <= end + 1e-9:
            self.now += TICK
            self.due()


class Item(Expiring):
    def __init__(self, loop: FakeLoop) -> None:
        super().__init__()
        self.loop = loop
        self.expiries: list[float] = []

    def expired(self) -> None:
        self.expiries.append(self.loop.now)


def wheel() -> tuple[FakeLoop, Wheel, Item]:
    loop = FakeLoop()
    found = Wheel(loop)  # type: ignore[arg-type]
    found.start()
    return loop, found, Item(loop)


@given(st.lists(st.tuples(st.floats(0.001, 20), st.floats(0, 20)), min_size=1, max_size=10))
def test_never_early_and_hardly_late(steps: list[tuple[float, float]]) -> None:
    loop, turning, item = wheel()
    armed = timeout = 0.0
    for timeout, pause in steps:
        before = len(item.expiries)
        turning.arm(item, timeout)
        armed = loop.now
        loop.advance(pause)
        if len(item.expiries) == before:
            assert loop.now - armed <= timeout + 3 * TICK
        else:
            assert len(item.expiries) == before + 1
            assert timeout <= item.expiries[-1] - armed + 1e-6 <= timeout + 3 * TICK + 1e-6
    loop.advance(25)
    assert timeout <= item.expiries[-1] - armed + 1e-6 <= timeout + 3 * TICK + 1e-6


def test_disarmed_items_do_not_expire() -> None:
    loop, turning, item = wheel()
    turning.arm(item, 1)
    item.deadline = NEVER
    loop.advance(5)
    assert item.expiries == []
    turning.arm(item, 1)
    loop.advance(5)
    assert len(item.expiries) == 1


def test_moving_on_costs_no_queueing() -> None:
    loop, turning, item = wheel()
    turning.arm(item, 1)
    queued = item.queued
    for _ in range(100):
        turning.arm(item, 1.5)
        assert item.queued == queued
    turning.arm(item, 0.5)
    assert item.queued < queued
    loop.advance(5)
    assert len(item.expiries) == 1


def test_outdated_places_are_given_up() -> None:
    loop, turning, item = wheel()
    for _ in range(200):  # as a keep-alive connection does whose heads come in pieces
        turning.arm(item, 5)
        loop.advance(0.4)
        turning.arm(item, 1)
        loop.advance(0.4)
    assert item.expiries == []
    assert sum(map(len, turning._slots.values())) < 12


def test_a_late_loop_catches_up() -> None:
    loop, turning, item = wheel()
    turning.arm(item, 1)
    loop.now = 10.0
    loop.due()
    assert len(item.expiries) == 1


def test_calls_at_each_tick() -> None:
    loop, turning, _ = wheel()
    calls: list[int] = []
    turning.each_tick.append(lambda: calls.append(1))
    loop.advance(1)
    assert len(calls) == 10


def test_what_is_forgotten_is_not_kept() -> None:
    loop, turning, item = wheel()
    turning.arm(item, 5)
    turning.arm(item, 1)  # earlier: it moves, and leaves nothing where it was
    turning.forget(item)
    assert not any(turning._slots.values())
    loop.advance(10)
    assert item.expiries == []
    turning.arm(item, 1)
    loop.advance(2)
    assert len(item.expiries) == 1


def test_one_that_is_forgotten_by_another_of_the_same_tick() -> None:
    loop, turning, item = wheel()
    other = Item(loop)
    item.expired = lambda: turning.forget(other)  # type: ignore[method-assign]
    turning.arm(item, 1)
    turning.arm(other, 1)
    loop.advance(5)
    assert other.expiries == []
