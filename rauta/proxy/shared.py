"""What all listeners of a worker share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rauta.proxy.asgi.applications import Applications
from rauta.proxy.clock import Clock
from rauta.proxy.pool import Pools
from rauta.proxy.tasks import Tasks
from rauta.proxy.wheel import Wheel

if TYPE_CHECKING:
    from rauta.proxy.accesslog import AccessLogWriter
    from rauta.proxy.metrics import WorkerMetrics


@dataclass(slots=True, kw_only=True, eq=False)
class Shared:
    """The loop and what runs on it. Access log and counters are None where there are none."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    wheel: Wheel
    tasks: Tasks
    pools: Pools
    applications: Applications
    log: AccessLogWriter | None
    metrics: WorkerMetrics | None

    @classmethod
    def on(cls, loop: asyncio.AbstractEventLoop, log: AccessLogWriter | None, metrics: WorkerMetrics | None) -> Shared:
        """All of it, on a loop."""
        wheel, tasks = Wheel(loop), Tasks(loop)
        pools = Pools(loop, wheel, tasks)
        return cls(
            loop=loop,
            clock=Clock(),
            wheel=wheel,
            tasks=tasks,
            pools=pools,
            applications=Applications(tasks),
            log=log,
            metrics=metrics,
        )
