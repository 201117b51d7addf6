"""One reload: from a configuration that has been read to workers that all serve it, or to nothing changed.

    prepare: bind what is new, open the log, let every worker and the offload build     any failure: all of it undone
    commit:  the new sockets listen, every worker swaps, the offload goes live, what is no longer wanted is closed

Behind the point of no return a worker can only die; its successor starts with the new configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rauta.routing.settings import Address
from rauta.runtime import sockets
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.control import Change, encode_change, pack
from rauta.runtime.credentials import read_credentials
from rauta.runtime.errors import StartError
from rauta.runtime.logfile import LogFile
from rauta.runtime.process import WorkerError, WorkerProcess
from rauta.runtime.sockets import SlotSockets

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.runtime.backend_credentials import BackendCredentials
    from rauta.runtime.credentials import Credentials, Place
    from rauta.runtime.offloading import Offloading

BUILD_TIMEOUT: Final = 60.0  # seconds until all have built it; as for a start
APPLY_TIMEOUT: Final = 10.0  # until all have swapped, which takes milliseconds


@dataclass(slots=True, kw_only=True)
class Slot:
    """A place for a worker: its sockets stay, workers come and go."""

    index: int
    sockets: SlotSockets
    worker: WorkerProcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """How a reload ended, and what to tell the one who wanted it. `warnings` are those of the configuration that is
    served now."""

    ok: bool
    text: str
    warnings: Sequence[str] = ()


Watch = Callable[[Callable[[str], Awaitable[Reloaded]]], Coroutine[Any, Any, None]]
"""Calls the reload that it is given, with a cause, until cancelled."""


@dataclass(slots=True)
class Revision:
    """A change from one configuration to the next. `notes` tell what of it needs more than a reload; `credentials` and
    `backend_credentials` are those of the new one, once it is prepared."""

    generation: int
    old: Configuration
    new: Configuration
    slots: Sequence[Slot] = field(kw_only=True)
    log: LogFile = field(kw_only=True)
    notes: list[str] = field(default_factory=list, init=False)
    credentials: Credentials = field(default_factory=dict, init=False)
    backend_credentials: BackendCredentials = field(default_factory=dict, init=False)
    _groups: list[SlotSockets] = field(default_factory=list, init=False)
    _new_log: LogFile | None = field(default=None, init=False)

    async def prepare(
        self,
        workers: Sequence[WorkerProcess],
        offloading: Offloading | None,
        *,
        place: Place | None = None,
    ) -> None:
        """Let all build it. Raises StartError or WorkerError; then nothing has changed."""
        self.credentials = await asyncio.to_thread(read_credentials, self.new.listeners, place)
        self.backend_credentials = await asyncio.to_thread(read_backend_credentials, self.new.services, place)
        wanted = self.new.workers
        if wanted is not None and wanted != len(self.slots):
            self.notes.append(f"workers: {wanted} takes a restart; {len(self.slots)} go on")
        known = self.slots[0].sockets
        added = [listener for listener in self.new.listeners if listener.address not in known]
        self._groups = sockets.bind(added, len(self.slots), place=place, held=known)
        try:
            self._open_log()
            # At the same time: one is work of this process, the other of the workers.
            builds = [self._build(workers, tuple(listener.address for listener in added), place)]
            if offloading is not None:
                builds.append(offloading.prepare(self.generation, self.new))
            for done in await asyncio.gather(*builds, return_exceptions=True):
                if isinstance(done, BaseException):
                    raise done
            sockets.listen(self._groups)
        except BaseException:
            await self._undo(workers, offloading)
            raise

    async def commit(self, workers: Sequence[WorkerProcess], offloading: Offloading | None) -> None:
        """Make it live: when this returns, every request obeys it."""
        for slot, group in zip(self.slots, self._groups, strict=True):
            slot.sockets.update(group)
        if self._new_log is not None:
            self.log.take(self._new_log)
        swaps = (asyncio.wait_for(worker.apply(self.generation), APPLY_TIMEOUT) for worker in workers)
        for worker, failure in zip(workers, await asyncio.gather(*swaps, return_exceptions=True), strict=True):
            if isinstance(failure, TimeoutError):
                worker.kill()  # it hangs; its successor serves the new configuration
        if offloading is not None:
            before = offloading.reason
            await offloading.commit()
            if offloading.reason != before:
                self.notes.append(offloading.reason)
        self._close_unwanted()

    def _open_log(self) -> None:
        if self.new.access_log == self.old.access_log:
            return
        try:
            self._new_log = LogFile.of(self.new.access_log)
        except OSError as error:
            raise StartError(f"access_log: cannot open {self.new.access_log.to}: {error.strerror}") from error

    async def _build(self, workers: Sequence[WorkerProcess], added: tuple[Address, ...], place: Place | None) -> None:
        log = None if self._new_log is None else self._new_log.fd
        change = encode_change(
            Change(
                generation=self.generation,
                configuration=pack(self.new),
                opened=added,
                access_log=log is not None,
                credentials=self.credentials,
                backend_credentials=self.backend_credentials,
            )
        )
        builds = []
        for worker in workers:
            group = self._groups[worker.slot]
            fds = [sock.fileno() for address in added for sock in group[address]]
            builds.append(worker.build(self.generation, change, fds if log is None else [*fds, log]))
        try:
            async with asyncio.timeout(BUILD_TIMEOUT):
                results = await asyncio.gather(*builds, return_exceptions=True)
        except TimeoutError:
            raise StartError(f"the workers did not build it within {BUILD_TIMEOUT:g} s") from None
        for result in results:
            if isinstance(result, WorkerError) and result.routes:
                raise StartError(await asyncio.to_thread(result.located, self.new.routes, place)) from result
            if isinstance(result, BaseException):
                raise result

    async def _undo(self, workers: Sequence[WorkerProcess], offloading: Offloading | None) -> None:
        for worker in workers:
            worker.drop(self.generation)
        if offloading is not None:
            await offloading.abort()
        sockets.close(self._groups)
        if self._new_log is not None:
            self._new_log.close()

    def _close_unwanted(self) -> None:
        wanted = {listener.address for listener in self.new.listeners}
        for slot in self.slots:
            gone = {address: slot.sockets.pop(address) for address in [*slot.sockets] if address not in wanted}
            sockets.close([gone])
