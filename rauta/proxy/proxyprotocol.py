"""The header of the PROXY protocol, which tells whose connection it is before anything else: encoded for backends,
decoded where load balancers in front send it.

Source: "The PROXY protocol, Versions 1 & 2" (haproxy.org, proxy-protocol.txt), sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from rauta.routing.services import ProxyProtocol

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
_V1: Final = b"PROXY "
_FIXED: Final = 16  # bytes of version 2 before the addresses
_VERSION: Final = 0x20  # version 2, in front of a command
_LOCAL: Final = 0  # the sender itself is the client
_PROXY: Final = 1
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNSPEC: Final = 0x00

# 2.1: "the longest possible line [...] is 107 chars", with its CRLF.
MAX_V1: Final = 107
# 2.2 allows 64 KiB; what load balancers add (names, IDs, certificates' subjects) is some hundred bytes.
MAX_V2: Final = 4096

Peer = tuple[str, int]
"""Address and port; ("", 0) for unix sockets."""


# --- encoded, for backends ------------------------------------------------------------------------------


def encode(version: ProxyProtocol, client: Peer, local: Peer) -> bytes:
    """The header for a connection from `client` that arrived at `local`.

    Addresses of two families, as after a proxy that is trusted, go as IPv6 (RFC 4291 2.5.5.2). Without an address on
    either side the header says that it is not known.
    """
    source, target = _address(client[0]), _address(local[0])
    if source is None or target is None:
        return encode_unknown(version)
    if source.version != target.version:
        source, target = _mapped(source), _mapped(target)
    if version is ProxyProtocol.V1:
        return f"PROXY TCP{source.version} {source} {target} {client[1]} {local[1]}\r\n".encode("ascii")
    addresses = source.packed + target.packed + struct.pack("!HH", client[1], local[1])
    family = _TCP4 if source.version == 4 else _TCP6
    return SIGNATURE + struct.pack("!BBH", _VERSION | _PROXY, family, len(addresses)) + addresses


def encode_unknown(version: ProxyProtocol) -> bytes:
    """The header of a connection whose client has no address."""
    if version is ProxyProtocol.V1:
        return b"PROXY UNKNOWN\r\n"
    return SIGNATURE + struct.pack("!BBH", _VERSION | _PROXY, _UNSPEC, 0)


def encode_own(version: ProxyProtocol) -> bytes:
    """The header of a connection that the gateway makes for itself, such as a health check."""
    if version is ProxyProtocol.V1:
        return b"PROXY UNKNOWN\r\n"
    return SIGNATURE + struct.pack("!BBH", _VERSION | _LOCAL, _UNSPEC, 0)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    if not text:
        return None
    # A scope ("fe80::1%eth0") means something on this host only; the header has no room for it.
    return ip_address(text.partition("%")[0])


def _mapped(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


# --- decoded, of load balancers: bytes in, a header out; until it is complete, all that has come belongs to it ------


_LINE: Final = re.compile(
    rb"PROXY (?:(?P<unknown>UNKNOWN)(?: [^\r\n]*)?"
    rb"|TCP(?P<family>[46]) (?P<source>[0-9A-Fa-f:.]+) (?P<target>[0-9A-Fa-f:.]+)"
    rb" (?P<source_port>0|[1-9][0-9]{0,4}) (?P<target_port>0|[1-9][0-9]{0,4}))\r\n"
)

_STREAM: Final = 1
_SIZES: Final = {0: 0, 1: 12, 2: 36, 3: 216}  # family -> bytes of its addresses: none, IPv4, IPv6, AF_UNIX
_CRC32C: Final = 0x03  # 2.2.3, PP2_TYPE_CRC32C


class ProxyHeaderError(Exception):
    """It is no header, or a broken one; the text quotes nothing of it."""


class Origin(NamedTuple):
    """The ends of a connection before the load balancer: who has connected, and where to."""

    client: Peer
    local: Peer


class Header(NamedTuple):
    """A header of `size` bytes; without an `origin` the ends of the connection itself count."""

    size: int
    origin: Origin | None


def begins(data: bytes) -> bool | None:
    """Whether a connection begins with a header; None: that cannot be told yet."""
    for start in (SIGNATURE, _V1):
        if data.startswith(start):
            return True
        if start.startswith(data):
            return None
    return False


def decode(data: bytes) -> Header | None:
    """The header that `data` begins with; None: it is not complete. Raises ProxyHeaderError."""
    if begins(data) is False:
        raise ProxyHeaderError("no PROXY header")
    if data[:1] == SIGNATURE[:1]:
        return _decode_v2(data)
    return _decode_v1(data)


def _decode_v1(data: bytes) -> Header | None:
    end = data.find(b"\n", 0, MAX_V1) + 1
    if not end:
        if len(data) >= MAX_V1:
            raise ProxyHeaderError(f"PROXY v1: no end of line within {MAX_V1} bytes")
        return None
    found = _LINE.fullmatch(data, 0, end)
    if found is None:
        raise ProxyHeaderError("PROXY v1: a malformed line")
    if found["unknown"]:
        # "If the announced protocol is "UNKNOWN", the receiver must ignore anything presented before the CRLF."
        return Header(end, None)
    kind = IPv4Address if found["family"] == b"4" else IPv6Address
    try:
        source, target = kind(found["source"].decode()), kind(found["target"].decode())
    except AddressValueError:
        raise ProxyHeaderError("PROXY v1: a malformed address") from None
    ports = int(found["source_port"]), int(found["target_port"])
    if max(ports) > 0xFFFF:
        raise ProxyHeaderError("PROXY v1: a port beyond 65535")
    return Header(end, Origin((_text(source), ports[0]), (_text(target), ports[1])))


def _decode_v2(data: bytes) -> Header | None:
    if len(data) < _FIXED:
        return None
    version, command = divmod(data[12], 16)
    family, transport = divmod(data[13], 16)
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise ProxyHeaderError("PROXY v2: another version, or an unknown command")
    if family not in _SIZES or transport > 2:
        raise ProxyHeaderError("PROXY v2: an unknown family or transport")
    if size > MAX_V2:
        raise ProxyHeaderError(f"PROXY v2: {size} bytes, and {MAX_V2} are allowed")
    at = _FIXED + _SIZES[family]
    if command != _LOCAL and at > size:
        raise ProxyHeaderError("PROXY v2: shorter than its addresses")
    if len(data) < size:
        return None
    header = data[:size]
    if command == _LOCAL:
        # "The receiver must accept this connection as valid and must use the real connection endpoints and discard the
        # protocol block".
        return Header(size, None)
    _check_tlvs(header, at)
    if transport != _STREAM or family not in (1, 2):
        return Header(size, None)  # nothing that could be the client of a TCP connection
    source_port, target_port = struct.unpack_from("!HH", header, at - 4)
    middle = _FIXED + (at - 4 - _FIXED) // 2
    source, target = header[_FIXED:middle], header[middle : at - 4]
    if family == 1:
        return Header(size, Origin((str(IPv4Address(source)), source_port), (str(IPv4Address(target)), target_port)))
    ends = (_text(IPv6Address(source)), source_port), (_text(IPv6Address(target)), target_port)
    return Header(size, Origin(*ends))


def _check_tlvs(header: bytes, at: int) -> None:
    """The additional values must fill the header exactly, and a checksum among them be right; all else is skipped."""
    while at < len(header):
        end = at + 3 + int.from_bytes(header[at + 1 : at + 3], "big")
        if at + 3 > len(header) or end > len(header):
            raise ProxyHeaderError("PROXY v2: a TLV reaches beyond the header")
        if header[at] == _CRC32C:
            if end - at != 7:
                raise ProxyHeaderError("PROXY v2: a checksum that is none")
            told = int.from_bytes(header[at + 3 : end], "big")
            if crc32c(header[: at + 3] + bytes(4) + header[end:]) != told:
                raise ProxyHeaderError("PROXY v2: the checksum is wrong")
        at = end


def _text(address: IPv4Address | IPv6Address) -> str:
    """As the kernel would have told it: an IPv4 client that was written as IPv6 has the address that it has."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return tuple(table)


_TABLE: Final = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli; RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
