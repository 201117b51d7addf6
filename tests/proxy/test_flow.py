"""Bodies in both directions, backpressure, pipelining, and what memory they cost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from rauta.proxy.http1.server import HELD_LIMIT
from rauta.routing.services import Timeouts
from support.http import Peer, always, backend, client, forward, gateway, ok, request, run, service

MIB = 1024 * 1024


def resident() -> int:
    """This process' resident memory, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def pump(writer: asyncio.StreamWriter, size: int, piece: bytes) -> None:
    for _ in range(size // len(piece)):
        writer.write(piece)
        await writer.drain()


async def swallow(reader: asyncio.StreamReader, size: int) -> int:
    """Read that many bytes; the most memory that was seen meanwhile."""
    most = 0
    while size > 0:
        data = await reader.read(MIB)
        assert data, "the stream ended early"
        size -= len(data)
        most = max(most, resident())
    assert size == 0
    return most


@pytest.mark.parametrize("size", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.slow)], ids=["64M", "1G"])
def test_a_long_response_costs_no_memory(size: int) -> None:
    piece = bytes(64 * 1024)

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        await pump(peer.writer, size, piece)

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            await peer.head()
            before = resident()
            assert await swallow(peer.reader, size) - before < 16 * MIB

    run(main(), 120)


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_a_long_request_costs_no_memory(chunked: bool) -> None:
    size = 64 * MIB
    piece = bytes(64 * 1024)

    async def script(peer: Peer) -> None:
        await peer.head()
        if not chunked:
            most = await swallow(peer.reader, size)
        else:
            left = size
            most = 0
            while left:
                length = int(await peer.reader.readline(), 16)
                await peer.reader.readexactly(length + 2)
                left -= length
                most = max(most, resident())
            assert await peer.reader.readexactly(5) == b"0\r\n\r\n"
        peer.send(ok(b"%d" % most))

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            peer.send(request("/", framing, method="POST"))
            before = resident()
            one = b"10000\r\n" + piece + b"\r\n" if chunked else piece
            await pump(peer.writer, len(one) * (size // len(piece)), one)
            peer.send(b"0\r\n\r\n" if chunked else b"")
            assert int((await peer.response())[1]) - before < 16 * MIB

    run(main(), 60)


def test_a_slow_client_stops_the_backend() -> None:
    """The backend can send no more than buffers hold while the client reads nothing."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MIB))
        piece = bytes(64 * 1024)
        for _ in range(256 * 16):
            peer.send(piece)
            await peer.writer.drain()
            sent += len(piece)

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta:
            sock = socket.create_connection(("127.0.0.1", rauta.port))
            before = resident()
            with sock:
                sock.sendall(request())
                last = -1
                while sent != last or not sent:
                    last = sent
                    await asyncio.sleep(0.2)
                assert sent < 32 * MIB  # the kernel's buffers; most of it
                assert resident() - before < 16 * MIB
                # The client reads again: so the backend goes on.
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                got = 0
                while got < 64 * MIB:
                    got += len(await loop.sock_recv(sock, MIB))

    run(main())


def test_a_slow_backend_stops_the_client() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        peer.received = b""
        await swallow(peer.reader, 128 * MIB)
        peer.send(ok())

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", f"Content-Length: {128 * MIB}", method="POST"))
            before = resident()
            sending = asyncio.get_running_loop().create_task(pump(peer.writer, 128 * MIB, bytes(64 * 1024)))
            done, _ = await asyncio.wait([sending], timeout=0.5)
            assert not done
            assert resident() - before < 16 * MIB
            go.set()
            await sending
            assert (await peer.response())[1] == b"hello"

    run(main())


def test_an_upload_waits_for_the_connection() -> None:
    """While the backend's backlog is full, the client's body stays with the client."""

    async def main() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            slow = service(port, timeouts=Timeouts(connect=0.5))
            async with gateway(services=[slow], routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request("/", f"Content-Length: {256 * MIB}", method="POST"))
                before = resident()
                sending = asyncio.get_running_loop().create_task(pump(peer.writer, 256 * MIB, bytes(64 * 1024)))
                done, _ = await asyncio.wait([sending], timeout=0.4)
                assert not done
                assert resident() - before < 16 * MIB
                assert (await peer.head()).startswith(b"HTTP/1.1 504 ")
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            for filler in fillers:
                filler.close()

    run(main())


# --- pipelining -----------------------------------------------------------------------------------------


def echo_path(delay: float = 0.0):
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            path = head.split(b" ")[1]
            if delay:
                await asyncio.sleep(delay)
            peer.send(ok(path))

    return script


@pytest.mark.parametrize("delay", [0.0, 0.002])
def test_pipelined_requests_are_answered_in_order(delay: float) -> None:
    async def main() -> None:
        async with backend(echo_path(delay)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            count = 100
            peer.send(b"".join(request(f"/{number}") for number in range(count)))
            for number in range(count):
                assert (await peer.response())[1] == b"/%d" % number
            assert len(server.peers) == 1

    run(main())


def test_pipelined_requests_with_bodies_and_own_answers() -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            body = b""
            if b"Content-Length: 3" in head:
                body = await peer.exactly(3)
            elif b"chunked" in head:
                while size := int((await peer.reader.readuntil(b"\r\n")), 16):
                    body += await peer.exactly(size)
                    await peer.exactly(2)
                await peer.exactly(2)
            peer.send(ok(head.split(b" ")[1] + b":" + body))

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            chunked = "POST {} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
            stream = (
                request("/1", method="POST", body=b"one")
                + b"\r\n"  # an empty line too many, as some clients send behind a body
                + chunked.format("/2").encode()
                + b"1\r\nt\r\n2;ext=1\r\nwo\r\n0\r\n\r\n"
                + request("*", method="OPTIONS")
                + request("/3")
            )
            for at in range(0, len(stream), 7):
                peer.send(stream[at : at + 7])
                await asyncio.sleep(0)
            assert (await peer.response())[1] == b"/1:one"
            assert (await peer.response())[1] == b"/2:two"
            assert b"\r\nAllow: " in (await peer.response())[0]
            assert (await peer.response())[1] == b"/3:"

    run(main())


def test_pipelining_is_bounded() -> None:
    """A client that sends for ever while its first request is pending is not read for ever."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            await go.wait()
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            line = request("/x" * 100)
            count = 64 * MIB // len(line)
            before = resident()
            sending = asyncio.get_running_loop().create_task(pump(peer.writer, count * len(line), line))
            done, _ = await asyncio.wait([sending], timeout=0.5)
            assert not done
            assert resident() - before < 16 * MIB + HELD_LIMIT
            go.set()
            for _ in range(1000):
                await peer.response()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    run(main())


def test_a_client_that_takes_none_of_our_own_answers() -> None:
    """They cost no backend, so nothing but the client's own connection can slow them down."""

    async def main() -> None:
        async with gateway() as rauta, client(rauta.port) as peer:
            many = request() * 1000
            before = resident()
            sending = asyncio.get_running_loop().create_task(pump(peer.writer, 500 * len(many), many))
            peer.reader._transport.pause_reading()
            done, _ = await asyncio.wait([sending], timeout=0.7)
            assert not done
            (connection,) = rauta.plane.connections
            assert connection._transport.get_write_buffer_size() < MIB
            assert resident() - before < 16 * MIB
            peer.reader._transport.resume_reading()
            for _ in range(3000):  # and none is lost
                assert (await peer.response())[0].startswith(b"HTTP/1.1 404 ")
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    run(main(), 60)


def test_a_client_that_sends_and_never_reads() -> None:
    async def main() -> None:
        body = bytes(64 * 1024)
        async with backend(always(ok(body))) as server, gateway(server.port) as rauta:
            sock = socket.create_connection(("127.0.0.1", rauta.port))
            sock.setblocking(False)
            before = resident()
            sent = 0
            with sock:
                for _ in range(100):
                    with contextlib.suppress(BlockingIOError):
                        sent += sock.send(request() * 200)
                    await asyncio.sleep(0.005)
                answered = sum(len(peer.received) for peer in server.peers) // len(request())
                assert answered * len(body) < 32 * MIB  # what the kernel's buffers hold
                assert resident() - before < 16 * MIB

    run(main())
