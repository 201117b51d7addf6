"""Which offload is live, and which one the next generation makes live. Every call blocks; they come one at a time.

at most one kernel offload is started; another one starts only when none is live
prepare   may refuse a generation; what is live stays as it is until commit, whatever has failed
commit    never fails in a gateway that serves: without an offload tier 3 answers everything
any call  that fails on what is live ends it, until a later generation is prepared: `mode: require` is a condition
          for a start and for a reload, and no reason to end a gateway that serves
detach    does the same to an offload that has not failed
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rauta.offload import Counters, Gauges, NullOffload, OffloadError, fall_back, lacking, plan, select, told, without
from rauta.routing.settings import Address, OffloadMode, OffloadSettings
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.offload import Offload, Prepared
    from rauta.routing.model import Configuration
    from rauta.runtime.log import EventLog

T = TypeVar("T")


class CallError(Exception):
    """A call of an offload that failed, with whatever it raised."""

    def __init__(self, offload: Offload, call: str, error: Exception) -> None:
        super().__init__(offload.name, call)
        self.offload = offload
        self.call = call
        self.error = error


@dataclass(slots=True, kw_only=True)
class Following:
    """What commit makes live. `started`: its offload was started for it. `failure` stands for an offload that it was
    to have and must do without, which is told when it goes live."""

    configuration: Configuration
    settings: OffloadSettings
    offload: Offload
    reason: str
    prepared: Prepared | None = None
    started: bool = False
    failure: CallError | None = None


class Offloads:
    """The one that is live and the one that follows; `reason` is a line about the first.

    Raises StartError if the configuration requires an offload that is missing here. `place` gives what the message of
    such an error begins with.
    """

    __slots__ = ("_configuration", "_down", "_events", "_live", "_next", "_offload", "_place", "_serves", "reason")

    def __init__(self, configuration: Configuration, events: EventLog, place: Callable[[], str] | None) -> None:
        self._configuration = configuration  # the one that is live; until one is, the one to start with
        self._events = events
        self._place = place
        self._live = False  # whether a kernel offload is: `_offload`
        self._serves = False  # a generation has gone live
        self._next: Following | None = None
        self._down: dict[str, frozenset[str]] = {}  # backends that must get no requests, by service
        try:
            self._offload, self.reason = select(configuration.offload)
        except OffloadError as error:
            raise self._refusal(error) from error

    @property
    def name(self) -> str:
        """The name of the offload; `null` is the one that answers nothing."""
        return self._offload.name

    @property
    def live(self) -> bool:
        """Whether a kernel offload is."""
        return self._live

    def prepare(self, generation: int, configuration: Configuration | None) -> None:
        """Build a generation aside, of another configuration if there is one. Raises StartError, under `require` alone;
        then nothing is prepared."""
        self._next = following = self._choose(configuration or self._configuration)
        # The null offload would not read its plan, and 10,000 routes take 0.6 to 1.0 s.
        if isinstance(following.offload, NullOffload):
            return
        try:
            self._build(following, generation)
        except CallError as failure:
            self._take_back(following)
            self._next = None
            following.offload, following.reason = self._instead(following.settings, failure)
            following.failure = failure
            self._next = following

    def commit(self) -> None:
        """Make live what has been prepared. Raises StartError only in a start, under `require`."""
        following = self._next
        if following is None:
            return
        if following.prepared is not None:
            try:
                following.offload.commit(following.prepared)
            except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is its failure
                self._lose(following.offload, "commit", error, following.settings)
        self._next = None
        failure = following.failure
        if failure is not None and not self._serves:
            self._instead(following.settings, failure)  # raises under `require`
        if self._live and self._offload is not following.offload:
            self._remove(self._offload)
        self._configuration, self._offload, self.reason = following.configuration, following.offload, following.reason
        self._live = not isinstance(self._offload, NullOffload)
        self._serves = True
        if failure is not None:
            self._tell(failure, following.settings)

    def abort(self) -> None:
        """Forget what has been prepared; what is live goes on."""
        following, self._next = self._next, None
        if following is not None:
            self._take_back(following)

    def stop(self) -> None:
        """Leave nothing on the machine; what could not be removed is logged."""
        self.abort()
        if self._live:  # if not, what a predecessor may have left is not this one's to remove
            self._live = False
            self._remove(self._offload)

    def down(self, news: Mapping[str, frozenset[str]]) -> None:
        """Which backends of services must get no requests from now on; none: all may. Addresses as configured."""
        for service, addresses in news.items():
            if addresses:
                self._down[service] = addresses
            else:
                self._down.pop(service, None)
        offload = self._started
        if offload is None:
            return
        try:
            for service, usable in self._usable(news).items():
                offload.usable(service, usable)
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is its failure
            self._lose(offload, "usable", error)

    def counters(self) -> Counters:
        """What the kernel did and holds; nothing, if no offload is live."""
        if not self._live:
            return Counters()
        try:
            return _copied(self._offload.counters())
        except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is its failure
            self._lose(self._offload, "counters", error)
            return Counters()

    def detach(self) -> bool:
        """End what is live, because somebody wants it; tier 3 serves all until a later generation is prepared. Whether
        nothing is left on the machine; if something is, it is logged."""
        if not self._live:
            return True
        offload = self._offload
        why = f"{offload.name} was detached by a command; the next reload looks for one again"
        removed = self._end(offload, without(OffloadSettings(mode=OffloadMode.AUTO), why))
        self._events.info("offload_detached", self.reason, offload=offload.name)
        return removed

    # --- what follows -----------------------------------------------------------------------------------

    def _choose(self, configuration: Configuration) -> Following:
        """Raises StartError."""
        settings = configuration.offload or OffloadSettings(mode=OffloadMode.NONE)
        try:
            if self._live and settings.mode is not OffloadMode.NONE:
                offload, reason = self._kept(settings)
            elif self._serves:
                offload, reason = select(configuration.offload)
            else:
                offload, reason = self._offload, self.reason  # chosen before anything else was done for the start
        except OffloadError as error:
            raise self._refusal(error) from error
        return Following(configuration=configuration, settings=settings, offload=offload, reason=reason)

    def _kept(self, settings: OffloadSettings) -> tuple[Offload, str]:
        """What is live, also for other settings, if it can. Another one does not start beside it: both would answer
        on the same interfaces."""
        lacks = lacking(self._offload, settings)
        return (self._offload, self.reason) if lacks is None else without(settings, f"{self._offload.name}: {lacks}")

    def _build(self, following: Following, generation: int) -> None:
        """Raises CallError; then `_take_back` is to be called."""
        offload, settings = following.offload, following.settings
        if not self._is_live(offload):
            following.started = True  # a start that fails in any way but its own may leave something behind
            try:
                _call(offload, "start", lambda: offload.start(settings))
            except CallError as failure:
                following.started = not isinstance(failure.error, OffloadError)
                raise
        capabilities = _call(offload, "capabilities", lambda: offload.capabilities)
        planned = plan(following.configuration, capabilities)
        following.prepared = _call(offload, "prepare", lambda: offload.prepare(planned, settings, generation))
        # Behind prepare, so that the names are known, and with the backends of both generations.
        for service, addresses in self._usable(self._down).items():
            _call(offload, "usable", partial(offload.usable, service, addresses))

    def _take_back(self, following: Following) -> None:
        """Undo what has been built, and stop an offload that was started for it."""
        prepared, following.prepared = following.prepared, None
        try:
            if prepared is not None:
                following.offload.abort(prepared)
        except Exception as error:  # noqa: BLE001 - foreign code, which promises that this does not fail
            if self._is_live(following.offload):
                self._lose(following.offload, "abort", error)
            else:
                self._tell_rest(following.offload, "abort", error)  # what is left of it is for stop to remove
        if following.started:
            following.started = False
            self._remove(following.offload)

    def _usable(self, services: Collection[str]) -> dict[str, tuple[Address, ...] | None]:
        """The backends of services, of both generations, that may get requests; None: all. Those of the other
        generation count for nothing in this one."""
        found: dict[str, dict[Address, None]] = {name: {} for name in services}
        following = () if self._next is None else (self._next.configuration,)
        for configuration in (self._configuration, *following):
            for service in configuration.services:
                if service.name in found:
                    found[service.name].update((backend.address, None) for backend in service.backends)
        usable: dict[str, tuple[Address, ...] | None] = {}
        for name, addresses in found.items():
            down = self._down.get(name)
            usable[name] = None if down is None else tuple(a for a in addresses if str(a) not in down)
        return usable

    # --- failures ---------------------------------------------------------------------------------------

    def _is_live(self, offload: Offload) -> bool:
        return self._live and offload is self._offload

    @property
    def _started(self) -> Offload | None:
        """The kernel offload that is live, or prepared to be."""
        if self._live:
            return self._offload
        return None if self._next is None or self._next.prepared is None else self._next.offload

    def _lose(self, offload: Offload, call: str, error: Exception, settings: OffloadSettings | None = None) -> None:
        """A call failed in a gateway that serves, or is about to: it goes on without the offload. `settings` are those
        that hold from now on, if they are not those of what is live."""
        live, following = self._is_live(offload), self._next
        failure = CallError(offload, call, error)
        if following is not None and following.offload is offload:
            following.failure = None if live else failure
        self._end(offload, fall_back(OffloadSettings(mode=OffloadMode.AUTO), offload, call, error))
        if live:
            self._tell(failure, settings or self._configuration.offload)

    def _end(self, offload: Offload, instead: tuple[Offload, str]) -> bool:
        """Stop an offload that is live, or prepared to be; another one takes its place, for a reason. Whether nothing
        is left of it."""
        live, following = self._is_live(offload), self._next
        self._live = self._live and not live
        removed = self._remove(offload)
        if following is not None and following.offload is offload:
            following.offload, following.reason = instead
            following.prepared, following.started = None, False
        if live:
            self._offload, self.reason = instead
        return removed

    def _remove(self, offload: Offload) -> bool:
        """Whether nothing is left of it."""
        try:
            offload.stop(detach=True)
        except Exception as error:  # noqa: BLE001 - foreign code; the gateway goes on, or ends, all the same
            self._tell_rest(offload, "stop", error)
            return False
        return True

    def _tell(self, failure: CallError, settings: OffloadSettings | None) -> None:
        required = settings is not None and settings.mode is OffloadMode.REQUIRE
        tell = self._events.error if required else self._events.warning
        tell("offload_failed", self.reason, offload=failure.offload.name, call=failure.call)

    def _tell_rest(self, offload: Offload, call: str, error: Exception) -> None:
        text = f"offload {offload.name!r}: {call} failed, and may have left something on this machine: {told(error)}"
        self._events.error("offload_not_removed", text, offload=offload.name, call=call)

    def _instead(self, settings: OffloadSettings, failure: CallError) -> tuple[Offload, str]:
        """What stands in for an offload that failed, and why. Raises StartError under `require`."""
        try:
            return fall_back(settings, failure.offload, failure.call, failure.error)
        except OffloadError as error:
            raise self._refusal(error) from failure.error

    def _refusal(self, error: OffloadError) -> StartError:
        return StartError(f"{'' if self._place is None else self._place()}{error}")


def _copied(counters: Counters) -> Counters:
    """As plain dicts, which can be passed on. Whatever foreign code made of them shows up here."""
    gauges = counters.gauges
    return Counters(
        requests=dict(counters.requests),
        events=dict(counters.events),
        gauges=Gauges(flows=gauges.flows, maps=dict(gauges.maps), interfaces=dict(gauges.interfaces)),
    )


def _call(offload: Offload, name: str, work: Callable[[], T]) -> T:
    """What the call returns. Raises CallError."""
    try:
        return work()
    except Exception as error:
        raise CallError(offload, name, error) from error
