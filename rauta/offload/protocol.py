"""The interface of an offload: what teaches the kernel a plan, and takes it back.

Life cycle. Anything that is not in this table is an error of the caller:

    state      call                  next      effect
    NEW        start                 STARTED   programs are loaded and pass everything
    STARTED    prepare(plan)         PREPARED  a generation is built aside; what is live goes on unchanged
    PREPARED   commit(prepared)      STARTED   from its return on, the next request of any flow obeys the generation
    PREPARED   abort(prepared)       STARTED   the generation is gone, what was live is still live
    STARTED,   counters              same      reads; does not disturb
    PREPARED
    any        stop                  STOPPED   final, and may be called again

A call that raises leaves the state as it was; only a failed `stop` is STOPPED. The calls block (system calls, map
writes: up to a second for a large plan) and come one at a time: an event loop calls them in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final, Protocol, runtime_checkable

from rauta.offload.capabilities import Capabilities
from rauta.offload.plans import Plan
from rauta.routing.errors import RautaError
from rauta.routing.settings import OffloadSettings


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
    """A generation that is ready to go live; implementations extend it with what they hold for it."""

    generation: int
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """What requests are counted by. `tier` is 1 or 2, `hook` where it ran (`xdp`, `tc`), `status` the response's."""

    route: str
    tier: int
    hook: str
    method: str
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Sums since the start; bytes of IP packets, both directions."""

    requests: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What the kernel did. `events` counts passes, drops, binds, hand-overs by the names of the one enumeration."""

    requests: Mapping[RequestKey, Traffic] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Offload(Protocol):
    """One way to have the kernel answer. Found by entry point (group `rauta.offloads`), built without arguments and
    without side effects."""

    name: ClassVar[str]

    def missing(self, settings: OffloadSettings) -> str | None:
        """What this machine lacks, as a clause for a person ("the kernel is 6.1, 6.9 is needed"); None: nothing.

        Changes nothing, and may be called in any state."""

    def start(self, settings: OffloadSettings) -> None:
        """Load and attach, or adopt what a predecessor left. Raises OffloadError; then nothing is left behind."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can hold; after `start` also what this machine adds."""

    def prepare(self, plan: Plan) -> Prepared:
        """Build a generation aside. Raises OffloadError; then nothing of it is left."""

    def commit(self, prepared: Prepared) -> None:
        """Make the generation live, as a whole. Raises OffloadError; then the previous one is still live."""

    def abort(self, prepared: Prepared) -> None:
        """Drop the generation. Does not fail."""

    def counters(self) -> Counters:
        """Sums since the programs were loaded, over generations."""

    def stop(self, *, detach: bool) -> None:
        """With `detach` nothing is left on the machine; without, bound flows go on for a successor to adopt.

        Raises OffloadError with what could not be removed."""
