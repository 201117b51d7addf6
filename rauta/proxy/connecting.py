"""How a connection to a backend is made: which of its addresses, within which time, and what a failure is called."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from rauta.proxy.http1.client import ClientConnection
from rauta.routing.settings import Address


class ConnectError(Exception):
    """No connection could be made; `reason` is a name in `rauta.proxy.reasons`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Connector:
    """Makes connections to one address.

    A name's addresses come from outside (`addresses`, looked up by one process for all workers) or, until they do, from
    a look-up of our own; the last ones that were good are kept. They take turns, and one that refuses is passed over.
    """

    __slots__ = ("_last_good", "_loop", "_turn", "address", "addresses", "name")

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.name = str(address)
        self.addresses: tuple[str, ...] = ()
        self._loop = loop
        self._last_good: tuple[str, ...] = ()
        self._turn = 0

    async def connect(self, made: Callable[[], ClientConnection], seconds: float) -> ClientConnection:
        """Raises ConnectError. Making a connection is rare beside requests, so it may cost a timer."""
        stage = "upstream_connect_timeout"
        try:
            async with asyncio.timeout(seconds):
                if self.address.path is not None:
                    _, connection = await self._loop.create_unix_connection(made, self.address.path)  # type: ignore[type-var]  # one by its methods
                    return connection
                hosts: tuple[str, ...] = (self.address.host,)
                if self.address.is_name:
                    stage = "upstream_dns"
                    hosts = self.addresses or await self._look_up()
                    stage = "upstream_connect_timeout"
                return await self._first(self._in_turn(hosts), made)
        except TimeoutError:
            raise ConnectError(stage, f"{self.name}: no connection within {seconds:g} s") from None
        except socket.gaierror as error:
            raise ConnectError("upstream_dns", f"{self.address.host}: {error.strerror or error}") from None
        except (ConnectionRefusedError, FileNotFoundError) as error:  # of a unix socket: it is not there
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else "there is no such socket"
            raise ConnectError("upstream_refused", f"{self.name}: {reason}") from None
        except OSError as error:
            raise ConnectError("upstream_unreachable", f"{self.name}: {error.strerror or error}") from None

    async def _look_up(self) -> tuple[str, ...]:
        """The addresses of the name, by the loop's resolver threads. Raises gaierror."""
        try:
            found = await self._loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            if self._last_good:
                return self._last_good
            raise
        self._last_good = tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        return self._last_good

    def _in_turn(self, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if len(hosts) < 2:
            return hosts
        self._turn = (self._turn + 1) % len(hosts)
        return hosts[self._turn :] + hosts[: self._turn]

    async def _first(self, hosts: tuple[str, ...], made: Callable[[], ClientConnection]) -> ClientConnection:
        """The first address that accepts. Raises OSError, that of the last one."""
        failure: OSError = OSError(f"{self.address.host} has no address")
        for host in hosts:
            try:
                _, connection = await self._loop.create_connection(made, host, self.address.port)  # type: ignore[type-var]  # one by its methods
                return connection
            except OSError as error:
                failure = error
        raise failure
