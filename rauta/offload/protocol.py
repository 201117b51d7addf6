"""The interface of an offload: what teaches the kernel a plan, and takes it back.

It is provisional: semantic versions do not cover it yet, and a change of it is not announced but in the changelog.

Life cycle. Anything that is not in this table is an error of the caller:

    state      call                  next      effect
    NEW        start                 STARTED   programs are loaded and pass everything
    STARTED    prepare(plan, ...)    PREPARED  a generation is built aside; what is live goes on unchanged, also after
                                               a failure
    PREPARED   commit(prepared)      STARTED   from its return on, the next request of any flow obeys the generation
    PREPARED   abort(prepared)       STARTED   the generation is gone, what was live is still live
    STARTED,   usable, counters      same      see there; neither disturbs what is prepared
    PREPARED
    any        stop                  STOPPED   final, and may be called again

A call that raises leaves the state as it was; only a failed `stop` is STOPPED. The calls block (system calls, map
writes: up to a second for a large plan) and come one at a time: a caller with an event loop makes them in one thread
beside it. Whatever they raise, OffloadError or not, is taken for the offload's failure: `mode: auto` goes on without
it, `mode: require` does not start, or fails the reload, and what is live goes on. Once a generation is live, both modes
stop an offload whose `commit`, `abort`, `usable` or `counters` fails (docs/offload-plan.md).

Identity is the name. State that outlives a generation (bound flows, counters, usable backends) belongs to listeners,
routes and services by name and to backends by address; the numbers in a plan are positions in its own maps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final, Protocol, runtime_checkable

from rauta.offload.capabilities import Capabilities
from rauta.offload.plans import Plan
from rauta.routing.errors import RautaError
from rauta.routing.settings import Address, OffloadSettings


class OffloadError(RautaError):
    """The kernel tiers cannot do what they are asked for. Says what is missing and what to do."""


class State(Enum):
    """States of an offload, see the table above."""

    NEW = "new"
    STARTED = "started"
    PREPARED = "prepared"
    STOPPED = "stopped"


TRANSITIONS: Final[Mapping[tuple[State, str], State]] = {
    (State.NEW, "start"): State.STARTED,
    (State.STARTED, "prepare"): State.PREPARED,
    (State.PREPARED, "commit"): State.STARTED,
    (State.PREPARED, "abort"): State.STARTED,
    (State.STARTED, "usable"): State.STARTED,
    (State.PREPARED, "usable"): State.PREPARED,
    (State.STARTED, "counters"): State.STARTED,
    (State.PREPARED, "counters"): State.PREPARED,
    **{(state, "stop"): State.STOPPED for state in State},
}


class LifeCycle:
    """Keeps an implementation to the table: `check` before the work, `done` after it."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = State.NEW

    def check(self, call: str) -> None:
        """Raises OffloadError if the call is not in the table for this state."""
        if (self.state, call) not in TRANSITIONS:
            allowed = ", ".join(name for state, name in TRANSITIONS if state is self.state)
            raise OffloadError(f"{call} of an offload that is {self.state.value}: now it takes {allowed}")

    def done(self, call: str) -> None:
        """The call's work is done. Raises OffloadError as `check` does."""
        self.check(call)
        self.state = TRANSITIONS[self.state, call]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A generation that is ready to go live, as `prepare` got it; implementations extend it with what they hold."""

    generation: int
    plan: Plan
    settings: OffloadSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """What requests are counted by: the labels of `rauta_requests_total`, and `hook`, where it ran (`xdp`, `tc`).

    `listener`, `route` and `service` are names, so that counters go on over generations. `code` is the response's
    status, `protocol` the client's as tier 3 logs it (`HTTP/1.1`), `tier` 1 or 2.
    """

    listener: str
    route: str
    service: str
    code: int
    method: str
    protocol: str
    tier: int
    hook: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Sums since the start; bytes of IP packets, both directions."""

    requests: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class MapUse:
    """Entries of a map: those in use and those it has room for."""

    used: int
    size: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """How a program sits on an interface: `hook` is `xdp` or `tc`, `mode` the way it is attached there (for xdp
    `native` or `generic`, for tc `tcx` or `clsact`), `why` what speaks against xdp there."""

    hook: str
    mode: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is there now: bound flows, maps by name, interfaces by name."""

    flows: int = 0
    maps: Mapping[str, MapUse] = field(default_factory=dict)
    interfaces: Mapping[str, Attachment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the kernel did and holds. `events` counts passes, drops, binds, hand-overs by the names of the one
    enumeration."""

    requests: Mapping[RequestKey, Traffic] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    gauges: Gauges = field(default_factory=Gauges)


@runtime_checkable
class Offload(Protocol):
    """One way to have the kernel answer. Found by entry point (group `rauta.offloads`), built without arguments and
    without side effects."""

    name: ClassVar[str]

    def missing(self, settings: OffloadSettings) -> str | None:
        """What this machine lacks, as a clause for a person ("the kernel is 6.1, 6.9 is needed"); None: nothing.

        Changes nothing, and may be called in any state: before a reload also of one that is live, with new settings."""

    def start(self, settings: OffloadSettings) -> None:
        """Load and attach, or adopt what a predecessor left. Raises OffloadError; then nothing is left behind.

        `settings` are those of the first generation."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can hold; after `start` also what this machine adds."""

    def prepare(self, plan: Plan, settings: OffloadSettings, generation: int) -> Prepared:
        """Build a generation aside. Raises OffloadError; then nothing of it is left.

        `settings` may differ from those before (interfaces, hook): `commit` attaches and detaches accordingly. With
        `mode: none` a caller stops the offload instead. `generation` counts from 1 and rises; the number of one that
        was aborted does not come again."""

    def commit(self, prepared: Prepared) -> None:
        """Make the generation live, as a whole. Raises OffloadError; then the previous one is still live."""

    def abort(self, prepared: Prepared) -> None:
        """Drop the generation. Does not fail."""

    def usable(self, service: str, addresses: Collection[Address] | None) -> None:
        """Which backends of a service may get requests now (health, drain); None: all, as it is without a call.

        Replaces the service's Maglev table as a whole, by the one of those backends (with weight, in the plan's order),
        which is what tier 3 uses. Bound flows of a backend that left drain: a request in flight ends there, the next
        one obeys the new table. With no usable backend the service's requests are passed to tier 3, which answers
        them. It holds for what is live and what is prepared, and over generations, until the next call for that
        name; addresses that are no backends of the service, and names that no plan has, count for nothing. Between
        `prepare` and `commit` it is called for every service with a backend that is down, with the backends of both
        generations.
        Raises OffloadError; then the previous table is still in use."""

    def counters(self) -> Counters:
        """Sums since the programs were loaded, over generations, and the gauges of now."""

    def stop(self, *, detach: bool) -> None:
        """With `detach` nothing is left on the machine; without, bound flows go on for a successor to adopt.

        Raises OffloadError with what could not be removed."""
