"""TLS handshakes that fail, or do not end."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from rauta.proxy.handshake import Entry
from rauta.proxy.reasons import BODIES
from rauta.proxy.tls import ServerContexts
from rauta.routing.model import Respond, Route
from rauta.routing.settings import Address, ClientLimits, Listener, LogFormat
from support.http import client, gateway, impatient, request, run
from support.tls import Authority, Pair, make_pair


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


def shaken(entry: Entry, client_context: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both sides of a handshake for second.test. Raises what the server does."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client_context.wrap_bio(to_client, to_server, server_hostname="second.test")
    server_side = entry.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client_side, server_side):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client_side, server_side


@pytest.mark.parametrize(
    ("version", "again"),
    [(ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, False), (ssl.TLSVersion.TLSv1_3, True)],
    ids=["1.2", "1.3", "1.3 with a second hello"],
)
def test_the_first_context_verifies_clients_and_the_one_for_the_name_has_the_certificate(
    version: ssl.TLSVersion, again: bool, tmp_path: Path
) -> None:
    first, second = (make_pair(tmp_path, name, names=f"DNS:{name}.test") for name in ("first", "second"))
    authority = Authority(tmp_path, "ca")
    contexts = []
    for pair in (first, second):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        if again:  # nothing that a client begins with
            context.set_ecdh_curve("secp384r1")
        contexts.append(context)
    contexts[0].load_verify_locations(authority.cert)
    contexts[0].verify_mode = ssl.CERT_REQUIRED
    failures: list[tuple[str, str]] = []
    served = [(["first.test"], contexts[0]), (["second.test"], contexts[1])]
    entry = Entry(ServerContexts(served, "asked"), lambda *why: failures.append(why))

    def of_client(shown: Pair) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=second.cert)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(shown.cert, shown.key)
        return context

    client_side, server_side = shaken(entry, of_client(authority.issue("client")))
    assert client_side.getpeercert(True) == ssl.PEM_cert_to_DER_cert(second.cert.read_text())
    assert dict(field for (field,) in (server_side.getpeercert() or {})["subject"]) == {"commonName": "client"}
    assert failures == []
    with suppress(ssl.SSLError):  # the alert
        shaken(entry, of_client(Authority(tmp_path, "stranger").issue("unknown")))
    assert failures == [("CERTIFICATE_VERIFY_FAILED", "unable to get local issuer certificate")]
