"""HTTP/2 towards backends that refuse, break the protocol, or give up."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from rauta.proxy.http2.frames import goaway_frame
from rauta.routing.services import ServiceLimits, Timeouts
from support import h2client
from support.h2backends import between, connection_has, spoken_to, status_of
from support.h2heads import BROKEN_ANSWERS
from support.h2server import STREAMS, Connection, mirror, server
from support.http import client, forward, free_port, gateway, request

# --- a backend gives up -------------------------------------------------------------------------------------


async def test_goaway_lets_go_on_what_was_taken_and_repeats_what_was_not() -> None:
    async def script(peer: Connection) -> None:
        if peer.number:
            await mirror(peer)
            return
        await peer.until(lambda: len(peer.requests) == 2 and peer.requests[3].ended)
        peer.leave(1)
        peer.answer(1, b"taken")
        await peer.until(lambda: False)

    async with between(script) as (behind, rauta), client(rauta.port) as one, client(rauta.port) as two:
        one.send(request("/one"))
        while not behind.connections or 1 not in behind.connections[0].requests:
            await asyncio.sleep(0.005)
        two.send(request("/two", method="POST", body=b"twice"))
        assert (await one.response())[1] == b"taken"
        assert (await two.response())[1] == b"twice"
        assert [line.split(" attempts=")[1][0] for line in rauta.log_lines()] == ["1", "2"]
        first = behind.connections[0]
        while not first.closed:
            await asyncio.sleep(0.005)
        assert first.goaway == 0


async def test_a_backend_that_leaves_in_two_steps() -> None:
    """RFC 9113 6.8: the first GOAWAY sends new streams elsewhere; the second one says which were taken."""
    left, second = asyncio.Event(), asyncio.Event()

    async def script(peer: Connection) -> None:
        if peer.number:
            await mirror(peer)
            return
        await peer.until(lambda: len(peer.requests) == 2 and peer.requests[3].ended)
        peer.leave(2**31 - 1)
        peer.h2.ping(bytes(8))
        peer.flush()
        await peer.until(lambda: peer.pongs)
        left.set()
        await second.wait()
        peer.leave(1)
        peer.answer(1, b"taken")
        await peer.until(lambda: False)

    async with (
        between(script) as (behind, rauta),
        client(rauta.port) as one,
        client(rauta.port) as two,
        client(rauta.port) as three,
    ):
        one.send(request("/one"))
        while not behind.connections or 1 not in behind.connections[0].requests:
            await asyncio.sleep(0.005)
        two.send(request("/two", method="POST", body=b"twice"))
        await asyncio.wait_for(left.wait(), 5)
        three.send(request("/three", method="POST", body=b"elsewhere"))
        assert (await three.response())[1] == b"elsewhere"
        first = behind.connections[0]
        assert (len(first.requests), first.closed) == (2, False)
        second.set()
        assert (await two.response())[1] == b"twice"
        assert (await one.response())[1] == b"taken"
        while not first.closed:
            await asyncio.sleep(0.005)
        told = {line.split('"')[1].split()[1]: line.split(" attempts=")[1][0] for line in rauta.log_lines()}
        assert told == {"/one": "1", "/two": "2", "/three": "1"}


async def test_settings_and_goaway_together_with_the_last_answer() -> None:
    """Frames that come together: there is no room any more that could be asked for."""

    async def script(peer: Connection) -> None:
        if peer.number:
            await mirror(peer)
            return
        await peer.request()
        peer.h2.send_headers(1, [(":status", "200"), ("content-length", "0")], end_stream=True)
        settings = h2client.frame(h2client.SETTINGS, 0, 0)
        peer.writer.write(settings + goaway_frame(1, 0) + peer.h2.data_to_send())
        await peer.until(lambda: False)

    async with between(script) as (behind, rauta), client(rauta.port) as peer:
        for _ in range(2):
            peer.send(request("/", method="POST"))
            assert await status_of(peer) == 200
        assert len(behind.connections) == 2
        assert all(" reason=- " in line for line in rauta.log_lines())


@pytest.mark.parametrize("greets", [False, True])
async def test_a_backend_that_closes_before_it_says_anything_has_seen_nothing(greets: bool) -> None:
    """It stops listening while a connection waits to be accepted."""
    accepted = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        if accepted > 1:
            await mirror(Connection(1, reader, writer, {}))
        elif greets:
            await Connection(0, reader, writer, {}).request()
        else:
            await reader.read(1)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as behind:
        port = behind.sockets[0].getsockname()[1]
        async with gateway(services=[spoken_to(port)], routes=[forward()]) as rauta, client(rauta.port) as peer:
            peer.send(request("/", method="POST", body=b"once"))
            assert await status_of(peer) == (502 if greets else 200)


async def test_a_refused_stream_is_tried_once_more() -> None:
    refusals = 1

    async def script(peer: Connection) -> None:
        nonlocal refusals
        done: set[int] = set()
        while not peer.closed:
            await peer.more()
            for stream in peer.requests.keys() - done:
                done.add(stream)
                if refusals:
                    refusals -= 1
                    peer.reset(stream, ErrorCodes.REFUSED_STREAM)
                else:
                    peer.answer(stream, b"ok")

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        peer.send(request("/", method="POST", body=b"x"))
        assert await status_of(peer) == 200
        for number, again in enumerate((request("/", method="POST", body=b"x"), request("/")), 1):
            refusals = 2
            peer.send(again)
            assert await status_of(peer) == 502
            assert "the stream was reset (REFUSED_STREAM)" in rauta.log_lines()[number]


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, 0x77])
async def test_other_resets_are_errors(code: int) -> None:
    async def script(peer: Connection) -> None:
        await peer.request()
        peer.raw(h2client.frame(h2client.RST_STREAM, 0, 1, int(code).to_bytes(4, "big")))
        await peer.request(1)
        peer.answer(3, b"ok")
        await peer.until(lambda: False)

    async with between(script) as (behind, rauta), client(rauta.port) as peer:
        peer.send(request())
        head, body = await peer.response()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"upstream_reset" in body
        peer.send(request())
        assert await status_of(peer) == 200
        assert len(behind.connections) == 1


async def test_a_reset_within_the_response_cuts_it() -> None:
    async def script(peer: Connection) -> None:
        await peer.request()
        peer.head(1, [(":status", "200"), ("content-length", "10")])
        peer.data(1, b"half")
        peer.reset(1, ErrorCodes.INTERNAL_ERROR)
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        peer.send(request())
        assert (await peer.rest()).endswith(b"half")
        assert "reason=upstream_reset" in rauta.log_lines()[0]


async def test_a_connection_that_is_lost_repeats_only_what_is_idempotent() -> None:
    async def script(peer: Connection) -> None:
        if peer.number:
            await mirror(peer)
            return
        await peer.request()
        peer.answer(1, b"ok")
        await peer.until(lambda: 3 in peer.requests and 5 in peer.requests and peer.requests[5].ended)

    async with between(script) as (behind, rauta), client(rauta.port) as one, client(rauta.port) as two:
        one.send(request())
        assert await status_of(one) == 200
        one.send(request("/again"))
        while 3 not in behind.connections[0].requests:
            await asyncio.sleep(0.005)
        two.send(request("/", method="POST", body=b"x"))
        assert await status_of(one) == 200
        assert await status_of(two) == 502


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
async def test_malformed_responses(name: str) -> None:
    """None reaches the client, and the next request is answered."""

    async def script(peer: Connection) -> None:
        await peer.request()
        if not peer.number:
            block = peer.h2.encoder.encode(BROKEN_ANSWERS[name])
            peer.raw(h2client.frame(h2client.HEADERS, 0x5, 1, block))
            await peer.until(lambda: 3 in peer.requests)
            if peer.closed:
                return
            peer.answer(3, b"ok")
        else:
            peer.answer(1, b"ok")
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        peer.send(request())
        head, body = await peer.response()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"upstream_malformed" in body
        peer.send(request())
        assert await status_of(peer) == 200


async def test_what_is_no_http_2_at_all() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    plain = await asyncio.start_server(hello, "127.0.0.1", 0)
    async with plain:
        services = [spoken_to(plain.sockets[0].getsockname()[1])]
        async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
            peer.send(request())
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"upstream_malformed" in body


async def test_nobody_is_there() -> None:
    services = [spoken_to(free_port())]
    async with gateway(services=services, routes=[forward()]) as rauta:

        async def ask(_: int) -> bytes:
            async with client(rauta.port) as peer:
                peer.send(request())
                return (await peer.response())[1]

        assert all(b"upstream_refused" in body for body in await asyncio.gather(*map(ask, range(5))))
        (pool,) = rauta.plane.pools
        assert (pool.open, pool.in_flight) == (0, 0)


async def test_time_outs() -> None:
    """A connection of which nothing has been heard all the time may be dead: it takes no more requests."""

    async def script(peer: Connection) -> None:
        await peer.request()
        if peer.number:
            peer.head(1, [(":status", "200")])
            peer.data(1, b"x")
        await peer.until(lambda: False)

    times = Timeouts(response=0.2, idle=0.4)
    async with between(script, timeouts=times) as (behind, rauta), client(rauta.port) as peer:
        peer.send(request())
        assert await status_of(peer) == 504
        peer.send(request())
        assert (await peer.rest()).endswith(b"1\r\nx\r\n")  # cut
        assert [line.split("reason=")[1].split()[0] for line in rauta.log_lines()] == ["upstream_timeout"] * 2
        first, second = behind.connections
        await asyncio.wait_for(connection_has(second, lambda: second.requests[1].reset == ErrorCodes.CANCEL), 2)
        await asyncio.wait_for(connection_has(first, lambda: first.requests[1].reset == ErrorCodes.CANCEL), 2)


async def test_a_client_that_leaves_cancels_its_stream_alone() -> None:
    async def script(peer: Connection) -> None:
        await peer.until(lambda: 3 in peer.requests)
        await peer.until(lambda: peer.requests[1].reset is not None)
        peer.answer(3, b"ok")
        await peer.until(lambda: False)

    async with between(script) as (behind, rauta), client(rauta.port) as leaves, client(rauta.port) as stays:
        leaves.send(request())
        while not behind.connections or 1 not in behind.connections[0].requests:
            await asyncio.sleep(0.005)
        stays.send(request())
        leaves.writer.transport.abort()
        assert await status_of(stays) == 200
        assert behind.connections[0].requests[1].reset == ErrorCodes.CANCEL


async def test_a_response_before_the_end_of_its_request() -> None:
    """RFC 9113 8.1: what is left of the request nobody wants."""

    async def script(peer: Connection) -> None:
        peer.greedy = False
        await peer.until(lambda: 1 in peer.requests)
        peer.answer(1, b"enough", status=413)
        await peer.until(lambda: peer.requests[1].reset is not None)
        await mirror(peer)

    async with between(script) as (behind, rauta), client(rauta.port) as peer:
        peer.send(request("/", "Content-Length: 300000", method="POST") + bytes(1000))
        head, body = await peer.response()
        assert (head.split()[1], body) == (b"413", b"enough")
        (connection,) = behind.connections
        await asyncio.wait_for(connection_has(connection, lambda: connection.requests[1].reset is not None), 2)
        assert connection.requests[1].reset == ErrorCodes.NO_ERROR


async def test_the_end_of_the_gateway_is_an_orderly_one() -> None:
    async with server(mirror) as behind:
        async with gateway(services=[spoken_to(behind.port)], routes=[forward()]) as rauta, client(rauta.port) as peer:
            peer.send(request())
            assert await status_of(peer) == 200
        (connection,) = behind.connections
        await asyncio.wait_for(connection_has(connection, lambda: connection.closed), 2)
        assert connection.goaway == 0


@pytest.mark.skipif(shutil.which("nghttpd") is None, reason="nghttpd is not installed (nghttp2-server)")
async def test_nghttpd(tmp_path: Path) -> None:
    body = bytes(range(256)) * 8000
    (tmp_path / "big").write_bytes(body)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "nghttpd", "-d", str(tmp_path), "--no-tls", "--trailer=x-t: 1", str(port), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        services = [spoken_to(port)]
        async with gateway(services=services, routes=[forward()]) as rauta, h2client.client(rauta.port) as peer:
            answer = h2client.Answer()
            for _ in range(200):
                answer = await peer.answer(peer.request(path="/big"))
                if answer.status != 502:
                    break
                await asyncio.sleep(0.02)
            assert (answer.status, answer.body, answer.trailers) == (200, body, {"x-t": "1"})
            command = ("h2load", "-n", "300", "-c", "3", "-m", "10", f"http://127.0.0.1:{rauta.port}/big")
            load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            out, _ = await load.communicate()
            assert b"300 succeeded, 0 failed" in out
    finally:
        process.terminate()
        await process.wait()


async def test_a_refused_stream_waits_for_room_where_no_connection_may_be_made() -> None:
    """Another that has waited gets its place first."""
    waits = asyncio.Event()

    async def script(peer: Connection) -> None:
        await peer.until(lambda: 1 in peer.requests and 3 in peer.requests)
        await waits.wait()
        peer.reset(3, ErrorCodes.REFUSED_STREAM)
        await peer.until(lambda: 5 in peer.requests)
        for stream, body in ((1, b"first"), (5, b"third")):
            peer.answer(stream, body)
        await peer.until(lambda: 7 in peer.requests)
        peer.answer(7, b"second again")
        await peer.until(lambda: False)

    async with (
        between(script, {STREAMS: 2}, limits=ServiceLimits(connections=1)) as (behind, rauta),
        client(rauta.port) as one,
        client(rauta.port) as two,
        client(rauta.port) as three,
    ):
        for number, peer in enumerate((one, two, three)):
            peer.send(request(f"/{number}"))
            while number < 2 and (not behind.connections or len(behind.connections[0].requests) <= number):
                await asyncio.sleep(0.005)
        (pool,) = rauta.plane.pools
        while not pool.waiting:
            await asyncio.sleep(0.005)
        waits.set()
        assert (await one.response())[1] == b"first"
        assert (await three.response())[1] == b"third"
        assert (await two.response())[1] == b"second again"
        assert len(behind.connections) == 1


async def test_a_response_that_is_short_of_its_length_though_trailers_follow() -> None:
    """The client would take the next response for the rest."""

    async def script(peer: Connection) -> None:
        await peer.request()
        peer.head(1, [(":status", "200"), ("content-length", "100")])
        peer.raw(h2client.frame(h2client.DATA, 0, 1, bytes(10)))
        block = peer.h2.encoder.encode([("x", "y")])
        peer.raw(h2client.frame(h2client.HEADERS, 0x5, 1, block))
        await peer.until(lambda: False)

    async with between(script) as (_, rauta), client(rauta.port) as peer:
        peer.send(request())
        await peer.rest()  # cut, not kept
        assert "reason=upstream_malformed" in rauta.log_lines()[0]


async def test_a_body_goes_whole_with_a_request_that_is_refused_at_once() -> None:
    """The backend ends a response and leaves in the same segment, while a request waits for room."""
    waits = asyncio.Event()

    async def script(peer: Connection) -> None:
        if peer.number:
            await mirror(peer)
            return
        await peer.request()
        await waits.wait()
        peer.h2.send_headers(1, [(":status", "200")], end_stream=True)
        goaway = h2client.frame(7, 0, 0, (1).to_bytes(4, "big") + bytes(4))
        peer.writer.write(peer.h2.data_to_send() + goaway)
        await peer.until(lambda: False)

    settings, limits = {STREAMS: 1}, ServiceLimits(connections=1)
    async with (
        between(script, settings, limits=limits) as (behind, rauta),
        client(rauta.port) as one,
        client(rauta.port) as two,
    ):
        one.send(request("/a"))
        while not behind.connections or not behind.connections[0].requests:
            await asyncio.sleep(0.005)
        two.send(request("/b", method="POST", body=b"hello world"))
        (pool,) = rauta.plane.pools
        while not pool.waiting:
            await asyncio.sleep(0.005)
        waits.set()
        assert await status_of(one) == 200
        assert (await two.response())[1] == b"hello world"


async def test_a_backend_that_takes_no_streams_at_all() -> None:
    """Requests get an answer, no exception escapes, and no connection is left."""

    async def script(peer: Connection) -> None:
        await peer.until(lambda: False)

    limits = ServiceLimits(connections=4, waiting=200)
    times = Timeouts(connect=0.3, response=0.3)
    async with between(script, {STREAMS: 0}, limits=limits, timeouts=times) as (_, rauta):

        async def ask(_: int) -> int:
            async with client(rauta.port) as peer:
                peer.send(request())
                return await status_of(peer)

        found = await asyncio.gather(*map(ask, range(100)))
        assert set(found) <= {502, 503, 504}
        (pool,) = rauta.plane.pools
        assert pool.in_flight == 0
