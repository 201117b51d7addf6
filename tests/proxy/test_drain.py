"""Leaving: exchanges end, connections close, and nothing that was sent in time is lost."""

from __future__ import annotations

import asyncio

import pytest

from support.http import Peer, always, backend, client, gateway, ok, request, run


def test_drain_ends_exchanges_and_closes_idle_connections() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            if b"/slow" in head:
                await go.wait()
            peer.send(ok())

    async def main() -> None:
        async with (
            backend(script) as server,
            gateway(server.port) as rauta,
            client(rauta.port) as idle,
            client(rauta.port) as busy,
        ):
            idle.send(request())
            await idle.response()
            busy.send(request("/slow"))
            while len(server.peers) < 1 or b"/slow" not in b"".join(server.received):
                await asyncio.sleep(0.005)
            draining = asyncio.get_running_loop().create_task(rauta.plane.drain(5))
            assert await idle.rest() == b""  # after the grace
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", rauta.port)
            assert not draining.done()
            go.set()
            answer = await busy.rest()
            assert answer.endswith(b"hello")
            assert b"\r\nConnection: close\r\n" in answer
            assert await draining is True

    run(main())


def test_a_request_on_its_way_is_answered_while_draining() -> None:
    """Idle connections are not closed at once: what comes within the grace is answered, and is the last."""

    async def main() -> None:
        async with (
            backend(always(ok())) as server,
            gateway(server.port) as rauta,
            client(rauta.port) as used,
            client(rauta.port) as new,
        ):
            used.send(request())
            await used.response()
            while rauta.plane.open_connections < 2:
                await asyncio.sleep(0.005)
            draining = asyncio.get_running_loop().create_task(rauta.plane.drain(5))
            await asyncio.sleep(0)
            for peer in (used, new):
                peer.send(request())
                answer = await peer.rest()
                assert answer.endswith(b"\r\nConnection: close\r\n\r\nhello")
            assert await draining is True

    run(main())


def test_a_response_that_did_not_tell_of_the_drain_is_not_the_last() -> None:
    """Its head was out before: the client may send one more request, and its answer tells."""
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await go.wait()
        peer.send(b"hello")
        await peer.head()
        peer.send(ok(b"again"))

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            assert b"\r\nConnection: close\r\n" not in await peer.head()
            draining = asyncio.get_running_loop().create_task(rauta.plane.drain(5))
            await asyncio.sleep(0)
            go.set()
            assert await peer.exactly(5) == b"hello"
            peer.send(request())
            assert (await peer.rest()).endswith(b"\r\nConnection: close\r\n\r\nagain")
            assert await draining is True

    run(main())


def test_drain_cuts_what_does_not_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            while not server.peers:
                await asyncio.sleep(0.005)
            assert await rauta.plane.drain(0.1) is False
            assert await peer.rest() == b""

    run(main())
