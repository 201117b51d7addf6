"""What the agent knows of the kernel offload: asks the supervisor for its counters, and shows them as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from rauta.offload import NullOffload, Traffic
from rauta.runtime.control import Reading

# An offload that loads its programs, or takes a large plan, does nothing else for seconds. Prometheus waits for 10.
READING_TIMEOUT: Final = 5.0


class Kernel:
    """`ask` is called when a Reading is wanted; whoever gets one calls `tell`."""

    __slots__ = ("_ask", "_asked", "_offload", "reading")

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._asked: asyncio.Future[None] | None = None
        self._offload: Mapping[str, Any] = {"name": NullOffload.name, "reason": "no kernel offload"}
        self.reading: Reading | None = None  # the last one of the offload that is live

    @property
    def live(self) -> bool:
        """Whether there is a kernel offload."""
        return bool(self._offload["name"] != NullOffload.name)

    def is_now(self, offload: Mapping[str, Any] | None) -> None:
        """The state of the offload, as in /v1/status."""
        if offload is not None:
            self._offload = offload
        if not self.live:
            self.reading = None

    def tell(self, reading: Reading) -> None:
        """A Reading has come."""
        if self.live:
            self.reading = reading
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_result(None)

    async def refresh(self) -> None:
        """Ask for a Reading and wait for it; if that takes too long, the last one stays."""
        if not self.live:
            return
        asked = self._asked
        if asked is None:
            asked = self._asked = asyncio.get_running_loop().create_future()
            self._ask()
        with suppress(TimeoutError):
            async with asyncio.timeout(READING_TIMEOUT):
                await asyncio.shield(asked)
            return
        if self._asked is asked:
            self._asked = None  # the question or its answer may be lost: the next one who wants it asks again

    def shown(self) -> dict[str, Any]:
        """For /v1/offload."""
        reading = self.reading
        found = {"name": self._offload["name"], "reason": self._offload["reason"], "live": self.live}
        if reading is None:
            return {**found, "time": None, "interfaces": [], "flows": 0, "maps": [], "requests": [], "events": {}}
        counters = reading.counters
        gauges = counters.gauges
        return {
            **found,
            "time": reading.time,
            "interfaces": [{"name": name, **asdict(how)} for name, how in sorted(gauges.interfaces.items())],
            "flows": gauges.flows,
            "maps": [{"name": name, "used": use.used, "size": use.size} for name, use in sorted(gauges.maps.items())],
            "requests": _requests(reading),
            "events": dict(counters.events),
        }


def _requests(reading: Reading) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str, str, int, str], Traffic] = {}
    for key, traffic in reading.counters.requests.items():
        place = (key.listener, key.route, key.service, key.tier, key.hook)
        sums[place] = added(sums.get(place), traffic)
    names = ("listener", "route", "service", "tier", "hook")
    return [
        {
            **dict(zip(names, place, strict=True)),
            "requests": traffic.requests,
            "packets": traffic.packets,
            "bytes": traffic.bytes,
        }
        for place, traffic in sorted(sums.items())
    ]


def added(first: Traffic | None, second: Traffic) -> Traffic:
    """The sum of both."""
    if first is None:
        return second
    return Traffic(
        requests=first.requests + second.requests,
        packets=first.packets + second.packets,
        bytes=first.bytes + second.bytes,
    )
