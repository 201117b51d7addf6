"""What serves one address: the loop's own servers or, where connections are looked at first, doors of ours."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from rauta.proxy.arrivals import Door, Stage
from rauta.proxy.dispatch import Dispatcher
from rauta.proxy.handshake import BAD_CERTIFICATE, NO_CERTIFICATE, PLAIN_HTTP, Entry, Handshake
from rauta.proxy.http1.server import ServerConnection
from rauta.proxy.limits import DRAIN_GRACE
from rauta.proxy.reasons import BODIES

if TYPE_CHECKING:
    from rauta.proxy.generation import Generation
    from rauta.proxy.shared import Shared
    from rauta.proxy.tls import ServerContexts
    from rauta.routing.settings import Listener

# Connections that wait to be accepted. The kernel bounds it by net.core.somaxconn (4096 by default).
BACKLOG: Final = 4096

PLAIN, TLS, LOOKED_AT = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A listener with its bound sockets and, for TLS, its contexts. In a swap, no sockets mean those that its address
    has already."""

    listener: Listener
    sockets: Sequence[socket.socket] = ()
    contexts: ServerContexts | None = None

    @property
    def kind(self) -> int:
        """How its connections are accepted."""
        if Stage.wanted(self.listener):
            return LOOKED_AT
        return PLAIN if self.contexts is None else TLS


class _Server(Protocol):
    def close(self) -> None: ...


class Entrance:
    """One address, whatever its listener is from one reload to the next."""

    def __init__(self, endpoint: Endpoint, generation: Generation, shared: Shared) -> None:
        self.dispatcher = Dispatcher(endpoint.listener, generation, shared, endpoint.contexts)
        self._loop = shared.loop
        self._stage = Stage(self.dispatcher, shared)
        self._terms = _terms_of(endpoint)
        self._secure = endpoint.contexts is not None
        self._entry: Entry | None = None  # to TLS
        self._servers: list[_Server] = []
        self._sockets: list[socket.socket] = []  # theirs
        self._next: list[tuple[_Server, socket.socket]] = []  # those of another kind, until the swap
        self._settle(endpoint)

    async def open(self, sock: socket.socket) -> None:
        """Accept at one more socket. Raises OSError."""
        self._servers.append(await self._serve(self._terms, sock))
        self._sockets.append(sock)

    async def prepare(self, endpoint: Endpoint) -> None:
        """Before a swap: where the loop's servers are made for something else (TLS, the time of a handshake), have
        others beside them, on the same sockets. Raises OSError."""
        terms = _terms_of(endpoint)
        if terms == self._terms:
            return
        if endpoint.contexts is not None:
            self._entry = self._entry or self._made(endpoint.contexts)
        for sock in self._sockets:
            other = socket.socket(fileno=os.dup(sock.fileno()))
            try:
                self._next.append((await self._serve(terms, other), other))
            except BaseException:
                other.close()
                raise

    def abandon(self) -> None:
        """There is no swap after all."""
        for server, _ in self._next:
            server.close()
        self._next.clear()

    def swap(self, endpoint: Endpoint, generation: Generation) -> None:
        """Serve it by these. Connections that are open under other terms end as when draining: those of plain HTTP
        where there is TLS now, or of TLS where there is none; and where clients' certificates are to be verified in
        another way, they get 421 until then."""
        rule, secure = self.dispatcher.rule, self._secure
        self.dispatcher.swap(endpoint.listener, generation, endpoint.contexts)
        self._settle(endpoint)
        terms = _terms_of(endpoint)
        if terms != self._terms:
            self._terms = terms
            for server in self._servers:
                server.close()
            self._servers = [server for server, _ in self._next]
            self._sockets = [sock for _, sock in self._next]
            self._next.clear()
        if secure != self._secure or self.dispatcher.rule not in (None, rule):
            for connection in list(self.dispatcher.connections):
                connection.drain(DRAIN_GRACE)

    def close(self) -> None:
        """Accept no more."""
        for server in self._servers:
            server.close()

    def _settle(self, endpoint: Endpoint) -> None:
        self._secure = endpoint.contexts is not None
        if endpoint.contexts is not None:
            if self._entry is None:
                self._entry = self._made(endpoint.contexts)
            self._entry.contexts = endpoint.contexts
        self._stage.swap(endpoint.listener, self._entry if self._secure else None)

    def _made(self, contexts: ServerContexts) -> Entry:
        return Entry(contexts, partial(_handshake_failed, self.dispatcher))

    async def _serve(self, terms: tuple[int, float], sock: socket.socket) -> _Server:
        kind, seconds = terms
        if kind == LOOKED_AT:
            return Door(self._stage, sock, BACKLOG)
        context = self._entry if kind == TLS else None
        timeout = None if context is None else seconds
        create = self._loop.create_unix_server if sock.family == socket.AF_UNIX else self._loop.create_server
        accept = self._accept_plain if context is None else self._accept_tls
        server = await create(
            accept, sock=sock, ssl=context, ssl_handshake_timeout=timeout, backlog=BACKLOG, start_serving=False
        )
        try:
            await server.start_serving()
        except BaseException:  # cancelled, too: nobody else knows it
            server.close()
            raise
        return server

    def _accept_plain(self) -> asyncio.Protocol:
        dispatcher = self.dispatcher
        if dispatcher.full:
            return _Refusal(dispatcher)
        if dispatcher.metrics is not None:
            dispatcher.metrics.accepted(dispatcher.listener.name)
        # One by its methods; it hands over to HTTP/2 where that is spoken.
        return cast(asyncio.Protocol, ServerConnection(dispatcher, dispatcher.connections, "http"))

    def _accept_tls(self) -> asyncio.Protocol:
        dispatcher = self.dispatcher
        if dispatcher.full:
            return _Refusal(dispatcher)
        if dispatcher.metrics is not None:
            dispatcher.metrics.accepted(dispatcher.listener.name)
        handshake = Handshake()
        dispatcher.handshakes.add(handshake)
        return cast(asyncio.Protocol, ServerConnection(dispatcher, dispatcher.connections, "https", handshake))


def _terms_of(endpoint: Endpoint) -> tuple[int, float]:
    """What the loop's server is made for: the kind of its connections, and the time of a TLS handshake."""
    return endpoint.kind, endpoint.listener.timeouts.head if endpoint.kind == TLS else 0.0


class _Refusal(asyncio.Protocol):
    """A connection beyond the listener's limit: closed at once, before any memory goes into it; with TLS, once its
    handshake is over."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._dispatcher.refused(("", 0), "too_many_connections", "the listener's limits.connections is reached")
        cast("asyncio.WriteTransport", transport).abort()  # uvloop's are no instances of it


def _handshake_failed(dispatcher: Dispatcher, why: str, of_certificate: str) -> None:
    """Log the failures that are mistakes of people and no probes. Nobody knows the client here."""
    if why == PLAIN_HTTP:
        detail = "the TLS handshake began with an HTTP request"
        dispatcher.refused(("", 0), "plain_on_tls", detail, bytes_sent=len(BODIES["plain_on_tls"]))
    elif why == NO_CERTIFICATE:
        dispatcher.refused(("", 0), "client_certificate", "the client sent no certificate")
    elif why == BAD_CERTIFICATE:
        dispatcher.refused(("", 0), "client_certificate", f"the client's certificate: {of_certificate}")
