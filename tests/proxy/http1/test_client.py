"""Connections to backends, where real sockets would need luck to show it: when one goes back into the pool, and what
is held while other connections have their turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rauta.proxy.http1.chunked import CHUNKS_PER_TURN
from rauta.proxy.http1.client import ClientConnection
from rauta.proxy.messages import NO_BODY, RequestHead
from rauta.proxy.plan import RoutePlan
from rauta.routing.model import Configuration, Match
from rauta.routing.outcome import Hit
from rauta.routing.settings import Address, Listener
from support.compiled import plain_only
from support.http import Peer, backend, client, forward, gateway, ok, request, run, service


class FakeTransport:
    def __init__(self) -> None:
        self.aborted = False
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        pass

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class FakePool:
    """Pool and wheel in one."""

    name = host_name = "backend"

    def __init__(self) -> None:
        self.wheel = self
        self.idle: list[ClientConnection] = []

    def put(self, connection: ClientConnection) -> None:
        self.idle.append(connection)

    def arm(self, item: object, seconds: float) -> None:
        pass

    def forget(self, item: object) -> None:
        pass

    def lost(self) -> None:
        pass


class FakeExchange:
    upgrade = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def sending(exchange: Any, head: RequestHead) -> tuple[ClientConnection, FakeTransport, FakePool]:
    """A connection that has sent a request's head."""
    pool, transport = FakePool(), FakeTransport()
    fake_pool: Any = pool
    fake_transport: Any = transport
    listener = Listener(name="web", address=Address("127.0.0.1", 1))
    configuration = Configuration(listeners=(listener,), services=(service(1),), routes=(forward(),))
    plan = RoutePlan.of(Hit(forward(), Match(), service(1)), listener, configuration)
    connection = ClientConnection(fake_pool)
    connection.connection_made(fake_transport)
    connection.send_request(exchange, head, "", plan)
    return connection, transport, pool


@plain_only
@pytest.mark.parametrize("waiting", [False, True], ids=["sent", "waiting"])
def test_a_request_that_still_waits_to_be_written_keeps_the_connection_out_of_the_pool(waiting: bool) -> None:
    """The backend has answered without reading the body, and may never read it: the next request would wait behind
    it, and nothing would slow its client down."""
    connection, transport, pool = sending(FakeExchange(), RequestHead("POST", "/", None, "a", "a", "1.1", 5))
    connection.send_body(b"hello")
    connection.send_end([])
    if waiting:
        connection.pause_writing()
    connection.data_received(ok())
    assert transport.aborted is waiting
    assert pool.idle == ([] if waiting else [connection])


# --- turns ----------------------------------------------------------------------------------------------

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
GET = RequestHead("GET", "/", None, "a", "a", "1.1", NO_BODY)


class Recorder:
    """An exchange that keeps what it is told."""

    upgrade = None

    def __init__(self) -> None:
        self.body = b""
        self.ended = 0
        self.failures: list[tuple[str, str]] = []

    def response_head(self, head: object) -> None:
        pass

    def response_body(self, data: bytes) -> None:
        assert not self.ended
        self.body += data

    def response_flush(self) -> None:
        pass

    def response_end(self, trailers: object) -> None:
        self.ended += 1

    def upstream_failed(self, reason: str, detail: str, *, stale: bool = False) -> None:
        assert not stale
        self.failures.append((reason, detail))


def chunks(count: int) -> bytes:
    return b"1\r\nx\r\n" * count


@plain_only
def test_small_chunks_are_passed_on_some_in_each_turn() -> None:
    async def main() -> None:
        exchange = Recorder()
        connection, transport, pool = sending(exchange, GET)
        connection.data_received(CHUNKED + chunks(3 * CHUNKS_PER_TURN + 1))
        for turn in (1, 2, 3):
            assert len(exchange.body) == turn * CHUNKS_PER_TURN
            assert not transport.reading
            connection.data_received(chunks(1))  # what a TLS layer had read already waits behind the rest
            await asyncio.sleep(0)
        assert len(exchange.body) == 3 * CHUNKS_PER_TURN + 4
        assert transport.reading
        connection.data_received(chunks(CHUNKS_PER_TURN) + END)
        assert not exchange.ended
        await asyncio.sleep(0)
        assert exchange.ended == 1
        assert transport.reading
        assert pool.idle == [connection]

    asyncio.run(main())


