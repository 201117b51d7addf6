"""Backends that are dead, slow or break; clients that leave; and what the others notice of it: nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest

from rauta.proxy.connecting import Connector, MakeProtocol
from rauta.routing.defaults import REPLAY_LIMIT
from rauta.routing.model import Match, PathMatch
from rauta.routing.services import Backend, Service, Timeouts
from rauta.routing.settings import Address, LogFormat
from support.compiled import plain_only
from support.http import (
    Peer,
    always,
    backend,
    client,
    forward,
    free_port,
    gateway,
    impatient,
    ok,
    once,
    request,
    run,
    service,
    talk,
)

SHORT = Timeouts(connect=0.2, response=0.2, idle=0.2)


def test_refused() -> None:
    async def main() -> None:
        port = free_port()
        async with gateway(port, log=LogFormat.COMMON) as rauta, client(rauta.port) as peer:
            peer.send(request() + request("/again"))
            for _ in range(2):
                head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
                assert b"\nupstream_refused: " in body
            line = rauta.log_lines()[0]
            assert f"backend=127.0.0.1:{port}" in line
            assert "reason=upstream_refused" in line

    run(main())


def test_a_name_that_does_not_resolve() -> None:
    async def main() -> None:
        unknown = Service(name="s", backends=(Backend(address=Address("no.such.host.invalid", 80)),))
        async with gateway(services=[unknown], routes=[forward()], log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"\nupstream_dns: " in body
            assert "backend=no.such.host.invalid:80" in rauta.log_lines()[0]

    run(main())


def test_a_name_that_resolves() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server:
            named = Service(name="s", backends=(Backend(address=Address("localhost", server.port)),))
            async with gateway(services=[named], routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request())
                assert (await peer.response())[1] == b"hello"

    run(main())


def test_connect_timeout() -> None:
    async def main() -> None:
        # A full backlog: the kernel drops further SYNs, so connecting hangs.
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            slow = service(port, timeouts=SHORT)
            async with gateway(services=[slow], routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request())
                head, body = await peer.response()
            for filler in fillers:
                filler.close()
        assert head.startswith(b"HTTP/1.1 504 ")
        assert b"\nupstream_connect_timeout: " in body

    run(main())


def test_response_timeout_and_what_others_notice() -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async def main() -> None:
        async with backend(silent) as dead, backend(always(ok())) as alive:
            routes = [
                forward("dead", "dead", matches=(Match(path=PathMatch.prefix("/dead")),)),
                forward("alive", "alive"),
            ]
            services = [service(dead.port, name="dead", timeouts=SHORT), service(alive.port, name="alive")]
            async with gateway(services=services, routes=routes, log=LogFormat.COMMON) as rauta:
                async with client(rauta.port) as waiting, client(rauta.port) as other:
                    waiting.send(request("/dead"))
                    for _ in range(20):
                        other.send(request())
                        assert (await other.response())[1] == b"hello"
                    head, body = await waiting.response()
                    assert head.startswith(b"HTTP/1.1 504 ")
                    assert b"\nupstream_timeout: " in body
                    waiting.send(request())  # the connection lives on
                    assert (await waiting.response())[1] == b"hello"
                assert any("route=dead" in line and "reason=upstream_timeout" in line for line in rauta.log_lines())

    run(main())


def test_a_route_overrides_the_time_out() -> None:
    async def silent(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async def main() -> None:
        from rauta.routing.services import TimeoutOverrides

        async with backend(silent) as dead:
            route = forward(timeouts=TimeoutOverrides(response=0.1))
            async with gateway(services=[service(dead.port)], routes=[route]) as rauta, client(rauta.port) as peer:
                peer.send(request())
                assert (await peer.head()).startswith(b"HTTP/1.1 504 ")

    run(main())


def test_a_response_that_stalls_is_cut() -> None:
    async def stalls(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await peer.closed()

    async def main() -> None:
        async with backend(stalls) as server:
            slow = service(server.port, timeouts=SHORT)
            async with gateway(services=[slow], routes=[forward()], log=LogFormat.COMMON) as rauta:
                assert (await talk(rauta.port, request())).endswith(b"\r\n\r\nhello")
                assert "reason=upstream_timeout" in rauta.log_lines()[0]

    run(main())


def test_a_client_that_stalls_within_its_body() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            slow = service(server.port, timeouts=SHORT)
            async with gateway(services=[slow], routes=[forward()], log=LogFormat.COMMON) as rauta:
                answer = await talk(rauta.port, b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhel")
                assert answer.startswith(b"HTTP/1.1 408 ")
                assert b"\r\nConnection: close\r\n" in answer
                assert "reason=client_timeout" in rauta.log_lines()[0]
            assert server.received[0].endswith(b"\r\n\r\nhel")

    run(main())


def test_slow_head() -> None:
    async def main() -> None:
        async with gateway(listener=impatient(head=0.2), log=LogFormat.COMMON) as rauta, client(rauta.port) as peer:
            started = asyncio.get_running_loop().time()
            peer.send(b"GET / HT")
            await asyncio.sleep(0.12)
            peer.send(b"TP/1.1\r\nHo")  # a further byte gives no further time
            answer = await peer.rest()
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert 0.2 <= asyncio.get_running_loop().time() - started < 1.0
            assert "reason=head_timeout" in rauta.log_lines()[0]

    run(main())


@pytest.mark.parametrize("first", [b"", request()], ids=["new", "used"])
def test_idle_connections_are_closed_silently(first: bytes) -> None:
    async def main() -> None:
        async with gateway(listener=impatient(head=0.2, idle=0.2), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                if first:
                    peer.send(first)
                    assert (await peer.response())[0].startswith(b"HTTP/1.1 404 ")
                assert await peer.rest() == b""
            assert len(rauta.log_lines()) == (1 if first else 0)

    run(main())


def test_client_gone_aborts_the_backend() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await peer.closed()
        gone.set()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                await peer.head()
            async with asyncio.timeout(5):
                await gone.wait()
            (line,) = rauta.log_lines()
            assert "reason=client_gone" in line

    run(main())


def test_client_gone_before_the_response() -> None:
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.closed()
        gone.set()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                while not server.peers:
                    await asyncio.sleep(0.005)
            async with asyncio.timeout(5):
                await gone.wait()
            assert " 499 " in rauta.log_lines()[0]

    run(main())


def test_a_connection_made_for_a_client_that_has_left_serves_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()

    async def main() -> None:
        async with backend(always(ok())) as server:

            async def slowly(self: Connector) -> tuple[str, ...]:
                await go.wait()
                return ("127.0.0.1",)

            monkeypatch.setattr(Connector, "_look_up", slowly)
            named = Service(name="s", backends=(Backend(address=Address("localhost", server.port)),))
            async with gateway(services=[named], routes=[forward()]) as rauta:
                async with client(rauta.port) as peer:
                    peer.send(request("/left"))
                    while not [*rauta.plane.pools]:
                        await asyncio.sleep(0.005)
                while rauta.plane.open_connections:
                    await asyncio.sleep(0.005)
                go.set()
                while not server.peers:
                    await asyncio.sleep(0.005)
                async with client(rauta.port) as peer:
                    peer.send(request("/next"))
                    assert (await peer.response())[1] == b"hello"
                assert len(server.peers) == 1
                assert server.received[0].startswith(b"GET /next ")

    run(main())


# --- stale connections of the pool -------------------------------------------------------------------------


def closes_when_asked_again(answered: bytes = ok()):
    """Answers the first request of each of its first connections and closes with the second one."""

    async def script(peer: Peer) -> None:
        if await peer.head():
            peer.send(answered)
            await peer.head()

    return script


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_stale_connection_is_retried_once(method: str) -> None:
    async def main() -> None:
        async with backend(closes_when_asked_again()) as server, gateway(server.port) as rauta:
            async with client(rauta.port) as peer:
                for _ in range(3):
                    peer.send(request(method=method))
                    head = await peer.head()
                    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                    if method != "HEAD":
                        assert await peer.exactly(5) == b"hello"
            assert len(server.peers) == 3

    run(main())


@pytest.mark.parametrize(
    "again",
    [request(method="POST"), request(method="PUT", body=b"x" * (REPLAY_LIMIT + 1)), request(method="PATCH")],
    ids=["POST", "PUT with more than is held", "PATCH"],
)
def test_what_may_have_been_done_is_not_repeated(again: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(ok())
        await peer.head()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            await peer.response()
            peer.send(again)
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"\nupstream_reset: " in body
            assert len(server.peers) == 1

    run(main())


@pytest.mark.parametrize("size", [1, REPLAY_LIMIT], ids=["small", "all that is held"])
def test_a_body_that_is_still_held_is_sent_again(size: int) -> None:
    """The reused connection is closed while the request is on its way to it; it is whole on the new one."""
    body = b"x" * size
    received = []

    async def script(peer: Peer) -> None:
        await peer.head()
        if peer.number == 0:
            peer.send(ok())
            await peer.head()
            await peer.exactly(1)
            return
        received.append(await peer.exactly(size))
        peer.send(ok(b"again"))
        await peer.head()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            await peer.response()
            peer.send(request(method="PUT", body=body))
            assert (await peer.response())[1] == b"again"
            assert received == [body]

    run(main())


def test_a_connection_that_is_lost_as_soon_as_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is heard of it, so nobody may wait for it."""
    opened = Connector.connect

    async def late(self: Connector, protocol: MakeProtocol, seconds: float, preamble: bytes = b"") -> None:
        made: list[Any] = []

        def make() -> asyncio.Protocol:
            made.append(protocol())
            return cast(asyncio.Protocol, made[-1])

        await opened(self, make, seconds, preamble)
        while made[-1].usable:
            await asyncio.sleep(0.005)

    async def closes(peer: Peer) -> None:
        pass

    async def main() -> None:
        monkeypatch.setattr(Connector, "connect", late)
        async with backend(closes) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"\nupstream_reset: " in body

    run(main(), 5)


