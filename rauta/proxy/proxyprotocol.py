"""The header of the PROXY protocol, which tells a backend whose connection it is before the first request.

Source: "The PROXY protocol, Versions 1 & 2" (haproxy.org, proxy-protocol.txt), sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from rauta.routing.services import ProxyProtocol

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL: Final = 0x20  # version 2, command LOCAL: the sender itself is the client
_PROXY: Final = 0x21
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNSPEC: Final = 0x00

Peer = tuple[str, int]


def header(version: ProxyProtocol, client: Peer, local: Peer) -> bytes:
    """The header for a connection from `client` that arrived at `local` (address, port; ("", 0) for unix sockets).

    Addresses of two families, as after a proxy that is trusted, go as IPv6 (RFC 4291 2.5.5.2). Without an address on
    either side the header says that it is not known.
    """
    source, target = _address(client[0]), _address(local[0])
    if source is None or target is None:
        return unknown(version)
    if source.version != target.version:
        source, target = _mapped(source), _mapped(target)
    if version is ProxyProtocol.V1:
        return f"PROXY TCP{source.version} {source} {target} {client[1]} {local[1]}\r\n".encode("ascii")
    addresses = source.packed + target.packed + struct.pack("!HH", client[1], local[1])
    family = _TCP4 if source.version == 4 else _TCP6
    return SIGNATURE + struct.pack("!BBH", _PROXY, family, len(addresses)) + addresses


def unknown(version: ProxyProtocol) -> bytes:
    """The header of a connection whose client has no address."""
    if version is ProxyProtocol.V1:
        return b"PROXY UNKNOWN\r\n"
    return SIGNATURE + struct.pack("!BBH", _PROXY, _UNSPEC, 0)


def own(version: ProxyProtocol) -> bytes:
    """The header of a connection that the gateway makes for itself, such as a health check."""
    if version is ProxyProtocol.V1:
        return b"PROXY UNKNOWN\r\n"
    return SIGNATURE + struct.pack("!BBH", _LOCAL, _UNSPEC, 0)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    if not text:
        return None
    # A scope ("fe80::1%eth0") means something on this host only; the header has no room for it.
    return ip_address(text.partition("%")[0])


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
