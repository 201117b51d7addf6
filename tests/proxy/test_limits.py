"""Limits of bodies and connections, the time-out of a request, and the other backends of a service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rauta.proxy.http1.server import ServerConnection
from rauta.routing.services import (
    Backend,
    LimitOverrides,
    ProxyProtocol,
    Service,
    ServiceLimits,
    TimeoutOverrides,
    Timeouts,
)
from rauta.routing.settings import Address, ClientLimits, Listener, LogFormat
from support.http import (
    Client,
    Gateway,
    Peer,
    always,
    backend,
    client,
    forward,
    free_port,
    gateway,
    ok,
    once,
    request,
    run,
    service,
)

CHUNKED = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("on_route", [False, True], ids=["service", "route"])
def test_a_body_that_is_too_long_is_413(on_route: bool) -> None:
    received = []

    async def script(peer: Peer) -> None:
        received.append(await peer.head())
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            limits = ServiceLimits() if on_route else ServiceLimits(body=10)
            routes = [forward(limits=LimitOverrides(body=10 if on_route else None))]
            services = [Service(name="s", backends=backends, limits=limits)]
            async with gateway(services=services, routes=routes) as rauta:
                async with client(rauta.port) as peer:
                    peer.send(request(method="POST", body=b"x" * 11))
                    head, body = await peer.response()
                    assert head.startswith(b"HTTP/1.1 413 ")
                    assert b"body_too_large" in body
                assert received == []  # its length was told, so nothing of it went on
                async with client(rauta.port) as peer:
                    peer.send(CHUNKED + b"5\r\nhello\r\n")
                    while not received:
                        await asyncio.sleep(0.005)
                    peer.send(b"6\r\nworld!\r\n")
                    head, _ = await peer.response()
                    assert head.startswith(b"HTTP/1.1 413 ")
                    assert b"Connection: close" in head

    run(main())


def test_a_body_of_just_that_length_passes() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        assert await peer.exactly(10) == b"x" * 10
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            services = [Service(name="s", backends=backends, limits=ServiceLimits(body=10))]
            async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request(method="POST", body=b"x" * 10))
                assert (await peer.response())[0].startswith(b"HTTP/1.1 200 ")

    run(main())


def test_requests_wait_for_a_connection_and_beyond_a_limit_they_do_not() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.head()
            await go.wait()
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            services = [Service(name="s", backends=backends, limits=ServiceLimits(connections=1, waiting=2))]
            async with gateway(services=services, routes=[forward()]) as rauta:
                pool = rauta.plane.pools.of(services[0]).of(backends[0])
                readers = []
                for number in range(4):
                    reader, writer = await asyncio.open_connection("127.0.0.1", rauta.port)
                    writer.write(request())
                    readers.append((reader, writer))
                    while pool.in_flight + pool.waiting < min(number + 1, 3) and number < 3:
                        await asyncio.sleep(0.005)
                refused = await readers[3][0].readuntil(b"\r\n\r\n")
                assert refused.startswith(b"HTTP/1.1 503 ")
                assert pool.waiting == 2
                go.set()
                for reader, _ in readers[:3]:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                assert len(server.peers) == 1
                for _, writer in readers:
                    writer.close()

    run(main())


def test_waiting_has_a_time_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            limits, timeouts = ServiceLimits(connections=1), Timeouts(connect=0.3)
            services = [Service(name="s", backends=backends, limits=limits, timeouts=timeouts)]
            async with (
                gateway(services=services, routes=[forward()]) as rauta,
                client(rauta.port) as first,
                client(rauta.port) as second,
            ):
                first.send(request())
                while not server.peers:
                    await asyncio.sleep(0.005)
                second.send(request())
                head, body = await second.response()
                assert head.startswith(b"HTTP/1.1 503 ")
                assert b"upstream_overloaded" in body

    run(main())


def test_a_listener_takes_no_more_connections_than_it_may() -> None:
    async def main() -> None:
        web = Listener(name="web", address=Address("127.0.0.1", 1), limits=ClientLimits(connections=2))
        async with backend(always(ok())) as server, gateway(server.port, listener=web, log=LogFormat.JSON) as rauta:
            async with client(rauta.port) as first, client(rauta.port) as second:
                for peer in (first, second):
                    peer.send(request())
                    await peer.response()
                async with client(rauta.port) as third:
                    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                        await third.exactly(1)
                assert any("too_many_connections" in line for line in rauta.log_lines())
                first.send(request())
                await first.response()
            while rauta.plane.open_connections:
                await asyncio.sleep(0.005)
            async with client(rauta.port) as fourth:
                fourth.send(request())
                await fourth.response()

    run(main())


def test_a_request_as_a_whole_has_a_time_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:  # never silent, and never done
            peer.send(b"x")
            await asyncio.sleep(0.02)

    async def main() -> None:
        async with backend(script) as server:
            routes = [forward(timeouts=TimeoutOverrides(request=0.3))]
            async with (
                gateway(services=[service(server.port)], routes=routes, log=LogFormat.JSON) as rauta,
                client(rauta.port) as peer,
            ):
                peer.send(request())
                assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
                assert len(await peer.rest()) < 1000
                (line,) = rauta.log_lines()
                assert '"reason":"request_timeout"' in line

    run(main())


# --- other backends -------------------------------------------------------------------------------------


def test_a_backend_that_refuses_is_passed_over() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server:
            services = [service(free_port(), free_port(), server.port)]
            async with gateway(services=services, routes=[forward()], log=LogFormat.JSON) as rauta:
                for _ in range(8):
                    async with client(rauta.port) as peer:
                        peer.send(request(method="POST", body=b"never sent twice"))
                        assert (await peer.response())[0].startswith(b"HTTP/1.1 200 ")
                lines = rauta.log_lines()
                assert any('"attempts":2' in line or '"attempts":3' in line for line in lines)
                assert all(pool.in_flight == 0 for pool in rauta.plane.pools)

    run(main())


def test_three_backends_are_tried_and_no_more() -> None:
    async def main() -> None:
        services = [service(*(free_port() for _ in range(6)))]
        async with (
            gateway(services=services, routes=[forward()], log=LogFormat.JSON) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(request())
            assert (await peer.response())[0].startswith(b"HTTP/1.1 502 ")
            (line,) = rauta.log_lines()
            assert '"attempts":3' in line
            assert '"reason":"upstream_refused"' in line

    run(main())


def test_one_that_accepted_is_not_passed_over() -> None:
    """It may have done what was asked for."""

    async def main() -> None:
        async with backend(once(b"")) as first, backend(once(b"")) as second:
            services = [service(first.port, second.port)]
            async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request())
                assert (await peer.response())[0].startswith(b"HTTP/1.1 502 ")
                assert len(first.peers) + len(second.peers) == 1

    run(main())


# --- addresses ------------------------------------------------------------------------------------------


def test_a_unix_socket_as_backend(tmp_path: Path) -> None:
    received = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ok())
        await reader.read()
        writer.close()

    async def main() -> None:
        path = str(tmp_path / "backend.sock")
        server = await asyncio.start_unix_server(accept, path)
        services = [Service(name="s", backends=(Backend(address=Address.unix(path)),))]
        async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await peer.rest()).startswith(b"HTTP/1.1 200 ")
        assert b"\r\nHost: localhost\r\n" in received[0]
        server.close()

    run(main())


def test_ipv6_on_both_sides() -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ok())
        await reader.read()
        writer.close()

    received: list[bytes] = []

    async def main() -> None:
        import socket

        server = await asyncio.start_server(accept, "::1", 0)
        port = server.sockets[0].getsockname()[1]
        services = [Service(name="s", backends=(Backend(address=Address("::1", port)),))]
        async with gateway(services=services, routes=[forward()]) as rauta:
            sock = socket.socket(socket.AF_INET6)
            sock.bind(("::1", 0))
            sock.listen()
            (dispatcher,) = rauta.plane.dispatchers
            await rauta.plane.serve(dispatcher.listener, sock)
            reader, writer = await asyncio.open_connection("::1", sock.getsockname()[1])
            writer.write(request())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.close()
        assert b"\r\nX-Forwarded-For: ::1\r\n" in received[0]
        server.close()

    run(main())


def test_who_left_the_queue_keeps_nobody_out() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            await go.wait()
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            services = [Service(name="s", backends=backends, limits=ServiceLimits(connections=1, waiting=2))]
            async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as first:
                pool = rauta.plane.pools.of(services[0]).of(backends[0])
                first.send(request())
                while not server.peers:
                    await asyncio.sleep(0.005)
                for _ in range(2):
                    async with client(rauta.port) as one, client(rauta.port) as other:
                        one.send(request())
                        other.send(request())
                        while pool.waiting < 2:
                            await asyncio.sleep(0.005)
                    async with asyncio.timeout(2):  # the time-out of waiting is 5 s
                        while pool.waiting:
                            await asyncio.sleep(0.005)
                assert pool.in_flight == 1
                async with client(rauta.port) as late:
                    late.send(request())
                    while not pool.waiting:
                        await asyncio.sleep(0.005)
                    go.set()
                    for peer in (first, late):
                        assert (await peer.response())[1] == b"hello"

    run(main())


def test_a_request_that_ends_connections_is_repeated_once_also_where_it_has_to_wait() -> None:
    """The second time over a connection that nobody has used: it must not look stale again."""
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        number = 0
        while head := await peer.head():
            number += 1
            if b"/victim" in head:
                seen.append(number)
                if number > 1:
                    return  # closes without a byte
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            services = [Service(name="s", backends=backends, limits=ServiceLimits(connections=1))]
            async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as victim:
                stop = asyncio.Event()

                async def noise() -> None:
                    async with client(rauta.port) as peer:
                        while not stop.is_set():
                            peer.send(request("/noise"))
                            await peer.response()

                others = [asyncio.get_running_loop().create_task(noise()) for _ in range(4)]
                while not server.peers:
                    await asyncio.sleep(0.005)
                for _ in range(5):
                    seen.clear()
                    victim.send(request("/victim"))
                    head, _ = await victim.response()
                    assert head.startswith(b"HTTP/1.1 200 ")
                    assert len(seen) <= 2
                    assert seen[-1] == 1
                stop.set()
                await asyncio.gather(*others)

    run(main())


@pytest.mark.parametrize("left", [True, False], ids=["its client left", "its client is served"])
def test_no_request_goes_to_a_proxy_protocol_backend_without_its_header(left: bool) -> None:
    """Neither over the connection that was made for another client, nor over one that has served it."""

    async def script(peer: Peer) -> None:
        while await peer.head():
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server:
            backends = (Backend(address=Address("127.0.0.1", server.port)),)
            limits = ServiceLimits(connections=1)
            services = [Service(name="s", backends=backends, limits=limits, proxy_protocol=ProxyProtocol.V1)]
            async with (
                gateway(services=services, routes=[forward()]) as rauta,
                client(rauta.port) as first,
                client(rauta.port) as second,
            ):
                pool = rauta.plane.pools.of(services[0]).of(backends[0])
                # In one turn of the loop: the first one's connection is being made, the second waits.
                one, two = await _connections(rauta, first, second)
                one.data_received(request("/first"))
                two.data_received(request("/second"))
                assert (pool.open, pool.waiting) == (1, 1)
                if left:
                    one.kill()
                peers = [second] if left else [first, second]
                for peer in peers:
                    assert (await asyncio.wait_for(peer.response(), 5))[1] == b"hello"
                for received in server.received:
                    assert received == b"" or received.startswith(b"PROXY TCP4 ")
                    assert received.count(b" HTTP/1.1\r\n") <= 1

    run(main())


async def _connections(rauta: Gateway, *clients: Client) -> list[ServerConnection]:
    """The gateway's ends of these connections."""
    (dispatcher,) = rauta.plane.dispatchers
    while len(dispatcher.connections) < len(clients):
        await asyncio.sleep(0.005)
    found = {connection.client[1]: connection for connection in dispatcher.connections}
    return [found[peer.writer.get_extra_info("sockname")[1]] for peer in clients]
