"""TLS that goes through: a client's connection and one to a backend, and bytes between them, both ways.

The backend is connected first; until then the client's bytes wait in the kernel, the ClientHello among them. Either
side may end its stream while the other goes on; a reset of one is a reset of the other. What waits to be written to one
side is bounded, by pausing the other.
"""

from __future__ import annotations

import asyncio
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Final, cast

from rauta.proxy import proxyprotocol
from rauta.proxy.accesslog import Entry
from rauta.proxy.connecting import ConnectError
from rauta.proxy.flow import HIGH_WATER, LOW_WATER, PEER_BLOCKED, ReadGate
from rauta.proxy.http1.handover import reset_on_close
from rauta.proxy.reasons import REASONS
from rauta.proxy.wheel import Expiring
from rauta.routing.defaults import CONNECT_ATTEMPTS
from rauta.routing.errors import RautaError

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.pool import BackendPool
    from rauta.proxy.proxyprotocol import Origin, Peer
    from rauta.proxy.shared import Shared
    from rauta.routing.services import Service

_DONE: Final = 200  # the status of one that ended in order, as nginx has it


class _End(asyncio.Protocol):
    """One side. `count` are the bytes that came from it."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._gate: ReadGate | None = None
        self._early: list[bytes] = []  # of a backend that speaks first, before the client's side is there
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self.count = 0
        self.ended = False  # no more comes from it
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = made = cast("asyncio.Transport", transport)  # uvloop's are no instances of it
        made.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._gate = ReadGate(made)
        if self.other is None:
            self._gate.close(PEER_BLOCKED)

    def join(self, other: _End) -> None:
        """Bytes go to the other one from now on."""
        self.other = other
        for data in self._early:
            self._write(data)
        self._early.clear()
        if self.ended:
            self._end()
        if self._gate is not None:
            self._gate.open(PEER_BLOCKED)

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        if self.other is None:
            self._early.append(data)
        else:
            self._tunnel.moved()
            self._write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is not None:
            self._end()
        return True  # the other way goes on

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.pause()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._tunnel.lost(self)

    def pause(self) -> None:
        """Take nothing more for now: the other side does not."""
        if self._gate is not None and not self.ended:
            self._gate.close(PEER_BLOCKED)

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._gate is not None and not self.ended:
            self._gate.open(PEER_BLOCKED)

    def reset(self) -> None:
        """Cut it, in a way that its peer can tell from an end."""
        if self.transport is not None and not self.lost:
            reset_on_close(self.transport)
            self.transport.abort()

    def _write(self, data: bytes) -> None:
        other = self.other
        if other is not None and other.transport is not None and not other.lost:
            other.transport.write(data)

    def _end(self) -> None:
        other = self.other
        if other is None or other.transport is None or other.lost:
            return
        if other.ended:  # both have: what is on its way is still delivered
            other.transport.close()
            if self.transport is not None:
                self.transport.close()
        else:
            other.transport.write_eof()


class Tunnel(Expiring):
    """One connection that goes through. Among its listener's connections from `begin` to its end."""

    def __init__(
        self, dispatcher: Dispatcher, shared: Shared, sock: socket.socket, client: Peer, origin: Origin | None,
        name: str, service: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self._dispatcher = dispatcher
        self._shared = shared
        self._sock = sock
        self._peer = client
        self._local = _local_address(sock) if origin is None else origin.local
        self._name = name
        self._service = service
        self._client = _End(self)
        self._backend = _End(self)
        self._pool: BackendPool | None = None
        self._tried: str | None = None  # the backend, by name
        self._attempts = 0
        self._idle = 0.0
        self._task: asyncio.Task[None] | None = None
        self._attached = False  # the client's socket belongs to a transport
        self._finished = False
        self._since = perf_counter()
        self._connected = 0.0

    def begin(self) -> None:
        """Connect a backend, then the two."""
        self._dispatcher.connections.add(self)
        self._task = self._shared.tasks.start(self._connect(), name=f"tunnel to {self._service}")
        self._task.add_done_callback(self._begun)

    # --- FromClient ---

    def drain(self, grace: float) -> None:
        """Nobody knows when it could end; it has until the time to drain is over."""

    def kill(self) -> None:
        """The time to drain is over."""
        self._cut("draining", None)

    # --- wheel.Expiring ---

    def expired(self) -> None:
        self._cut("tunnel_idle", f"nothing came through for {self._idle:g} s")

    # --- from the two ends ---

    def moved(self) -> None:
        """Something has come."""
        self._dispatcher.wheel.arm(self, self._idle)

    def lost(self, end: _End) -> None:
        """One end is gone."""
        if end is self._backend and self._pool is not None:
            self._pool.hang_up()
        if self._finished or end not in (self._client, self._backend):
            return
        if self._client.ended and self._backend.ended:
            if self._client.lost and self._backend.lost:
                self._finish(None, None)
        elif end is self._client:
            # No failure: many clients of TLS leave like that, with tickets unread (a close is a reset then).
            self._cut(None, "the client reset the connection")
        elif self._pool is not None:
            self._cut("upstream_reset", f"{self._pool.name}: the connection was reset")

    # --- the way there ---

    async def _connect(self) -> None:
        generation = self._dispatcher.generation
        table, usable = generation.table, generation.usable(self._service)
        service = next((one for one in table.configuration.services if one.name == self._service), None)
        if service is None:  # a reload has taken it meanwhile
            self._cut("no_backend", None)
            return
        self._idle = service.timeouts.idle
        group = self._shared.pools.of(service)
        try:
            chosen = table.pick(service, self._peer, group.load, usable, stream=False)
            if chosen is None:
                self._cut("no_backend", None)
                return
            pools = [group.of(one) for one in (service.backends if usable is None else usable) if one.weight]
            await self._reach(service, group.of(chosen), pools)
        except RautaError as error:
            self._cut("plugin_error", str(error))
            return
        except ConnectError as error:
            self._cut(error.reason, str(error))
            return
        self._connected = perf_counter()
        self._attached = True
        await self._dispatcher.loop.connect_accepted_socket(lambda: self._client, self._sock)
        if self._finished:
            self._client.reset()
            return
        self.moved()
        self._client.join(self._backend)
        self._backend.join(self._client)

    async def _reach(self, service: Service, pool: BackendPool, others: list[BackendPool]) -> None:
        """Connect the backend that was chosen, or else others, three in all; as requests that no connection took.
        Raises ConnectError, the last one."""
        preamble = b""
        if service.proxy_protocol is not None:
            preamble = proxyprotocol.encode(service.proxy_protocol, self._peer, self._local)
        left = [other for other in others if other is not pool]
        while True:
            self._attempts += 1
            self._tried = pool.name
            end = self._backend = _End(self)
            try:
                await pool.dial(lambda end=end: end, service, preamble)  # type: ignore[misc]  # mypy has no type for it
            except ConnectError:
                if not left or self._attempts >= CONNECT_ATTEMPTS:
                    raise
                pool = min(left, key=lambda one: one.in_flight)
                left.remove(pool)
                continue
            if end.lost:  # before this task's turn came
                pool.hang_up()
                raise ConnectError("upstream_reset", f"{pool.name}: connection closed as soon as it was made")
            self._pool = pool
            return

    def _begun(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a defect, or out of descriptors
            self._cut("internal_error", repr(error))
        if error is not None or not self._attached:
            self._sock.close()

    # --- the end ---

    def _cut(self, reason: str | None, detail: str | None) -> None:
        if self._finished:
            return
        self._finish(reason, detail)
        if self._task is not None and not self._attached:
            self._task.cancel()
        self._client.reset()
        self._backend.reset()

    def _finish(self, reason: str | None, detail: str | None) -> None:
        self._finished = True
        dispatcher = self._dispatcher
        dispatcher.wheel.forget(self)
        dispatcher.connections.discard(self)
        sent, received = self._backend.count, self._client.count
        if dispatcher.metrics is not None:
            dispatcher.metrics.tunnel(dispatcher.listener.name, self._service, sent, received, reason)
        if dispatcher.log is not None:
            dispatcher.log.write(
                Entry(
                    client=self._peer[0],
                    status=_DONE if reason is None else REASONS[reason].status,
                    listener=dispatcher.listener.name,
                    bytes_sent=sent,
                    host=self._name or None,
                    service=self._service,
                    backend=self._tried,
                    duration=perf_counter() - self._since,
                    reason=reason,
                    detail=detail,
                    connect=self._connected - self._since if self._connected else None,
                    received=received,
                    attempts=self._attempts,
                )
            )


def _local_address(sock: socket.socket) -> Peer:
    try:
        local = sock.getsockname()
    except OSError:
        return "", 0
    return (str(local[0]), int(local[1])) if isinstance(local, tuple) else ("", 0)
