"""What RFC 9113 asks of the sender: windows (6.9), answers to what must be answered, and silence otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.h2client import ERRORS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame
from support.h2mirror import mirrored
from support.h2wire import (
    ACK,
    GREATEST,
    LARGEST,
    PADDED,
    TABLE_SIZE,
    WINDOW,
    Wire,
    data,
    get,
    post,
    settings,
    wire,
    word,
)
from support.http import Peer, backend, forward, gateway, service

USUAL = 65_535  # bytes of a window that nobody has changed


def update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, word(size))


async def came(peer: Wire, stream: int = 1) -> int:
    """The bytes of a body that have come, once nothing more comes."""
    await peer.until(lambda: peer.streams[stream].status == 200)
    await peer.settled()
    return len(peer.streams[stream].body)


async def test_an_initial_window_of_nothing() -> None:
    """6.9.1: "The sender MUST NOT send a flow-controlled frame with a length that exceeds the space available"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(settings((WINDOW, 0)) + get(1, "/size-1000"))
        assert await came(peer) == 0  # the head is not flow-controlled
        for size, total in ((10, 10), (1, 11), (988, 999)):
            peer.send(update(1, size))
            assert await came(peer) == total
        assert not peer.streams[1].ended
        peer.send(update(1, 1))
        assert len((await peer.answered(1)).body) == 1000


async def test_a_window_below_zero() -> None:
    """6.9.2: "A sender MUST track the negative flow-control window and MUST NOT send new flow-controlled frames until
    it receives WINDOW_UPDATE frames that cause the flow-control window to become positive"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(settings((WINDOW, 100)) + get(1, "/size-1000"))
        assert await came(peer) == 100
        peer.send(settings((WINDOW, 0)))  # -100
        assert await came(peer) == 100
        peer.send(update(1, 99))  # -1
        assert await came(peer) == 100
        peer.send(update(1, 1))  # 0
        assert await came(peer) == 100
        peer.send(update(1, 5))
        assert await came(peer) == 105
        peer.send(settings((WINDOW, 7)))
        assert await came(peer) == 112


async def test_a_greater_initial_window_is_of_open_streams_too() -> None:
    """6.9.2: "MUST adjust the size of all stream flow-control windows that it maintains by the difference"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(settings((WINDOW, 100)) + get(1, "/size-1000") + get(3, "/size-1000"))
        assert (await came(peer, 1), await came(peer, 3)) == (100, 100)
        peer.send(update(3, 10) + settings((WINDOW, 150)))
        await peer.settled()
        assert (await came(peer, 1), await came(peer, 3)) == (150, 160)


async def test_settings_do_not_change_the_window_of_the_connection() -> None:
    """6.9.2: "A SETTINGS frame cannot alter the connection flow-control window"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(settings((WINDOW, GREATEST)) + get(1, "/size-100000"))
        await peer.until(lambda: len(peer.streams[1].body) >= USUAL)
        assert await came(peer) == USUAL
        peer.send(get(3, "/size-10"))
        assert await came(peer, 3) == 0  # its own window does not help
        peer.send(update(0, 100_000))
        assert len((await peer.answered(1)).body) == 100_000
        assert len((await peer.answered(3)).body) == 10


async def test_a_body_that_fits_its_window_ends() -> None:
    """6.9.1: "Frames with zero length with the END_STREAM flag set MAY be sent if there is no available space"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(get(1, f"/size-{USUAL}"))
        assert len((await peer.answered(1)).body) == USUAL
        peer.send(get(3, "/size-0"))
        assert (await peer.answered(3)).ended


async def test_padding_is_given_back() -> None:
    """6.1: "The entire DATA frame payload is included in flow control, including the Pad Length and Padding fields"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        before = peer.seen.credit[0]
        peer.send(post(1))
        for _ in range(2):
            peer.send(data(1, b"\xffx" + bytes(255), PADDED) * 200)
            await peer.until(lambda: peer.seen.credit[1] >= 200 * 257 // 2)
        peer.send(data(1, b""))
        assert (await peer.answered(1)).body == b"x" * 400
        assert peer.seen.credit[0] >= before


async def test_nothing_is_sent_on_a_stream_that_was_reset() -> None:
    """6.4: "After receiving a RST_STREAM on a stream, the receiver MUST NOT send additional frames for that stream"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(settings((WINDOW, 100)) + get(1, "/size-1000"))
        assert await came(peer) == 100
        peer.send(frame(RST_STREAM, 0, 1, word(ERRORS["CANCEL"])) + update(1, 1000))
        assert await came(peer) == 100
        assert peer.streams[1].reset is None
        peer.send(get(3))
        assert (await peer.answered(3)).status == 200


