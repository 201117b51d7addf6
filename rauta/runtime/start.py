"""From a configuration to a running gateway: the choices and checks that come before the supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.http2.library import library
from rauta.routing.errors import RautaError
from rauta.routing.model import Route
from rauta.routing.services import Service
from rauta.routing.settings import Listener
from rauta.runtime import offloading
from rauta.runtime.activation import lent_sockets
from rauta.runtime.banner import announce
from rauta.runtime.credentials import Held
from rauta.runtime.errors import StartError
from rauta.runtime.host import Host, Provenance
from rauta.runtime.logfile import LogFile
from rauta.runtime.notify import Notifier
from rauta.runtime.offloading import Offloading
from rauta.runtime.resolve import unresolved
from rauta.runtime.supervisor import Supervisor
from rauta.runtime.takeover import Predecessor, door_of
from rauta.runtime.tasks import Tasks
from rauta.runtime.watching import Watching

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.runtime.credentials import Credentials
    from rauta.runtime.log import EventLog
    from rauta.runtime.places import Keys, Place
    from rauta.runtime.privileges import Identity
    from rauta.runtime.program import Program
    from rauta.runtime.revision import Watch
    from rauta.runtime.selfsigned import SelfSigned
    from rauta.runtime.watched import Watched


_SECTIONS: Final[dict[type[Any], str]] = {Listener: "listeners", Service: "services", Route: "routes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A configuration, where it comes from (for people), and the files that it was read from, if any.

    `load` reads it anew, for a reload; it raises StartError. `warnings` tells what is most likely a mistake in what
    was read last, `watched` what the last `load` has looked at, and `watch` runs where nobody watches that.
    `self_signed` is the certificate of the one listener, where it was made for this start.
    """

    configuration: Configuration
    name: str
    files: tuple[Path, ...] = ()
    load: Callable[[], Configuration] | None = None
    warnings: Callable[[], Sequence[str]] = tuple
    watched: Callable[[], Watched] | None = None
    watch: Watch | None = None
    self_signed: SelfSigned | None = None

    def places(self, wanted: Sequence[Keys]) -> list[Place | None]:
        """Where values of it are written down; None: in no file. Blocks, since it reads the files."""
        if not self.files or not wanted:
            return [None] * len(wanted)
        from rauta.runtime.places import places_of

        return [*places_of(self.files, wanted)]

    def at(self, *keys: str | int) -> str:
        """The start of a message about a value: `file:line: `, or nothing."""
        (place,) = self.places([keys])
        return "" if place is None else f"{place}: "


def run(
    source: Source,
    events: EventLog,
    identity: Identity | None = None,
    *,
    takeover: bool = False,
    watch: bool = False,
    program: Program | None = None,
) -> int:
    """Serve until a signal ends it; the exit status. `identity` is whom workers run as; with `takeover`, on the sockets
    of the gateway that runs; with `watch`, whatever the files say from now on; with `program`, until that ends it, and
    on its sockets. Raises StartError."""
    _check_environment()
    configuration = source.configuration
    watching = Watching(source.watched, events) if watch and source.watched is not None else None
    predecessor = _predecessor(source, events) if takeover else None
    listeners = configuration.listeners
    lent = lent_sockets(listeners, events) if program is None else program.lent(listeners)
    with ExitStack() as stack:
        log = _open_access_log(source)
        stack.callback(log.close)
        running = Offloading(configuration, events, place=lambda: source.at("offload", "mode"))
        supervisor = Supervisor(
            configuration,
            events=events,
            host=Host(log=log, identity=identity, notifier=Notifier(), lent=lent, program=program),
            provenance=Provenance(
                name=source.name,
                place=lambda item, *keys: source.at(_SECTIONS[type(item)], item.name, *(keys or ("address",))),
                load=source.load,
                warnings=source.warnings,
                watch=source.watch if watching is None else watching.run,
                credentials=_made_credentials(source),
            ),
            offloading=running,
            predecessor=predecessor,
            on_ready=lambda pids: announce(events, configuration, running, pids, source.name, source.self_signed),
        )
        return asyncio.run(_run(supervisor, source, events))


def check(source: Source) -> str:
    """Build what a worker would build, serve nothing; a line for people. Raises StartError."""
    from rauta.routing.table import Table

    _check_environment()
    configuration = source.configuration
    try:
        offloading.check(configuration.offload)
    except StartError as error:
        raise StartError(f"{source.at('offload', 'mode')}{error}", code=error.code) from None
    try:
        Table(configuration).close()
    except RautaError as error:
        raise StartError(f"{source.name}: {error}") from None
    parts = {"listener": configuration.listeners, "service": configuration.services, "route": configuration.routes}
    counts = (f"{len(found)} {what}{'' if len(found) == 1 else 's'}" for what, found in parts.items())
    return f"{source.name} is good: {', '.join(counts)}"


def _check_environment() -> None:
    try:
        library()
    except ValueError as error:
        raise StartError(str(error)) from None


async def _run(supervisor: Supervisor, source: Source, events: EventLog) -> int:
    tasks = Tasks(asyncio.get_running_loop())
    tasks.start(_check_names(source, events), name="check of the backends' names")
    try:
        return await supervisor.run()
    finally:
        await tasks.cancel()


async def _check_names(source: Source, events: EventLog) -> None:
    findings = await unresolved(source.configuration.services)
    wanted = [("services", finding.service, "backends", finding.position, "address") for finding in findings]
    # In a thread: the file may be long, and the supervisor has workers to look after.
    places = await asyncio.to_thread(source.places, wanted) if findings else []
    for finding, place in zip(findings, places, strict=True):
        where = {} if place is None else {"file": place.file, "line": place.line}
        text = f"{finding}" if place is None else f"{place}: {finding}"
        events.warning("backend_unresolved", text, service=finding.service, host=finding.host, **where)


def _made_credentials(source: Source) -> Credentials | None:
    if source.self_signed is None:
        return None
    return {listener.name: Held((source.self_signed.pair,)) for listener in source.configuration.listeners}


def _predecessor(source: Source, events: EventLog) -> Predecessor | None:
    admin = source.configuration.admin
    if admin is None:
        raise StartError(f"{source.name}: --takeover needs `admin: {{}}`: gateways meet beside its socket")
    door = door_of(admin.socket)
    found = Predecessor.find(door)
    if found is None:
        events.info("takeover_none", f"nobody to take over from at {door}: an ordinary start", door=door)
    return found


def _open_access_log(source: Source) -> LogFile:
    try:
        return LogFile.of(source.configuration.access_log)
    except OSError as error:
        to = source.configuration.access_log.to
        raise StartError(f"{source.at('access_log', 'to')}access_log: cannot open {to}: {error.strerror}") from error
