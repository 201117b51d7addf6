"""A reload, in a worker: build a generation beside the one that is served, then change over, or forget it.

Building takes up to a second (10,000 routes), so it runs in a thread. That competes with the loop for the
interpreter; a short switch interval keeps what the loop waits for it short.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.asgi.applications import ApplicationError
from rauta.proxy.dataplane import DataPlane, Endpoint
from rauta.routing.errors import RautaError
from rauta.routing.settings import Address, LogFormat
from rauta.routing.table import Table
from rauta.runtime.backend_credentials import tls_to_backends_of
from rauta.runtime.control import Applied, Apply, Built, Channel, Drop, change_of, unpack
from rauta.runtime.memory import give_back
from rauta.runtime.passing import receive_descriptors
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    from rauta.proxy.tls import ServerContexts
    from rauta.routing.settings import Listener
    from rauta.runtime.backend_tls import TlsToBackends
    from rauta.runtime.credentials import Credentials

SWITCH_INTERVAL: Final = 0.0005  # seconds, while building; 5 ms by default


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a change is made of, built."""

    number: int
    table: Table
    endpoints: tuple[Endpoint, ...]
    access_log: int | None
    log_format: LogFormat
    logs: bool  # whether there is an access log at all
    tls_to_backends: TlsToBackends | None


def contexts_of(listener: Listener, credentials: Credentials) -> ServerContexts | None:
    """The TLS contexts of a listener; None for plain HTTP. Raises StartError."""
    if listener.tls is None:
        return None
    from rauta.runtime.tls import server_contexts  # OpenSSL's tables: only where TLS is served

    return server_contexts(listener.tls, credentials[listener.name], listener=listener.name)


class Changes:
    """Takes a worker from one generation to the next."""

    __slots__ = ("_channel", "_tls_to_backends", "_dropped", "_loop", "_next", "_passing", "_plane", "_tasks", "log")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plane: DataPlane,
        channel: Channel,
        passing: socket.socket,
        log: AccessLogWriter | None,
        tls_to_backends: TlsToBackends | None = None,
    ) -> None:
        self._loop = loop
        self._tls_to_backends = tls_to_backends
        self._plane = plane
        self._channel = channel
        self._passing = passing
        self._tasks = Tasks(loop)
        self._next: Generation | None = None
        self._dropped = 0  # the last generation that is not wanted any more, which may still be being built
        self.log = log  # the access log in use

    # --- told by the supervisor ---

    def change(self, payload: bytes) -> None:
        """A pickled Change: build it, and say whether it can be served."""
        self._tasks.start(self._prepare(payload), name="build a generation")

    def apply(self, message: Apply) -> None:
        """Serve what has been built."""
        ready, self._next = self._next, None
        if ready is not None and ready.number == message.generation:
            self._tasks.start(self._swap(ready), name=f"apply generation {ready.number}")

    def drop(self, message: Drop) -> None:
        """Forget what has been built, or is."""
        self._dropped = message.generation
        ready = self._next
        if ready is not None and ready.number == message.generation:
            self._next = None
            self._plane.forget()
            _close(ready)

    def reopen(self) -> None:
        """Log to the descriptor that has been sent, in the same form."""
        (fd,) = receive_descriptors(self._passing, 1)
        if self.log is None:
            os.close(fd)
        else:
            self.log.reopen(fd)

    async def end(self) -> None:
        """Nothing is changed any more."""
        await self._tasks.cancel()
        if self._next is not None:
            _close(self._next)
            self._next = None

    # --- at work ---

    async def _prepare(self, payload: bytes) -> None:
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        # What is built lives as long as the generation: no collection walks it, now (10,000 routes: stalls of 60 ms
        # instead of 25) or later. See decision 043.
        gc.collect()
        gc.disable()
        try:
            built = await asyncio.to_thread(self._build, payload)
            gc.freeze()
        finally:
            gc.enable()
            sys.setswitchinterval(before)
        if isinstance(built, Built):
            self._channel.send(built)
            return
        try:
            await self._plane.prepare(built.table)
        except ApplicationError as error:
            _close(built)
            self._channel.send(Built(built.number, "", error.routes))
            return
        if built.number <= self._dropped:
            _close(built)
            return
        if self._next is not None:
            _close(self._next)  # the supervisor has given up on it without a word
        self._next = built
        self._channel.send(Built(built.number, ""))

    def _build(self, payload: bytes) -> Generation | Built:
        """In a thread."""
        change = change_of(payload)
        fds = receive_descriptors(self._passing, len(change.opened) + change.access_log)
        log_fd = fds.pop() if change.access_log else None
        opened = {address: socket.socket(fileno=fd) for address, fd in zip(change.opened, fds, strict=True)}
        table = None
        try:
            configuration = unpack(change.configuration)
            table = Table(configuration)
            endpoints = tuple(
                Endpoint(
                    listener=listener,
                    sockets=_given(opened, listener.address),
                    contexts=contexts_of(listener, change.credentials),
                )
                for listener in configuration.listeners
            )
            clients = tls_to_backends_of(configuration, change.backend_credentials, self._tls_to_backends)
        except Exception as error:  # noqa: BLE001 - plugins are foreign code; whatever it is, this generation is not served
            if table is not None:
                table.close()
            for sock in opened.values():
                sock.close()
            if log_fd is not None:
                os.close(log_fd)
            return Built(change.generation, str(error) if isinstance(error, RautaError) else repr(error))
        return Generation(
            number=change.generation,
            table=table,
            endpoints=endpoints,
            access_log=log_fd,
            log_format=configuration.access_log.format,
            logs=configuration.access_log.to != "off",
            tls_to_backends=clients,
        )

    async def _swap(self, ready: Generation) -> None:
        try:
            contexts = None if ready.tls_to_backends is None else ready.tls_to_backends.contexts
            await self._plane.swap(ready.table, ready.endpoints, contexts)
        except OSError as error:  # out of descriptors: this worker leaves, and its successor starts with the generation
            self._loop.call_exception_handler(
                {"message": f"generation {ready.number} cannot be served by this worker", "exception": error}
            )
            _close(ready)
            signal.raise_signal(signal.SIGTERM)
            return
        self._tls_to_backends = ready.tls_to_backends
        old = self.log
        if ready.access_log is not None:
            self.log = AccessLogWriter(ready.access_log, ready.log_format)
        elif not ready.logs:
            self.log = None
        if self.log is not old:
            self._plane.set_access_log(self.log)
            if old is not None:
                await asyncio.to_thread(old.release)
        self._channel.send(Applied(ready.number))
        await asyncio.to_thread(give_back)  # the generation before is gone, but for what open connections hold


def _given(opened: dict[Address, socket.socket], address: Address) -> tuple[socket.socket, ...]:
    sock = opened.get(address)
    return () if sock is None else (sock,)


def _close(ready: Generation) -> None:
    ready.table.close()
    for endpoint in ready.endpoints:
        for sock in endpoint.sockets:
            sock.close()
    if ready.access_log is not None:
        os.close(ready.access_log)
