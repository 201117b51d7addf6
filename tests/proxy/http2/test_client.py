"""HTTP/2 towards backends: what goes over, and what is shared."""

from __future__ import annotations

import asyncio
import socket

import pytest

from rauta.routing.services import ServiceLimits
from support import h2client
from support.h2backends import between, status_of
from support.h2server import STREAMS, WINDOW, Connection, mirror
from support.http import client, request

# --- what goes over -----------------------------------------------------------------------------------------


async def test_requests_and_responses() -> None:
    async with between(mirror) as (behind, rauta), client(rauta.port) as peer:
        peer.send(request("/a?b=c", "X-One: 1", "Connection: x-hop", "X-Hop: no", "Cookie: a=1"))
        assert (await peer.response())[1] == b"GET /a?b=c"
        body = bytes(range(256)) * 800
        peer.send(request("/p", method="POST", body=body))
        assert (await peer.response())[1] == body
        peer.send(request("/h", method="HEAD"))
        assert (await peer.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        (connection,) = behind.connections
        first = dict(connection.requests[1].fields)
        assert first.pop("x-forwarded-for") == "127.0.0.1"
        assert first == {
            ":method": "GET", ":scheme": "http", ":authority": "test", ":path": "/a?b=c", "x-one": "1",
            "cookie": "a=1", "te": "trailers", "x-forwarded-proto": "http", "x-forwarded-host": "test",
        }  # fmt: skip
        assert connection.requests[3]["content-length"] == str(len(body))


async def test_interim_responses_trailers_and_no_length() -> None:
    async def script(peer: Connection) -> None:
        sent = await peer.request()
        assert sent.body == b"hello"
        assert sent.trailers == [("x-sum", "5")]
        peer.head(1, [(":status", "103"), ("link", "</s>")])
        peer.head(1, [(":status", "200"), ("x", "y")])
        peer.data(1, b"some")
        peer.head(1, [("x-more", "z")], end=True)
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        head = request("/", "Transfer-Encoding: chunked", "Trailer: x-sum", method="POST")
        peer.send(head + b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n")
        assert (await peer.head()).startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </s>")
        assert b"Transfer-Encoding: chunked" in await peer.head()
        expected = b"4\r\nsome\r\n0\r\nx-more: z\r\n\r\n"
        assert await peer.exactly(len(expected)) == expected


async def test_expect_100_continue() -> None:
    async def script(peer: Connection) -> None:
        await peer.until(lambda: 1 in peer.requests)
        assert peer.requests[1]["expect"] == "100-continue"
        peer.head(1, [(":status", "100")])
        peer.answer(1, (await peer.request()).body)
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        head = request("/", "Expect: 100-continue", method="POST", body=b"xyz")
        peer.send(head[:-3])
        assert (await peer.head()).startswith(b"HTTP/1.1 100 Continue")
        peer.send(b"xyz")
        assert b"xyz" in await peer.exactly(len(await peer.head()) and 3)


async def test_http_2_on_both_sides_keeps_what_grpc_needs() -> None:
    """A response that ends with its head has no length then: its fields are trailers."""

    async def script(peer: Connection) -> None:
        await peer.request()
        peer.answer(1, b"", ("content-type", "application/grpc"), ("grpc-status", "5"))
        await peer.request(1)
        peer.answer(3, b"", ("content-type", "text/plain"))
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), h2client.client(rauta.port) as peer:
        first = await peer.answer(peer.request(("te", "trailers"), method="POST"))
        assert (first.fields["grpc-status"], first.ended, "content-length" in first.fields) == ("5", True, False)
        second = await peer.answer(peer.request())
        assert second.fields["content-length"] == "0"


# --- connections are shared ---------------------------------------------------------------------------------


async def test_requests_share_a_connection_also_while_it_is_made() -> None:
    async with between(mirror) as (behind, rauta):

        async def ask(number: int) -> bytes:
            async with client(rauta.port) as peer:
                peer.send(request(f"/{number}"))
                return (await peer.response())[1]

        for _ in range(2):
            assert await asyncio.gather(*map(ask, range(50))) == [b"GET /%d" % number for number in range(50)]
        assert len(behind.connections) == 1
        (pool,) = rauta.plane.pools
        assert (pool.connects, pool.open, pool.idle, pool.in_flight) == (1, 1, 1, 0)


async def test_no_more_streams_than_the_backend_allows() -> None:
    async def slowly(peer: Connection) -> None:
        done: set[int] = set()
        while not peer.closed:
            await peer.more()
            await asyncio.sleep(0.002)  # others may come meanwhile
            for stream in peer.requests.keys() - done:
                done.add(stream)
                peer.answer(stream, b"ok")

    async with between(slowly, {STREAMS: 3}, limits=ServiceLimits(connections=2)) as (behind, rauta):

        async def ask(_: int) -> int:
            async with client(rauta.port) as peer:
                peer.send(request())
                return await status_of(peer)

        assert await ask(0) == 200  # the settings are known now
        assert await asyncio.gather(*map(ask, range(40))) == [200] * 40
        assert 2 <= max(connection.most for connection in behind.connections) <= 3
        assert len(behind.connections) <= 2


async def test_a_stream_that_is_slow_stalls_no_other() -> None:
    async def script(peer: Connection) -> None:
        first = await peer.request()
        sent = 0
        peer.head(first.stream, [(":status", "200")])
        while not peer.closed:
            while (room := peer.h2.local_flow_control_window(first.stream)) and sent < 50_000_000:
                size = min(room, 16_384)
                peer.data(first.stream, bytes(size))
                sent += size
            for stream, asked in [*peer.requests.items()][1:]:
                if asked.ended and not asked.body:
                    asked.body = b"%d" % sent
                    peer.answer(stream, asked.body)
            await peer.more()

    async with between(script) as (behind, rauta), client(rauta.port) as slow:
        slow.send(request("/large"))
        await slow.head()
        before = -1
        for _ in range(100):  # until all windows on the way are full
            async with client(rauta.port) as peer:
                peer.send(request("/small"))
                sent = int((await peer.response())[1])
            if sent == before:
                break
            before = sent
            await asyncio.sleep(0.01)
        assert sent == before
        assert 256 * 1024 <= sent < 12_000_000  # the sockets' buffers hold most of it
        assert len(behind.connections) == 1


async def test_a_backend_that_takes_nothing_stops_the_client() -> None:
    taken = asyncio.Event()

    async def script(peer: Connection) -> None:
        await peer.request()
        peer.answer(1, b"ok")  # the settings are known now
        peer.greedy = False
        await peer.until(lambda: 3 in peer.requests and len(peer.requests[3].body) == 1000)
        await taken.wait()
        peer.greedy = True
        peer.h2.increment_flow_control_window(1 << 20, 3)
        peer.h2.increment_flow_control_window(1 << 20)
        peer.flush()
        peer.answer(3, b"%d" % len((await peer.request(1)).body))
        await peer.until(lambda: False)

    async with between(script, {WINDOW: 1000}) as (_, rauta), client(rauta.port) as peer:
        peer.send(request())
        assert await status_of(peer) == 200
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        body = bytes(4_000_000)
        peer.send(request("/", method="POST", body=body))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(peer.writer.drain(), 0.5)  # not taken
        taken.set()
        assert (await peer.response())[1] == b"4000000"
        (pool,) = rauta.plane.pools
        assert pool.in_flight == 0
