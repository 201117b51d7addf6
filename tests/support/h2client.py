"""An HTTP/2 client by frames: the `h2` library's other side, and frames that no library would send."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Answer:
    """What has come on a stream."""

    status: int = 0
    interim: list[int] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None


class Client:
    """A connection. Nothing is checked of what it sends; what it gets, `h2` checks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        config = H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = H2Connection(config)
        self.streams: defaultdict[int, Answer] = defaultdict(Answer)
        self.goaway: int | None = None
        self.closed = False
        self.left = 0
        self.greedy = True  # take all that comes: credit it at once

    def start(self) -> None:
        """The preface and settings."""
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the library has made."""
        data = self.h2.data_to_send()
        if not self.writer.is_closing():
            self.writer.write(data)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.flush()
        self.writer.write(data)

    def request(
        self, *more: tuple[str, str], method: str = "GET", path: str = "/", end: bool = True, host: str = "a"
    ) -> int:
        """A request's head; its stream."""
        fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", host), *more]
        return self.head(fields, end=end)

    def head(self, fields: Sequence[tuple[str, str]], *, end: bool = True) -> int:
        """Any field section as the head of a request."""
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    async def more(self) -> None:
        """Take what comes next."""
        data = await asyncio.wait_for(self._reader.read(1 << 16), 10)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        answer = self.streams[getattr(event, "stream_id", 0) or 0]
        if isinstance(event, events.InformationalResponseReceived):
            answer.interim.append(int(dict(event.headers)[":status"]))
        elif isinstance(event, events.ResponseReceived):
            answer.fields = dict(event.headers)
            answer.status = int(answer.fields.pop(":status"))
        elif isinstance(event, events.DataReceived):
            answer.body += event.data
            if self.greedy:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, events.StreamEnded):
            answer.ended = True
        elif isinstance(event, events.StreamReset):
            answer.reset = int(event.error_code)
        elif isinstance(event, events.ConnectionTerminated):
            self.goaway = int(event.error_code)

    async def upload(self, stream: int, size: int) -> int:
        """Send so much of a body, as far as there is credit for it. `left` is what is still to go, also meanwhile."""
        self.left = size
        while self.left:
            room = min(self.h2.local_flow_control_window(stream), 16_384, self.left)
            if room:
                self.h2.send_data(stream, bytes(room))
                self.left -= room
                self.flush()
                await self.writer.drain()
            else:
                await self.more()
        return self.left

    async def until(self, ready: Callable[[], object]) -> None:
        """Take what comes until something is so. ConnectionError if the connection is closed before."""
        while not ready():
            if self.closed:
                raise ConnectionError("closed before")
            await self.more()

    async def answer(self, stream: int) -> Answer:
        """The response, once it is complete."""
        found = self.streams[stream]
        while not (found.ended or found.reset is not None):
            if self.closed:
                raise ConnectionError(f"closed before the end of stream {stream}")
            await self.more()
        return found

    async def end(self) -> int | None:
        """Wait until the connection is closed; the code of GOAWAY."""
        try:
            while not self.closed:
                await self.more()
        except ConnectionError:
            self.closed = True
        return self.goaway


@asynccontextmanager
async def client(port: int, **more: Any) -> AsyncIterator[Client]:
    """A client that has started."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **more)
    found = Client(reader, writer)
    found.start()
    try:
        yield found
    finally:
        writer.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (RFC 9113 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ERRORS = {code.name: int(code) for code in ErrorCodes}
