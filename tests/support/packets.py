"""Packets, made by hand."""

from __future__ import annotations

import socket
import struct

CLIENT = ("192.0.2.7", 40001)


def _sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(
    payload: bytes,
    to: tuple[str, int],
    sender: tuple[str, int] = CLIENT,
    *,
    seq: int = 1,
    ack: int = 1,
    flags: int = 0x18,
    options: bytes = b"",
    urgent: int = 0,
) -> bytes:
    """An Ethernet frame with an IPv4 TCP segment, checksums right."""
    source, destination = socket.inet_aton(sender[0]), socket.inet_aton(to[0])
    offset = (20 + len(options)) // 4 << 4
    header = struct.pack("!HHIIBBHHH", sender[1], to[1], seq, ack, offset, flags, 65535, 0, urgent) + options
    pseudo = source + destination + struct.pack("!BBH", 0, 6, len(header) + len(payload))
    header = header[:16] + struct.pack("!H", _sum(pseudo + header + payload)) + header[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(header) + len(payload), 0, 0x4000, 64, 6, 0) + source + destination
    ip = ip[:10] + struct.pack("!H", _sum(ip)) + ip[12:]
    return b"\x02\0\0\0\0\1\x02\0\0\0\0\2\x08\0" + ip + header + payload
