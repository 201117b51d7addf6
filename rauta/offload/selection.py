"""Which offload a configuration gets on this machine, and why, in one line for the banner."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final

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
        missing = offload.missing(settings)
        if missing is None:
            return offload, f"kernel offload {offload.name!r}"
        problems.append(f"{offload.name}: {missing}")
    return _without(settings, "; ".join(problems) or NOTHING_HERE)


def start(settings: OffloadSettings | None) -> tuple[Offload, str]:
    """`select`, and start what it selected. In mode auto, one that does not start is replaced by the null one.

    Raises OffloadError if `mode: require` cannot be met.
    """
    offload, reason = select(settings)
    settings = settings or OffloadSettings(mode=OffloadMode.NONE)
    try:
        offload.start(settings)
    except OffloadError as error:
        offload, reason = _without(settings, f"{offload.name}: {error}")
        offload.start(settings)
    return offload, reason


def _null(why: str) -> tuple[Offload, str]:
    return NullOffload(why), f"no kernel offload: {why}"


def _without(settings: OffloadSettings, why: str) -> tuple[Offload, str]:
    if settings.mode is OffloadMode.REQUIRE:
        raise OffloadError(f"offload.mode is require, but {why}; mode: auto starts without it")
    return _null(why)


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


def _build(point: EntryPoint) -> Offload:
    try:
        offload = point.load()()
    except Exception as error:  # foreign code: whatever it raises is its failure, told as such
        raise OffloadError(f"{point.name} ({point.value}) cannot be loaded: {error!r}") from error
    if not isinstance(offload, Offload):
        raise OffloadError(f"{point.name} ({point.value}) is not an offload: it lacks a part of the protocol")
    return offload
