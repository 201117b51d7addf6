"""An HTTP/2 client with no library between it and the wire: frames by hand, field blocks by HPACK alone."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

from support.h2client import (
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Answer,
    frame,
)

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
LARGEST = 16_384  # RFC 9113 4.2: what a frame may hold as long as nobody has offered more
GREATEST = 2**31 - 1  # of windows and of streams' identifiers
RESERVED = 1 << 31  # a bit that means nothing
UNKNOWN = 0x16  # a type of frame that nobody has defined
TABLE_SIZE, PUSH, STREAMS, WINDOW, FRAME_SIZE = range(1, 6)  # settings
LATER = 0x1001  # the stream of the request that asks whether a connection is still there
BEGIN = PREFACE + frame(SETTINGS, 0, 0)

Field = tuple[str | bytes, str | bytes]
GOOD: tuple[Field, ...] = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"))


# --- what is sent -------------------------------------------------------------------------------------------


def block(*fields: Field) -> bytes:
    """A field block. Of a new encoder, so that it refers to no dynamic table."""
    return bytes(Encoder().encode([_octets(*pair) for pair in fields], huffman=False))


def _octets(name: str | bytes, value: str | bytes) -> tuple[bytes, bytes]:
    return (
        name.encode("latin-1") if isinstance(name, str) else name,
        value.encode("latin-1") if isinstance(value, str) else value,
    )


def request(path: str = "/", *more: Field, method: str = "GET") -> bytes:
    """The field block of a request that is in order."""
    return block((":method", method), GOOD[1], (":path", path), GOOD[3], *more)


def headers(stream: int, fragment: bytes, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """A HEADERS frame, by default a whole request."""
    return frame(HEADERS, flags, stream, fragment)


def get(stream: int, path: str = "/", *more: Field) -> bytes:
    """A request without a body."""
    return headers(stream, request(path, *more))


def post(stream: int, path: str = "/", *more: Field) -> bytes:
    """The head of a request whose body, or trailers, are still to come."""
    return headers(stream, request(path, *more, method="POST"), END_HEADERS)


def data(stream: int, payload: bytes, flags: int = END_STREAM) -> bytes:
    """A piece of a body, by default the last one."""
    return frame(DATA, flags, stream, payload)


def word(number: int) -> bytes:
    """The payload of RST_STREAM and WINDOW_UPDATE: 32 bits."""
    return struct.pack(">L", number)


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def goaway(code: int, more: bytes = b"") -> bytes:
    """A GOAWAY frame of a client, which has accepted no streams."""
    return frame(GOAWAY, 0, 0, word(0) + word(code) + more)


# --- the connection -----------------------------------------------------------------------------------------


class ConnectionEndedError(AssertionError):
    """The connection is closed."""


@dataclass
class Seen:
    """What the other side has told of the connection as a whole."""

    goaways: list[tuple[int, int]] = field(default_factory=list)  # the last stream, the code
    acknowledged: int = 0  # of our SETTINGS
    pings: list[bytes] = field(default_factory=list)
    pongs: list[bytes] = field(default_factory=list)
    credit: Counter[int] = field(default_factory=Counter)  # by stream; 0: the connection
    closed: bool = False


class Wire:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.decoder = Decoder()
        self.streams: defaultdict[int, Answer] = defaultdict(Answer)
        self.seen = Seen()
        self.sent: Counter[int] = Counter()  # bytes of bodies, by stream, as tests count them
        self._greeted = False
        self._pings = 0
        self.patience = 5.0  # seconds for an answer

    def send(self, octets: bytes) -> None:
        """As they are."""
        self._writer.write(octets)

    def close(self) -> None:
        """The end."""
        self._writer.close()

    async def greeted(self) -> None:
        """The other side's preface has come."""
        while not self._greeted:
            await self._take()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take what comes until this holds. Raises ConnectionEndedError if that comes before, TimeoutError."""
        async with asyncio.timeout(self.patience):
            while not condition():
                if self.seen.closed:
                    raise ConnectionEndedError(f"the connection is closed: {self.seen}")
                await self._take()

    async def ended(self) -> None:
        """Take what comes until the connection is closed."""
        await self.until(lambda: self.seen.closed)

    async def rest(self) -> bytes:
        """All until the connection is closed, whatever it is."""
        async with asyncio.timeout(self.patience):
            return await self._reader.read()

    async def answered(self, stream: int) -> Answer:
        """The response is complete, or the stream reset."""
        found = self.streams[stream]
        await self.until(lambda: found.ended or found.reset is not None)
        return found

    async def settled(self) -> None:
        """All that was sent is known to the other side, and has had its effect."""
        for _ in range(2):  # what a frame sets off may be written behind the answer to the first one
            self._pings += 1
            payload = b"sett" + self._pings.to_bytes(4, "big")
            self.send(frame(PING, 0, 0, payload))
            await self.until(lambda wanted=payload: wanted in self.seen.pongs)  # type: ignore[misc]

    async def _take(self) -> None:
        try:
            head = await self._reader.readexactly(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big")
            payload = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise AssertionError(f"a frame breaks off: {error.partial!r}") from error
            self.seen.closed = True
            return
        assert self._greeted or (kind, flags) == (SETTINGS, 0)  # RFC 9113 3.4: "MUST be the first frame"
        assert length <= LARGEST
        assert stream < 1 << 31
        answer = self.streams[stream]
        assert answer.reset is None, f"a frame of type {kind} behind RST_STREAM"  # RFC 9113 5.4.2: "the last frame"
        match kind:
            case 0x0:
                answer.body += payload
                answer.ended = bool(flags & END_STREAM)
            case 0x1:
                assert flags & END_HEADERS
                self._fields(answer, payload, end=bool(flags & END_STREAM))
            case 0x3:
                answer.reset = int.from_bytes(payload, "big")
            case 0x4 if flags & ACK:
                self.seen.acknowledged += 1
            case 0x4:
                self._greeted = True
                self.send(frame(SETTINGS, ACK, 0))
            case 0x6 if flags & ACK:
                self.seen.pongs.append(payload)
            case 0x6:
                self.seen.pings.append(payload)  # answered by tests that want to
            case 0x7:
                last, code = struct.unpack(">LL", payload[:8])
                self.seen.goaways.append((last, code))
            case 0x8:
                self.seen.credit[stream] += int.from_bytes(payload, "big")
            case _:
                raise AssertionError(f"a frame of type {kind}")

    def _fields(self, answer: Answer, payload: bytes, *, end: bool) -> None:
        found = dict(self.decoder.decode(payload))
        answer.ended = end
        if status := found.pop(":status", None):
            answer.status = int(status)
            answer.fields = found
        else:
            answer.trailers = found


Step = bytes | Callable[[Wire], Awaitable[object]]


@asynccontextmanager
async def wire(port: int, begin: bytes = BEGIN) -> AsyncIterator[Wire]:
    """A connection, after both prefaces; or one that begins otherwise, and waits for nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = Wire(reader, writer)
    try:
        found.send(begin)
        if begin == BEGIN:
            await found.greeted()
        yield found
    finally:
        found.close()
