"""A gateway on the program's event loop: one worker's data plane, with what the agent does for workers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from rauta.embed.errors import GatewayError
from rauta.embed.events import LoggedEvents
from rauta.embed.parts import Parts, Sockets, build
from rauta.embed.stats import Counts, GatewayStats, backends_of
from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.dataplane import DataPlane, Endpoint
from rauta.routing.model import Configuration
from rauta.routing.table import Table
from rauta.runtime import sockets as listening
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.agent.names import Names
from rauta.runtime.errors import StartError
from rauta.runtime.logfile import LogFile

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.routing.settings import AccessLog, Address, Listener

Opened = Mapping["Address", tuple[socket.socket, ...]]


class InLoop:
    """What an open gateway consists of. `sockets` are given ones (None: the gateway binds its own)."""

    alive: Final = True

    def __init__(self, parts: Parts, log: AccessLogWriter | None, sockets: Sockets | None) -> None:
        loop, events = asyncio.get_running_loop(), LoggedEvents()
        contexts = {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts
        self.counts = Counts()
        self.plane = DataPlane(
            parts.table, loop=loop, access_log=log, metrics=self.counts.metrics, backend_contexts=contexts
        )
        self.configuration = parts.configuration
        self.tls_to_backends = parts.tls_to_backends
        self.health = HealthChecks(loop, self.plane.set_down, events)
        self.names = Names(loop, self.plane.set_names, events)
        self._log = log
        self._sockets = sockets
        self._cut = False  # whether something was

    @classmethod
    async def open(cls, source: Configuration | Table, sockets: Sockets | None) -> Self:
        """Serve it. Raises RautaError (ApplicationError among them); then it may be tried again."""
        parts = await asyncio.to_thread(build, source, _served(source, sockets), None)
        log = running = None
        opened: Opened = {}
        try:
            listeners = parts.configuration.listeners
            if sockets is None:
                opened = _bind(listeners)
            else:
                opened = {listener.address: tuple(sockets.get(listener.name, ())) for listener in listeners}
            log = _access_log(parts.configuration.access_log)
            running = cls(parts, log, sockets)
            await running.plane.prepare(parts.table)
            for endpoint in _endpoints(parts, opened):
                await running.plane.open(endpoint)
        except BaseException:
            if running is not None:
                await running.plane.drain(0)
            _close_all(opened)
            if log is not None:
                log.release()
            parts.table.close()
            raise
        running._watch(parts)
        return running

    def dispatcher_of(self, name: str) -> Dispatcher:
        """Of a listener."""
        (address,) = (known.address for known in self.configuration.listeners if known.name == name)
        return self.plane.dispatcher_of(address)

    async def apply(self, source: Configuration | Table) -> None:
        """Serve this from now on. Raises RautaError; then nothing has changed."""
        parts = await asyncio.to_thread(build, source, _served(source, self._sockets), self.tls_to_backends)
        try:
            old = await self._change(parts)
        except BaseException:
            parts.table.close()
            raise
        if old is not None:
            await asyncio.to_thread(old.release)

    def stats(self, *, draining: bool) -> GatewayStats:
        """What there is now, and what was counted."""
        return GatewayStats(
            connections=self.plane.open_connections,
            in_flight=self.plane.in_flight,
            draining=draining,
            loop_lag=self.plane.loop_lag,
            requests=self.counts.requests(),
            backends=backends_of(self.configuration, self.plane, self.health),
        )

    def check(self) -> None:
        """See Processes: this one ends with the program."""

    def drain(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Accept no more from now on. What is returned waits for the rest: whether all ended in that time."""
        self.plane.stop()
        return self._drain(seconds)

    def cut(self) -> None:
        """End at once what is in flight, while it drains."""
        for connection in self.plane.connections:
            self._cut = True
            connection.kill()

    async def close(self) -> None:
        """Let go of everything, after it is drained."""
        self.plane.close()
        if self._log is not None:
            await asyncio.to_thread(self._log.release)
        if self._sockets is None:
            _remove_files(self.configuration.listeners)

    def _watch(self, parts: Parts) -> None:
        """Check the backends of this configuration, and look their names up."""
        self.health.update(parts.configuration, {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts)
        self.names.update(parts.configuration)

    async def _drain(self, seconds: float) -> bool:
        in_time = await self.plane.drain(seconds)
        await self.health.close()
        await self.names.close()
        return in_time and not self._cut

    async def _change(self, parts: Parts) -> AccessLogWriter | None:
        """The access log that is to be closed, if any."""
        before, after = self.configuration, parts.configuration
        known = {listener.address for listener in before.listeners}
        added = [listener for listener in after.listeners if listener.address not in known]
        opened = _bind(added, held=known) if added and self._sockets is None else {}
        new_log = self._log
        try:
            if after.access_log != before.access_log:
                new_log = _access_log(after.access_log)
            contexts = {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts
            await self.plane.swap(parts.table, _endpoints(parts, opened), contexts)
        except BaseException as error:
            _close_all(opened)
            if new_log is not None and new_log is not self._log:
                new_log.release()
            if isinstance(error, OSError):
                raise GatewayError(f"a new listener cannot be served: {error}") from error
            raise
        self.configuration, self.tls_to_backends = after, parts.tls_to_backends
        self._watch(parts)
        if self._sockets is None:
            kept = {listener.address for listener in after.listeners}
            _remove_files([listener for listener in before.listeners if listener.address not in kept])
        old, self._log = self._log, new_log
        if old is new_log:
            return None
        self.plane.set_access_log(new_log)
        return old


def _served(source: Configuration | Table, sockets: Sockets | None) -> list[str]:
    """The listeners that have connections of their own."""
    if sockets is not None:
        return list(sockets)
    configuration = source.configuration if isinstance(source, Table) else source
    return [listener.name for listener in configuration.listeners]


def _bind(listeners: Sequence[Listener], held: Collection[Address] = ()) -> dict[Address, tuple[socket.socket, ...]]:
    """Sockets for these listeners. Raises GatewayError."""
    groups: list[listening.SlotSockets] = []
    try:
        groups = listening.bind(listeners, 1, held=held)
        listening.listen(groups)
    except StartError as error:
        listening.close(groups)
        raise GatewayError(str(error)) from error
    return groups[0]


def _endpoints(parts: Parts, opened: Opened) -> list[Endpoint]:
    return [
        Endpoint(
            listener=listener, sockets=opened.get(listener.address, ()), contexts=parts.contexts.get(listener.name)
        )
        for listener in parts.configuration.listeners
    ]


def _access_log(settings: AccessLog) -> AccessLogWriter | None:
    """Raises GatewayError."""
    try:
        fd = LogFile.of(settings).fd
    except OSError as error:
        raise GatewayError(f"access_log: cannot open {settings.to}: {error.strerror}") from error
    return None if fd is None else AccessLogWriter(fd, settings.format)


def _close_all(opened: Opened) -> None:
    for sock in (sock for group in opened.values() for sock in group):
        listening.close_one(sock)


def _remove_files(listeners: Sequence[Listener]) -> None:
    """Of unix sockets: the servers that listened there are closed."""
    for listener in listeners:
        if listener.address.path is not None:
            with contextlib.suppress(OSError):
                Path(listener.address.path).unlink()
