"""Tasks that are kept, named, and whose failures are told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """The background tasks of one owner. The loop holds tasks weakly only, so somebody must."""

    __slots__ = ("_loop", "_running")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run the coroutine; a failure goes to the loop's exception handler at once."""
        task = self._loop.create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {"message": f"task {task.get_name()!r} failed", "exception": error, "task": task}
            )

    async def until(self, over: asyncio.Future[None]) -> None:
        """Wait for that, then cancel what runs. Raises what it raises. Here, where nothing is compiled: mypyc forgets
        an exception on its way through a `finally` that awaits."""
        try:
            await over
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """Cancel what runs and wait for its end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
