"""When a connection is not one of HTTP/1.1 after all: HTTP/2, by ALPN or because the client knows that we speak it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.proxyheader import Origin

# RFC 9113 3.4: what a client that speaks HTTP/2 sends first. It begins as a request of HTTP/1.1 that nobody would send.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_HEAD: Final = PREFACE[:18]


def agreed_on(transport: asyncio.BaseTransport) -> str | None:
    """The protocol by ALPN (RFC 7301)."""
    found = transport.get_extra_info("ssl_object")
    return None if found is None else found.selected_alpn_protocol()


def hand_over(
    transport: asyncio.Transport, dispatcher: Dispatcher, scheme: str, data: bytes, origin: Origin | None
) -> None:
    """From now on the connection is one of HTTP/2; `data` has come already, `origin` is what a load balancer told."""
    from rauta.proxy.http2.server import ServerConnection  # only where it is spoken

    successor = ServerConnection(dispatcher, scheme, origin)
    transport.set_protocol(cast(asyncio.Protocol, successor))  # one by its methods
    successor.connection_made(transport)
    if data:
        successor.data_received(data)


def reset_on_close(transport: asyncio.Transport) -> None:
    """Let the kernel send a reset when the socket is closed, and drop what waits."""
    import socket
    import struct

    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
