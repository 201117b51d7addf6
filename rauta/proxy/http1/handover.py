"""When a connection is not one of HTTP/1.1 after all: HTTP/2, by ALPN or because the client knows that we speak it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.proxyprotocol import Origin, Peer

# RFC 9113 3.4: what a client that speaks HTTP/2 sends first. It begins as a request of HTTP/1.1 that nobody would send.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_HEAD: Final = PREFACE[:18]


def agreed_on(transport: asyncio.BaseTransport) -> str | None:
    """The protocol by ALPN (RFC 7301)."""
    found = transport.get_extra_info("ssl_object")
    return None if found is None else found.selected_alpn_protocol()


def client_of(transport: asyncio.BaseTransport, origin: Origin | None) -> Peer:
    """Who has connected, as a load balancer told or as the socket has it; ("", 0) over a unix socket."""
    return _end(transport.get_extra_info("peername")) if origin is None else origin.client


def local_of(transport: asyncio.BaseTransport, origin: Origin | None) -> Peer:
    """Where the client connected to; as `client_of`."""
    return _end(transport.get_extra_info("sockname")) if origin is None else origin.local


def _end(found: Any) -> Peer:
    return (found[0], found[1]) if isinstance(found, tuple) else ("", 0)  # of a unix socket it is a path


def hand_over(
    transport: asyncio.Transport,
    dispatcher: Dispatcher,
    scheme: str,
    data: bytes,
    origin: Origin | None,
    grace: float | None,
) -> None:
    """From now on the connection is one of HTTP/2; `data` has come already, `origin` is what a load balancer told, and
    `grace` is there if it is draining."""
    from rauta.proxy.http2.server import ServerConnection  # only where it is spoken

    successor = ServerConnection(dispatcher, scheme, origin)
    transport.set_protocol(cast(asyncio.Protocol, successor))  # one by its methods
    successor.connection_made(transport)
    if data:
        successor.data_received(data)
    if grace is not None:
        successor.drain(grace)


def reset_on_close(transport: asyncio.Transport) -> None:
    """Let the kernel send a reset when the socket is closed, and drop what waits."""
    import socket
    import struct

    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
