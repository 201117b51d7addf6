"""What a program chooses for a gateway of processes, beyond what the file says: how many workers, which kernel tiers,
and which listeners, if it has bound their sockets itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from rauta.embed.errors import GatewayError
from rauta.routing.errors import ModelError
from rauta.routing.model import Configuration
from rauta.routing.settings import OffloadMode, OffloadSettings

OffloadChoice = str | OffloadMode | OffloadSettings
"""`file`: what the file says. A mode: that one, with what else its `offload` section says. Settings: these instead."""

FILE: Final = "file"
MOST_WORKERS: Final = 256
_MODES: Final = tuple(mode.value for mode in OffloadMode)


@dataclass(frozen=True, slots=True)
class Choices:
    """`offload=None`: no kernel tiers. `listeners=None`: all are bound. Raises GatewayError."""

    workers: int
    offload: OffloadChoice | None
    listeners: frozenset[str] | None

    def __post_init__(self) -> None:
        if type(self.workers) is not int or not 0 <= self.workers <= MOST_WORKERS:
            raise GatewayError(
                f"workers={self.workers!r}: 0 (serve on this event loop) or a number of processes, 1 to {MOST_WORKERS}"
            )
        offload = self.offload
        if offload is None:
            return
        if isinstance(offload, str):
            if offload not in (FILE, *_MODES):
                raise GatewayError(
                    f"offload={offload!r}: known are {FILE}, {', '.join(_MODES)}, OffloadSettings and None"
                )
        elif not isinstance(offload, OffloadMode | OffloadSettings):
            raise GatewayError(f"offload={offload!r}: give a mode, for example 'auto', or OffloadSettings")
        if not self.workers:
            raise GatewayError(
                f"offload={offload!r}: kernel tiers belong to the gateway's processes, and workers=0 has none: "
                "give workers=1, or more"
            )

    def applied_to(self, configuration: Configuration) -> Configuration:
        """What the processes are to serve. Raises GatewayError."""
        try:
            return replace(self._narrowed(self._offloaded(configuration)), workers=self.workers)
        except ModelError as error:
            raise GatewayError(f"sockets: the listeners that have one cannot be served alone: {error}") from error

    def _offloaded(self, configuration: Configuration) -> Configuration:
        offload = self.offload
        if offload == FILE:
            return configuration
        if isinstance(offload, OffloadSettings):
            return replace(configuration, offload=offload)
        if offload is not None:
            mode = OffloadMode(offload)
            return replace(configuration, offload=replace(configuration.offload or OffloadSettings(), mode=mode))
        if configuration.offload is None:
            return configuration
        # What is added to requests depends on the file, and not on what a program does with it.
        listeners = tuple(
            replace(listener, forwarded=configuration.forwarded_of(listener)) for listener in configuration.listeners
        )
        return replace(configuration, offload=None, listeners=listeners)

    def _narrowed(self, configuration: Configuration) -> Configuration:
        """Without the listeners that nobody serves."""
        served = self.listeners
        if served is None:
            return configuration
        return replace(
            configuration,
            listeners=tuple(listener for listener in configuration.listeners if listener.name in served),
            routes=tuple(
                replace(route, listeners=_among(route.listeners, served)) if route.listeners else route
                for route in configuration.routes
                if not route.listeners or _among(route.listeners, served)
            ),
        )


def _among(names: tuple[str, ...], served: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in served)
