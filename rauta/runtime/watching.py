"""`--watch`: a reload when the configuration's files change.

inotify says that something has happened in one of their folders; whether it matters, a look at the files says. So it
does not matter how a file is changed: written, renamed over, removed and put back, or by a symbolic link on the way to
it that leads elsewhere. What has been tried is not tried again before it changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from rauta.runtime.errors import StartError
from rauta.runtime.inotify import Inotify
from rauta.runtime.watched import changed_since

if TYPE_CHECKING:
    from rauta.runtime.log import EventLog
    from rauta.runtime.watched import Snapshot, Watched

QUIET: Final = 0.5  # seconds without news before the files are read: several may be changed together
LONGEST: Final = 5.0  # after the first news, if it is never quiet


class Watching:
    """Watches what `watched` tells: as read by now, and then anew after each reload. Raises StartError: the machine has
    no inotify instance to spare."""

    def __init__(self, watched: Callable[[], Watched], events: EventLog) -> None:
        self._watched = watched
        self._events = events
        self._seen = watched().snapshot()
        self._told: set[str] = set()
        self._news = asyncio.Event()
        try:
            self._inotify = Inotify()
        except OSError as error:
            text = f"--watch: {error.strerror}: raise fs.inotify.max_user_instances, or reload by SIGHUP"
            raise StartError(text) from error

    async def run(self, reload: Callable[[str], Awaitable[object]]) -> None:
        """Call `reload("watch")` after each change, until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify.fd, self._on_news)
        try:
            while True:
                await asyncio.to_thread(self._watch)
                if await asyncio.to_thread(self._snapshot) != self._seen:
                    await self._reload(reload)
                else:
                    await self._quiet()
        finally:
            loop.remove_reader(self._inotify.fd)
            self._inotify.close()

    async def _reload(self, reload: Callable[[str], Awaitable[object]]) -> None:
        before, started = await asyncio.to_thread(self._snapshot), time.time_ns()
        await reload("watch")
        # What was known before counts as it was before: a change meanwhile may have come too late to be read. So may
        # one of a file that is new, which is read once more then.
        after = await asyncio.to_thread(self._snapshot)
        self._seen = {
            name: before.get(name, None if changed_since(state, started) else state) for name, state in after.items()
        }

    async def _quiet(self) -> None:
        """Wait for news, and until there are no more."""
        await self._news.wait()
        loop = asyncio.get_running_loop()
        end = loop.time() + LONGEST
        while self._news.is_set() and loop.time() < end:
            self._news.clear()
            await asyncio.sleep(QUIET)

    def _on_news(self) -> None:
        self._inotify.drain()
        self._news.set()

    def _snapshot(self) -> Snapshot:
        return self._watched().snapshot()

    def _watch(self) -> None:
        for error in self._inotify.watch(self._watched().folders()):
            if error.filename not in self._told:
                self._told.add(error.filename)
                text = f"--watch: {error.filename} is not watched: {error.strerror} (fs.inotify.max_user_watches?)"
                self._events.warning("watch_failed", text, folder=error.filename)
