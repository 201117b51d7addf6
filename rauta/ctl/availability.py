"""Whether the kernel tiers of a plan would be there on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rauta.offload import Capabilities, NullOffload, OffloadError, select
from rauta.routing.model import Configuration


@dataclass(frozen=True, slots=True)
class Availability:
    """The offload that a start would use (None: tier 3 serves everything), what it can hold, and why it is that."""

    name: str | None
    why: str
    capabilities: Capabilities

    @property
    def available(self) -> bool:
        """Whether there are kernel tiers at all."""
        return self.name is not None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"available": self.available, "name": self.name, "why": self.why}


def of(configuration: Configuration) -> Availability:
    """What a start of this configuration would find here. Loads nothing into the kernel."""
    try:
        offload, why = select(configuration.offload)
    except OffloadError as error:
        return Availability(None, str(error), Capabilities())
    if isinstance(offload, NullOffload):
        return Availability(None, offload.why, offload.capabilities)
    return Availability(offload.name, why, offload.capabilities)
