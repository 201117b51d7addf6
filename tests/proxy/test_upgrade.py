"""Tunnels: WebSocket through the data plane, and every 101 that is not what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from rauta.routing.services import Timeouts
from rauta.routing.settings import LogFormat
from support import chat
from support.http import Gateway, Peer, backend, client, forward, gateway, ok, request, run, service

UPGRADE = ("Connection: keep-alive, Upgrade", "Upgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nX-Mine: 1\r\n\r\n"


@asynccontextmanager
async def echo(**more: Any) -> AsyncIterator[tuple[Gateway, str, list[ServerConnection]]]:
    """An echo server of the `websockets` package behind the data plane."""
    async with chat.echo(max_size=1 << 25) as (port, seen), gateway(port, **more) as rauta:
        yield rauta, f"ws://127.0.0.1:{rauta.port}/ws", seen


def test_websocket_messages_both_ways() -> None:
    async def main() -> None:
        async with echo(log=LogFormat.JSON) as (rauta, url, seen):
            async with connect(url, max_size=1 << 25, compression=None) as peer:
                for message in ("hello", b"\x00" * 16 * 1024 * 1024, "x" * 1_000_000):
                    await peer.send(message)
                    assert await peer.recv() == message
                await (await peer.ping())
            assert seen[0].request is not None
            assert seen[0].request.headers["Connection"] == "Upgrade"
            while rauta.plane.open_connections:
                await asyncio.sleep(0.005)
            (line,) = rauta.log_lines()
            assert '"status":101' in line

    run(main())


def test_the_backend_closes() -> None:
    async def main() -> None:
        async with echo() as (_, url, _seen), connect(url) as peer:
            await peer.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                await peer.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001

    run(main())


def test_a_slow_reader_slows_the_sender() -> None:
    """What a tunnel holds is bounded: the backend cannot send what the client does not take."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(SWITCHED)
        sent = 0
        try:
            async with asyncio.timeout(2):
                while True:
                    peer.send(b"x" * 65536)
                    await peer.writer.drain()
                    sent += 65536
        except TimeoutError:
            total.set_result(sent)

    async def main() -> None:
        nonlocal total
        total = asyncio.get_running_loop().create_future()
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port, limit=1024) as peer:
            peer.send(request("/", *UPGRADE))
            await peer.head()
            assert await total < 16 * 1024 * 1024  # socket buffers of two connections, and two high-water marks

    total: asyncio.Future[int]
    run(main())


def test_the_101_and_what_came_early_on_both_sides() -> None:
    received = []

    async def script(peer: Peer) -> None:
        head = await peer.head()
        received.append(head)
        peer.send(SWITCHED + b"first words")
        received.append(await peer.exactly(5))
        peer.writer.close()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", *UPGRADE) + b"early")
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
            assert b"X-Mine: 1" in head
            assert await peer.rest() == b"first words"
        assert received[0].count(b"Upgrade") == 2
        assert received[1] == b"early"

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        SWITCHED.replace(b"WebSocket", b"other"),
        SWITCHED.replace(b"Upgrade: WebSocket\r\n", b""),
        SWITCHED.replace(b"Connection: upgrade\r\n", b""),
        SWITCHED.replace(b"Upgrade: WebSocket", b"Upgrade: websocket, other"),
        b"HTTP/1.1 101 x\r\n\r\n",
    ],
    ids=["another protocol", "no Upgrade", "no Connection", "two protocols", "bare"],
)
def test_a_101_that_was_not_asked_for_is_malformed(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(answer)
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", *UPGRADE))
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"upstream_malformed" in body

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        request("/", *UPGRADE, method="POST", body=b"x"),
        request("/", *UPGRADE, method="DELETE"),
        request("/", "Upgrade: websocket"),
        request("/", "Connection: Upgrade", "Upgrade: websocket, other"),
        request("/", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
        request("/", "Connection: Upgrade", "Upgrade: other"),
        request("/", *UPGRADE).replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("/", *UPGRADE, "X_Upgrade: a", "Upgrade_: b"),
    ],
    ids=["POST", "DELETE", "not in Connection", "two", "h2c", "not listed", "HTTP/1.0", "look-alikes"],
)
def test_what_is_no_offer_is_an_ordinary_request(sent: bytes) -> None:
    received = []

    async def script(peer: Peer) -> None:
        received.append(await peer.head())
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(sent)
            head, _ = await peer.response()
            assert head.startswith(b"HTTP/1.1 200 ")
        upgrades = b"\r\nUpgrade: websocket\r\n" in received[0]
        assert upgrades is (b"X_Upgrade" in sent)
        assert b"h2c" not in received[0]
        assert b"settings" not in received[0].lower()

    run(main())


def test_a_refused_upgrade_leaves_the_connection_as_it_was() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        await peer.head()
        peer.send(ok(b"next"))
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", *UPGRADE))
            assert (await peer.response())[0].startswith(b"HTTP/1.1 426 ")
            peer.send(request("/two"))
            assert (await peer.response())[1] == b"next"

    run(main())


@pytest.mark.parametrize(
    ("listed", "offered", "switches"),
    [
        ("chat", "Chat", True),
        ("chat/1.1", "chat/1.1", True),
        ("chat", "chat/1.1", False),
        ("chat/1.1", "chat", False),
        ("chat/1.1", "chat/1.2", False),
    ],
)
def test_a_route_lists_its_protocols_with_their_versions(listed: str, offered: str, switches: bool) -> None:
    async def script(peer: Peer) -> None:
        if b"Upgrade: " in await peer.head():
            peer.send(SWITCHED.replace(b"WebSocket", offered.encode()))
            peer.send(b"hi")
        else:
            peer.send(ok(b"hi"))
        await peer.closed()

    async def main() -> None:
        routes = [forward(upgrades=frozenset({listed}))]
        async with (
            backend(script) as server,
            gateway(services=[service(server.port)], routes=routes) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(request("/", "Connection: upgrade", f"Upgrade: {offered}"))
            assert (await peer.head()).startswith(b"HTTP/1.1 101 " if switches else b"HTTP/1.1 200 ")
            assert await peer.exactly(2) == b"hi"

    run(main())


def test_silence_ends_a_tunnel() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(SWITCHED)
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            services = [service(server.port, timeouts=Timeouts(idle=0.3))]
            async with (
                gateway(services=services, routes=[forward()], log=LogFormat.JSON) as rauta,
                client(rauta.port) as peer,
            ):
                peer.send(request("/", *UPGRADE))
                await peer.head()
                assert await peer.rest() == b""
                (line,) = rauta.log_lines()
                assert '"reason":"tunnel_idle"' in line

    run(main())


def test_a_drain_cuts_tunnels_at_its_deadline() -> None:
    async def main() -> None:
        async with echo() as (rauta, url, _seen), connect(url) as peer:
            assert await rauta.plane.drain(1.2) is False
            with pytest.raises(ConnectionClosed):
                await peer.recv()

    run(main())
