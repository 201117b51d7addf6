"""What a worker counts, and under which names. The names are public (docs/metrics.md).

No label has a value that clients or backends can choose: hosts are none, and methods and statuses of gRPC beyond the
known ones are `OTHER`.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy import grpc
from rauta.proxy.counters import Column, Kind

if TYPE_CHECKING:
    from rauta.proxy.dataplane import DataPlane
    from rauta.proxy.exchange import Exchange

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})

REQUESTS: Final = "rauta_requests_total"
DURATION: Final = "rauta_request_duration_seconds"
UPSTREAM: Final = "rauta_upstream_response_seconds"
FAILURES: Final = "rauta_failures_total"
GRPC: Final = "rauta_grpc_responses_total"
RETRIES: Final = "rauta_retries_total"
SENT: Final = "rauta_sent_bytes_total"
RECEIVED: Final = "rauta_received_bytes_total"
CONNECTIONS: Final = "rauta_connections_total"
OPEN: Final = "rauta_connections_open"
TUNNELS: Final = "rauta_passthrough_connections_total"
POOL: Final = "rauta_upstream_connections"
WAITING: Final = "rauta_upstream_waiting"
IN_FLIGHT: Final = "rauta_upstream_requests_in_flight"
CONNECTS: Final = "rauta_upstream_connects_total"
LAG: Final = "rauta_loop_lag_seconds"

LABELS: Final[dict[str, tuple[str, ...]]] = {
    REQUESTS: ("listener", "route", "service", "code", "method", "protocol", "tier"),
    DURATION: ("listener", "route", "service"),
    UPSTREAM: ("service",),
    FAILURES: ("listener", "route", "service", "reason"),
    GRPC: ("listener", "route", "service", "status"),
    RETRIES: ("service",),
    SENT: ("listener",),
    RECEIVED: ("listener",),
    CONNECTIONS: ("listener",),
    OPEN: ("listener",),
    TUNNELS: ("listener", "service"),
    POOL: ("backend", "state"),
    WAITING: ("backend",),
    IN_FLIGHT: ("backend",),
    CONNECTS: ("backend", "outcome"),
    LAG: (),
}

HELP: Final[dict[str, str]] = {
    REQUESTS: "Requests that got a response, or whose client left.",
    DURATION: "From the head of a request to the end of its response.",
    UPSTREAM: "From the connection to a backend to the head of its response.",
    FAILURES: "Requests that rauta answered itself or gave up, and why (the reasons of the access log).",
    GRPC: "Responses of gRPC by their status, those of rauta itself included.",
    RETRIES: "Attempts beyond the first to send a request to a backend.",
    SENT: "Bytes of response bodies, and those that went through to clients.",
    RECEIVED: "Bytes of request bodies, and those that went through from clients.",
    CONNECTIONS: "Connections of clients that were accepted.",
    OPEN: "Connections of clients that are open.",
    TUNNELS: "Connections of TLS that went through to a service, and have ended.",
    POOL: "Connections to backends that are open.",
    WAITING: "Requests that wait for a connection to a backend.",
    IN_FLIGHT: "Requests that are with a backend, or on their way to it.",
    CONNECTS: "Attempts to connect to a backend.",
    LAG: "By how much a worker's event loop was late, ten times a second: what blocks it holds every request up.",
}


class _Cells:
    """The cells that one kind of exchange is counted in."""

    __slots__ = ("duration", "received", "requests", "retries", "sent", "upstream")

    def __init__(self, column: Column, exchange: Exchange) -> None:
        listener, route, service = _labels(exchange)
        head = exchange.head
        method = head.method if head.method in METHODS else "OTHER"
        labels = (listener, route, service, str(exchange.status), method, f"HTTP/{head.version}", "3")
        self.requests = column.cell(Kind.COUNTER, REQUESTS, *labels)
        self.duration = column.cell(Kind.HISTOGRAM, DURATION, listener, route, service)
        self.sent = column.cell(Kind.COUNTER, SENT, listener)
        self.received = column.cell(Kind.COUNTER, RECEIVED, listener)
        self.upstream = column.cell(Kind.HISTOGRAM, UPSTREAM, service)
        self.retries = column.cell(Kind.COUNTER, RETRIES, service)


def _labels(exchange: Exchange) -> tuple[str, str, str]:
    return exchange.dispatcher.listener.name, exchange.route or "", exchange.service or ""


class WorkerMetrics:
    """Counts into a column; the data plane tells it what happened."""

    __slots__ = ("_backends", "_column", "_unrouted")

    def __init__(self, column: Column) -> None:
        self._column = column
        self._unrouted: dict[Any, _Cells] = {}  # exchanges that no route claimed
        self._backends: frozenset[str] = frozenset()  # whose gauges are not 0

    def exchange(self, exchange: Exchange, duration: float) -> None:
        """An exchange has ended after `duration` seconds. Some 1.5 us."""
        column, head, plan = self._column, exchange.head, exchange.plan
        key: tuple[Any, ...] = (exchange.status, head.method, head.version)
        if plan is None:
            cache, key = self._unrouted, (exchange.dispatcher.listener.name, exchange.route, *key)
        else:
            cache = plan.series
        if key[-2] not in METHODS:  # of which a client could invent any number
            key = (*key[:-2], "OTHER", key[-1])
        found = cache.get(key)
        if found is None:
            found = cache[key] = _Cells(column, exchange)
        cells = column.cells
        cells[found.requests] += 1
        column.observe(found.duration, duration)
        if exchange.bytes_sent:
            cells[found.sent] += exchange.bytes_sent
        if exchange.bytes_received:
            cells[found.received] += exchange.bytes_received
        if exchange.t_head and exchange.t_connected:
            column.observe(found.upstream, exchange.t_head - exchange.t_connected)
        if exchange.attempts > 1:
            cells[found.retries] += exchange.attempts - 1
        if exchange.reason is not None:
            cells[column.cell(Kind.COUNTER, FAILURES, *_labels(exchange), exchange.reason)] += 1
        if (status := exchange.grpc_status) is not None:
            # A backend could invent any number of them, too.
            known = status if status in grpc.STATUSES else "OTHER"
            cells[column.cell(Kind.COUNTER, GRPC, *_labels(exchange), known)] += 1

    def refused(self, listener: str, reason: str) -> None:
        """A request or connection was refused before it became an exchange."""
        column = self._column
        column.cells[column.cell(Kind.COUNTER, FAILURES, listener, "", "", reason)] += 1

    def tunnel(self, listener: str, service: str, sent: int, received: int, reason: str | None) -> None:
        """A connection that went through, or was meant to, has ended."""
        column = self._column
        column.cells[column.cell(Kind.COUNTER, TUNNELS, listener, service)] += 1
        column.cells[column.cell(Kind.COUNTER, SENT, listener)] += sent
        column.cells[column.cell(Kind.COUNTER, RECEIVED, listener)] += received
        if reason is not None:
            column.cells[column.cell(Kind.COUNTER, FAILURES, listener, "", service, reason)] += 1

    def accepted(self, listener: str) -> None:
        """A connection was accepted."""
        column = self._column
        column.cells[column.cell(Kind.COUNTER, CONNECTIONS, listener)] += 1

    def lag(self, seconds: float) -> None:
        """The loop was late by that."""
        column = self._column
        column.observe(column.cell(Kind.HISTOGRAM, LAG), seconds)
        column.late(int(seconds * 1e6))

    def tick(self, plane: DataPlane) -> None:
        """About once a second: the heartbeat, and what is there now."""
        column = self._column
        cells = column.cells
        column.beat(int(monotonic() * 1000))
        for dispatcher in plane.dispatchers:
            cells[column.cell(Kind.GAUGE, OPEN, dispatcher.listener.name)] = len(dispatcher.connections)
        # By address: several services may speak to one in ways of their own.
        gauges: dict[str, list[int]] = {}
        for pool in plane.pools:
            name = pool.name
            sums = gauges.setdefault(name, [0, 0, 0, 0])
            seen = (pool.idle, max(0, pool.open - pool.idle), pool.waiting, pool.in_flight)
            for place, value in enumerate(seen):
                sums[place] += value
            made, failed = pool.uncounted()
            cells[column.cell(Kind.COUNTER, CONNECTS, name, "failed")] += failed
            cells[column.cell(Kind.COUNTER, CONNECTS, name, "made")] += made
        gone = {name: [0, 0, 0, 0] for name in self._backends.difference(gauges)}  # a reload has removed them
        for name, values in (gauges | gone).items():
            for labels, value in zip(_of_pool(name), values, strict=True):
                cells[column.cell(Kind.GAUGE, *labels)] = value
        self._backends = frozenset(gauges)


def _of_pool(name: str) -> tuple[tuple[str, ...], ...]:
    """Gauges of a backend."""
    return (POOL, name, "idle"), (POOL, name, "busy"), (WAITING, name), (IN_FLIGHT, name)
