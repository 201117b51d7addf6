"""What both sides of HTTP/2 share: a message on its way out, and the connection that its frames go through.

Away from us, what the peer has no window for waits with its stream; whoever fills it is told to pause beyond 64 KiB.
Streams that have something to send take turns, a frame each. Frames that cost their sender nothing are counted.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from typing import Any, Final, Protocol

from rauta.proxy.flow import HIGH_WATER, LARGE_READ, UNREAD, ReadGate
from rauta.proxy.http2.frames import EVERY, FRAME, WIDER, Frames
from rauta.proxy.http2.heads import Raw
from rauta.proxy.wheel import TICKS_PER_SECOND, Expiring

# Frames that may come for nothing in ten seconds, beyond one for each response. Browsers ping every few seconds.
FREE_FRAMES: Final = 200
_FREE_FOR: Final = 10.0
# The connection's window is given back in pieces of that size: it is far larger.
_GIVEN_BACK: Final = 1 << 18
# Credit that may come for each frame of a body that is sent: 16 KiB, in pieces of 4 KiB, of stream and connection.
_UPDATES: Final = 8
_MOST_UPDATES: Final = 64 * FREE_FRAMES
# Bytes that the library is given at once: what comes of them is counted before the rest. 256 KiB of the shortest heads
# took 54 s.
SLICE: Final = 16 * 1024
# Fewer, where they are many frames for their size: with h2, 16 KiB of the shortest ones take 100 ms. Seconds.
_LEAST_SLICE: Final = 1024
_SLOW: Final = 0.002
_QUICK: Final = 0.0005
_TURN: Final = 0.005  # for one connection; then others have theirs
# Pieces of a body that wait are at least so large, if there are several: an object of its own for each byte is 50 times
# what the window allows.
_PIECE: Final = 1024
# Answers to such frames that the peer does not read.
UNREAD_LIMIT: Final = 1 << 20

# What became of an attempt to send.
MORE, WAITS, DONE, GONE = range(4)


class Outbox:
    """A message that is being sent: a head, a body, perhaps trailers."""

    __slots__ = ("_at", "_body", "_ended", "_head", "_over", "_trailers", "size")

    def __init__(self) -> None:
        self._head: list[Raw] | None = None  # not sent yet: perhaps the end comes with it
        self._body: deque[bytes] = deque()
        self._at = 0  # of the first piece that much has been sent
        self._ended = False  # nothing follows what is in `_body`
        self._over = False  # the end has been sent
        self._trailers: list[Raw] = []
        self.size = 0  # bytes of body that wait

    def head(self, fields: list[Raw]) -> None:
        """The message begins."""
        self._head = fields

    def body(self, data: bytes) -> None:
        """More of it."""
        self.size += len(data)
        if self._body and len(self._body[-1]) + len(data) <= _PIECE:
            self._body[-1] += data
        else:
            self._body.append(data)

    def end(self, trailers: list[Raw]) -> None:
        """It is complete."""
        self._ended = True
        self._trailers = trailers

    def clear(self) -> None:
        """Nothing of it is to be sent any more."""
        self._head = None
        self._body.clear()
        self._at = 0
        self.size = 0

    def send_some(self, frames: Frames, stream: int) -> int:
        """One frame of it, if there is one and the windows have room: MORE may follow at once; it WAITS for room or for
        what comes next; it is DONE, with the end of the message; the stream is GONE."""
        if self._head is not None:
            head, self._head = self._head, None
            at_once = self._ended and not self._body and not self._trailers
            self._over = at_once
            if not frames.send_head(stream, head, end=at_once):
                return GONE
            return DONE if at_once else MORE if self._body or self._ended else WAITS
        if self._body:
            return self._send_body(frames, stream)
        if not self._ended or self._over:
            return WAITS
        self._over = True
        if self._trailers:
            sent = frames.send_head(stream, self._trailers, end=True)
        else:
            sent = frames.send_data(stream, b"", end=True)
        return DONE if sent else GONE

    def _send_body(self, frames: Frames, stream: int) -> int:
        room = frames.room(stream)
        if not room:
            return WAITS
        at, piece = self._at, self._body[0]
        if len(piece) - at > room:
            self._at = at + room
            piece = piece[at : at + room]
        else:
            self._body.popleft()
            self._at = 0
            piece = piece[at:] if at else piece
        self.size -= len(piece)
        last = self._over = self._ended and not self._body and not self._trailers
        if not frames.send_data(stream, piece, end=last):
            return GONE
        return DONE if last else MORE if self._body or self._ended else WAITS


class Sending(Protocol):
    """A stream that has something to send, or has brought something."""

    def bring(self) -> None:
        """Hand on what has come of it."""

    def send_some(self) -> bool:
        """One frame, if there is room. False: nothing can be sent now."""


class Window:
    """What a stream may bring before any of it is taken: `least` bytes at first, and more where that is little for its
    path. Its bytes are given back when whoever they are for has taken them."""

    __slots__ = ("_began", "_least", "_owed", "_passed", "size")

    def __init__(self, least: int, now: int) -> None:
        self.size = least
        self._least = least
        self._owed = 0  # bytes that came and are not given back
        self._passed = 0  # bytes that came and went since `_began`
        self._began = now

    @property
    def extra(self) -> int:
        """By how much it is wider than at first."""
        return self.size - self._least

    def came(self, size: int) -> None:
        """So much of it is used."""
        self._owed += size

    def give_back(self, connection: Multiplexed, number: int, now: int) -> None:
        """What was taken, in large pieces."""
        if self._owed < self._least // 4:
            return
        credit, self._owed = self._owed, 0
        connection.frames.credit(credit, number)
        self._passed += credit
        if self._passed >= self.size:
            # Passed whole in less than a second, it is small for what is under way between the peer and us.
            if now - self._began < TICKS_PER_SECOND and (more := connection.lend(self)):
                self.size += more
                connection.frames.widen(number, self.size, more)
            self._passed, self._began = 0, now
        connection.write()


class Multiplexed(Expiring):
    """One connection, by its sending side and its windows."""

    __slots__ = (
        "_blocked",
        "_calm",
        "_calm_until",
        "_closing",
        "_gate",
        "_loop",
        "_owed",
        "_pings",
        "_pumping",
        "_slice",
        "_starved",
        "_touched",
        "_transport",
        "_unread",
        "_updates",
        "_waiting",
        "_wider",
        "frames",
    )

    _transport: asyncio.Transport
    _gate: ReadGate

    def __init__(self, frames: Frames, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.frames = frames
        self._loop = loop
        self._pumping = False  # `_turn` is called soon
        self._waiting: dict[Any, None] = {}  # the `Sending` that have something to send, in turn
        self._touched: dict[Any, None] = {}  # the `Sending` that have brought something in this turn
        self._slice = SLICE
        self._starved = False  # the connection's window has no room, whatever its streams' have
        self._unread = bytearray()
        self._blocked = False  # the transport takes no more
        self._closing = False
        self._owed = 0  # bytes of the connection's window that came and are not given back
        self._wider = WIDER  # bytes by which windows of streams may still grow
        self._calm = self._pings = self._updates = FREE_FRAMES
        self._calm_until = 0.0

    def pause_writing(self) -> None:
        """The transport takes no more."""
        self._blocked = True

    def resume_writing(self) -> None:
        """It does again."""
        self._blocked = False
        self.pump()

    def wake(self, stream: Sending) -> None:
        """It has something to send: in the next turn of the loop, with what others have to send by then. One write, and
        with TLS one record, for all."""
        self._waiting[stream] = None
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._pumping = False
        if not self._closing:
            self.pump()

    def touch(self, stream: Sending) -> None:
        """It has brought something: `bring` is called once all is read."""
        self._touched[stream] = None

    def take_in(self, data: bytes) -> None:
        """Bytes have come. What they bring is handed on by stream, and in turns: frames may cost their sender next to
        nothing, and us a millisecond."""
        if self._unread:
            self._unread += data
            return
        self._digest(data)
        if len(data) >= LARGE_READ and not self._closing:
            self._gate.rest(self._loop)

    def _digest(self, data: bytes) -> None:
        began = last = time.monotonic()
        at = 0
        while at < len(data):
            size = self._slice
            if not self._read(data[at : at + size] if at or len(data) > size else data):
                return
            at += size
            now = time.monotonic()
            if now - last > _SLOW:
                self._slice = max(_LEAST_SLICE, size // 4)
            elif now - last < _QUICK:
                self._slice = min(SLICE, size * 2)
            last = now
            if now - began > _TURN and at < len(data):
                self._unread += data[at:]
                self._gate.close(UNREAD)
                self._loop.call_soon(self._go_on)
                break
        for stream in list(self._touched):
            stream.bring()
        self._touched.clear()
        self.pump()

    def _go_on(self) -> None:
        data, self._unread = bytes(self._unread), bytearray()
        if not self._closing:
            self._digest(data)
        if not self._unread:
            self._gate.open(UNREAD)  # also to throw away what still comes

    @abstractmethod
    def _read(self, data: bytes) -> bool:
        """Take some frames. False: the connection is over."""

    def write(self) -> None:
        """Send what the frames' library has made."""
        data = self.frames.take()
        if data and not self._transport.is_closing():
            self._transport.write(data)
            if self._blocked and self._transport.get_write_buffer_size() > UNREAD_LIMIT:
                self._transport.abort()  # it sends, and reads no answers

    def pump(self) -> None:
        """Send what there is room for, a frame of each stream in turn."""
        waiting = self._waiting
        tried = bool(waiting)
        made = 0  # bytes at most, that the transport does not know of
        while waiting and not self._blocked and not self._closing:
            stream: Sending = next(iter(waiting))
            del waiting[stream]
            if stream.send_some():
                waiting[stream] = None
            made += FRAME
            if made >= HIGH_WATER:
                made = 0
                self.write()  # which may block
        if tried:
            self._starved = self.frames.shared_room <= 0
        self.write()

    def has_room(self, streams: dict[int, Any], stream: int) -> None:
        """A window has room: of a stream, of all, or of the connection (0). That matters to nobody who waits for his
        own: a hundred streams would be woken for nothing by each."""
        if stream > 0:
            if (found := streams.get(stream)) is not None:
                self._waiting[found] = None
        elif stream == EVERY or self._starved:
            self._starved = False
            self._waiting.update(dict.fromkeys(streams.values()))

    def taken(self, size: int) -> None:
        """So much of the connection's window has been used."""
        self._owed += size
        if self._owed >= _GIVEN_BACK:
            owed, self._owed = self._owed, 0
            self.frames.credit(owed, None)

    def lend(self, window: Window) -> int:
        """By how much it may grow. What it has more than at first is never more than what is left for others: a stream
        that has grown, and then idles for a day, cannot give it back."""
        more = min(window.size, (self._wider - window.extra) // 2)
        if more <= 0:
            return 0
        self._wider -= more
        return more

    def returned(self, window: Window) -> None:
        """Its stream is over."""
        self._wider += window.extra

    def answered(self) -> None:
        """A response is complete: so much more may come for nothing. Not with the request: one that is reset at once
        costs most of all (CVE-2023-44487)."""
        self._calm = min(FREE_FRAMES, self._calm + 1)

    def count(self, kind: str, now: float) -> None:
        """A frame that costs its sender nothing."""
        if now >= self._calm_until:
            self._calm_until = now + _FREE_FOR
            self._calm = self._pings = FREE_FRAMES
            self._updates = max(self._updates, FREE_FRAMES)
        if kind == "PING":
            self._pings -= 1
        elif kind == "WINDOW_UPDATE":
            self._updates -= 1
        else:
            self._calm -= 1
        if min(self._calm, self._pings, self._updates) <= 0 and not self._closing:
            self.flooded(f"too many {kind} frames")

    def carried(self) -> None:
        """A piece of a body has come or gone. Peers that measure the path ping with each (gRPC's BDP estimate)."""
        self._pings = min(FREE_FRAMES, self._pings + 1)
        self._updates = min(_MOST_UPDATES, self._updates + _UPDATES)

    @abstractmethod
    def flooded(self, why: str) -> None:
        """Too many frames have come for nothing."""
