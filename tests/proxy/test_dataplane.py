"""The data plane as a whole: TLS towards clients, sockets' options, several listeners, a log that cannot be written."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from pathlib import Path

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.dataplane import DataPlane
from rauta.routing.model import (
    Configuration,
    Redirect,
    Respond,
    Route,
)
from rauta.routing.settings import Address, Listener, LogFormat
from rauta.routing.table import Table
from support.http import always, backend, client, gateway, ok, once, request, run
from support.tls import make_pair


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    pair = make_pair(folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=pair.cert)
    return server, trusting


def test_tls(tmp_path: Path) -> None:
    server_side, client_side = contexts(tmp_path)
    big = bytes(range(256)) * 20_000

    async def main() -> None:
        async with backend(always(ok(big))) as server, gateway(server.port, ssl=server_side) as rauta:
            async with client(rauta.port, ssl=client_side, server_hostname="localhost") as peer:
                for _ in range(3):
                    peer.send(request())
                    assert (await peer.response())[1] == big
                peer.send(b"nonsense\r\n\r\n")
                answer = await peer.rest()
                assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"\r\nX-Forwarded-Proto: https\r\n" in server.received[0]
            async with client(rauta.port) as plain:  # no TLS at all disturbs nobody
                plain.send(request())
                assert (await plain.head()).startswith(b"HTTP/1.1 400 ")

    run(main())


def test_a_redirect_to_https_does_not_loop(tmp_path: Path) -> None:
    server_side, client_side = contexts(tmp_path)

    async def main() -> None:
        routes = [Route(name="r", action=Redirect(host="other.example"))]
        async with (
            gateway(routes=routes, ssl=server_side) as rauta,
            client(rauta.port, ssl=client_side, server_hostname="localhost") as peer,
        ):
            peer.send(request("/x"))
            assert b"\r\nLocation: https://other.example/x\r\n" in (await peer.response())[0]

    run(main())


def test_small_writes_are_not_delayed() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            await peer.response()
            (connection,) = rauta.plane.connections
            for transport in (connection._transport, next(iter(_idle(rauta.plane)))._transport):
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(main())


def _idle(plane: DataPlane):
    (pool,) = plane.pools
    return pool._idle


def test_counts_return_to_zero() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(3):
                peer.send(request())
                await peer.response()
            (pool,) = rauta.plane.pools
            assert pool.in_flight == 0
            assert len(pool._idle) == 1
            peer.writer.close()
            while rauta.plane.open_connections:
                await asyncio.sleep(0.005)

    run(main())


def test_closed_connections_are_not_kept_by_the_wheel() -> None:
    """Their time-outs would hold them for a minute, with their buffers and transports."""

    async def main() -> None:
        async with backend(once(ok())) as server, gateway(server.port) as rauta:
            for _ in range(20):
                async with client(rauta.port) as peer:
                    peer.send(request())
                    await peer.response()
            wheel = rauta.plane._shared.wheel
            while any(slot for slot in wheel._slots.values()):
                await asyncio.sleep(0.005)

    run(main(), 2)


def test_listeners_have_their_own_routes() -> None:
    async def main() -> None:
        socks = [socket.socket() for _ in range(2)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        ports = [sock.getsockname()[1] for sock in socks]
        listeners = tuple(Listener(name=f"l{port}", address=Address("127.0.0.1", port)) for port in ports)
        routes = tuple(
            Route(name=listener.name, action=Respond(body=listener.name), listeners=(listener.name,))
            for listener in listeners
        )
        table = Table(Configuration(listeners=listeners, routes=routes))
        plane = DataPlane(table, loop=asyncio.get_running_loop(), access_log=None)
        for listener, sock in zip(listeners, socks, strict=True):
            await plane.serve(listener, sock)
        for listener, port in zip(listeners, ports, strict=True):
            async with client(port) as peer:
                peer.send(request())
                assert (await peer.response())[1] == listener.name.encode()
        assert await plane.drain(1)
        table.close()

    run(main())


def test_a_log_that_cannot_be_written_is_told_once() -> None:
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.close(reading)
        log = AccessLogWriter(writing, LogFormat.COMMON)
        plane = DataPlane(Table(_respond()), loop=loop, access_log=log)
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        await plane.serve(_respond().listeners[0], sock)
        failures = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        async with client(port) as peer:
            while len(told) < 1:
                peer.send(request())
                assert (await peer.response())[1] == b"fine"
                log.flush()
                await asyncio.sleep(0.02)
            for _ in range(20):
                peer.send(request())
                assert (await peer.response())[1] == b"fine"
                log.flush()
                await asyncio.sleep(0.02)
        loop.set_exception_handler(failures)
        await plane.drain(1)
        log.close()
        os.close(writing)

    run(main())
    assert told == ["the access log cannot be written"]


def _respond() -> Configuration:
    listener = Listener(name="web", address=Address("127.0.0.1", 1))
    return Configuration(listeners=(listener,), routes=(Route(name="r", action=Respond(body="fine")),))
