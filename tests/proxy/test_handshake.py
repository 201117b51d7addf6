"""TLS handshakes that fail, or do not end."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from rauta.proxy.reasons import BODIES
from rauta.routing.model import Respond, Route
from rauta.routing.settings import Address, ClientLimits, Listener, LogFormat
from support.http import client, gateway, impatient, request, run
from support.tls import make_pair


def test_plain_http_on_a_tls_port_is_answered_and_told_and_probes_are_not(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=pair.cert)

    async def main() -> None:
        route = Route(name="hello", action=Respond(body="hello"))
        async with gateway(routes=[route], ssl=context, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/?token=1"))
                head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
                assert b"plain_on_tls: received plain HTTP on a TLS port" in body
            async with client(rauta.port, ssl=trusting, server_hostname="localhost") as peer:
                peer.send(request("/"))
                assert (await peer.response())[1] == b"hello"
            async with client(rauta.port) as peer:  # neither: a probe
                peer.send(b"\x00\x01\x02\x03" * 8)
                with suppress(ConnectionResetError):
                    await peer.rest()
            refused, served = rauta.log_lines()
            assert refused.startswith("- - - [")
            assert f' "-" 400 {len(BODIES["plain_on_tls"])} listener=web ' in refused
            assert " reason=plain_on_tls " in refused
            assert " 200 5 listener=web " in served

    run(main())


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "PRI", "CONNECT"])
def test_every_method_is_answered_also_one_whose_body_is_still_coming(tmp_path: Path, method: str) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    async def main() -> None:
        async with gateway(routes=[], listener=impatient(head=0.5), ssl=context) as rauta, client(rauta.port) as peer:
            peer.send(request(method=method, body=b"x" * 10))
            assert b" 400 " in (await peer.response())[0]
            for _ in range(10):  # no reset: each would find the connection open
                peer.send(b"x" * 1000)
                await peer.writer.drain()
            assert await peer.rest() == b""  # its time is over

    run(main())


def test_handshakes_count_as_connections(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=pair.cert)
    web = Listener(name="web", address=Address("127.0.0.1", 1), limits=ClientLimits(connections=3))

    async def main() -> None:
        route = Route(name="hello", action=Respond(body="hello"))
        async with gateway(routes=[route], listener=web, ssl=context) as rauta:
            (dispatcher,) = rauta.plane.dispatchers

            async def until(handshakes: int, connections: int) -> None:
                while (len(dispatcher.handshakes), len(dispatcher.connections)) != (handshakes, connections):
                    await asyncio.sleep(0.005)

            async with AsyncExitStack() as stack:
                for _ in range(3):
                    await stack.enter_async_context(client(rauta.port))
                await until(3, 0)
                async with client(rauta.port, ssl=trusting, server_hostname="localhost") as refused:
                    refused.send(request("/"))
                    with suppress(ConnectionError):
                        assert await refused.rest() == b""
            await until(0, 0)
            async with client(rauta.port, ssl=trusting, server_hostname="localhost") as peer:
                peer.send(request("/"))
                assert (await peer.response())[1] == b"hello"
                await until(0, 1)

    run(main())
