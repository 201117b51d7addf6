"""Active health checks: one for all workers, which are told what changes.

A backend counts as healthy until `unhealthy` checks in a row have failed, and again after `healthy` that succeeded. Its
state belongs to service, address and the check's settings: a reload that leaves these alone leaves the state alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Final

from rauta.proxy.connecting import tls_failure
from rauta.proxy.tasks import Tasks
from rauta.routing.errors import words_of
from rauta.routing.model import Configuration
from rauta.routing.services import HealthCheck, ProxyProtocol, Service, Way
from rauta.routing.settings import Address
from rauta.runtime.agent.probes import CheckFailedError, probe
from rauta.runtime.log import EventLog

if TYPE_CHECKING:
    from rauta.proxy.pool import BackendContexts

AT_ONCE: Final = 256  # checks; each holds a descriptor, and the limit of a process may be 1024
JITTER: Final = 0.1  # of the interval, either way: checks of many gateways must not fall together
FIRST_WITHIN: Final = 1.0  # seconds; the first checks of all backends are spread over that


@dataclass(slots=True)
class State:
    """What is known of one backend. `since` and `checked` are Unix times; `duration` of the last check in seconds."""

    healthy: bool = True
    since: float = field(default_factory=time)
    checked: float | None = None
    duration: float | None = None
    failure: str | None = None
    streak: int = 0  # checks in a row that speak against `healthy`


_Key = tuple[str, Address, HealthCheck, ProxyProtocol | None, Way]


class HealthChecks:
    """Checks the backends of a configuration; `tell` gets a service and the addresses that must get no requests."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tell: Callable[[str, frozenset[str]], None], events: EventLog
    ) -> None:
        self._tell = tell
        self._events = events
        self._tasks = Tasks(loop)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._watched: dict[_Key, asyncio.Task[None]] = {}
        self._states: dict[_Key, State] = {}
        self._told: dict[str, frozenset[str]] = {}
        self._contexts: BackendContexts = {}
        self._random = random.Random()

    def update(self, configuration: Configuration, contexts: BackendContexts | None = None) -> None:
        """Check the backends of this configuration, and no others; by TLS with these contexts, where it has TLS."""
        self._contexts = contexts or {}
        wanted: dict[_Key, Service] = {}
        for service in configuration.services:
            if service.health is not None:
                for backend in service.backends:
                    key = (service.name, backend.address, service.health, service.proxy_protocol, service.way_of_checks)
                    wanted[key] = service
        for key in [key for key in self._watched if key not in wanted]:
            self._watched.pop(key).cancel()
            del self._states[key]
        for key in wanted:
            if key not in self._watched:
                self._states[key] = State()
                self._watched[key] = self._tasks.start(self._watch(key), name=f"check {key[0]} {key[1]}")
        for name in {*self._told, *(key[0] for key in wanted)}:
            self._announce(name)

    def states(self, service: str) -> dict[str, State]:
        """The state of each backend of a service that is checked, by address."""
        return {str(key[1]): state for key, state in self._states.items() if key[0] == service}

    async def close(self) -> None:
        """Check nothing any more."""
        await self._tasks.cancel()

    async def _watch(self, key: _Key) -> None:
        check = key[2]
        await asyncio.sleep(self._random.uniform(0, min(FIRST_WITHIN, check.interval)))
        while True:
            async with self._room:
                failure, seconds = await self._check(key)
            self._note(key, failure, seconds)
            pause = check.interval * self._random.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(0.05, pause - seconds))

    async def _check(self, key: _Key) -> tuple[str | None, float]:
        """What is wrong (None: nothing), and how long it took."""
        _, address, check, proxy_protocol, way = key
        loop = asyncio.get_running_loop()
        started = loop.time()
        failure = None
        try:
            async with asyncio.timeout(check.timeout):
                await probe(address, check, proxy_protocol, way, self._contexts.get(way))
        except TimeoutError:
            failure = f"no answer within {check.timeout:g} s"
        except CheckFailedError as error:
            failure = str(error)
        except ssl.SSLError as error:
            failure = tls_failure(error)
        except socket.gaierror as error:  # its numbers are no errno
            failure = f"{address.host}: {error.strerror or error}"
        except OSError as error:  # asyncio has words of its own, or none
            failure = os.strerror(error.errno).lower() if error.errno else words_of(error)
        return failure, loop.time() - started

    def _note(self, key: _Key, failure: str | None, seconds: float) -> None:
        state = self._states[key]
        state.checked, state.duration, state.failure = time(), seconds, failure
        good = failure is None
        if good is state.healthy:
            state.streak = 0
            return
        name, address, check, *_ = key
        state.streak += 1
        needed = check.healthy if good else check.unhealthy
        if state.streak < needed:
            return
        state.healthy, state.since, state.streak = good, time(), 0
        fields = {"service": name, "backend": str(address)}
        in_a_row = "1 check in a row" if needed == 1 else f"{needed} checks in a row"
        if good:
            self._events.info("backend_up", f"service {name!r}: {address} is up ({in_a_row})", **fields)
        else:
            text = f"service {name!r}: {address} is down: {failure} ({in_a_row})"
            self._events.warning("backend_down", text, **fields)
        self._announce(name)

    def _announce(self, service: str) -> None:
        down = frozenset(address for address, state in self.states(service).items() if not state.healthy)
        if down == self._told.get(service, frozenset()):
            return
        if down:
            self._told[service] = down
        else:
            del self._told[service]
        self._tell(service, down)
