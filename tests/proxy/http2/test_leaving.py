"""The end of connections from clients that have done nothing wrong: what is under way is served (RFC 9113 6.8)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from rauta.proxy.http2.frames import NOTICE_PING
from rauta.routing.settings import LogFormat
from support.h2client import ERRORS, PING, WINDOW_UPDATE, frame
from support.h2wire import ACK, BEGIN, GREATEST, WINDOW, Wire, get, settings, wire, word
from support.http import Gateway, Peer, backend, gateway, impatient, ok

NOTICE = (GREATEST, ERRORS["NO_ERROR"])
PONG = frame(PING, ACK, 0, NOTICE_PING)
LONG = 5.0  # idle connections are kept for that long: longer than a test takes


@dataclass
class Slow:
    """A backend that answers when it is told to."""

    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    body: bytes = b"hi"

    async def __call__(self, peer: Peer) -> None:
        while await peer.head():
            self.asked.release()
            await self.go_on.wait()
            peer.send(ok(self.body))


@asynccontextmanager
async def draining(
    rauta: Gateway, seconds: float = 10, *, idle: float = LONG, quick: bool = False
) -> AsyncIterator[None]:
    """All of it ends in time. `quick`: and before idle connections would be closed."""
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        drained = group.create_task(rauta.plane.drain(seconds, idle=idle))
        await asyncio.sleep(0)
        yield
    assert drained.result()
    if quick:
        assert asyncio.get_running_loop().time() - began < idle


async def noticed(peer: Wire) -> None:
    """The client has read that the connection ends."""
    await peer.until(lambda: bool(peer.seen.goaways) and bool(peer.seen.pings))
    assert (peer.seen.goaways, peer.seen.pings) == ([NOTICE], [NOTICE_PING])


async def refused(peer: Wire, stream: int) -> None:
    peer.send(get(stream))
    assert (await peer.answered(stream)).reset == ERRORS["REFUSED_STREAM"]


@pytest.mark.parametrize("answers", [True, False], ids=["pong", "grace"])
async def test_what_is_under_way_is_served_and_what_comes_later_is_not(answers: bool) -> None:
    slow = Slow()
    async with backend(slow) as server, gateway(server.port) as rauta, wire(rauta.port) as peer:
        peer.send(get(1))
        await slow.asked.acquire()
        async with draining(rauta, idle=LONG if answers else 1.0, quick=answers):
            await noticed(peer)
            peer.send(get(3))
            await slow.asked.acquire()
            if answers:
                peer.send(PONG + get(5))  # a thread of the client that has not been told yet
                await slow.asked.acquire()
            last = 5 if answers else 3
            await peer.until(lambda: len(peer.seen.goaways) == 2)
            await refused(peer, last + 2)
            slow.go_on.set()
            for stream in range(1, last + 2, 2):
                answer = await peer.answered(stream)
                assert (answer.status, answer.body) == (200, b"hi")
            await peer.ended()
            peer.close()
        assert peer.seen.goaways == [NOTICE, (last, ERRORS["NO_ERROR"])]


async def test_a_connection_without_requests_ends_after_the_round_trip() -> None:
    """Not before: one may be on its way. Nor as late as with HTTP/1.1, which has no PING."""
    async with gateway() as rauta, wire(rauta.port) as used, wire(rauta.port) as new:
        used.send(get(1))
        assert (await used.answered(1)).status == 404
        async with draining(rauta, quick=True):
            for peer, last in ((used, 3), (new, 1)):
                await noticed(peer)
                peer.send(get(last))
                assert (await peer.answered(last)).status == 404
                peer.send(PONG)
                await peer.ended()
                assert peer.seen.goaways == [NOTICE, (last, ERRORS["NO_ERROR"])]


async def test_a_client_cannot_put_it_off() -> None:
    async with gateway() as rauta, wire(rauta.port) as peer, draining(rauta, quick=True):
        await noticed(peer)
        number = 1
        while not peer.seen.closed:
            peer.send(PONG + get(number))
            number += 2
            await asyncio.sleep(0.02)
            await peer.until(lambda: peer.seen.closed or peer.streams[number - 2].ended)  # noqa: B023


async def test_nothing_is_waited_for_where_there_is_no_time() -> None:
    slow = Slow()
    async with (
        backend(slow) as server,
        gateway(server.port) as rauta,
        wire(rauta.port) as peer,
        wire(rauta.port) as idle,
    ):
        peer.send(get(1))
        await slow.asked.acquire()
        async with draining(rauta, 0.9):
            await idle.ended()
            assert idle.seen.goaways == [(0, ERRORS["NO_ERROR"])]
            await refused(peer, 3)
            slow.go_on.set()
            assert (await peer.answered(1)).body == b"hi"
            await peer.ended()
            peer.close()
        assert peer.seen.goaways == [(1, ERRORS["NO_ERROR"])]


async def test_the_last_response_arrives_whole() -> None:
    """Its client says meanwhile that it takes more: to a socket that is closed, that is a reason for a reset."""
    slow = Slow(body=bytes(1_000_000))
    slow.go_on.set()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with backend(slow) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rauta.port))
        peer = Wire(*await asyncio.open_connection(sock=sock, limit=1024))
        more = frame(WINDOW_UPDATE, 0, 0, word(1 << 20))
        peer.send(BEGIN + settings((WINDOW, 1 << 20)) + more + get(1))
        await slow.asked.acquire()
        async with draining(rauta, idle=0.1):
            while not rauta.log_lines():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # all of it is the kernel's now
            for _ in range(10):
                peer.send(more)
                await asyncio.sleep(0.01)
            await peer.answered(1)
            peer.close()
        assert peer.streams[1].body == slow.body


async def test_what_crosses_with_the_end_of_an_idle_connection_is_served() -> None:
    async with gateway(listener=impatient(idle=0.2, head=0.2)) as rauta, wire(rauta.port) as peer:
        await noticed(peer)
        peer.send(get(1))
        assert (await peer.answered(1)).status == 404
        await peer.ended()
        assert peer.seen.goaways == [NOTICE, (1, ERRORS["NO_ERROR"])]


async def test_one_that_begins_while_draining_is_told() -> None:
    """Nobody knows that it speaks HTTP/2 before."""
    async with gateway() as rauta, wire(rauta.port, b"") as peer:
        while not rauta.plane.connections:
            await asyncio.sleep(0)
        async with draining(rauta, quick=True):
            peer.send(BEGIN + get(1))
            await noticed(peer)
            assert (await peer.answered(1)).status == 404
            peer.send(PONG)
            await peer.ended()
            assert peer.seen.goaways == [NOTICE, (1, ERRORS["NO_ERROR"])]
