"""The data plane of one worker: sockets in, exchanges, reload, drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.dispatch import Dispatcher
from rauta.proxy.entrances import Endpoint, Entrance
from rauta.proxy.generation import Generation
from rauta.proxy.limits import DRAIN_GRACE
from rauta.proxy.pool import BackendContexts, Pools
from rauta.proxy.shared import Shared
from rauta.proxy.tls import ServerContexts
from rauta.proxy.wheel import TICKS_PER_SECOND
from rauta.routing.model import Asgi
from rauta.routing.settings import Address, Listener
from rauta.routing.table import Table

if TYPE_CHECKING:
    from rauta.proxy.dispatch import FromClient
    from rauta.proxy.metrics import WorkerMetrics

__all__ = ["DRAIN_GRACE", "DataPlane", "Endpoint"]


class DataPlane:
    """Serves listeners with one table at a time. Access log and counters stay their owner's; tables are closed here,
    once nothing uses them."""

    def __init__(
        self,
        table: Table,
        *,
        loop: asyncio.AbstractEventLoop,
        access_log: AccessLogWriter | None,
        metrics: WorkerMetrics | None = None,
        backend_contexts: BackendContexts | None = None,
    ) -> None:
        self._shared = Shared.on(loop, access_log, metrics)
        self.pools.retain(table.configuration.services, backend_contexts or {})
        self._down: dict[str, frozenset[str]] = {}
        self._generation = Generation(table, self._down)
        self._entrances: dict[Address, Entrance] = {}
        self._old: list[Generation] = []  # that still had exchanges when they were replaced
        self._prepared: frozenset[str] = frozenset()  # applications of a table that is to be served
        self._leaving: list[Dispatcher] = []  # of listeners that are no more, while they have connections
        self._draining = False
        self._ticks = 0
        self._log_failed = False
        self._shared.wheel.each_tick.append(self._tick)

    @property
    def pools(self) -> Pools:
        """The backends of this worker."""
        return self._shared.pools

    @property
    def dispatchers(self) -> Iterator[Dispatcher]:
        """One per listener, also of those that are no more and still have connections."""
        yield from (entrance.dispatcher for entrance in self._entrances.values())
        yield from self._leaving

    @property
    def open_connections(self) -> int:
        """Connections from clients."""
        return sum(len(dispatcher.connections) for dispatcher in self.dispatchers)

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet, whichever table has decided them."""
        return self._generation.in_flight + sum(generation.in_flight for generation in self._old)

    @property
    def loop_lag(self) -> float:
        """Seconds by which the loop was late when it was last looked at."""
        return self._shared.wheel.late

    # --- serving ---

    async def serve(self, listener: Listener, sock: socket.socket, *, contexts: ServerContexts | None = None) -> None:
        """Accept clients on one more bound socket of a listener. It is closed by `drain`. Raises OSError."""
        await self.open(Endpoint(listener=listener, sockets=(sock,), contexts=contexts))

    async def open(self, endpoint: Endpoint) -> None:
        """Serve a listener on its sockets; without any, for whoever has connections of its own and asks its dispatcher.
        Raises OSError."""
        await self.prepare(self._generation.table)
        await self._open(endpoint, self._generation)

    def dispatcher_of(self, address: Address) -> Dispatcher:
        """That of the listener at an address. Raises LookupError."""
        return self._entrances[address].dispatcher

    async def prepare(self, table: Table) -> None:
        """Start the applications of a table that is to be served. Raises RautaError (ApplicationError); then those that
        were started are stopped again soon."""
        wanted = _applications_of(table)
        names = self._prepared = frozenset(wanted)
        try:
            await self._shared.applications.start(wanted)
        except BaseException:
            if self._prepared is names:  # else another one is being prepared
                self._prepared = frozenset()
            raise

    def forget(self) -> None:
        """What was prepared is not wanted."""
        self._prepared = frozenset()

    async def swap(
        self, table: Table, endpoints: Iterable[Endpoint], backend_contexts: BackendContexts | None = None
    ) -> None:
        """Serve these listeners by another table.

        From one turn of the loop to the next, every request on every connection obeys it. What is in flight goes on as
        it was decided, and the old table is closed after the last of it. A listener is identified by its address. One
        that is new must have sockets; connections of one that is gone, or that has got or lost TLS, end as when
        draining. Raises OSError; then nothing has changed.
        """
        await self.prepare(table)
        generation = Generation(table, self._down)
        wanted = {endpoint.listener.address: endpoint for endpoint in endpoints}
        opened: list[Address] = []
        try:
            for address, endpoint in wanted.items():
                if address not in self._entrances:
                    opened.append(address)
                    await self._open(endpoint, generation)
                else:
                    await self._entrances[address].prepare(endpoint)
        except BaseException:  # cancelled, too
            for entrance in self._entrances.values():
                entrance.abandon()
            for address in opened:
                self._shut(address)
            raise
        for address, endpoint in wanted.items():
            self._entrances[address].swap(endpoint, generation)
        for address in [address for address in self._entrances if address not in wanted]:
            self._shut(address)
        old, self._generation = self._generation, generation
        self.pools.retain(table.configuration.services, backend_contexts or {})
        self._old = [known for known in (*self._old, old) if known.in_flight]
        self._prepared = frozenset()
        old.retire()

    def set_down(self, service: str, down: frozenset[str]) -> None:
        """These backends of a service (addresses as in the configuration) get no requests; replaces what was said of
        that service before. Requests in flight go on."""
        if down:
            self._down[service] = down
        else:
            self._down.pop(service, None)
        self._generation.set_down(service, down)

    def set_access_log(self, log: AccessLogWriter | None) -> None:
        """Log to this one from now on; the caller flushes and closes the one before."""
        self._shared.log = log
        for dispatcher in self.dispatchers:
            dispatcher.watch(self._shared)

    def set_names(self, host: str, addresses: tuple[str, ...]) -> None:
        """The literal addresses that a backend's name has now."""
        self.pools.set_names(host, addresses)

    # --- the end ---

    def stop(self) -> None:
        """Accept no more; `drain` does the rest."""
        self._draining = True
        for entrance in self._entrances.values():
            entrance.close()

    async def drain(self, timeout: float, *, idle: float = DRAIN_GRACE) -> bool:  # noqa: ASYNC109 - what is left at its
        # end is cut, not cancelled
        """Stop accepting; let exchanges end for up to `timeout` seconds, then cut them. Responses tell their clients
        that the connection ends; idle connections are kept for `idle` seconds, for requests that are on their way.

        True if all ended in time. The access log is flushed, not closed.
        """
        self.stop()
        grace = min(idle, timeout) if timeout >= 2 * DRAIN_GRACE else 0.0
        for connection in self.connections:
            connection.drain(grace)
        in_time = await self._all_gone(timeout)
        if not in_time:
            for connection in self.connections:
                connection.kill()
            await self._all_gone(1.0)
        self.pools.close()
        await self._shared.applications.keep(())
        await self._shared.tasks.cancel()
        self._shared.wheel.stop()
        if self._shared.log is not None:
            self._shared.log.flush()
        return in_time

    def close(self) -> None:
        """Close the table; to be called after `drain`."""
        self._generation.retire()

    async def _all_gone(self, seconds: float) -> bool:
        """Whether all connections end within that time. Looked at in small steps: draining is no hot path, and
        connections need not know who waits for them."""
        deadline = self._shared.loop.time() + seconds
        while self.open_connections:
            left = deadline - self._shared.loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(0.02, left))
        return True

    # --- listeners ---

    async def _open(self, endpoint: Endpoint, generation: Generation) -> None:
        entrance = self._entrances.get(endpoint.listener.address)
        if entrance is None:
            entrance = self._entrances[endpoint.listener.address] = Entrance(endpoint, generation, self._shared)
        for sock in endpoint.sockets:
            await entrance.open(sock)
        self._shared.wheel.start()

    def _shut(self, address: Address) -> None:
        entrance = self._entrances.pop(address)
        entrance.close()
        for connection in list(entrance.dispatcher.connections):
            connection.drain(DRAIN_GRACE)
        self._leaving.append(entrance.dispatcher)

    @property
    def connections(self) -> list[FromClient]:
        """Those from clients, of all listeners."""
        return [connection for dispatcher in self.dispatchers for connection in dispatcher.connections]

    # --- each tick of the wheel ---

    def _tick(self) -> None:
        if self._shared.metrics is not None:
            self._shared.metrics.lag(self._shared.wheel.late)
        if self._shared.log is not None:
            self._tick_log(self._shared.log)
        self._ticks += 1
        if self._ticks >= TICKS_PER_SECOND:
            self._ticks = 0
            if self._old:
                self._old = [generation for generation in self._old if generation.in_flight]
            if len(self._shared.applications) and not self._old and not self._draining:
                self._stop_applications()
            if self._leaving:
                self._leaving = [dispatcher for dispatcher in self._leaving if dispatcher.connections]
            if self._shared.metrics is not None:
                self._shared.metrics.tick(self)

    def _stop_applications(self) -> None:
        """Those that no route has any more."""
        kept = self._prepared.union(_applications_of(self._generation.table))
        if self._shared.applications.has_others(kept):
            self._shared.tasks.start(self._shared.applications.keep(kept), name="stop applications")

    def _tick_log(self, log: AccessLogWriter) -> None:
        log.tick()
        failure = log.failure
        if failure is not None and not self._log_failed:  # told once, until it could be written again
            self._shared.loop.call_exception_handler(
                {"message": "the access log cannot be written", "exception": failure}
            )
        self._log_failed = failure is not None


def _applications_of(table: Table) -> dict[str, str]:
    """Each with the first route that names it."""
    found: dict[str, str] = {}
    for route in table.configuration.routes:
        if isinstance(route.action, Asgi):
            found.setdefault(route.action.app, route.name)
    return found
