"""The accept stage: PROXY headers before HTTP and TLS, from whom they are taken, in whatever pieces they come."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
import subprocess
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.proxyheader import crc32c
from rauta.proxy.proxyprotocol import SIGNATURE
from rauta.routing.model import Respond, Route
from rauta.routing.services import ProxyProtocol
from rauta.routing.settings import Address, ClientLimits, ClientTimeouts, Listener, LogFormat, ProxySources
from support.http import always, backend, client, forward, gateway, ok, request, run, service
from support.tls import make_pair

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
ELSEWHERE = ipaddress.ip_network("192.0.2.0/24")
WHO = Route(name="who", action=Respond(body="hello"))

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 2]) + struct.pack("!HH", 4711, 443)


def listener(*sources: Any, optional: bool = False, head: float = 5.0, **more: Any) -> Listener:
    """One that takes PROXY headers."""
    proxies = ProxySources(sources=sources or (LOOPBACK,), optional=optional)
    timeouts = ClientTimeouts(head=head)
    return Listener(name="web", address=Address("127.0.0.1", 1), proxy_protocol=proxies, timeouts=timeouts, **more)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (V1, "203.0.113.7"),
        (V1_SIX, "2001:db8::7"),
        (V2, "203.0.113.7"),
        (b"PROXY UNKNOWN whatever\r\n", "127.0.0.1"),
        (SIGNATURE + b"\x20\x00\x00\x00", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_the_client_is_who_the_header_names(header: bytes, told: str, piece: int) -> None:
    async def main() -> None:
        async with (
            backend(always(ok())) as server,
            gateway(server.port, listener=listener(), log=LogFormat.COMMON) as rauta,
            client(rauta.port) as peer,
        ):
            data = header + request()
            for at in range(0, len(data), piece):
                peer.send(data[at : at + piece])
                await asyncio.sleep(0 if piece > 1 else 0.0005)
            assert (await peer.response())[1] == b"hello"
            peer.send(request())
            assert (await peer.response())[1] == b"hello"
            assert f"x-forwarded-for: {told}\r\n".encode() in server.peers[0].received.lower()
            assert all(line.startswith(f"{told} - - ") for line in rauta.log_lines())

    run(main())
