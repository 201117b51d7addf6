"""What a connection that lasts keeps."""

from __future__ import annotations

import tracemalloc

from rauta.proxy.http2.frames import make
from support.h2client import ERRORS, PING, RST_STREAM, WINDOW_UPDATE, frame
from support.h2wire import BEGIN, get, word

LONG = 16_000  # requests


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
