"""The tasks of the runtime: named, kept, and a crash of one ends its owner.

(The data plane has `rauta.proxy.tasks`, for owners that outlive a task's failure; it must not import the runtime.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """The tasks of one owner. `crashed` is the first exception that one of them ended with, as a failed future."""

    __slots__ = ("_running", "crashed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self.crashed: asyncio.Future[None] = loop.create_future()

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run a coroutine until it ends or `cancel` is called."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        if self.crashed.done():
            task.get_loop().call_exception_handler({"message": "task crashed", "exception": error, "task": task})
        else:
            self.crashed.set_exception(error)

    async def cancel(self) -> None:
        """Cancel what still runs and wait for its end."""
        running = [*self._running]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self.crashed.cancel()
