"""PROXY headers: the cases of the specification, and that whatever comes, in whatever pieces, is one answer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.proxyprotocol import (
    MAX_V1,
    MAX_V2,
    SIGNATURE,
    Header,
    Origin,
    ProxyHeaderError,
    begins,
    crc32c,
    decode,
    encode,
)
from rauta.routing.services import ProxyProtocol

FOUR = bytes([203, 0, 113, 7, 198, 51, 100, 2]) + struct.pack("!HH", 4711, 443)
SIX = bytes(15) + b"\x01" + bytes(15) + b"\x02" + struct.pack("!HH", 1, 2)
TOLD = Origin(("203.0.113.7", 4711), ("198.51.100.2", 443))


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + struct.pack("!H", len(value)) + value


def with_checksum(block: bytes, wrong: int = 0) -> bytes:
    empty = v2(0x21, 0x11, block + tlv(3, bytes(4)))
    return empty[:-4] + struct.pack("!I", crc32c(empty) ^ wrong)


GOOD = [
    (b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\r\n", TOLD),
    (b"PROXY TCP6 2001:DB8::7 ::1 0 65535\r\n", Origin(("2001:db8::7", 0), ("::1", 65535))),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n", Origin(("203.0.113.7", 1), ("::1", 2))),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN \x00\xff what not\r\n", None),
    (b"PROXY TCP6 " + b" ".join([b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2) + b" 65535 65535\r\n", ...),
    (v2(0x21, 0x11, FOUR), TOLD),
    (v2(0x21, 0x21, SIX), Origin(("::1", 1), ("::2", 2))),
    (v2(0x21, 0x11, FOUR + tlv(4, b"no-op") + tlv(0xE0, b"x" * 300) + tlv(0x20, b"")), TOLD),
    (v2(0x21, 0x11, FOUR + bytes(3) * 1000), TOLD),
    (with_checksum(FOUR), TOLD),
    (with_checksum(FOUR + tlv(4, b"before")), TOLD),
    (v2(0x20, 0x00, b""), None),  # LOCAL: the block is discarded, whatever it is
    (v2(0x20, 0x11, b"\x01\x02"), None),
    (v2(0x21, 0x00, b""), None),
    (v2(0x21, 0x12, FOUR), None),  # a datagram
    (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), None),
]  # fmt: skip

BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 4711\r\n",
    b"PROXY TCP4 203.0.113.7  198.51.100.2 4711 443\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 04711 443\r\n",
    b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 65536\r\n",
    b"PROXY TCP4 203.0.113.07 198.51.100.2 4711 443\r\n",
    b"PROXY TCP4 2001:db8::7 198.51.100.2 4711 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
    b"PROXY TCP6 203.0.113.7 ::1 4711 443\r\n",
    b"PROXY UDP4 203.0.113.7 198.51.100.2 4711 443\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY UNKNOWN \rX\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_V1,
    b"PROXY " + b"x" * MAX_V1,
    b"proxy UNKNOWN\r\n",
    SIGNATURE[:-1] + b"X",
    v2(0x11, 0x11, FOUR),  # version 1 in the form of 2
    v2(0x22, 0x11, FOUR),
    v2(0x21, 0x41, FOUR),
    v2(0x21, 0x13, FOUR),
    v2(0x21, 0x11, FOUR[:-1]),
    v2(0x21, 0x21, FOUR),
    v2(0x21, 0x11, FOUR + b"\x04"),
    v2(0x21, 0x11, FOUR + b"\x04\x00\x01"),
    v2(0x21, 0x11, FOUR + tlv(3, b"123")),
    v2(0x21, 0x11, FOUR + tlv(0xE0, bytes(MAX_V2)))[:16],  # too long: known before it has come
    with_checksum(FOUR, wrong=1),
]


@pytest.mark.parametrize(("data", "origin"), GOOD)
def test_good_headers(data: bytes, origin: object) -> None:
    found = decode(data + b"GET /")
    assert found is not None
    assert found.size == len(data)
    if origin is not ...:
        assert found.origin == origin


@pytest.mark.parametrize("data", BAD)
def test_bad_headers(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        decode(data)


@pytest.mark.parametrize("data", [data for data, _ in GOOD])
def test_until_it_is_complete_all_of_it_is_wanted(data: bytes) -> None:
    for size in range(len(data)):
        assert decode(data[:size]) is None
    assert [begins(data[:size]) for size in range(3)] == [None, None, None]
    assert begins(data) is True


def test_what_begins_otherwise_is_no_header() -> None:
    for data in (b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01", b"\r\nGET / HTTP/1.1"):
        assert begins(data) is False
    assert begins(b"P") is begins(b"\r\n") is None


def test_the_checksum_is_castagnoli_s() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value that catalogues of CRCs give


addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str)),
    st.tuples(st.ip_addresses(v=6).map(str), st.ip_addresses(v=6).map(str)),
)
ports = st.integers(0, 65535)


@given(st.sampled_from(ProxyProtocol), addresses, ports, ports)
def test_what_rauta_writes_is_read_as_it_was_meant(
    version: ProxyProtocol, ends: tuple[str, str], one: int, other: int
) -> None:
    data = encode(version, (ends[0], one), (ends[1], other))
    found = decode(data)
    assert found is not None
    assert found.size == len(data)
    again = encode(version, *(found.origin or TOLD))
    if "::ffff:" not in ends[0] + ends[1]:  # read as the IPv4 address that it is
        assert again == data


def answer(data: bytes) -> Header | str | None:
    try:
        return decode(data)
    except ProxyHeaderError:
        return "bad"


starts = st.sampled_from(
    [b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00\x0c", *[data for data, _ in GOOD]]
)


@given(starts, st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_whatever_comes_it_raises_nothing_else_and_pieces_do_not_matter(
    start: bytes, rest: bytes, place: int, byte: int
) -> None:
    data = bytearray(start + rest)
    if place < len(data):
        data[place] = byte
    whole = answer(bytes(data))
    for size in range(len(data)):
        part = answer(bytes(data[:size]))
        assert part in (None, whole)  # undecided, or what it stays
