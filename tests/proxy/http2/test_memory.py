"""What a connection that lasts keeps."""

from __future__ import annotations

import tracemalloc

import pytest

from rauta.proxy.http2.frames import BrokenError, make
from rauta.proxy.http2.streams import Outbox
from support.h2client import ERRORS, PING, RST_STREAM, WINDOW_UPDATE, frame
from support.h2wire import BEGIN, get, settings, word

LONG = 11_000  # requests


def test_streams_that_are_over_take_no_memory_for_long() -> None:
    frames = make(head_limit=65_536, window=65_536, client=False)
    frames.receive(BEGIN)
    tracemalloc.start()
    try:
        for number in range(LONG):
            stream = 2 * number + 1
            frames.receive(get(stream))
            assert frames.send_head(stream, [(b":status", b"200")], end=True)
            frames.take()
            if number == LONG // 2:
                before = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - before < 400_000
    finally:
        tracemalloc.stop()
    # What may still be on its way for one of them is no error of the connection.
    for late in (frame(WINDOW_UPDATE, 0, 1, word(1)), frame(RST_STREAM, 0, 1, word(ERRORS["CANCEL"]))):
        frames.receive(late)
    assert frames.receive(frame(PING, 0, 0, bytes(8)))


def test_small_pieces_that_wait_are_few() -> None:
    outbox = Outbox()
    for number in range(10_000):
        outbox.body(bytes([number % 256]))
    assert (outbox.size, len(outbox._body)) == (10_000, 10)
    assert b"".join(outbox._body) == bytes(number % 256 for number in range(10_000))


@pytest.mark.parametrize("of_client", [True, False])
def test_settings_that_nobody_knows_leave_nothing(of_client: bool) -> None:
    frames = make(head_limit=65_536, window=65_536, client=not of_client)
    frames.receive(BEGIN if of_client else settings())
    tracemalloc.start()
    try:
        for number in range(100):
            frames.receive(settings(*((1000 + 32 * number + entry, 7) for entry in range(32))))
            frames.take()
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("of_client", [True, False])
def test_a_settings_frame_of_many_entries_ends_the_connection(of_client: bool) -> None:
    frames = make(head_limit=65_536, window=65_536, client=not of_client)
    frames.receive(BEGIN if of_client else settings())
    with pytest.raises(BrokenError):
        frames.receive(settings(*((1000 + entry, 7) for entry in range(33))))
