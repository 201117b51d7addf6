"""What a supervisor works for and with, besides its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rauta.routing.model import Configuration
from rauta.routing.settings import Address
from rauta.runtime.logfile import LogFile
from rauta.runtime.notify import Notifier
from rauta.runtime.passed import PassedSocket
from rauta.runtime.privileges import Identity
from rauta.runtime.revision import Watch

if TYPE_CHECKING:
    from rauta.runtime.credentials import Credentials, Place
    from rauta.runtime.program import Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the configuration comes from: a name for people; the place of a setting of a listener, service or route in
    it (of the address, without keys); and what reads it anew, in a thread, raising StartError. None: there is no file.
    `warnings` are those of what `load` has read last. `watch` runs while the gateway serves. `credentials` are there
    where no file has them."""

    name: str = ""
    place: Place | None = None
    load: Callable[[], Configuration] | None = None
    warnings: Callable[[], Sequence[str]] = tuple
    watch: Watch | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What of the machine it uses: the access log, whom workers and agent run as (None: the same user), the service
    manager, the program that embeds the gateway (None: nobody does), and the sockets that either of the two lends, by
    the address of their listener."""

    log: LogFile = field(default_factory=lambda: LogFile(None))
    identity: Identity | None = None
    notifier: Notifier = field(default_factory=lambda: Notifier({}))
    lent: Mapping[Address, Sequence[PassedSocket]] = field(default_factory=dict)
    program: Program | None = None
