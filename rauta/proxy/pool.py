"""Connections to backends: kept when idle, taken last in first out, made when there is none.

One BackendPool per address and worker. Its identity is the address, so that counts and connections outlive a
reload. LIFO keeps few connections busy and lets the others expire.

A backend has at most so many connections (the service's limit); requests beyond wait, in order and up to another
limit, for one that becomes free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

from rauta.proxy.connecting import ConnectError, Connector
from rauta.proxy.http1.client import ClientConnection
from rauta.proxy.proxyprotocol import header
from rauta.proxy.tasks import Tasks
from rauta.proxy.wheel import Expiring, Wheel
from rauta.routing.defaults import POOL_IDLE_TIMEOUT, POOL_MAX_IDLE_PER_BACKEND
from rauta.routing.settings import Address

if TYPE_CHECKING:
    from rauta.proxy.exchange import Exchange
    from rauta.proxy.plan import RoutePlan
    from rauta.routing.services import Backend

# Seconds before the time at which a backend says that it closes an idle connection; the wheel may be 0.2 s late.
KEPT_MARGIN: Final = 1.0


class Waiter(Expiring):
    """An exchange that waits for a connection; `fresh`: for one that nobody has used before."""

    __slots__ = ("_pool", "_seconds", "exchange", "fresh")

    def __init__(self, pool: BackendPool, exchange: Exchange, seconds: float, fresh: bool) -> None:
        super().__init__()
        self._pool = pool
        self._seconds = seconds
        self.exchange = exchange
        self.fresh = fresh

    def leave(self) -> None:
        """It waits no more; who has left must not keep others out of the queue."""
        self._pool.leave(self)

    def expired(self) -> None:
        """No connection has become free in time."""
        self._pool.leave(self)
        if not self.exchange.finished:
            detail = f"{self._pool.name}: no connection became free within {self._seconds:g} s"
            self.exchange.connect_failed("upstream_overloaded", detail)


class BackendPool:
    """The connections of one backend. `in_flight` counts exchanges, with those that wait and that still connect;
    `open` connections, with those that are being made; `connects` and `failures` attempts to make one."""

    __slots__ = (
        "_connector",
        "_idle",
        "_tasks",
        "_waiting",
        "address",
        "closing",
        "connects",
        "failures",
        "host_name",
        "in_flight",
        "name",
        "open",
        "wheel",
    )

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop, wheel: Wheel, tasks: Tasks) -> None:
        self.address = address
        self.name = str(address)
        # For requests of clients that named no host (HTTP/1.0). As curl and nginx do for unix sockets.
        self.host_name = self.name if address.path is None else "localhost"
        self.wheel = wheel
        self.in_flight = 0
        self.open = 0
        self.connects = 0
        self.failures = 0
        self.closing = False
        self._connector = Connector(address, loop)
        self._tasks = tasks
        self._idle: dict[ClientConnection, None] = {}  # in order of their last use; a stack with O(1) removal
        self._waiting: dict[Waiter, None] = {}  # in order of their arrival

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self._waiting)

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
        if self.closing or connection.single or len(self._idle) >= POOL_MAX_IDLE_PER_BACKEND:
            connection.close()
            return
        if self._waiting:
            if next(iter(self._waiting)).fresh:
                connection.close()  # `lost` makes a new one in its place
                return
            exchange = self._next_waiting()
            exchange.connected(connection)
            exchange.request_flush()
            return
        seconds = POOL_IDLE_TIMEOUT
        if connection.kept_for is not None:
            # Closed before the backend closes it: a request that crosses with that is lost (RFC 9112 9.5).
            seconds = min(seconds, connection.kept_for - KEPT_MARGIN)
            if seconds <= 0:
                connection.close()
                return
        self._idle[connection] = None
        self.wheel.arm(connection, seconds)

    def forget(self, connection: ClientConnection) -> None:
        """That connection is not to be taken any more."""
        self._idle.pop(connection, None)

    def lost(self) -> None:
        """A connection is gone, whatever it was doing: room for one that waits."""
        self.open -= 1
        if self._waiting:
            exchange = self._next_waiting()
            if exchange.plan is not None:
                self._start(exchange, exchange.plan)

    def connect(self, exchange: Exchange, plan: RoutePlan, *, fresh: bool = False) -> None:
        """Get a connection, a new one unless it has to wait, and tell the exchange: `connected` or `connect_failed`,
        which may come at once. `fresh`: one that has been used before will not do, also after waiting."""
        if self.open < plan.connections:
            self._start(exchange, plan)
        elif len(self._waiting) < plan.waiting:
            waiter = Waiter(self, exchange, plan.connect_timeout, fresh or plan.proxy_protocol is not None)
            self._waiting[waiter] = None
            exchange.waiter = waiter
            self.wheel.arm(waiter, plan.connect_timeout)
        else:
            detail = f"{self.name}: {plan.connections} connections are in use and {plan.waiting} requests wait"
            exchange.connect_failed("upstream_overloaded", detail)

    def leave(self, waiter: Waiter) -> None:
        """It waits no more."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            self.wheel.forget(waiter)
            waiter.exchange.waiter = None

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """The literal addresses that the backend's name has now. Idle connections to others are closed."""
        self._connector.addresses = addresses
        for connection in [connection for connection in self._idle if connection.peer_host() not in addresses]:
            self.forget(connection)
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is busy closes when its exchange ends."""
        self.closing = True
        while self._idle:
            connection, _ = self._idle.popitem()
            connection.close()

    def _next_waiting(self) -> Exchange:
        """The exchange that has waited longest, which waits no more. There must be one."""
        waiter = next(iter(self._waiting))
        self.leave(waiter)
        return waiter.exchange

    def _start(self, exchange: Exchange, plan: RoutePlan) -> None:
        self.open += 1
        self.connects += 1
        self._tasks.start(self._connect_for(exchange, plan), name=f"connect {self.name}")

    async def _connect_for(self, exchange: Exchange, plan: RoutePlan) -> None:
        made: list[ClientConnection] = []

        def make() -> ClientConnection:
            made.append(ClientConnection(self))
            return made[-1]

        try:
            connection = await self._connector.connect(make, plan.connect_timeout)
        except ConnectError as error:
            self.failures += 1
            self._give_back(made)
            if not exchange.finished:
                exchange.connect_failed(error.reason, str(error))
            return
        except BaseException:
            self._give_back(made)
            raise
        if plan.proxy_protocol is not None:
            connection.single = True  # also where the client has left before its address was sent: nobody else's may be
        if not connection.usable:  # lost before this task's turn came; it will tell nobody any more
            if not exchange.finished:
                exchange.connect_failed("upstream_reset", f"{self.name}: connection closed as soon as it was made")
        elif exchange.finished:  # the client has left meanwhile; the next request may have the connection
            self.put(connection)
        else:
            if plan.proxy_protocol is not None:
                local = exchange.downstream.local_address()
                connection.send_preamble(header(plan.proxy_protocol, exchange.client, local))
            exchange.connected(connection)
            exchange.request_flush()

    def _give_back(self, made: list[ClientConnection]) -> None:
        """The place of a connection that was not made. One that was made and lost has given it back itself."""
        if not any(connection.made for connection in made):
            self.lost()


class Pools:
    """All backends of a worker, by address; by object for the hot path, since hashing an Address costs 0.5 us."""

    __slots__ = ("_by_address", "_by_object", "_loop", "_names", "_tasks", "_wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, tasks: Tasks) -> None:
        self._loop = loop
        self._wheel = wheel
        self._tasks = tasks
        self._by_address: dict[Address, BackendPool] = {}
        # id -> (the object itself, so that the id stays its own, and its pool)
        self._by_object: dict[int, tuple[Backend, BackendPool]] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def __iter__(self) -> Iterator[BackendPool]:
        return iter(self._by_address.values())

    def of(self, backend: Backend) -> BackendPool:
        """The pool of a backend."""
        found = self._by_object.get(id(backend))
        if found is None:
            pool = self._by_address.get(backend.address)
            if pool is None:
                pool = BackendPool(backend.address, self._loop, self._wheel, self._tasks)
                pool.set_addresses(self._names.get(backend.address.host, ()))
                self._by_address[backend.address] = pool
            found = self._by_object[id(backend)] = (backend, pool)
        return found[1]

    def load(self, backend: Backend) -> int:
        """Requests in flight at a backend, for balancers (routing's `Load`)."""
        return self.of(backend).in_flight

    def set_names(self, host: str, addresses: tuple[str, ...]) -> None:
        """The literal addresses that a name has now."""
        self._names[host] = addresses
        for pool in self:
            if pool.address.host == host:
                pool.set_addresses(addresses)

    def retain(self, backends: Collection[Backend]) -> None:
        """Only these are used from now on: the pools of others let their connections go."""
        self._by_object.clear()
        kept = {backend.address for backend in backends}
        hosts = {address.host for address in kept}
        for address in [address for address in self._by_address if address not in kept]:
            self._by_address.pop(address).close()
        for host in [host for host in self._names if host not in hosts]:
            del self._names[host]

    def close(self) -> None:
        """Close all idle connections."""
        for pool in self:
            pool.close()
