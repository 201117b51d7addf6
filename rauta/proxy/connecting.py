"""How a connection to a backend is made: which of its addresses, within which time, and what a failure is called."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from rauta.proxy.mismatch import doubt_in_handshake
from rauta.routing.errors import words_of
from rauta.routing.settings import Address

MakeProtocol = Callable[[], asyncio.Protocol]

# What OpenSSL says, and what that means.
_KNOWN: Final = {
    "wrong version number": "it does not speak TLS on this port",
    "unexpected eof while reading": "it closed the connection in the TLS handshake",
}
_NO_ALPN: Final = "it speaks none of the protocols that are offered (ALPN): does the service want another `protocol`?"


class ConnectError(Exception):
    """No connection could be made; `reason` is a name in `rauta.proxy.reasons`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Connector:
    """Makes connections to one address.

    A name's addresses come from outside (`addresses`, looked up by one process for all workers) or, until they do, from
    a look-up of our own; the last ones that were good are kept. They take turns, and one that refuses is passed over.
    With a `context` the connection is one of TLS, and `server_name` what the backend's certificate must cover.
    """

    __slots__ = ("_last_good", "_loop", "_turn", "address", "addresses", "context", "name", "server_name")

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.name = str(address)
        self.addresses: tuple[str, ...] = ()
        self.context: ssl.SSLContext | None = None
        self.server_name = address.host.rstrip(".")
        self._loop = loop
        self._last_good: tuple[str, ...] = ()
        self._turn = 0

    async def connect(self, protocol: MakeProtocol, seconds: float, preamble: bytes = b"") -> None:
        """Connect one of the protocols that are made. `preamble` goes first, before TLS too (PROXY protocol). Raises
        ConnectError. Making a connection is rare beside requests, so it may cost a timer."""
        stage = "upstream_connect_timeout"
        try:
            async with asyncio.timeout(seconds):
                if self.address.path is not None:
                    await self._connect(protocol, None, preamble)
                    return
                hosts: tuple[str, ...] = (self.address.host,)
                if self.address.is_name:
                    stage = "upstream_dns"
                    hosts = self.addresses or await self._look_up()
                    stage = "upstream_connect_timeout"
                await self._first(self._in_turn(hosts), protocol, preamble)
        except TimeoutError:
            raise ConnectError(stage, f"{self.name}: no connection within {seconds:g} s") from None
        except socket.gaierror as error:
            raise ConnectError("upstream_dns", f"{self.address.host}: {error.strerror or error}") from None
        except (ConnectionRefusedError, FileNotFoundError) as error:  # of a unix socket: it is not there
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else "there is no such socket"
            raise ConnectError("upstream_refused", f"{self.name}: {reason}") from None
        except ssl.SSLError as error:
            raise ConnectError("upstream_tls", f"{self.name}: {tls_failure(error, proxied=bool(preamble))}") from None
        except (ConnectionResetError, ConnectionAbortedError) as error:
            reason = "upstream_unreachable" if self.context is None else "upstream_tls"
            text = error.strerror if self.context is None else handshake_cut(proxied=bool(preamble))
            raise ConnectError(reason, f"{self.name}: {text or error}") from None
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

    async def _first(self, hosts: tuple[str, ...], protocol: MakeProtocol, preamble: bytes) -> None:
        """The first address that accepts. Raises OSError, that of the last one."""
        failure: OSError = OSError(f"{self.address.host} has no address")
        for host in hosts:
            try:
                await self._connect(protocol, host, preamble)
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    async def _connect(self, protocol: MakeProtocol, host: str | None, preamble: bytes) -> None:
        """To one address, or to the unix socket. Raises OSError."""
        context = self.context
        name = None if context is None else self.server_name
        sock = None
        if preamble:
            sock = await self._speak_first(host, preamble)
        try:
            if host is None:
                path = self.address.path if sock is None else None
                await self._loop.create_unix_connection(protocol, path, sock=sock, ssl=context, server_hostname=name)
            elif sock is None:
                await self._loop.create_connection(protocol, host, self.address.port, ssl=context, server_hostname=name)
            else:
                await self._loop.create_connection(protocol, sock=sock, ssl=context, server_hostname=name)
        except BaseException:
            if sock is not None:
                sock.close()
            raise

    async def _speak_first(self, host: str | None, preamble: bytes) -> socket.socket:
        """A connected socket, over which that has been sent."""
        family = socket.AF_UNIX if host is None else socket.AF_INET6 if ":" in host else socket.AF_INET
        address = self.address.path or (host, self.address.port)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await self._loop.sock_connect(sock, address)
            await self._loop.sock_sendall(sock, preamble)
        except BaseException:
            sock.close()
            raise
        return sock


def handshake_cut(*, proxied: bool) -> str:
    """Why, where the loop says nothing. `proxied`: the connection began with a header of the PROXY protocol."""
    return f"the backend closed the connection in the TLS handshake{doubt_in_handshake(proxied=proxied)}"


def tls_failure(error: ssl.SSLError, *, proxied: bool = False) -> str:
    """Why a handshake with a backend failed, for people; `proxied` as above."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        if why.startswith("IP address mismatch"):  # few certificates have addresses
            why = f"{why.rstrip('.')}: does `tls` want `name`?"
        return f"its certificate is not accepted: {why}"
    words = words_of(error)  # `reason` is None for an alert that Python has no name for
    if "alert no application protocol" in words:
        words = _NO_ALPN
    for said, known in _KNOWN.items():
        if said in words:
            words = known + doubt_in_handshake(proxied=proxied)
    return f"the TLS handshake failed: {words}"
