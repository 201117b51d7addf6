"""Who may change what the workers are made of: any number of restarts side by side, or one reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """A worker that starts must know which generation it starts with; so none starts while a reload goes on, and a
    reload waits for those that have begun."""

    __slots__ = ("_changed", "_reloading", "_restarting")

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._restarting = 0
        self._reloading = False

    @asynccontextmanager
    async def restart(self) -> AsyncIterator[None]:
        """One worker is started, up to its being ready."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._reloading)
            self._restarting += 1
        try:
            yield
        finally:
            self._restarting -= 1
            await self._tell()

    @asynccontextmanager
    async def reload(self) -> AsyncIterator[None]:
        """The generation is changed."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._reloading and not self._restarting)
            self._reloading = True
        try:
            yield
        finally:
            self._reloading = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
