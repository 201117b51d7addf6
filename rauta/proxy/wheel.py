"""One coarse timer wheel per worker, instead of a timer per request.

What can expire has a `deadline`, a plain attribute that may be moved as often as wanted: moving it later costs one
store. The wheel looks at an item only when the tick comes for which it was queued, and queues it again if its
deadline has moved on. So a keep-alive connection costs one look per time-out, not one per request.

Time-outs end up to two ticks late and never early.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

TICK: Final = 0.1  # seconds; a time-out of seconds may end a tenth late, and ten wake-ups a second cost nothing
TICKS_PER_SECOND: Final = 1 / TICK
NEVER: Final = 0.0
NOWHERE: Final = 0


class Expiring(ABC):
    """What the wheel holds. `deadline` and `queued` are ticks and belong to the wheel; NEVER: it is not armed, NOWHERE:
    the wheel does not hold it."""

    __slots__ = ("deadline", "queued")

    def __init__(self) -> None:
        self.deadline = NEVER
        self.queued = NOWHERE

    @abstractmethod
    def expired(self) -> None:
        """The deadline has passed; it is NEVER now."""


class Wheel:
    """Deadlines in ticks, and calls at each tick."""

    __slots__ = ("_due", "_handle", "_loop", "_slots", "_start", "each_tick", "late", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, dict[Expiring, None]] = {}  # tick -> what is looked at then
        self._start = loop.time()
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0  # when the next tick should be, by the loop's clock
        self.now = 1  # ticks; the clock of all deadlines
        self.late = 0.0  # seconds by which the loop was late for the last tick: what somebody has blocked it for
        self.each_tick: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin to tick; twice is the same as once."""
        if self._handle is None:
            self._next()

    def stop(self) -> None:
        """No further tick, nothing expires any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._slots.clear()

    def arm(self, item: Expiring, seconds: float) -> None:
        """Let the item expire in that time, instead of when it would have before."""
        # One tick more, since the present one has begun already; and round up. The fraction goes when it is queued:
        # int() takes longer than all the rest here.
        deadline = item.deadline = self.now + 2 + seconds * TICKS_PER_SECOND
        queued = item.queued
        if not queued or deadline < queued:
            self._queue(item, int(deadline))

    def forget(self, item: Expiring) -> None:
        """The item is of no more use. Without this the wheel would keep it, and all that hangs on it, until the tick
        for which it is queued: a minute's worth of connections that have been closed."""
        item.deadline = NEVER
        slot = self._slots.get(item.queued)
        if slot is not None:
            slot.pop(item, None)
        item.queued = NOWHERE

    def _queue(self, item: Expiring, tick: int) -> None:
        slots = self._slots
        if item.queued in slots:
            slots[item.queued].pop(item, None)
        item.queued = tick
        slot = slots.get(tick)
        if slot is None:
            slots[tick] = {item: None}
        else:
            slot[item] = None

    def _tick(self) -> None:
        self.late = max(0.0, self._loop.time() - self._due)
        self._next()
        # The loop may have been late: catch up by the clock.
        until = max(self.now + 1, 1 + int((self._loop.time() - self._start) / TICK))
        while self.now < until:
            self.now += 1
            for item in self._slots.pop(self.now, ()):
                self._look(item)
        for call in self.each_tick:
            call()

    def _next(self) -> None:
        self._due = self._loop.time() + TICK
        self._handle = self._loop.call_later(TICK, self._tick)

    def _look(self, item: Expiring) -> None:
        if item.queued != self.now:
            return  # forgotten or armed anew by another one of this tick
        item.queued = NOWHERE
        if item.deadline == NEVER:
            return
        if item.deadline >= self.now + 1:
            self._queue(item, int(item.deadline))
            return
        item.deadline = NEVER
        item.expired()
