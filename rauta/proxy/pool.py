"""Connections to backends: kept when idle, taken last in first out, made when there is none.

One BackendPool per worker, address and way of speaking to it (TLS, protocol). It outlives reloads, with its counts and
connections. LIFO keeps few connections busy and lets the others expire.

A backend has at most so many connections (the service's limit); requests beyond wait, in order and up to another
limit, for one that becomes free. Where connections are shared (HTTP/2), one stays among those that can be taken as long
as it has room, and requests that come while one is being made wait for that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Union, cast

from rauta.proxy import proxyprotocol
from rauta.proxy.connecting import ConnectError, Connector
from rauta.proxy.http1.client import ClientConnection
from rauta.proxy.http1.handover import agreed_on
from rauta.proxy.mismatch import doubt
from rauta.proxy.tasks import Tasks
from rauta.proxy.wheel import Expiring, Wheel
from rauta.routing.defaults import POOL_IDLE_TIMEOUT, POOL_MAX_IDLE_PER_BACKEND, POOL_SHARED_IDLE_TIMEOUT
from rauta.routing.services import BackendProtocol, Service, Way
from rauta.routing.settings import Address

if TYPE_CHECKING:
    import ssl

    from rauta.proxy.exchange import Exchange, Upstream
    from rauta.proxy.http2.client import ClientConnection as SharedConnection
    from rauta.proxy.plan import RoutePlan
    from rauta.routing.services import Backend

Connection = Union[ClientConnection, "SharedConnection"]
BackendContexts = Mapping[Way, "ssl.SSLContext"]
"""What TLS towards backends is made with, for each way that has TLS."""

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
    """The connections of one backend. `in_flight` counts exchanges, with those that wait and that still connect; `open`
    connections, with those that are being made; `connects` attempts to make one, which end as `made` or `failures`."""

    __slots__ = (
        "_connector",
        "_idle",
        "_joining",
        "_making",
        "_protocol",
        "_shares",
        "_tasks",
        "_told",
        "_waiting",
        "address",
        "closing",
        "connects",
        "failures",
        "host_name",
        "in_flight",
        "loop",
        "made",
        "name",
        "open",
        "scheme",
        "wheel",
    )

    def __init__(
        self,
        address: Address,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        tasks: Tasks,
        way: Way = (None, BackendProtocol.HTTP1),
    ) -> None:
        tls, self._protocol = way
        self.address = address
        self.scheme = "http" if tls is None else "https"
        self.name = str(address)
        # For requests of clients that named no host (HTTP/1.0). As curl and nginx do for unix sockets.
        self.host_name = self.name if address.path is None else "localhost"
        self.wheel = wheel
        self.in_flight = 0
        self.open = 0
        self.connects = 0
        self.made = 0
        self.failures = 0
        self.closing = False
        self._connector = Connector(address, loop)
        if tls is not None and tls.name is not None:
            self._connector.server_name = tls.name.strip("[]")
        self.loop = loop
        self._tasks = tasks
        # Those that can take a request, in order of their last use; a stack with O(1) removal.
        self._idle: dict[Connection, None] = {}
        self._waiting: dict[Waiter, None] = {}  # in order of their arrival
        self._shares = self._protocol is not BackendProtocol.HTTP1  # as far as is known
        self._told = (0, 0)  # what `uncounted` has told
        self._making = 0  # connections that are being made
        self._joining: list[Exchange] = []  # exchanges that wait for one of these

    @property
    def idle(self) -> int:
        """Connections that nobody uses now."""
        return sum(connection.unused for connection in self._idle)

    def now(self) -> float:
        """The time of the loop, in seconds."""
        return self.loop.time()

    def set_context(self, context: ssl.SSLContext | None) -> None:
        """What new connections are made with. With another one than before, idle connections are closed."""
        if context is not self._connector.context:
            self._connector.context = context
            self._close_idle([*self._idle])

    def uncounted(self) -> tuple[int, int]:
        """Connections that were made, and attempts that failed, since this was asked last."""
        before, self._told = self._told, (self.made, self.failures)
        return self.made - before[0], self.failures - before[1]

    @property
    def waiting(self) -> int:
        """Exchanges that wait for a connection."""
        return len(self._waiting)

    def take(self) -> Upstream | None:
        """The connection that was used last, or None."""
        idle = self._idle
        while idle:
            connection, _ = idle.popitem()
            if not connection.usable:
                if not connection.unused:
                    continue  # its streams bring it back
                connection.close()  # it takes none, or not now
            else:
                if isinstance(connection, ClientConnection):
                    return connection
                if connection.room > 1:
                    self._idle[connection] = None
                return connection.stream()
        return None

    def put(self, connection: Connection) -> None:
        """Keep a connection that has answered a request completely, or close it if there are enough."""
        full = len(self._idle) >= POOL_MAX_IDLE_PER_BACKEND
        if self.closing or connection.single or full or self._outdated(connection):
            connection.close()
            return
        while self._waiting and connection.usable:
            if next(iter(self._waiting)).fresh and isinstance(connection, ClientConnection):
                connection.close()  # `lost` makes a new one in its place
                return
            exchange = self._next_waiting()
            exchange.connected(connection if isinstance(connection, ClientConnection) else connection.stream())
            exchange.request_flush()
        if connection.usable:
            self._keep(connection)

    def _outdated(self, connection: Connection) -> bool:
        """Whether it was made with what counts no more: it was busy when that was changed."""
        return connection.made_with is not self._connector.context

    def _keep(self, connection: Connection) -> None:
        if not isinstance(connection, ClientConnection):
            self._idle[connection] = None
            if connection.unused:
                self.wheel.arm(connection, POOL_SHARED_IDLE_TIMEOUT)
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

    def forget(self, connection: Connection) -> None:
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
        if self._shares and self._making:
            self._joining.append(exchange)
        elif self.open < plan.connections:
            self._start(exchange, plan)
        elif self._shares and (upstream := self.take()) is not None:
            exchange.connected(upstream)
            exchange.request_flush()
        elif len(self._waiting) < plan.waiting:
            waiter = Waiter(self, exchange, plan.connect_timeout, fresh or plan.proxy_protocol is not None)
            self._waiting[waiter] = None
            exchange.waiter = waiter
            self.wheel.arm(waiter, plan.connect_timeout)
        else:
            detail = f"{self.name}: {plan.connections} connections are in use and {plan.waiting} requests wait"
            exchange.connect_failed("upstream_overloaded", detail)

    async def dial(self, protocol: Callable[[], asyncio.Protocol], service: Service, preamble: bytes) -> None:
        """Make a connection for whoever is no exchange (a tunnel): not kept, not waited for, but counted as others;
        `hang_up` when it is gone. Raises ConnectError."""
        most = service.limits.connections
        if self.open >= most:
            raise ConnectError("upstream_overloaded", f"{self.name}: {most} connections are in use")
        self.open += 1
        self.connects += 1
        self.in_flight += 1
        try:
            await self._connector.connect(protocol, service.timeouts.connect, preamble)
        except ConnectError:
            self.failures += 1
            self.hang_up()
            raise
        except BaseException:
            self.hang_up()
            raise
        self.made += 1

    def hang_up(self) -> None:
        """A connection of `dial` is gone."""
        self.in_flight -= 1
        self.lost()

    def leave(self, waiter: Waiter) -> None:
        """It waits no more."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            self.wheel.forget(waiter)
            waiter.exchange.waiter = None

    def speak(self, agreed: str | None) -> Connection | None:
        """A connection of TLS, with what was agreed on; None if that will not do."""
        if agreed == "h2":
            return self._shared()
        return None if self._protocol is BackendProtocol.HTTP2 else ClientConnection(self)

    def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """The literal addresses that the backend's name has now. Idle connections to others are closed."""
        self._connector.addresses = addresses
        self._close_idle([connection for connection in self._idle if connection.peer_host() not in addresses])

    def close(self) -> None:
        """Close what is idle; what is busy closes when its exchange ends."""
        self.closing = True
        self._close_idle([*self._idle])

    def _close_idle(self, connections: list[Connection]) -> None:
        for connection in connections:
            self.forget(connection)
            connection.close()

    def _next_waiting(self) -> Exchange:
        """The exchange that has waited longest, which waits no more. There must be one."""
        waiter = next(iter(self._waiting))
        self.leave(waiter)
        return waiter.exchange

    def _start(self, exchange: Exchange, plan: RoutePlan) -> None:
        self.open += 1
        self.connects += 1
        self._making += 1
        self._tasks.start(self._connect_for(exchange, plan), name=f"connect {self.name}")

    async def _connect_for(self, exchange: Exchange, plan: RoutePlan) -> None:
        made: list[Connection] = []
        preamble = b""
        if plan.proxy_protocol is not None:
            preamble = proxyprotocol.encode(plan.proxy_protocol, exchange.client, exchange.downstream.local_address())
        context = self._connector.context
        try:
            if context is None and self.scheme == "https":
                raise ConnectError("upstream_tls", f"{self.name}: its service is no more, nor what TLS is made with")
            await self._connector.connect(self._factory(made), plan.connect_timeout, preamble)
            if not made:
                raise ConnectError("upstream_tls", f"{self.name}: it does not speak HTTP/2 (ALPN)")
        except ConnectError as error:
            self.failures += 1
            self._give_back(made)
            self._failed([exchange, *self._end_making()], error)
            return
        except BaseException as error:
            joined = self._end_making()
            self._give_back(made)
            if isinstance(error, Exception):  # a defect: told by the task, and nobody is left waiting
                self._failed([exchange, *joined], ConnectError("internal_error", repr(error)))
            raise
        self.made += 1
        connection = made[-1]
        connection.made_with = context
        connection.single = plan.proxy_protocol is not None  # nobody else's requests may go over it
        self._shares = not isinstance(connection, ClientConnection)
        exchanges = [exchange, *self._end_making()]
        if connection.usable:
            self._share_out(connection, exchanges)
        else:  # lost before this task's turn came; it will tell nobody any more. Or it takes no requests at all
            connection.close()
            self._failed(exchanges, ConnectError("upstream_reset", f"{self.name}: {self._why_lost(connection)}"))

    def _factory(self, made: list[Connection]) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of a new connection, and notes it in `made`."""

        def make() -> asyncio.Protocol:
            made.append(self._shared() if self._protocol is BackendProtocol.HTTP2 else ClientConnection(self))
            return cast(asyncio.Protocol, made[-1])  # one by its methods

        if self._connector.context is None:
            return make
        return lambda: _Negotiated(self, made)

    def _shared(self) -> SharedConnection:
        from rauta.proxy.http2.client import ClientConnection as SharedConnection  # only where it is spoken

        return SharedConnection(self)

    def _end_making(self) -> list[Exchange]:
        """A connection is made, or not: those that have waited for it."""
        self._making -= 1
        joined, self._joining = self._joining, []
        return joined

    def _failed(self, exchanges: list[Exchange], error: ConnectError) -> None:
        for exchange in exchanges:
            if not exchange.finished:
                exchange.connect_failed(error.reason, str(error))

    def _why_lost(self, connection: Connection) -> str:
        closed = "connection closed as soon as it was made"
        if isinstance(connection, ClientConnection):
            if connection.said and (connection.said.endswith("?") or not connection.single):
                return connection.said
            return (connection.said or closed) + doubt(self.scheme, "http2", proxied=connection.single)
        return closed + doubt(self.scheme, "http1")

    def _share_out(self, connection: Connection, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.finished:  # the client has left meanwhile; the next request may have the connection
                continue
            if connection.usable:
                exchange.connected(connection if isinstance(connection, ClientConnection) else connection.stream())
                exchange.request_flush()
            elif exchange.plan is not None:
                self.connect(exchange, exchange.plan)
        if connection.usable:
            self.put(connection)

    def _give_back(self, made: list[Connection]) -> None:
        """The place of a connection that was not made. One that was made and lost has given it back itself."""
        if not any(connection.made for connection in made):
            self.lost()


class _Negotiated(asyncio.Protocol):
    """A connection of TLS until its handshake is over; then it is known what is spoken on it (ALPN, RFC 7301)."""

    def __init__(self, pool: BackendPool, made: list[Connection]) -> None:
        self._pool = pool
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = self._pool.speak(agreed_on(transport))
        if connection is None:
            cast("asyncio.WriteTransport", transport).abort()  # uvloop's are no instances of it
            return
        self._made.append(connection)
        cast("asyncio.Transport", transport).set_protocol(cast(asyncio.Protocol, connection))
        connection.connection_made(transport)


class ServiceBackends:
    """The backends of one service, as this worker reaches them; by object, since hashing an address costs 0.5 us."""

    __slots__ = ("_found", "_pools", "_way")

    def __init__(self, pools: Pools, way: Way) -> None:
        self._pools = pools
        self._way = way
        # id -> (the object itself, so that the id stays its own, and its pool)
        self._found: dict[int, tuple[Backend, BackendPool]] = {}

    def of(self, backend: Backend) -> BackendPool:
        """The pool of a backend."""
        found = self._found.get(id(backend))
        if found is None:
            found = self._found[id(backend)] = (backend, self._pools.at(backend.address, self._way))
        return found[1]

    def load(self, backend: Backend) -> int:
        """Requests in flight at a backend, for balancers (routing's `Load`)."""
        return self.of(backend).in_flight


class Pools:
    """All backends of a worker."""

    __slots__ = ("_contexts", "_loop", "_names", "_pools", "_tasks", "_wheel")

    def __init__(self, loop: asyncio.AbstractEventLoop, wheel: Wheel, tasks: Tasks) -> None:
        self._loop = loop
        self._wheel = wheel
        self._tasks = tasks
        self._pools: dict[tuple[Address, Way], BackendPool] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._contexts: BackendContexts = {}

    def __iter__(self) -> Iterator[BackendPool]:
        return iter(self._pools.values())

    def of(self, service: Service) -> ServiceBackends:
        """The backends of a service."""
        return ServiceBackends(self, service.way)

    def at(self, address: Address, way: Way) -> BackendPool:
        """The pool of an address that is spoken to in this way."""
        pool = self._pools.get((address, way))
        if pool is None:
            pool = BackendPool(address, self._loop, self._wheel, self._tasks, way)
            pool.set_addresses(self._names.get(address.host, ()))
            pool.set_context(self._contexts.get(way))
            self._pools[address, way] = pool
        return pool

    def set_names(self, host: str, addresses: tuple[str, ...]) -> None:
        """The literal addresses that a name has now."""
        self._names[host] = addresses
        for pool in self:
            if pool.address.host == host:
                pool.set_addresses(addresses)

    def retain(self, services: Iterable[Service], contexts: BackendContexts) -> None:
        """Only the backends of these are used from now on, with these contexts: the pools of others let their
        connections go."""
        self._contexts = contexts
        kept = {(backend.address, service.way) for service in services for backend in service.backends}
        hosts = {address.host for address, _ in kept}
        for key in [key for key in self._pools if key not in kept]:
            self._pools.pop(key).close()
        for (_, way), pool in self._pools.items():
            pool.set_context(contexts.get(way))
        for host in [host for host in self._names if host not in hosts]:
            del self._names[host]

    def close(self) -> None:
        """Close all idle connections."""
        for pool in self:
            pool.close()
