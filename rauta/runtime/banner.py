"""What the gateway says when it is ready: what listens where, how much it routes, and which tiers serve it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import rauta
from rauta.proxy.http2.library import library
from rauta.runtime.about import compiled
from rauta.runtime.log import EventLog

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Listener
    from rauta.runtime.offloading import Offloading
    from rauta.runtime.selfsigned import SelfSigned


def announce(
    events: EventLog,
    configuration: Configuration,
    offloading: Offloading,
    pids: Sequence[int],
    source: str,
    self_signed: SelfSigned | None = None,
) -> None:
    """Tell that all workers serve: a few lines on a terminal, one event elsewhere. `source`: where it comes from."""
    if events.terminal:
        events.text("\n".join(_lines(configuration, offloading, len(pids), source, self_signed)))
        return
    events.info(
        "ready",
        f"ready: {', '.join(_url(listener) for listener in configuration.listeners)}",
        version=rauta.__version__,
        compiled=compiled(),
        http2=library(),
        source=source,
        listeners={listener.name: _url(listener) for listener in configuration.listeners},
        forwarded={listener.name: _forwarded(configuration, listener) for listener in configuration.listeners},
        routes=len(configuration.routes),
        services=len(configuration.services),
        offload=offloading.status(),
        access_log=configuration.access_log.to,
        workers=list(pids),
        **({} if self_signed is None else {"self_signed": _self_signed(self_signed)}),
    )


def _lines(
    configuration: Configuration, offloading: Offloading, workers: int, source: str, self_signed: SelfSigned | None
) -> Iterator[str]:
    yield f"rauta {rauta.__version__} is ready ({source}). Ctrl-C stops it."
    names = [listener.name for listener in configuration.listeners]
    titles = [
        "access log",
        *(["programs on"] if offloading.interfaces else []),
        *(["certificate"] if self_signed else []),
    ]
    width = max(len(name) for name in [*names, *titles])
    for listener in configuration.listeners:
        fields = ", ".join(_forwarded(configuration, listener)) or "none"
        yield f"  {listener.name:<{width}}  {_url(listener)}  (adds to requests: {fields})"
    if self_signed is not None:
        facts, file = self_signed.pair.facts, self_signed.file
        until = time.strftime("%Y-%m-%d", time.gmtime(facts.not_after))
        where = "in memory only" if file is None else f"in {file}"
        yield f"  {'certificate':<{width}}  self-signed, {where}, until {until}, for {', '.join(facts.names)}"
        yield f"  {'SHA-256':<{width}}  {facts.fingerprint}"
    yield f"  {'routes':<{width}}  {len(configuration.routes)}, services {len(configuration.services)}"
    yield f"  {'offload':<{width}}  {offloading.reason}"
    if offloading.interfaces:
        attached = (f"{name} ({how.hook}, {how.mode})" for name, how in sorted(offloading.interfaces.items()))
        yield f"  {'programs on':<{width}}  {', '.join(attached)}"
    yield f"  {'workers':<{width}}  {workers}, {'compiled' if compiled() else 'plain Python'}, HTTP/2 by {library()}"
    log = configuration.access_log
    yield f"  {'access log':<{width}}  " + (log.to if log.to == "off" else f"{log.to}, {log.format.value}")


def _self_signed(made: SelfSigned) -> dict[str, Any]:
    facts = made.pair.facts
    return {
        "fingerprint": facts.fingerprint,
        "names": list(facts.names),
        "not_after": facts.not_after,
        "file": None if made.file is None else str(made.file),
    }


def _url(listener: Listener) -> str:
    return f"{listener.scheme}://{listener.address}"


def _forwarded(configuration: Configuration, listener: Listener) -> list[str]:
    return sorted(field.value for field in configuration.forwarded_of(listener))
