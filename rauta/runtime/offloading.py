"""Which offload a start uses, and why: what the banner says and what `mode: require` depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rauta.routing.settings import OffloadMode
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.routing.settings import OffloadSettings

_MISSING: Final = "this version of rauta has no kernel tiers yet"


@dataclass(frozen=True, slots=True)
class Offloading:
    """What was chosen (`none`: every request is served by the workers) and the reason."""

    name: str
    reason: str


def choose(settings: OffloadSettings | None) -> Offloading:
    """Choose by the file and by what this machine can do. Raises StartError if what the file requires is missing."""
    if settings is None:
        return Offloading("none", "the configuration has no offload section")
    if settings.mode is OffloadMode.NONE:
        return Offloading("none", "offload.mode is none")
    if settings.mode is OffloadMode.REQUIRE:
        raise StartError(f"offload.mode is require, but {_MISSING}: write mode: auto to start without them")
    return Offloading("none", _MISSING)