@plain_only
@pytest.mark.parametrize("end", [END, b"", b"zz\r\n"], ids=["complete", "cut", "malformed"])
@pytest.mark.parametrize("error", [None, ConnectionResetError("reset")], ids=["closed", "reset"])
def test_what_is_held_goes_before_the_end_of_the_connection(end: bytes, error: Exception | None) -> None:
    async def main() -> None:
        exchange = Recorder()
        connection, transport, pool = sending(exchange, GET)
        connection.data_received(CHUNKED + chunks(3 * CHUNKS_PER_TURN) + end)
        connection.eof_received()
        transport.aborted = True  # a transport that is closed
        connection.connection_lost(error)
        assert exchange.body == (b"x" * 3 * CHUNKS_PER_TURN if end != b"zz\r\n" else b"x" * CHUNKS_PER_TURN)
        assert exchange.ended == (end == END)
        reasons = {END: [], b"": ["upstream_reset"], b"zz\r\n": ["upstream_malformed"]}[end]
        assert [reason for reason, _ in exchange.failures] == reasons
        await asyncio.sleep(0)
        assert exchange.ended + len(exchange.failures) == 1
        assert pool.idle == []

    asyncio.run(main())


@plain_only
def test_what_is_held_for_a_client_that_has_left_is_dropped() -> None:
    async def main() -> None:
        exchange = Recorder()
        connection, transport, pool = sending(exchange, GET)
        connection.data_received(CHUNKED + chunks(2 * CHUNKS_PER_TURN) + END)
        connection.abort()
        await asyncio.sleep(0)
        connection.connection_lost(None)
        assert len(exchange.body) == CHUNKS_PER_TURN
        assert not exchange.ended
        assert not exchange.failures
        assert transport.aborted
        assert pool.idle == []

    asyncio.run(main())


@plain_only
@pytest.mark.parametrize("ready_after", [0, 5], ids=["at once", "after the turns"])
def test_reading_goes_on_when_nothing_is_held_and_the_client_takes_more(ready_after: int) -> None:
    async def main() -> None:
        exchange = Recorder()
        connection, transport, _ = sending(exchange, GET)
        connection.data_received(CHUNKED + chunks(3 * CHUNKS_PER_TURN))
        connection.pause_body()
        for turn in range(6):
            if turn == ready_after:
                connection.resume_body()
            assert transport.reading == (turn >= max(ready_after, 3))
            await asyncio.sleep(0)
        assert len(exchange.body) == 3 * CHUNKS_PER_TURN

    asyncio.run(main())


@plain_only
def test_bytes_behind_a_response_that_was_held_end_the_connection() -> None:
    async def main() -> None:
        exchange = Recorder()
        connection, transport, pool = sending(exchange, GET)
        connection.data_received(CHUNKED + chunks(CHUNKS_PER_TURN) + END + b"HTTP/1.1 200 OK\r\n")
        await asyncio.sleep(0)
        assert exchange.ended == 1
        assert transport.aborted
        assert pool.idle == []

    asyncio.run(main())


@pytest.mark.parametrize("way", ["kept", "closed", "cut"])
def test_a_response_of_tiny_chunks_arrives_whole_and_others_have_their_turn(way: str) -> None:
    count = 100_000

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            if b"/small" in head:
                peer.send(ok(b"small"))
                continue
            peer.send(CHUNKED + chunks(count) + (END if way != "cut" else b""))
            if way != "kept":
                return

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            async with client(rauta.port) as other:
                peer.send(request("/large"))
                await peer.head()
                other.send(request("/small"))
                assert (await other.response())[1] == b"small"
            body = b""
            while len(line := await peer.reader.readline()) > len(b"0\r\n"):
                body += (await peer.exactly(int(line, 16) + 2))[:-2]
            assert body == b"x" * count
            assert line == (b"0\r\n" if way != "cut" else b"")
            if way == "kept":
                peer.send(request("/small"))
                await peer.exactly(2)
                assert (await peer.response())[1] == b"small"

    run(main())
