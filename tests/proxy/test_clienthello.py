"""The name in a ClientHello, as clients send it and as nobody should."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.clienthello import MAX_HELLO, ClientHelloError, read
from support.tlspeer import hello_of


def in_records(message: bytes, size: int) -> bytes:
    """A handshake message in records of so many bytes."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join([b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces])


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def server_name(name: bytes, kind: int = 0) -> bytes:
    return b"\0\0" + vector(2, vector(2, bytes([kind]) + vector(2, name)))


def message(*extensions: bytes, ciphers: bytes = b"\x13\x01", compression: bytes = b"\0", more: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, ciphers) + vector(1, compression)
    return b"\x01" + vector(3, body + vector(2, b"".join(extensions)) + more)


GREASE = b"\x0a\x0a\x00\x01\x00"
PLAIN = HELLO, NAMELESS = hello_of("Db.Example.COM"), hello_of(None)


def test_the_name_in_lower_case_and_without_a_trailing_dot() -> None:
    assert read(HELLO) == "db.example.com"
    assert read(NAMELESS) == ""
    assert read(in_records(message(GREASE, server_name(b"a.test."), GREASE), 9000)) == "a.test"
    assert read(in_records(message()[:-2].replace(b"\x01\x00\x00\x2b", b"\x01\x00\x00\x29"), 9000)) == ""


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 50, 200, 16384])
def test_records_may_split_it_anywhere(size: int) -> None:
    assert read(in_records(HELLO[5:], size)) == "db.example.com"


@pytest.mark.parametrize("whole", [*PLAIN, in_records(HELLO[5:], 40)])
def test_until_it_is_complete_it_says_how_much_is_needed_and_never_too_much(whole: bytes) -> None:
    for size in range(len(whole)):
        wanted = read(whole[:size])
        assert isinstance(wanted, int)
        assert size < wanted <= len(whole)


def test_what_comes_behind_it_does_not_matter() -> None:
    assert read(HELLO + b"\xff" * 100) == "db.example.com"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x02\x00\x00\x10",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x40\x01",
        b"\x16\x03\x01\x00\x01\x02",  # a ServerHello
        b"\x16\x03\x01\x02\x00\x01\x00\x40\x00",  # longer than anybody's
        in_records(HELLO[5:], 10)[:30] + b"\x17\x03\x03\x00\x01\x00",
        in_records(message(server_name(b"a.test"), server_name(b"a.test")), 9000),
        in_records(message(server_name(b"")), 9000),
        in_records(message(server_name(b"a.test", kind=1)), 9000),
        in_records(message(server_name(b"a\0.test")), 9000),
        in_records(message(server_name(b"a.test:443")), 9000),
        in_records(message(server_name(b"[::1]")), 9000),
        in_records(message(server_name("ä.test".encode())), 9000),
        in_records(message(server_name(b"x" * 300)), 9000),
        in_records(message(b"\0\0\0\x09\0\x06\0\0\x01a\0\0\x01b"), 9000),
        in_records(message(GREASE[:-1]), 9000),
        in_records(message(ciphers=b"\x13"), 9000),
        in_records(message(compression=b""), 9000),
        in_records(message(more=b"\0"), 9000),
        in_records(b"\x01\x00\x00\x10" + bytes(16), 9000),
    ],
)
def test_what_is_no_hello_is_refused(data: bytes) -> None:
    with pytest.raises(ClientHelloError):
        read(data)


def test_the_longest() -> None:
    padding = b"\x00\x15" + vector(2, bytes(MAX_HELLO - 90))
    assert read(in_records(message(padding, server_name(b"a.test")), 16384)) == "a.test"
    with pytest.raises(ClientHelloError, match="longer"):
        read(in_records(message(padding + b"\x0a\x0a" + vector(2, bytes(90))), 16384)[:9])


def answer(data: bytes) -> str | int | None:
    try:
        return read(data)
    except ClientHelloError:
        return None


@given(
    st.sampled_from([b"", b"\x16\x03\x01", *PLAIN, in_records(HELLO[5:], 60), in_records(message(GREASE), 7)]),
    st.binary(max_size=50),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=3),
)
def test_whatever_comes_it_raises_nothing_else_and_pieces_do_not_matter(
    start: bytes, rest: bytes, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(start + rest)
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    whole = answer(bytes(data))
    for size in range(0, len(data), 3):
        part = answer(bytes(data[:size]))
        if isinstance(part, int):
            assert size < part <= MAX_HELLO
        else:
            assert part == whole
