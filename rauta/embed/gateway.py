"""A gateway within another program.

    async with Gateway("rauta.yaml") as gateway:    the listeners of the file, served on the running loop
        await gateway.apply("next.yaml")

    app = Gateway("rauta.yaml")                     the same table as an ASGI 3 application; the host has the listeners

Both ways it is one worker's data plane, with what the agent does for workers: health checks, and names of backends
looked up again. There are no processes, no kernel tiers and no admin interface.

    NEW --open--> OPEN --apply--> OPEN --drain--> DRAINED --close--> CLOSED
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rauta.embed.errors import GatewayError
from rauta.embed.events import LoggedEvents
from rauta.embed.parts import Parts, Source, build, configuration_of
from rauta.embed.stats import Counts, GatewayStats, backends_of
from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.asgi.applications import ApplicationError
from rauta.proxy.dataplane import DataPlane, Endpoint
from rauta.routing.model import Configuration
from rauta.runtime import sockets as listening
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.agent.names import Names
from rauta.runtime.errors import StartError
from rauta.runtime.logfile import LogFile

if TYPE_CHECKING:
    from rauta.proxy.asgi.protocol import Receive, Scope, Send
    from rauta.proxy.dispatch import Dispatcher
    from rauta.routing.settings import AccessLog, Address, Listener

Sockets = Mapping[str, Sequence[socket.socket]]
"""Bound sockets by the name of their listener."""

_ONCE: Final = "a gateway is opened once: make another one"
_CLOSED: Final = "the gateway is closed: make another one"
_NOT_OPEN: Final = "the gateway is not open: use `async with`, or an ASGI host with lifespan"


class _Running:
    """What an open gateway consists of."""

    def __init__(self, parts: Parts, loop: asyncio.AbstractEventLoop, log: AccessLogWriter | None) -> None:
        events = LoggedEvents()
        contexts = {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts
        self.counts = Counts()
        self.plane = DataPlane(
            parts.table, loop=loop, access_log=log, metrics=self.counts.metrics, backend_contexts=contexts
        )
        self.configuration = parts.configuration
        self.tls_to_backends = parts.tls_to_backends
        self.log = log
        self.health = HealthChecks(loop, self.plane.set_down, events)
        self.names = Names(loop, self.plane.set_names, events)

    def watch(self, parts: Parts) -> None:
        """Check the backends of this configuration, and look their names up."""
        self.health.update(parts.configuration, {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts)
        self.names.update(parts.configuration)


class Gateway:
    """One table, served on the running loop or for an ASGI host.

    `config` is the path of a file, a Configuration or a Table (which the gateway closes in the end). `listener` names
    the listener whose routes, filters and limits hold for an ASGI host's requests; without it, the only one. `sockets`
    are bound ones by the name of their listener; a listener that is not among them is not bound, and without `sockets`
    all are, at their addresses. Kernel tiers (`offload`) and processes (`workers`) are what the program `rauta` has.

    Raises ConfigError and GatewayError.
    """

    def __init__(
        self,
        config: Source,
        *,
        offload: object | None = None,
        workers: int = 0,
        listener: str | None = None,
        sockets: Sockets | None = None,
    ) -> None:
        if workers:
            raise GatewayError(
                f"workers={workers}: an embedded gateway serves on the loop that it is opened on (workers=0); "
                "for processes, run `rauta`, or let the ASGI host have several"
            )
        if offload is not None:
            raise GatewayError("offload: an embedded gateway has no kernel tiers (offload=None); `rauta` has them")
        self._source: Source = configuration_of(config) if isinstance(config, str | os.PathLike) else config
        self._listener = listener
        self._sockets = sockets
        self._running: _Running | None = None
        self._opened = False
        self._binds = False
        self._draining = False
        self._changing = asyncio.Lock()
        configuration = configuration_of(self._source)
        names = {known.name for known in configuration.listeners}
        for name in (*(() if listener is None else (listener,)), *(sockets or ())):
            if name not in names:
                raise GatewayError(f"there is no listener {name!r}; known: {', '.join(sorted(names))}")

    # --- the native data plane ---

    async def __aenter__(self) -> Self:
        if self._opened:
            raise GatewayError(_ONCE)
        await self._open(bind=self._sockets is None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def apply(self, config: Source) -> None:
        """Serve this from now on. Every request obeys the old or the new table, and none is lost; listeners that are
        gone end their connections as when draining. Raises RautaError; then nothing has changed."""
        async with self._changing:
            running = self._open_one()
            parts = await asyncio.to_thread(build, config, self._served(config), running.tls_to_backends)
            try:
                await self._change(running, parts)
            except BaseException:
                parts.table.close()
                raise

    def stats(self) -> GatewayStats:
        """What there is now, and what was counted. Raises GatewayError if it is not open."""
        running = self._open_one()
        return GatewayStats(
            connections=running.plane.open_connections,
            in_flight=running.plane.in_flight,
            draining=self._draining,
            loop_lag=running.plane.loop_lag,
            requests=running.counts.requests(),
            backends=backends_of(running.configuration, running.plane, running.health),
        )

    async def drain(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - what is left is cut, not cancelled
        """Take no more connections and requests; let what is in flight end for up to `timeout` seconds (None: the
        configuration's), then cut it. Whether all ended in time. The gateway serves nothing afterwards."""
        running = self._open_one()
        self._draining = True
        async with self._changing:
            seconds = running.configuration.shutdown.timeout if timeout is None else timeout
            in_time = await running.plane.drain(seconds)
            await running.health.close()
            await running.names.close()
        return in_time

    async def close(self) -> None:
        """Drain, unless that was done, and let go of everything. Twice is the same as once."""
        if self._running is None:
            return
        if not self._draining:
            await self.drain()
        running, self._running = self._running, None
        running.plane.close()
        if running.log is not None:
            await asyncio.to_thread(running.log.release)
        if self._binds:
            _remove_files(running.configuration.listeners)

    # --- an ASGI application ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. A host that sends no lifespan (or whose application has mounted this one) opens the gateway with its
        first request; whoever wants it drained then calls `close`."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._running is None:
            async with self._changing:
                await self._open(bind=False)
        call: Any
        if kind == "http":
            from rauta.proxy.asgi.server import Call as call  # noqa: N813 - only where there is a host
        elif kind == "websocket":
            call = _socket()
        else:
            raise GatewayError(f"ASGI scope {kind!r}: only http, websocket and lifespan are known")
        await call(self._dispatcher(), scope, receive, send).run(draining=self._draining)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        ours = self._running is None  # else it is open already, and somebody else closes it
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._open(bind=False)
                    self._name()
                except Exception as error:  # noqa: BLE001 - the host is told, whatever it is, and ends
                    await self.close()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if ours:
                    await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _dispatcher(self) -> Dispatcher:
        running = self._open_one()
        name = self._name()
        (address,) = (known.address for known in running.configuration.listeners if known.name == name)
        return running.plane.dispatcher_of(address)

    def _name(self) -> str:
        """The listener of a host's requests."""
        if self._listener is not None:
            return self._listener
        listeners = self._open_one().configuration.listeners
        if len(listeners) != 1:
            names = ", ".join(known.name for known in listeners)
            raise GatewayError(
                f"listener=NAME must say which of the listeners an ASGI host's requests are for: {names}"
            )
        return listeners[0].name

    # --- opening and changing ---

    def _open_one(self) -> _Running:
        if self._running is None:
            raise GatewayError(_CLOSED if self._opened else _NOT_OPEN)
        return self._running

    def _served(self, config: Source) -> list[str]:
        """The listeners that have connections of their own."""
        if not self._binds:
            return list(self._sockets or ())
        return [listener.name for listener in configuration_of(config).listeners]

    async def _open(self, *, bind: bool) -> None:
        """Nothing, if it is open. Raises RautaError; then it may be tried again."""
        if self._running is not None:
            return
        if self._opened:
            raise GatewayError(_CLOSED)
        self._binds = bind
        parts = await asyncio.to_thread(build, self._source, self._served(self._source), None)
        log = running = None
        opened: dict[Address, tuple[socket.socket, ...]] = {}
        try:
            opened = self._bind(parts.configuration.listeners)
            log = _access_log(parts.configuration.access_log)
            running = _Running(parts, asyncio.get_running_loop(), log)
            await running.plane.prepare(parts.table)
            for endpoint in self._endpoints(parts, opened):
                await running.plane.open(endpoint)
        except BaseException as error:
            if running is not None:
                await running.plane.drain(0)
            _close_all(opened)
            if log is not None:
                log.release()
            parts.table.close()
            if isinstance(error, ApplicationError):
                raise GatewayError(str(error)) from error
            raise
        self._running, self._opened = running, True
        running.watch(parts)

    def _bind(self, listeners: Sequence[Listener]) -> dict[Address, tuple[socket.socket, ...]]:
        """Sockets for these listeners: given, bound, or none. Raises GatewayError."""
        if not self._binds:
            given = self._sockets or {}
            return {listener.address: tuple(given.get(listener.name, ())) for listener in listeners}
        held = [] if self._running is None else [known.address for known in self._running.configuration.listeners]
        groups: list[listening.SlotSockets] = []
        try:
            groups = listening.bind(listeners, 1, held=held)
            listening.listen(groups)
        except StartError as error:
            listening.close(groups)
            raise GatewayError(str(error)) from error
        return groups[0]

    def _endpoints(self, parts: Parts, opened: Mapping[Address, tuple[socket.socket, ...]]) -> list[Endpoint]:
        return [
            Endpoint(
                listener=listener,
                sockets=opened.get(listener.address, ()),
                contexts=parts.contexts.get(listener.name),
            )
            for listener in parts.configuration.listeners
        ]

    async def _change(self, running: _Running, parts: Parts) -> None:
        before, after = running.configuration, parts.configuration
        self._check_change(after)
        known = {listener.address for listener in before.listeners}
        added = [listener for listener in after.listeners if listener.address not in known] if self._binds else []
        opened = self._bind(added) if added else {}
        new_log = running.log
        try:
            if after.access_log != before.access_log:
                new_log = _access_log(after.access_log)
            contexts = {} if parts.tls_to_backends is None else parts.tls_to_backends.contexts
            await running.plane.swap(parts.table, self._endpoints(parts, opened), contexts)
        except BaseException as error:
            _close_all(opened)
            if new_log is not None and new_log is not running.log:
                new_log.release()
            if isinstance(error, OSError):
                raise GatewayError(f"a new listener cannot be served: {error}") from error
            if isinstance(error, ApplicationError):
                raise GatewayError(str(error)) from error
            raise
        running.configuration, running.tls_to_backends = after, parts.tls_to_backends
        running.watch(parts)
        if self._binds:
            kept = {listener.address for listener in after.listeners}
            _remove_files([listener for listener in before.listeners if listener.address not in kept])
        old, running.log = running.log, new_log
        if old is not new_log:
            running.plane.set_access_log(new_log)
            if old is not None:
                await asyncio.to_thread(old.release)

    def _check_change(self, after: Configuration) -> None:
        names = {listener.name for listener in after.listeners}
        if self._listener is not None and self._listener not in names:
            raise GatewayError(f"the new configuration has no listener {self._listener!r}")


def _access_log(settings: AccessLog) -> AccessLogWriter | None:
    """Raises GatewayError."""
    try:
        fd = LogFile.of(settings).fd
    except OSError as error:
        raise GatewayError(f"access_log: cannot open {settings.to}: {error.strerror}") from error
    return None if fd is None else AccessLogWriter(fd, settings.format)


def _close_all(opened: Mapping[Address, tuple[socket.socket, ...]]) -> None:
    for sock in (sock for group in opened.values() for sock in group):
        listening.close_one(sock)


def _remove_files(listeners: Sequence[Listener]) -> None:
    """Of unix sockets: the servers that listened there are closed."""
    for listener in listeners:
        if listener.address.path is not None:
            with contextlib.suppress(OSError):
                Path(listener.address.path).unlink()


def _socket() -> Any:
    try:
        from rauta.proxy.asgi.sockets import Socket
    except ImportError:
        raise GatewayError("WebSocket needs the package `websockets`: pip install 'rauta[asgi]'") from None
    return Socket
