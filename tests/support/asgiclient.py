"""One client for HTTP/1.1 (by h11) and HTTP/2 (by h2), which tells all of an answer that a gateway could lose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11

from support import h2client

Fields = Sequence[tuple[str, str]]


@dataclass
class Seen:
    """What has come of an answer."""

    status: int = 0
    phrase: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # as they were written
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    whole: bool = False

    def all(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for known, value in self.fields if known == name]


async def ask(
    port: int, fields: Fields = (), *, http2: bool = False, method: str = "GET", path: str = "/", body: bytes = b""
) -> Seen:
    """One request, and what has come until the end or five seconds later."""
    seen = Seen()
    try:
        async with asyncio.timeout(5):
            await (_http2 if http2 else _http1)(port, seen, fields, method, path, body)
    except (TimeoutError, ConnectionError, h11.RemoteProtocolError):
        pass  # it is not whole
    return seen


async def _http1(port: int, seen: Seen, fields: Fields, method: str, path: str, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = h11.Connection(h11.CLIENT)
    length = [("Content-Length", str(len(body)))] if body else []
    try:
        head = h11.Request(method=method, target=path, headers=[("Host", "test"), *fields, *length])
        writer.write(connection.send(head) or b"")
        if body and ("Expect", "100-continue") not in fields:
            writer.write(connection.send(h11.Data(data=body)) or b"")
        if not body or ("Expect", "100-continue") not in fields:
            writer.write(connection.send(h11.EndOfMessage()) or b"")
        while not seen.whole:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.InformationalResponse):
                seen.interim.append(event.status_code)
                if event.status_code == 100:
                    writer.write(connection.send(h11.Data(data=body)) or b"")
                    writer.write(connection.send(h11.EndOfMessage()) or b"")
            elif isinstance(event, h11.Response):
                seen.status, seen.phrase = event.status_code, bytes(event.reason).decode()
                seen.fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                seen.names = [name.decode() for name, _ in event.headers.raw_items()]
            elif isinstance(event, h11.Data):
                seen.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                seen.trailers = {name.decode(): value.decode() for name, value in event.headers}
                seen.whole = True
            else:
                return
    finally:
        writer.close()


async def _http2(port: int, seen: Seen, fields: Fields, method: str, path: str, body: bytes) -> None:
    async with h2client.client(port) as client:
        lower = [(name.lower(), value) for name, value in fields]
        stream = client.request(*lower, method=method, path=path, end=not body, host="test")
        if body:
            client.h2.send_data(stream, body, end_stream=True)
            client.flush()
        try:
            answer = await client.answer(stream)
        finally:
            found = client.streams[stream]
            seen.status, seen.interim, seen.body, seen.trailers = (
                found.status,
                found.interim,
                found.body,
                found.trailers,
            )
            seen.fields, seen.names = list(found.fields.items()), list(found.fields)
        seen.whole = answer.reset is None