async def test_pings_are_answered_and_answers_are_not() -> None:
    """6.7: "MUST send a PING frame with the ACK flag set in response, with an identical frame payload"; "MUST NOT
    respond to PING frames containing this flag"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(frame(PING, ACK, 0, b"nothanks") + frame(PING, 0, 0, b"\x00\xff345678"))
        await peer.until(lambda: bool(peer.seen.pongs))
        await peer.settled()
        assert peer.seen.pongs[0] == b"\x00\xff345678"
        assert b"nothanks" not in peer.seen.pongs


async def test_settings_are_acknowledged_and_acknowledgements_are_not(library: str) -> None:
    """6.5.3: "Once all values have been processed, the recipient MUST immediately emit a SETTINGS frame with the ACK
    flag set"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        await peer.settled()
        assert peer.seen.acknowledged == 1  # of the preface; and ours was none that is acknowledged
        peer.send(settings((WINDOW, 1)) + settings())
        if library == "h2":  # the other takes one that nobody waits for as an error
            peer.send(frame(SETTINGS, ACK, 0))
        await peer.settled()
        assert peer.seen.acknowledged == 3


async def test_a_smaller_table_is_kept_to() -> None:
    """4.3.1: "its HPACK encoder MUST start the next field block with a Dynamic Table Size Update instruction that sets
    the dynamic table to a size that is less than or equal to the reduced maximum"."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(get(1))
        await peer.answered(1)
        assert peer.decoder.header_table.dynamic_entries
        peer.send(settings((TABLE_SIZE, 0)))
        await peer.settled()
        peer.decoder.max_allowed_table_size = 0
        for stream in (3, 5):
            peer.send(get(stream))
            assert (await peer.answered(stream)).status == 200
        assert not peer.decoder.header_table.dynamic_entries


async def test_who_sends_on_hears_why_the_connection_ends() -> None:
    """5.4.1: "SHOULD first send a GOAWAY frame": closing while there is something to be read would lose it."""
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(frame(PING, 0, 0, bytes(7)) + data(1, bytes(16_000), 0) * 60)
        await peer.ended()
        assert peer.seen.goaways == [(0, ERRORS["FRAME_SIZE_ERROR"])]


# --- windows towards us -------------------------------------------------------------------------------------


async def upload(peer: Wire, stream: int, size: int) -> None:
    """A piece of a request's body, as its window lets it go."""
    sent = 0
    while sent < size:
        room = window_of(peer, stream) - peer.sent[stream]
        piece = min(room, size - sent, LARGEST)
        if piece <= 0:
            before = peer.seen.credit[stream]
            await peer.until(lambda before=before: peer.seen.credit[stream] > before)  # type: ignore[misc]
            continue
        peer.send(data(stream, bytes(piece), 0))
        peer.sent[stream] += piece
        sent += piece
    await peer.settled()


def window_of(peer: Wire, stream: int) -> int:
    """What the stream may send in all."""
    return USUAL + peer.seen.credit[stream]


def left(peer: Wire, *streams: int) -> int:
    """What they may still send."""
    return sum(window_of(peer, stream) - peer.sent[stream] for stream in streams)


@asynccontextmanager
async def uploads(taken: asyncio.Event) -> AsyncIterator[Wire]:
    """A connection to a gateway whose backend reads what it gets once that is set."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await taken.wait()
        await peer.reader.read()

    async with (
        backend(script) as server,
        gateway(services=[service(server.port)], routes=[forward()]) as rauta,
        wire(rauta.port) as peer,
    ):
        yield peer


async def test_the_window_of_a_stream_grows_with_what_passes() -> None:
    taken = asyncio.Event()
    taken.set()
    async with uploads(taken) as peer:
        peer.send(post(1))
        await upload(peer, 1, 1000)
        assert left(peer, 1) <= USUAL
        await upload(peer, 1, 4 << 20)
        assert left(peer, 1) >= 1 << 19  # credit comes for half a window at a time
        assert left(peer, 1) <= USUAL + (1 << 20)


async def test_windows_of_a_connection_do_not_grow_by_more_than_two_mebibytes_together() -> None:
    taken = asyncio.Event()
    taken.set()
    async with uploads(taken) as peer:
        streams = (1, 3, 5)
        for stream in streams:
            peer.send(post(stream))
            await upload(peer, stream, 3 << 20)
        assert left(peer, *streams) <= 3 * USUAL + (2 << 20)
        assert left(peer, 5) > USUAL  # the first two have left some
        peer.send(b"".join(frame(RST_STREAM, 0, stream, word(ERRORS["CANCEL"])) for stream in streams))
        peer.send(post(7))
        await upload(peer, 7, 4 << 20)
        assert left(peer, 7) >= 1 << 19  # what those had is there for others


async def test_a_backend_that_takes_nothing_stops_its_stream() -> None:
    taken = asyncio.Event()
    async with uploads(taken) as peer:
        peer.send(post(1))
        while left(peer, 1):
            while piece := min(left(peer, 1), LARGEST):
                peer.send(data(1, bytes(piece), 0))
                peer.sent[1] += piece
            await peer.settled()
        assert peer.sent[1] < 8 << 20  # with what the kernel holds
        taken.set()
        await upload(peer, 1, 1 << 20)
