"""The offload of a run, for the supervisor's loop: chosen before anything else, live once the workers can take what the
kernel passes up. What is done when, and what becomes of failures: see `offloads`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rauta.offload import OffloadError, select
from rauta.runtime.errors import StartError
from rauta.runtime.offloads import Offloads

if TYPE_CHECKING:
    from rauta.offload import Attachment, Counters
    from rauta.routing.model import Configuration
    from rauta.routing.settings import OffloadSettings
    from rauta.runtime.control import Health
    from rauta.runtime.log import EventLog


class Offloading:
    """Prepares, commits and stops the offload of the configurations that are served, one after the other.

    An offload that fails, with whatever exception, is replaced by the one that answers nothing, and the reason tells
    it; where a configuration requires one, building this and awaiting `prepare` (of the first generation also `commit`)
    raises StartError. `place` gives what such a message begins with.

    The calls block, so they run in a thread, and always in the same one: they come one at a time and in order, also
    when a signal cancels the coroutine that awaits a call which is still at work. `on_change` is called when the
    offload is replaced between generations.
    """

    __slots__ = ("_interfaces", "_known", "_news", "_offloads", "_stopping", "_telling", "_thread", "on_change")

    def __init__(
        self, configuration: Configuration, events: EventLog, *, place: Callable[[], str] | None = None
    ) -> None:
        self._offloads = Offloads(configuration, events, place)
        self._known = self._offloads.reason  # to those who ask after a commit, or were told of a change
        self._interfaces: Mapping[str, Attachment] = {}
        self._news: dict[str, frozenset[str]] = {}  # of backends, for the next time that the thread is told
        self._telling = self._stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offload")
        self.on_change: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """The name of the offload; `null` is the one that answers nothing."""
        return self._offloads.name

    @property
    def reason(self) -> str:
        """Why it is this one: a line for people."""
        return self._offloads.reason

    @property
    def interfaces(self) -> Mapping[str, Attachment]:
        """Those that carry programs, by name; as of the last `commit` or `counters`."""
        return self._interfaces if self._offloads.live else {}

    def status(self) -> dict[str, Any]:
        """What it is and why, and where it is attached, if it is; as JSON, for /v1/status and the event `ready`."""
        found: dict[str, Any] = {"name": self.name, "reason": self.reason}
        if self.interfaces:
            found["interfaces"] = [{"name": name, **asdict(how)} for name, how in sorted(self.interfaces.items())]
        return found

    async def prepare(self, generation: int, configuration: Configuration | None = None) -> None:
        """Let the offload, started if it is not yet, build the generation aside; by another configuration, if there is
        one. What is live stays as it is. Raises StartError; then nothing is prepared."""
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._offloads.prepare, generation, configuration
        )

    async def commit(self) -> None:
        """All workers serve: the kernel may answer now. Raises StartError, for the first generation only."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.commit)
        await self._read()  # which interfaces it is attached to
        self._known = self.reason

    async def abort(self) -> None:
        """Forget what has been prepared; what was live goes on."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.abort)

    def health(self, news: Health) -> None:
        """Which backends must get no requests from now on. Returns at once, and the thread is told when it can be; of a
        service that has changed more than once by then, the last news counts."""
        self._news[news.service] = frozenset(news.down)
        if not self._telling and not self._stopping:
            self._tell()

    async def counters(self) -> Counters:
        """What the kernel did and holds; nothing, if no kernel offload is live."""
        counters = await self._read()
        self._tell_change()
        return counters

    async def detach(self) -> tuple[bool, str]:
        """Go on without a kernel offload until a later generation is prepared. Whether nothing is left of it, and a
        text for people."""
        removed = await asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.detach)
        self._tell_change()
        return removed, self.reason if removed else f"{self.reason}. Something is left of it: the log says what"

    async def stop(self) -> None:
        """Leave nothing on the machine; what could not be removed is logged. Nothing may be called afterwards."""
        self._stopping = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.stop)
        self._thread.shutdown(wait=False)

    async def _read(self) -> Counters:
        counters = await asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.counters)
        self._interfaces = counters.gauges.interfaces
        return counters

    def _tell(self) -> None:
        news, self._news = self._news, {}
        self._telling = True
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._offloads.down, news)
        work.add_done_callback(self._told)

    def _told(self, done: asyncio.Future[None]) -> None:
        self._telling = False
        if self._stopping:
            return
        if self._news:
            self._tell()
        self._tell_change()
        done.result()  # a defect of ours is the loop's to tell

    def _tell_change(self) -> None:
        if self.reason != self._known:
            self._known = self.reason
            if self.on_change is not None:
                self.on_change()


def check(settings: OffloadSettings | None) -> None:
    """Change nothing; raises StartError as building an Offloading would."""
    try:
        select(settings)
    except OffloadError as error:
        raise StartError(str(error)) from error