def test_a_fresh_connection_is_not_retried() -> None:
    async def main() -> None:
        async with backend(once(b"")) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"\nupstream_reset: " in body
            assert len(server.peers) == 1

    run(main())


def test_a_connection_that_the_backend_closed_is_not_used() -> None:
    async def main() -> None:
        async with backend(once(ok())) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for number in range(5):
                peer.send(request(method="POST"))  # never retried, so it must not meet a closed connection
                assert (await peer.response())[1] == b"hello"
                while not server.peers[number].writer.transport.is_closing():
                    await asyncio.sleep(0.001)
                await asyncio.sleep(0.01)  # the end of the stream has to arrive

    run(main())


def test_connection_close_of_the_backend_is_kept() -> None:
    async def main() -> None:
        async with backend(always(ok(extra=b"Connection: close\r\n"))) as server, gateway(server.port) as rauta:
            async with client(rauta.port) as peer:
                for _ in range(3):
                    peer.send(request(method="POST"))
                    head, _ = await peer.response()
                    assert b"onnection" not in head
            assert len(server.peers) == 3

    run(main())


@plain_only
def test_idle_backend_connections_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rauta.proxy.pool.POOL_IDLE_TIMEOUT", 0.2)
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            peer.send(ok())
        closed.set()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            await peer.response()
            async with asyncio.timeout(2):
                await closed.wait()
            peer.send(request())
            await peer.response()
            assert len(server.peers) == 2

    run(main())
