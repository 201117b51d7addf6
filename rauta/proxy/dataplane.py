"""The data plane of one worker: sockets in, exchanges, drain."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from typing import Final

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.clock import Clock
from rauta.proxy.dispatch import Dispatcher
from rauta.proxy.handshake import PLAIN_HTTP, observe
from rauta.proxy.http1.server import ServerConnection
from rauta.proxy.pool import Pools
from rauta.proxy.tasks import Tasks
from rauta.proxy.wheel import Wheel
from rauta.routing.settings import Listener
from rauta.routing.table import Table

# Connections that wait to be accepted. The kernel bounds it by net.core.somaxconn (4096 by default).
BACKLOG: Final = 4096
# While draining, idle connections are kept for that long: a request that its client has sent already arrives within
# a round trip and is answered. Costs this much of a restart, if there are idle connections at all.
DRAIN_GRACE: Final = 0.5


class DataPlane:
    """Serves listeners with one table. The table and the access log stay their owner's."""

    def __init__(self, table: Table, *, loop: asyncio.AbstractEventLoop, access_log: AccessLogWriter | None) -> None:
        self._table = table
        self._loop = loop
        self._log = access_log
        self._clock = Clock()
        self._wheel = Wheel(loop)
        self._tasks = Tasks(loop)
        self._pools = Pools(loop, self._wheel, self._tasks)
        self._servers: list[asyncio.Server] = []
        self._connections: set[ServerConnection] = set()
        self._log_failed = False
        if access_log is not None:
            self._wheel.each_tick.append(self._tick_log)

    @property
    def open_connections(self) -> int:
        """Connections from clients."""
        return len(self._connections)

    async def serve(self, listener: Listener, sock: socket.socket, *, ssl: tls.SSLContext | None = None) -> None:
        """Accept clients on a bound socket. The socket is closed by `drain`. Raises OSError."""
        dispatcher = Dispatcher(
            listener,
            self._table,
            loop=self._loop,
            pools=self._pools,
            wheel=self._wheel,
            clock=self._clock,
            log=self._log,
        )
        scheme = "http" if ssl is None else "https"
        handshake = None if ssl is None else listener.timeouts.head
        if ssl is not None:
            observe(ssl, lambda why: _handshake_failed(dispatcher, why))
        server = await self._loop.create_server(
            lambda: ServerConnection(dispatcher, self._connections, scheme),
            sock=sock,
            ssl=ssl,
            ssl_handshake_timeout=handshake,
            backlog=BACKLOG,
        )
        self._servers.append(server)
        self._wheel.start()

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - what is left at its end is cut, not cancelled
        """Stop accepting, close idle connections after a grace for what is on its way, let exchanges end for up to
        `timeout` seconds, then cut them.

        True if all ended in time. The access log is flushed, not closed.
        """
        for server in self._servers:
            server.close()
        grace = DRAIN_GRACE if timeout >= 2 * DRAIN_GRACE else 0.0
        for connection in list(self._connections):
            connection.drain(grace)
        in_time = await self._all_gone(timeout)
        if not in_time:
            for connection in list(self._connections):
                connection.kill()
            await self._all_gone(1.0)
        self._pools.close()
        await self._tasks.cancel()
        self._wheel.stop()
        if self._log is not None:
            self._log.flush()
        return in_time

    def _tick_log(self) -> None:
        log = self._log
        if log is None:
            return
        log.tick()
        failure = log.failure
        if failure is not None and not self._log_failed:  # told once, until it could be written again
            self._loop.call_exception_handler({"message": "the access log cannot be written", "exception": failure})
        self._log_failed = failure is not None

    async def _all_gone(self, seconds: float) -> bool:
        """Whether all connections end within that time. Looked at in small steps: draining is no hot path, and
        connections need not know who waits for them."""
        deadline = self._loop.time() + seconds
        while self._connections:
            left = deadline - self._loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(0.02, left))
        return True


def _handshake_failed(dispatcher: Dispatcher, why: str) -> None:
    """Log the one failure that is a mistake of people and not a probe. Nobody knows the client here, nor is it
    answered: the loop closes the connection."""
    if why == PLAIN_HTTP:
        dispatcher.refused(("", 0), "plain_on_tls", "the TLS handshake began with an HTTP request")
