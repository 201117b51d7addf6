"""The chunked coding: any split of the bytes gives the same, and h11 reads what we write."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.http1.chunked import ChunkDecoder, encode_chunk, encode_last_chunk
from rauta.proxy.http1.grammar import MalformedError


def decode(data: bytes, cuts: list[int]) -> tuple[bytes, list[tuple[str, str]], bytes]:
    """Feed the pieces of `data` between the cuts: content, trailers, and what is left behind the end."""
    decoder = ChunkDecoder()
    content = b""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        piece, taken = decoder.feed(b"??" + data[start:end], 2)
        content += piece
        if decoder.done:
            return content, decoder.trailers, data[start + taken - 2 :]
        assert taken == end - start + 2
    raise AssertionError("the body has not ended")


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
TRAILERS = st.lists(st.tuples(st.sampled_from(["X-A", "b"]), st.sampled_from(["", "1", "x y"])), max_size=3)


@given(CHUNKS, TRAILERS, st.lists(st.integers(0, 10_000), max_size=8), st.binary(max_size=10))
def test_any_split(chunks: list[bytes], trailers: list[tuple[str, str]], cuts: list[int], behind: bytes) -> None:
    data = b"".join(b"".join(encode_chunk(chunk)) for chunk in chunks) + encode_last_chunk(trailers)
    assert decode(data + behind, cuts) == (b"".join(chunks), trailers, behind)


@given(CHUNKS, TRAILERS)
def test_h11_reads_it(chunks: list[bytes], trailers: list[tuple[str, str]]) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.next_event()
    for chunk in chunks:
        connection.receive_data(b"".join(encode_chunk(chunk)))
    connection.receive_data(encode_last_chunk(trailers))
    content = b""
    while isinstance(event := connection.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert content == b"".join(chunks)
    assert [(name.decode(), value.decode()) for name, value in event.headers] == [
        (name.lower(), value) for name, value in trailers
    ]


INTERESTING = st.sampled_from([*b'\r\n 0159aAfF;="x\\\t:-+_\x00'])


@given(st.lists(INTERESTING, max_size=24).map(bytes), st.lists(st.integers(0, 30), max_size=3))
def test_what_passes_is_what_h11_reads(data: bytes, cuts: list[int]) -> None:
    data += b"\r\n0\r\n\r\n"
    try:
        content, _, behind = decode(data, cuts)
    except (MalformedError, AssertionError):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    read = b""
    while isinstance(event := connection.next_event(), h11.Data):
        read += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert read == content
    assert connection.trailing_data[0] == behind


# Without Content-Length and Transfer-Encoding: h11 looks at their values even here, and we drop them unseen.
NAME = st.sampled_from([b"X-Sum", b"x", b"Host", b"a b", b"", b"X(", b"\xe9", b" x", b"Set-Cookie"])
VALUE = st.sampled_from([b"1", b"", b" x y \t", b"\xff", b"a\x00", b"a\rb", b"a\nb", b"a\r\n b", b"\x0b"])
TRAILER_LINES = st.lists(st.tuples(NAME, st.sampled_from([b":", b"", b" :"]), VALUE), max_size=4)


@given(TRAILER_LINES, st.lists(st.integers(0, 100), max_size=3))
def test_no_trailers_pass_that_h11_refuses(lines: list[tuple[bytes, bytes, bytes]], cuts: list[int]) -> None:
    data = b"1\r\nx\r\n0\r\n" + b"".join(name + colon + value + b"\r\n" for name, colon, value in lines) + b"\r\n"
    try:
        content, trailers, behind = decode(data, cuts)
    except MalformedError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    event = connection.next_event()
    assert isinstance(event, h11.Data)
    assert event.data == content
    event = connection.next_event()
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data[0] == behind
    read = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
    ours = [(name.lower(), value) for name, value in trailers]
    assert ours == [field for field in read if field[0] in ("x-sum", "x")]


@given(st.lists(st.integers(0, 10_000), max_size=4))
def test_good_extensions(cuts: list[int]) -> None:
    data = b'5;a\r\nhello\r\n1 ; b = "q\\"q" ;c=d\r\n!\r\n000\r\n\r\n'
    assert decode(data, cuts) == (b"hello!", [], b"")


def test_a_long_body_of_small_chunks_is_one_piece() -> None:
    decoder = ChunkDecoder()
    content, _ = decoder.feed(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    assert content == b"x" * 1000


def test_an_endless_line_is_refused_early() -> None:
    decoder = ChunkDecoder()
    for _ in range(256):
        decoder.feed(b"0")
    with pytest.raises(MalformedError):
        decoder.feed(b"000")


@given(st.lists(st.integers(0, 10_000), max_size=8), st.integers(1, 5))
def test_no_more_chunks_than_asked_for(cuts: list[int], most: int) -> None:
    chunks = [b"%d" % number for number in range(20)]
    data = b"".join(b"".join(encode_chunk(chunk)) for chunk in chunks) + b"0\r\n\r\n"
    decoder = ChunkDecoder()
    content, at = b"", 0
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        at = start
        while at < end:
            piece, at = decoder.feed(data[:end], at, most)
            assert len(piece) <= 2 * most
            content += piece
    assert decoder.done
    assert content == b"".join(chunks)


@pytest.mark.parametrize(
    "data",
    [b"password=hunter2\r\n", b"1\r\nxhunter2\r\n", b"0\r\nhunter2\r\n\r\n", b"0\r\nx hunter2: 1\r\n\r\n"],
)
def test_what_is_malformed_is_not_quoted(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        ChunkDecoder().feed(data)
    assert "hunter" not in str(caught.value)
