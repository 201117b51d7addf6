"""How long connections to backends are kept: what the backend says of it is respected."""

from __future__ import annotations

import asyncio

import pytest

from support.http import Peer, backend, client, gateway, ok, request, run


@pytest.mark.parametrize(
    ("line", "connections"),
    [
        ("timeout=5, max=100", 1),
        ("timeout=2", 1),
        ("timeout=1", 2),
        ("timeout=0", 2),
        ("max=100,Timeout = 1", 2),
        ("timeout=x", 1),
        ("timeout=1x", 1),
        ("timeout=-1", 1),
        ("xtimeout=1", 1),
        ("", 1),
    ],
)
def test_a_connection_that_the_backend_hardly_keeps_is_not_kept(line: str, connections: int) -> None:
    async def script(peer: Peer) -> None:
        while await peer.head():
            peer.send(ok(extra=b"Keep-Alive: %b\r\nConnection: keep-alive\r\n" % line.encode()))

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(2):
                peer.send(request("/", "Keep-Alive: timeout=9"))
                head, body = await peer.response()
                assert body == b"hello"
                assert b"eep-Alive" not in head
            assert len(server.peers) == connections
            assert all(b"eep-Alive" not in received for received in server.received)

    run(main())


def test_an_idle_connection_is_closed_before_the_backend_would() -> None:
    ended: list[float] = []
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(ok(extra=b"Keep-Alive: timeout=60\r\n"))  # each response tells anew
        await peer.head()
        peer.send(ok(extra=b"Keep-Alive: timeout=2\r\n"))
        ended.append(asyncio.get_running_loop().time())
        await peer.closed()
        ended.append(asyncio.get_running_loop().time())
        closed.set()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(2):
                peer.send(request())
                await peer.response()
            async with asyncio.timeout(10):
                await closed.wait()
            assert len(server.peers) == 1
            assert 0.9 < ended[1] - ended[0] < 2.0

    run(main())
