"""The offload that answers nothing: every request is tier 3's. It keeps to the life cycle, so callers need no `if`."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Final

from rauta.offload.capabilities import Capabilities
from rauta.offload.plans import Plan
from rauta.offload.protocol import Counters, LifeCycle, OffloadError, Prepared
from rauta.routing.settings import Address, OffloadSettings

NOTHING_HERE: Final = "no offload is installed"


class NullOffload:
    """Stands where a kernel offload would. `why` says why it does, as a clause for a person."""

    name: ClassVar[str] = "null"
    __slots__ = ("_life", "_pending", "why")

    def __init__(self, why: str = NOTHING_HERE) -> None:
        self.why = why
        self._life = LifeCycle()
        self._pending: Prepared | None = None

    def missing(self, settings: OffloadSettings) -> str | None:
        """It is no kernel offload, so whoever requires one lacks it."""
        return self.why

    def start(self, settings: OffloadSettings) -> None:
        """Nothing to load."""
        self._life.done("start")

    @property
    def capabilities(self) -> Capabilities:
        """The usual limits: the plan then tells what a kernel offload would answer."""
        return Capabilities()

    def prepare(self, plan: Plan, settings: OffloadSettings, generation: int) -> Prepared:
        """A generation that nobody reads."""
        self._life.done("prepare")
        self._pending = Prepared(generation, plan, settings)
        return self._pending

    def commit(self, prepared: Prepared) -> None:
        """Raises OffloadError if it is not the generation that was prepared last."""
        self._end("commit", prepared)

    def abort(self, prepared: Prepared) -> None:
        """Raises OffloadError if it is not the generation that was prepared last."""
        self._end("abort", prepared)

    def _end(self, call: str, prepared: Prepared) -> None:
        self._life.check(call)
        if prepared is not self._pending:
            raise OffloadError(f"{call} of generation {prepared.generation}, which is not the one that was prepared")
        self._life.done(call)
        self._pending = None

    def usable(self, service: str, addresses: Collection[Address] | None) -> None:
        """Nothing to do: tier 3 knows its backends."""
        self._life.done("usable")

    def counters(self) -> Counters:
        """Always empty: nothing was answered."""
        self._life.check("counters")
        return Counters()

    def stop(self, *, detach: bool) -> None:
        """Nothing to remove."""
        self._life.done("stop")
        self._pending = None
