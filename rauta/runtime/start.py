"""From a configuration to a running gateway: the choices and checks that come before the supervisor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rauta.routing.errors import RautaError
from rauta.runtime import offloading as offload
from rauta.runtime.banner import announce
from rauta.runtime.errors import StartError
from rauta.runtime.offloading import Offloading
from rauta.runtime.resolve import unresolved
from rauta.runtime.supervisor import Supervisor
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    from rauta.routing.model import Configuration, Service
    from rauta.runtime.log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A configuration, where it comes from (for people), and where a value of it is written down (None: in no file)."""

    configuration: Configuration
    name: str
    place: Callable[..., str] | None = None

    def at(self, *keys: str) -> str:
        """The start of a message about a value: `file:line: `, or nothing."""
        return "" if self.place is None else f"{self.place(*keys)}: "


def run(source: Source, events: EventLog) -> int:
    """Serve until a signal ends it; the exit status. Raises StartError."""
    configuration = source.configuration
    with ExitStack() as stack:
        with _placed(source, "offload", "mode"):
            offloading = stack.enter_context(Offloading(configuration))

        def on_ready(pids: Sequence[int]) -> None:
            offloading.commit()
            announce(events, configuration, offloading, pids, source.name)

        supervisor = Supervisor(
            configuration,
            events=events,
            access_log=_open_access_log(source, stack),
            place=lambda listener: source.at("listeners", listener.name, "address"),
            on_ready=on_ready,
        )
        return asyncio.run(_run(supervisor, configuration.services, events))


def check(source: Source) -> str:
    """Build what a worker would build, serve nothing; a line for people. Raises StartError."""
    from rauta.routing.table import Table

    configuration = source.configuration
    with _placed(source, "offload", "mode"):
        offload.check(configuration.offload)
    try:
        Table(configuration).close()
    except RautaError as error:
        raise StartError(f"{source.name}: {error}") from None
    parts = {"listener": configuration.listeners, "service": configuration.services, "route": configuration.routes}
    counts = (f"{len(found)} {what}{'' if len(found) == 1 else 's'}" for what, found in parts.items())
    return f"{source.name} is good: {', '.join(counts)}"


@contextmanager
def _placed(source: Source, *keys: str) -> Iterator[None]:
    try:
        yield
    except StartError as error:
        raise StartError(f"{source.at(*keys)}{error}", code=error.code) from None


async def _run(supervisor: Supervisor, services: Sequence[Service], events: EventLog) -> int:
    tasks = Tasks(asyncio.get_running_loop())
    tasks.start(_check_names(services, events), name="check of the backends' names")
    try:
        return await supervisor.run()
    finally:
        await tasks.cancel()


async def _check_names(services: Sequence[Service], events: EventLog) -> None:
    for finding in await unresolved(services):
        events.warning("backend_unresolved", str(finding), service=finding.service, host=finding.host)


def _open_access_log(source: Source, stack: ExitStack) -> int | None:
    """The descriptor for the workers. They get it opened, so that they need no right to open it."""
    settings = source.configuration.access_log
    standard = {"off": None, "stdout": 1, "stderr": 2}
    if settings.to in standard:
        return standard[settings.to]
    try:
        fd = os.open(settings.to, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartError(
            f"{source.at('access_log', 'to')}access_log: cannot open {settings.to}: {error.strerror}"
        ) from error
    stack.callback(os.close, fd)
    return fd
