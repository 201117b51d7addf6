"""What one connection may do in a turn of the loop, empty lines before requests, and what is logged of refused ones."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rauta.proxy.dispatch import Dispatcher
from rauta.proxy.generation import Generation
from rauta.proxy.http1.chunked import CHUNKS_PER_TURN
from rauta.proxy.http1.server import HEADS_PER_TURN, ServerConnection
from rauta.proxy.reasons import BODIES
from rauta.proxy.shared import Shared
from rauta.routing.model import (
    Configuration,
    Match,
    PathMatch,
    Respond,
    Route,
)
from rauta.routing.settings import AccessLog, Address, Listener, LogFormat
from rauta.routing.table import Table
from support.compiled import plain_only
from support.http import backend, client, gateway, impatient, ok, request, run, talk

HELLO = Route(name="hello", action=Respond(body="hello"), matches=(Match(path=PathMatch.prefix("/")),))


class FakeTransport(asyncio.Transport):
    """Keeps what is written; takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    abort = close


def connect() -> tuple[ServerConnection, FakeTransport]:
    """A connection whose requests are all answered at once."""
    loop = asyncio.get_running_loop()
    listener = Listener(name="web", address=Address("127.0.0.1", 1))
    table = Table(Configuration(listeners=(listener,), services=(), routes=(HELLO,), access_log=AccessLog(to="off")))
    dispatcher = Dispatcher(listener, Generation(table, {}), Shared.on(loop, None, None))
    connection, transport = ServerConnection(dispatcher, set(), "http"), FakeTransport()
    connection.connection_made(transport)
    return connection, transport


# --- turns ----------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_some_in_each_turn() -> None:
    async def main() -> None:
        connection, transport = connect()
        connection.data_received(request("/") * (2 * HEADS_PER_TURN + 3))
        for turn in (1, 2):
            assert transport.written.count(b"HTTP/1.1 200 ") == turn * HEADS_PER_TURN
            assert not transport.reading
            connection.data_received(request("/"))  # what a TLS layer had read already waits behind the rest
            await asyncio.sleep(0)
        assert transport.written.count(b"HTTP/1.1 200 ") == 2 * HEADS_PER_TURN + 5
        assert transport.reading

    asyncio.run(main())


def test_as_many_as_fit_into_a_turn_leave_nothing_behind() -> None:
    async def main() -> None:
        connection, transport = connect()
        connection.data_received(request("/") * HEADS_PER_TURN)
        assert transport.written.count(b"HTTP/1.1 200 ") == HEADS_PER_TURN
        assert transport.reading

    asyncio.run(main())


def test_a_connection_that_is_lost_between_turns_is_left_alone() -> None:
    async def main() -> None:
        connection, transport = connect()
        connection.data_received(request("/") * (HEADS_PER_TURN + 1))
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert transport.written.count(b"HTTP/1.1 200 ") == HEADS_PER_TURN

    asyncio.run(main())


def test_hundreds_of_pipelined_requests_are_all_answered() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO]) as rauta:
            answer = await talk(rauta.port, request("/") * 500 + request("/", "Connection: close"))
            assert answer.count(b"HTTP/1.1 200 ") == 501

    run(main())


@plain_only
def test_small_chunks_arrive_whole_and_some_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    from rauta.proxy.http1.chunked import ChunkDecoder

    asked: list[int | None] = []
    feed = ChunkDecoder.feed

    def watched(self: ChunkDecoder, data: bytes, at: int = 0, most: int | None = None) -> tuple[bytes, int]:
        piece, taken = feed(self, data, at, most)
        asked.append(len(piece))
        return piece, taken

    monkeypatch.setattr(ChunkDecoder, "feed", watched)
    count = 10 * CHUNKS_PER_TURN + 7

    async def script(peer: Any) -> None:
        await peer.head()
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await peer.reader.read(65536)
        lines = body.split(b"\r\n")
        peer.send(ok(str(sum(len(line) for line in lines[1::2])).encode()))

    async def main() -> None:
        head = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(head + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
            assert (await peer.response())[1] == str(count).encode()
        assert max(filter(None, asked)) <= CHUNKS_PER_TURN

    run(main())


# --- empty lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_one_empty_line_is_ignored_and_two_are_not_however_they_arrive(size: int) -> None:
    async def main() -> None:
        for lines, status in ((1, b"200"), (2, b"400")):
            connection, transport = connect()
            data = b"\r\n" * lines + request("/")
            for at in range(0, len(data), size):
                connection.data_received(data[at : at + size])
                if transport.written:
                    break
            assert transport.written.startswith(b"HTTP/1.1 %b " % status), (lines, transport.written)

    asyncio.run(main())


def test_empty_lines_do_not_keep_a_connection() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=impatient(head=0.3)) as rauta, client(rauta.port) as peer:
            started = asyncio.get_running_loop().time()
            peer.send(b"\r\n")
            assert await peer.rest() == b""  # no request was begun: nothing to be answered
            assert asyncio.get_running_loop().time() - started < 3

    run(main())


# --- the log of refused requests ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (
            b"GET /a?token=x&b=1 HTTP/1.1\r\nHost: A.test:80\r\nBad Field: 1\r\n\r\n",
            ("GET", "/a?token=***&b=1", "HTTP/1.1", "a.test", "bad_field"),
        ),
        (b"GET /%zz?pwd=1 HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", "/%zz?pwd=***", "HTTP/1.1", "a", "bad_path")),
        (b"GET ftp://u:secret@h/ HTTP/1.1\r\nHost: a\r\n\r\n", ("GET", None, "HTTP/1.1", "a", "bad_target")),
        (b"GET /x HTTP/1.1\r\n\r\nHost: b\r\n", ("GET", "/x", "HTTP/1.1", None, "bad_host")),
        (b"\r\nTRACE /x HTTP/1.1\r\nHost: a\r\n\r\n", ("TRACE", "/x", "HTTP/1.1", "a", "method_not_allowed")),
        (b"GET /" + b"a" * 70_000, ("GET", "/" + "a" * 2047 + "[...]", None, None, "target_too_long")),
        (b"\x16\x03\x01\x00", (None, None, None, None, "tls_on_plain")),
    ],
)
def test_a_refused_request_is_logged_with_what_is_known(data: bytes, known: tuple[str | None, ...]) -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], log=LogFormat.JSON) as rauta:
            assert (await talk(rauta.port, data)).startswith(b"HTTP/1.1 4")
            (line,) = rauta.log_lines()
            fields = json.loads(line)
            assert tuple(fields[name] for name in ("method", "target", "protocol", "host", "reason")) == known
            assert fields["bytes"] == len(BODIES[fields["reason"]])
            assert "secret" not in line

    run(main())


def test_a_head_that_does_not_end_is_logged_with_what_is_known() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=impatient(head=0.2), log=LogFormat.COMMON) as rauta:
            assert (await talk(rauta.port, b"GET /a HTTP/1.1\r\nHost: a.test\r\nX")).startswith(b"HTTP/1.1 408 ")
            (line,) = rauta.log_lines()
            assert '"GET /a HTTP/1.1" 408 ' in line
            assert " host=a.test " in line

    run(main())


def test_a_broken_body_is_not_logged() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], log=LogFormat.COMMON) as rauta:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            await talk(rauta.port, head + b"ZZ password=hunter2\r\n")
            assert "hunter2" not in "".join(rauta.log_lines())

    run(main())
