"""What an embedded gateway tells of itself. Counts begin at its start and outlive changes of its table and workers."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rauta.proxy import counters
from rauta.proxy.metrics import REQUESTS, WorkerMetrics

if TYPE_CHECKING:
    from rauta.proxy.counters import Series
    from rauta.proxy.dataplane import DataPlane
    from rauta.routing.model import Configuration
    from rauta.runtime.agent.health import HealthChecks


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCount:
    """How many requests got one answer, and from which tier (1 and 2 are the kernel's). Without a route or service
    these are empty."""

    listener: str
    route: str
    service: str
    status: int
    count: int
    tier: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStats:
    """A backend now: whether health checks let it have requests, requests with it, and connections to it."""

    service: str
    address: str
    up: bool
    in_flight: int
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStats:
    """A gateway now: connections of clients (of an ASGI host: its calls), requests in flight, by how many seconds the
    event loop was late when it was last looked at, and what was counted.

    `in_flight` are all requests that are not answered yet with `workers=0`, and of processes those alone that are with
    backends, so without those of ASGI applications. Of processes, too: the gauges are those of the last second, and
    `loop_lag` is that of the worker that was latest; `workers` are the pids of the workers that serve, `offload` says
    which kernel tiers there are, or why there are none.
    """

    connections: int
    in_flight: int
    draining: bool
    loop_lag: float
    requests: tuple[RequestCount, ...]
    backends: tuple[BackendStats, ...]
    workers: tuple[int, ...] = ()
    offload: str = ""


class Counts:
    """The counters of one gateway, as those of a worker, in memory of its own; pages that are not used take none."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, counters.SIZE))
        self.metrics = WorkerMetrics(counters.Column(self._memory))

    def requests(self) -> tuple[RequestCount, ...]:
        """By listener, route, service and status."""
        return requests_of(counters.read(self._memory))


def requests_of(sums: Iterable[tuple[Series, list[int]]]) -> tuple[RequestCount, ...]:
    """By listener, route, service, status and tier."""
    found: Counter[tuple[str, str, str, str, str]] = Counter()
    for series, cells in sums:
        if series.name == REQUESTS:
            listener, route, service, status, *_, tier = series.labels
            found[listener, route, service, status, tier] += cells[0]
    return tuple(
        RequestCount(listener=listener, route=route, service=service, status=int(status), count=count, tier=int(tier))
        for (listener, route, service, status, tier), count in sorted(found.items())
        if status.isdigit()  # else it stands for what had no room
    )


def backends_of(configuration: Configuration, plane: DataPlane, health: HealthChecks) -> tuple[BackendStats, ...]:
    """Each backend of each service."""
    found = []
    for service in configuration.services:
        states = health.states(service.name)
        group = plane.pools.of(service)
        for backend in service.backends:
            pool, address = group.of(backend), str(backend.address)
            state = states.get(address)
            found.append(
                BackendStats(
                    service=service.name,
                    address=address,
                    up=state is None or state.healthy,
                    in_flight=pool.in_flight,
                    connections=pool.open,
                )
            )
    return tuple(found)
