"""The offload of a run: chosen before anything else, live once the workers can take what the kernel passes up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rauta.offload import NullOffload, OffloadError, fall_back, plan, select, told
from rauta.routing.settings import OffloadMode, OffloadSettings
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.offload import Offload, Prepared
    from rauta.routing.model import Configuration
    from rauta.runtime.log import EventLog

T = TypeVar("T")


class Offloading:
    """Prepares, commits and stops the offload of a configuration; `reason` is the line for the banner.

    An offload that fails, with whatever exception, is replaced by the one that answers nothing, and the reason tells
    it; where the configuration requires one, building this or awaiting a call raises StartError. `place` gives what
    such a message begins with.

    The calls block, so they run in a thread, and always in the same one: they come one at a time and in order, also
    when a signal cancels the coroutine that awaits a call which is still at work.
    """

    __slots__ = (
        "_configuration",
        "_events",
        "_offload",
        "_place",
        "_prepared",
        "_settings",
        "_started",
        "_thread",
        "reason",
    )

    def __init__(
        self, configuration: Configuration, events: EventLog, *, place: Callable[[], str] | None = None
    ) -> None:
        self._configuration = configuration
        self._settings = configuration.offload or OffloadSettings(mode=OffloadMode.NONE)
        self._events = events
        self._place = place
        self._prepared: Prepared | None = None
        self._started = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offload")
        try:
            self._offload, self.reason = select(configuration.offload)
        except OffloadError as error:
            raise self._refusal(error) from error

    @property
    def name(self) -> str:
        """The name of the offload; `null` is the one that answers nothing."""
        return self._offload.name

    async def prepare(self, generation: int, configuration: Configuration | None = None) -> None:
        """Let the offload, started if it is the first time, build the generation aside; by another configuration, if
        there is one. Raises StartError."""
        if configuration is not None:
            self._configuration = configuration
        await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare, generation)

    async def commit(self) -> None:
        """All workers serve: the kernel may answer now. Raises StartError."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit)

    async def abort(self) -> None:
        """Forget what has been prepared; what was live goes on."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._abort)

    async def stop(self) -> None:
        """Leave nothing on the machine; what could not be removed is logged. Nothing may be called afterwards."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._stop)
        self._thread.shutdown(wait=False)

    # --- in the thread ----------------------------------------------------------------------------------

    def _prepare(self, generation: int) -> None:
        if not self._started:
            self._attempt("start", lambda: self._offload.start(self._settings))
            self._started = True
        capabilities = self._attempt("capabilities", lambda: self._offload.capabilities)
        # The null offload would not read its plan, and 10,000 routes take 0.6 to 1.0 s.
        if capabilities is None or isinstance(self._offload, NullOffload):
            return
        planned = plan(self._configuration, capabilities)
        self._prepared = self._attempt("prepare", lambda: self._offload.prepare(planned, self._settings, generation))

    def _commit(self) -> None:
        prepared = self._prepared
        if prepared is not None:
            self._attempt("commit", lambda: self._offload.commit(prepared))
            self._prepared = None

    def _abort(self) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            self._attempt("abort", lambda: self._offload.abort(prepared))

    def _stop(self) -> None:
        if not self._started:
            return  # what a predecessor may have left is not this one's to remove
        offload, prepared = self._offload, self._prepared
        self._prepared = None
        try:
            if prepared is not None:
                offload.abort(prepared)
        except Exception as error:  # noqa: BLE001 - foreign code; what is left of it is for stop to remove
            self._tell_rest(offload, "abort", error)
        self._remove(offload)

    def _remove(self, offload: Offload) -> None:
        try:
            offload.stop(detach=True)
        except Exception as error:  # noqa: BLE001 - foreign code; the gateway goes on, or ends, all the same
            self._tell_rest(offload, "stop", error)

    def _attempt(self, call: str, work: Callable[[], T]) -> T | None:
        """What the offload's call returns; None if it failed and has been replaced."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is its failure
            self._replace(call, error)
            return None

    def _replace(self, call: str, error: Exception) -> None:
        failed = self._offload
        self._offload = NullOffload()
        self._prepared = None
        # A start that fails as the protocol says has left nothing behind; any other exception promises nothing.
        if call != "start" or not isinstance(error, OffloadError):
            self._remove(failed)
        try:
            self._offload, self.reason = fall_back(self._settings, failed, call, error)
        except OffloadError as refusal:
            raise self._refusal(refusal) from error
        self._offload.start(self._settings)
        self._events.warning("offload_failed", self.reason, offload=failed.name, call=call)

    def _tell_rest(self, offload: Offload, call: str, error: Exception) -> None:
        text = f"offload {offload.name!r}: {call} failed, and may have left something on this machine: {told(error)}"
        self._events.error("offload_not_removed", text, offload=offload.name, call=call)

    def _refusal(self, error: OffloadError) -> StartError:
        return StartError(f"{'' if self._place is None else self._place()}{error}")


def check(settings: OffloadSettings | None) -> None:
    """Change nothing; raises StartError as building an Offloading would."""
    try:
        select(settings)
    except OffloadError as error:
        raise StartError(str(error)) from error
