"""A backend that speaks HTTP/2, scripted: the `h2` library's server side, and frames that no library would send."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame


@dataclass
class Request:
    """What has come on a stream."""

    stream: int
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]


class Connection:
    """One connection of the gateway. What it sends `h2` checks; of what is sent to it nothing is checked."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: dict[Any, int]
    ) -> None:
        self.number = number
        self._reader = reader
        self.writer = writer
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if settings:
            self.h2.local_settings = Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.requests: dict[int, Request] = {}
        self.most = 0  # streams that were open at a time
        self.goaway: int | None = None
        self.pongs = 0
        self.closed = False
        self.greedy = True  # take all that comes: credit it at once
        self.flush()

    def flush(self) -> None:
        """Send what the library has made."""
        if not self.writer.is_closing():
            self.writer.write(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.flush()
        self.writer.write(data)

    def head(self, stream: int, fields: Sequence[tuple[str, str]], *, end: bool = False) -> None:
        """Any field section."""
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """A piece of a body, within the window."""
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def answer(self, stream: int, body: bytes = b"", *more: tuple[str, str], status: int = 200) -> None:
        """A complete response; with the length of its body, if it has one."""
        length = [("content-length", str(len(body)))] if body else []
        self.head(stream, [(":status", str(status)), *length, *more], end=not body)
        for at in range(0, len(body), 16_384):
            self.data(stream, body[at : at + 16_384], end=at + 16_384 >= len(body))

    def reset(self, stream: int, code: ErrorCodes) -> None:
        """Give a stream up."""
        self.h2.reset_stream(stream, code)
        self.flush()

    def leave(self, last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """GOAWAY, and go on."""
        frame = GoAwayFrame(0)
        frame.last_stream_id, frame.error_code = last, code
        self.raw(frame.serialize())

    async def more(self) -> None:
        """Take what comes next."""
        data = await self._reader.read(1 << 16)
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        if isinstance(event, events.RequestReceived):
            self.requests[event.stream_id] = Request(event.stream_id, [*event.headers])
            self.most = max(self.most, self.h2.open_inbound_streams)
        elif isinstance(event, events.ConnectionTerminated):
            self.goaway = int(event.error_code)
        elif isinstance(event, events.PingAckReceived):
            self.pongs += 1
        elif isinstance(event, events.DataReceived):
            self.requests[event.stream_id].body += event.data
            if self.greedy:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.TrailersReceived):
            self.requests[event.stream_id].trailers = [*event.headers]
        elif isinstance(event, events.StreamEnded):
            self.requests[event.stream_id].ended = True
        elif isinstance(event, events.StreamReset):
            self.requests[event.stream_id].reset = int(event.error_code)

    async def until(self, ready: Callable[[], object]) -> None:
        """Take what comes until something is so, or the connection is closed."""
        while not ready() and not self.closed:
            await self.more()

    async def request(self, number: int = 0) -> Request:
        """The request with this number on the connection, complete. ConnectionError if there will be none."""
        stream = 2 * number + 1
        await self.until(lambda: stream in self.requests and self.requests[stream].ended)
        if self.closed:
            raise ConnectionResetError
        return self.requests[stream]


Script = Callable[[Connection], Awaitable[None]]


class Server:
    """A running scripted backend."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections: list[Connection] = []


@asynccontextmanager
async def server(
    script: Script, settings: dict[Any, int] | None = None, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Server]:
    """A server on loopback that plays `script` on each connection and then closes it."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        connection = Connection(len(found.connections), reader, writer, settings or {})
        found.connections.append(connection)
        try:
            await script(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the gateway has closed, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    listening = await asyncio.start_server(accept, "127.0.0.1", port, ssl=context)
    found = Server(listening.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def mirror(connection: Connection) -> None:
    """Answer each request with its body, or else with its method and path."""
    answered: set[int] = set()
    while not connection.closed:
        await connection.more()
        for stream, request in [*connection.requests.items()]:
            if request.ended and stream not in answered:
                answered.add(stream)
                body = request.body or f"{request[':method']} {request[':path']}".encode()
                connection.answer(stream, b"" if request[":method"] == "HEAD" else body)


STREAMS = SettingCodes.MAX_CONCURRENT_STREAMS
WINDOW = SettingCodes.INITIAL_WINDOW_SIZE
