"""Connections to backends: kept when idle, taken last in first out, made when there is none.

One BackendPool per address and worker. Its identity is the address, so that counts and connections outlive a
reload. LIFO keeps few connections busy and lets the others expire.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from rauta.proxy.http1.client import ClientConnection
from rauta.proxy.tasks import Tasks
from rauta.proxy.wheel import Wheel
from rauta.routing.defaults import POOL_IDLE_TIMEOUT, POOL_MAX_IDLE_PER_BACKEND
from rauta.routing.settings import Address

if TYPE_CHECKING:
    from rauta.proxy.exchange import Exchange
    from rauta.routing.services import Backend


class ConnectError(Exception):
    """No connection could be made; `reason` is a name in `rauta.proxy.reasons`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class BackendPool:
    """The connections of one backend. `in_flight` counts exchanges, with those that still connect."""

    __slots__ = ("_idle", "_loop", "_tasks", "address", "closing", "in_flight", "name", "wheel")

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop, wheel: Wheel, tasks: Tasks) -> None:
        self.address = address
        self.name = str(address)
        self.wheel = wheel
        self.in_flight = 0
        self.closing = False
        self._loop = loop
        self._tasks = tasks
        self._idle: dict[ClientConnection, None] = {}  # in order of their last use; a stack with O(1) removal

    def take(self) -> ClientConnection | None:
        """The idle connection that was used last, or None."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if connection.usable:
                return connection
        return None

    def put(self, connection: ClientConnection) -> None:
        """Keep a connection that has answered its request completely, or close it if there are enough."""
        if self.closing or len(self._idle) >= POOL_MAX_IDLE_PER_BACKEND:
            connection.close()
            return
        self._idle[connection] = None
        self.wheel.arm(connection, POOL_IDLE_TIMEOUT)

    def forget(self, connection: ClientConnection) -> None:
        """That connection is of no more use."""
        self._idle.pop(connection, None)

    def connect(self, exchange: Exchange, timeout: float) -> None:
        """Make a connection and tell the exchange: `connected` or `connect_failed`."""
        self._tasks.start(self._connect_for(exchange, timeout), name=f"connect {self.name}")

    def close(self) -> None:
        """Close what is idle; what is busy closes when its exchange ends."""
        self.closing = True
        while self._idle:
            connection, _ = self._idle.popitem()
            connection.close()

    async def _connect_for(self, exchange: Exchange, seconds: float) -> None:
        try:
            connection = await self._open(seconds)
        except ConnectError as error:
            if not exchange.finished:
                exchange.connect_failed(error.reason, str(error))
            return
        if not connection.usable:  # lost before this task's turn came; it will tell nobody any more
            if not exchange.finished:
                exchange.connect_failed("upstream_reset", f"{self.name}: connection closed as soon as it was made")
        elif exchange.finished:  # the client has left meanwhile; the next request may have the connection
            self.put(connection)
        else:
            exchange.connected(connection)
            exchange.request_flush()

    async def _open(self, seconds: float) -> ClientConnection:
        """Raises ConnectError. Making a connection is rare beside requests, so it may cost a timer."""
        stage = "upstream_dns"
        try:
            async with asyncio.timeout(seconds):
                candidates = [(self.address.host, self.address.port)]
                if self.address.ip is None:
                    candidates = await self._resolve()
                stage = "upstream_connect_timeout"
                return await self._first(candidates)
        except TimeoutError:
            raise ConnectError(stage, f"{self.name}: no connection within {seconds:g} s") from None
        except socket.gaierror as error:
            raise ConnectError("upstream_dns", f"{self.address.host}: {error.strerror or error}") from None
        except ConnectionRefusedError:
            raise ConnectError("upstream_refused", f"{self.name}: connection refused") from None
        except OSError as error:
            raise ConnectError("upstream_unreachable", f"{self.name}: {error.strerror or error}") from None

    async def _resolve(self) -> list[tuple[str, int]]:
        """The addresses of the name, by the loop's resolver threads. Raises gaierror."""
        found = await self._loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        return [(str(sockaddr[0]), int(sockaddr[1])) for *_, sockaddr in found]

    async def _first(self, candidates: list[tuple[str, int]]) -> ClientConnection:
        """The first address that accepts. Raises OSError, that of the last one."""
        failure: OSError = OSError(f"{self.address.host} has no address")
        for host, port in candidates:
            try:
                _, connection = await self._loop.create_connection(lambda: ClientConnection(self), host, port)
                return connection
            except OSError as error:
                failure = error
        raise failure


class Pools:
    """All backends of a worker, by address; by object for the hot path, since hashing an Address costs 0.5 us."""

    __slots__ = ("_by_address", "_by_object", "_loop", "_tasks", "_wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, tasks: Tasks) -> None:
        self._loop = loop
        self._wheel = wheel
        self._tasks = tasks
        self._by_address: dict[Address, BackendPool] = {}
        # id -> (the object itself, so that the id stays its own, and its pool)
        self._by_object: dict[int, tuple[Backend, BackendPool]] = {}

    def of(self, backend: Backend) -> BackendPool:
        """The pool of a backend."""
        found = self._by_object.get(id(backend))
        if found is None:
            pool = self._by_address.get(backend.address)
            if pool is None:
                pool = BackendPool(backend.address, self._loop, self._wheel, self._tasks)
                self._by_address[backend.address] = pool
            found = self._by_object[id(backend)] = (backend, pool)
        return found[1]

    def load(self, backend: Backend) -> int:
        """Requests in flight at a backend, for balancers (routing's `Load`)."""
        return self.of(backend).in_flight

    def close(self) -> None:
        """Close all idle connections."""
        for pool in self._by_address.values():
            pool.close()
