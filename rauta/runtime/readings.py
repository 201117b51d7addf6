"""What the offload counts, for the agent: read when it asks, and not more often than is of use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rauta.runtime.control import Reading, encode_reading
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    from rauta.runtime.offloading import Offloading

INTERVAL: Final = 0.5  # seconds from one reading to the next: each goes through whole maps


class Readings:
    """Answers questions for `offloading` through `show`, which gets a frame; what it needs runs in `tasks`."""

    __slots__ = ("_at_work", "_frame", "_offloading", "_show", "_tasks", "_time")

    def __init__(self, offloading: Offloading, tasks: Tasks, show: Callable[[bytes], None]) -> None:
        self._offloading = offloading
        self._tasks = tasks
        self._show = show
        self._at_work = False
        self._frame: bytes | None = None  # the last one
        self._time = 0.0  # when it was read, by the loop's clock

    def wanted(self) -> None:
        """Somebody asks. Returns at once; a reading that is at work is the answer to this question too."""
        if not self._at_work:
            self._at_work = True
            self._tasks.start(self._answer(), name="reading of the offload")

    async def _answer(self) -> None:
        try:
            now = asyncio.get_running_loop().time()
            if self._frame is None or now - self._time >= INTERVAL:
                counters = await self._offloading.counters()
                # In a thread: thousands of rows take a tenth of a second.
                self._frame = await asyncio.to_thread(encode_reading, Reading(time.time(), counters))
                self._time = now
            self._show(self._frame)
        finally:
            self._at_work = False
