"""Which offload a configuration gets on this machine, and why, in one line for the banner.

The interface of what the entry point group `rauta.offloads` names is provisional, see `protocol`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final, cast

from rauta.offload.null import NOTHING_HERE, NullOffload
from rauta.offload.protocol import Offload, OffloadError
from rauta.routing.settings import OffloadMode, OffloadSettings

OFFLOADS: Final = "rauta.offloads"


def available() -> dict[str, EntryPoint]:
    """The installed offloads by name, not imported."""
    return {point.name: point for point in sorted(entry_points(group=OFFLOADS), key=lambda point: point.name)}


def select(settings: OffloadSettings | None) -> tuple[Offload, str]:
    """The offload to use, not started, and the reason. Changes nothing on the machine.

    `settings=None`: the configuration has no offload section. Raises OffloadError if `mode: require` cannot be met.
    """
    if settings is None:
        return _null("the configuration has no offload section")
    if settings.mode is OffloadMode.NONE:
        return _null("offload.mode is none")
    problems: list[str] = []
    for offload in _kernel_offloads(problems):
        missing = lacking(offload, settings)
        if missing is None:
            return offload, f"kernel offload {offload.name!r}"
        problems.append(f"{offload.name}: {missing}")
    return without(settings, "; ".join(problems) or NOTHING_HERE)


def fall_back(settings: OffloadSettings, offload: Offload, call: str, error: Exception) -> tuple[Offload, str]:
    """What stands in for an offload whose `call` failed, not started, and the reason in one line.

    Raises OffloadError if `mode: require` does not allow it.
    """
    return without(settings, f"{offload.name}: {call} failed: {told(error)}")


def without(settings: OffloadSettings, why: str) -> tuple[Offload, str]:
    """What stands in where there is no kernel offload, not started, and the reason in one line.

    Raises OffloadError if `mode: require` does not allow it.
    """
    if settings.mode is OffloadMode.REQUIRE:
        raise OffloadError(f"offload.mode is require, but {why}; mode: auto starts without it")
    return _null(why)


def lacking(offload: Offload, settings: OffloadSettings) -> str | None:
    """What this machine lacks for it, also if it fails to say; None: nothing."""
    try:
        return offload.missing(settings)
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is its failure, told as such
        return f"missing failed: {told(error)}"


def told(error: Exception) -> str:
    """A failure of foreign code in one line: the text of an OffloadError, anything else with its type."""
    return " ".join((str(error) if isinstance(error, OffloadError) else repr(error)).split())


def _null(why: str) -> tuple[Offload, str]:
    return NullOffload(why), f"no kernel offload: {why}"


def _kernel_offloads(problems: list[str]) -> Iterator[Offload]:
    """The installed offloads but the null one, by name; those that cannot be imported or built become problems."""
    for point in available().values():
        try:
            offload = _build(point)
        except OffloadError as error:
            problems.append(str(error))
            continue
        if not isinstance(offload, NullOffload):
            yield offload


# Foreign code: whatever it raises is its failure, told as such, and the next one is tried.


def _build(point: EntryPoint) -> Offload:
    try:
        offload = point.load()()
        complete = isinstance(offload, Offload)  # which reads its properties
    except Exception as error:
        raise OffloadError(f"{point.name} ({point.value}) cannot be loaded: {told(error)}") from error
    if not complete:
        raise OffloadError(f"{point.name} ({point.value}) is not an offload: it lacks a part of the protocol")
    return cast(Offload, offload)
