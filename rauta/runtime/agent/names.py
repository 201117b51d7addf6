"""Names of backends, looked up again and again; what changes is told to all workers.

`getaddrinfo` does not tell how long an answer holds, so each name is asked for every DNS_INTERVAL. A name that cannot
be looked up keeps its last addresses: a resolver that is down must not take backends down.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rauta.proxy.tasks import Tasks
from rauta.routing.defaults import DNS_INTERVAL, DNS_TIMEOUT
from rauta.routing.model import Configuration
from rauta.runtime.log import EventLog

THREADS: Final = 8  # getaddrinfo blocks; 8 x 5 s of a dead resolver is what a name waits at worst for its turn
Resolve = Callable[[str], tuple[str, ...]]


def look_up(host: str) -> tuple[str, ...]:
    """The literal addresses of a name, in the resolver's order. Raises OSError, or UnicodeError for what is no name."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class Names:
    """Looks the names of a configuration up; `tell` gets a host and its addresses when these have changed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[str, tuple[str, ...]], None],
        events: EventLog,
        *,
        resolve: Resolve = look_up,
        interval: float = DNS_INTERVAL,
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._events = events
        self._resolve = resolve
        self._interval = interval
        self._tasks = Tasks(loop)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")
        self._watched: dict[str, asyncio.Task[None]] = {}
        self.known: dict[str, tuple[str, ...]] = {}
        self.failing: dict[str, str] = {}  # names that cannot be looked up now, and why

    def update(self, configuration: Configuration) -> None:
        """Watch the names of this configuration, and no others; what is known of a name stays."""
        wanted = {
            backend.address.host
            for service in configuration.services
            for backend in service.backends
            if backend.address.is_name
        }
        for host in [host for host in self._watched if host not in wanted]:
            self._watched.pop(host).cancel()
            self.known.pop(host, None)
            self.failing.pop(host, None)
        for host in sorted(wanted - self._watched.keys()):
            self._watched[host] = self._tasks.start(self._watch(host), name=f"look up {host}")

    async def close(self) -> None:
        """Look nothing up any more."""
        await self._tasks.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch(self, host: str) -> None:
        while True:
            try:
                async with asyncio.timeout(DNS_TIMEOUT):
                    addresses = await self._loop.run_in_executor(self._threads, self._resolve, host)
            except TimeoutError:
                self._failed(host, f"no answer within {DNS_TIMEOUT:g} s")
            except (OSError, UnicodeError) as error:
                self._failed(host, getattr(error, "strerror", None) or str(error))
            else:
                self._found(host, addresses)
            await asyncio.sleep(self._interval)

    def _found(self, host: str, addresses: tuple[str, ...]) -> None:
        if self.failing.pop(host, None) is not None:
            self._events.info("name_resolved", f"backend host {host!r} can be resolved again", host=host)
        before = self.known.get(host, ())
        # The order is the resolver's turn, not a change.
        if not addresses or set(addresses) == set(before):
            return
        self.known[host] = addresses
        self._tell(host, addresses)

    def _failed(self, host: str, reason: str) -> None:
        if host not in self.failing:
            rest = "its last addresses stay in use" if host in self.known else "its requests are answered 502"
            text = f"backend host {host!r} cannot be resolved: {reason}; {rest}"
            self._events.warning("name_unresolved", text, host=host)
        self.failing[host] = reason
