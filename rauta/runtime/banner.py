"""What the gateway says when it is ready: what listens where, how much it routes, and which tiers serve it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import rauta
from rauta.runtime.about import compiled
from rauta.runtime.log import EventLog

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Listener
    from rauta.runtime.offloading import Offloading


def announce(
    events: EventLog, configuration: Configuration, offloading: Offloading, pids: Sequence[int], source: str
) -> None:
    """Tell that all workers serve: a few lines on a terminal, one event elsewhere. `source`: where it comes from."""
    if events.terminal:
        events.text("\n".join(_lines(configuration, offloading, len(pids), source)))
        return
    events.info(
        "ready",
        f"ready: {', '.join(_url(listener) for listener in configuration.listeners)}",
        version=rauta.__version__,
        compiled=compiled(),
        source=source,
        listeners={listener.name: _url(listener) for listener in configuration.listeners},
        forwarded={listener.name: _forwarded(configuration, listener) for listener in configuration.listeners},
        routes=len(configuration.routes),
        services=len(configuration.services),
        offload=offloading.status(),
        access_log=configuration.access_log.to,
        workers=list(pids),
    )


def _lines(configuration: Configuration, offloading: Offloading, workers: int, source: str) -> Iterator[str]:
    yield f"rauta {rauta.__version__} is ready ({source}). Ctrl-C stops it."
    names = [listener.name for listener in configuration.listeners]
    width = max(len(name) for name in [*names, "programs on" if offloading.interfaces else "access log"])
    for listener in configuration.listeners:
        fields = ", ".join(_forwarded(configuration, listener)) or "none"
        yield f"  {listener.name:<{width}}  {_url(listener)}  (adds to requests: {fields})"
    yield f"  {'routes':<{width}}  {len(configuration.routes)}, services {len(configuration.services)}"
    yield f"  {'offload':<{width}}  {offloading.reason}"
    if offloading.interfaces:
        attached = (f"{name} ({how.hook}, {how.mode})" for name, how in sorted(offloading.interfaces.items()))
        yield f"  {'programs on':<{width}}  {', '.join(attached)}"
    yield f"  {'workers':<{width}}  {workers}, {'compiled' if compiled() else 'plain Python'}"
    log = configuration.access_log
    yield f"  {'access log':<{width}}  " + (log.to if log.to == "off" else f"{log.to}, {log.format.value}")


def _url(listener: Listener) -> str:
    return f"{'http' if listener.tls is None else 'https'}://{listener.address}"


def _forwarded(configuration: Configuration, listener: Listener) -> list[str]:
    return sorted(field.value for field in configuration.forwarded_of(listener))
