"""TLS towards backends: who is verified against what, what is agreed on, and what is told when it fails."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.dataplane import Endpoint
from rauta.proxy.pool import BackendContexts
from rauta.routing.model import Configuration, Match, PathMatch
from rauta.routing.services import Backend, BackendProtocol, BackendTls, ProxyProtocol, Service
from rauta.routing.settings import AccessLog, Address, Certificate, Listener, LogFormat, Secret
from rauta.routing.table import Table
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.backend_tls import TlsToBackends, tls_to_backends
from rauta.runtime.errors import StartError
from support import h2server
from support.http import Gateway, client, forward, gateway, ok, request, run
from support.tls import Authority, Pair, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """For localhost and 127.0.0.1."""
    return make_pair(tmp_path_factory.mktemp("backend"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """For another name."""
    return make_pair(tmp_path_factory.mktemp("other"), names="DNS:other.test")


def contexts_of(*services: Service) -> BackendContexts:
    return tls_to_backends(services, read_backend_credentials(services), TlsToBackends()).contexts


def certificate(pair: Pair) -> Certificate:
    return Certificate(cert=str(pair.cert), key=Secret(file=str(pair.key)))


def serving(pair: Pair, *protocols: str, clients: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if protocols:
        context.set_alpn_protocols([*protocols])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.cert)
    return context


class Behind:
    """A backend of HTTP/1.1 over TLS."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.asked: list[str | None] = []  # by SNI
        self.shown: list[Any] = []  # certificates of the gateway


@asynccontextmanager
async def behind(context: ssl.SSLContext | None) -> AsyncIterator[Behind]:
    found = Behind()
    if context is not None:
        context.sni_callback = lambda _, name, __: found.asked.append(name)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        found.shown.append(writer.get_extra_info("peercert"))
        try:
            while True:
                found.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(ok(b"secure"))
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[int]:
    """A backend that accepts one connection, and whose handshake fails. The loops would close without TLS's alert."""

    def serve() -> None:
        sock, _ = server.accept()
        with sock:
            alerting = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            with pytest.raises(ssl.SSLError):
                alerting.do_handshake()
            plain = socket.socket(fileno=alerting.detach())
            with plain:
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(4096):  # what is unread would be answered by a reset, which overtakes the alert
                    pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        thread.join(30)
        assert not thread.is_alive()


def to(port: int, tls: BackendTls, host: str = "127.0.0.1", **more: Any) -> Service:
    return Service(name="s", backends=(Backend(address=Address(host, port)),), tls=tls, **more)


@asynccontextmanager
async def before(service: Service) -> AsyncIterator[Gateway]:
    async with gateway(
        services=[service], routes=[forward()], log=LogFormat.COMMON, backend_contexts=contexts_of(service)
    ) as rauta:
        yield rauta


async def ask(rauta: Gateway, times: int = 1) -> tuple[int, bytes]:
    async with client(rauta.port) as peer:
        for _ in range(times):
            peer.send(request())
            head, body = await peer.response()
        return int(head.split()[1]), body


# --- who is verified ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name", "sni"),
    [("127.0.0.1", None, None), ("localhost", None, "localhost"), ("127.0.0.1", "localhost", "localhost")],
    ids=["by address", "by name", "another name than the address"],
)
def test_a_backend_that_is_who_it_should_be(pair: Pair, host: str, name: str | None, sni: str | None) -> None:
    async def main() -> None:
        async with (
            behind(serving(pair)) as backend,
            before(to(backend.port, BackendTls(ca=str(pair.cert), name=name), host)) as rauta,
        ):
            assert await ask(rauta, 3) == (200, b"secure")
            assert (backend.connections, backend.asked) == (1, [sni])
            assert b"Host: test\r\n" in backend.heads[0]

    run(main())


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "its certificate is not accepted: self-signed certificate"),
        ({"name": "wrong.test", "ca": True}, "its certificate is not accepted: Hostname mismatch"),
        ({"ca": "other"}, "its certificate is not accepted: "),
    ],
    ids=["the system's CAs", "another name", "another CA"],
)
def test_a_backend_that_is_not(pair: Pair, other: Pair, settings: dict[str, Any], why: str) -> None:
    ca = {True: str(pair.cert), "other": str(other.cert), None: None}[settings.get("ca")]
    tls = BackendTls(**{**settings, "ca": ca})

    async def main() -> None:
        async with behind(serving(pair)) as backend, before(to(backend.port, tls)) as rauta:
            status, body = await ask(rauta)
            assert (status, b"upstream_tls" in body, backend.heads) == (502, True, [])
            assert why in rauta.log_lines()[0]

    run(main())


@pytest.mark.parametrize("trusted", ["root", "intermediate", "localhost"])
def test_whatever_the_file_holds_is_trusted(trusted: str, tmp_path: Path) -> None:
    async def main() -> None:
        root = Authority(tmp_path, "root")
        intermediate = Authority(tmp_path, "intermediate", parent=root)
        backend = intermediate.issue("localhost", server=True)
        tls = BackendTls(ca=str(tmp_path / f"{trusted}.crt"), name="localhost")
        chain = Pair(tmp_path / "chain.crt", backend.key)
        chain.cert.write_bytes(backend.cert.read_bytes() + intermediate.cert.read_bytes())
        async with behind(serving(chain)) as there, before(to(there.port, tls)) as rauta:
            assert await ask(rauta) == (200, b"secure")

    run(main())


def test_a_backend_that_was_revoked_is_not_spoken_to(tmp_path: Path) -> None:
    """Nor after a reload with a list that is newer than its connections."""

    async def main() -> None:
        ca = Authority(tmp_path, "ca")
        server = ca.issue("localhost", server=True)
        tls = BackendTls(ca=str(ca.cert), crl=str(ca.revoke()), name="localhost")
        async with behind(serving(server)) as there:
            service = to(there.port, tls)
            async with before(service) as rauta:
                assert await ask(rauta) == (200, b"secure")
                ca.revoke(server)
                rauta.plane.pools.retain([service], contexts_of(service))
                status, body = await ask(rauta)
                assert (status, b"upstream_tls" in body) == (502, True)
                assert "its certificate is not accepted: certificate revoked" in rauta.log_lines()[-1]
                ca.revoke(ends=-0.5)
                rauta.plane.pools.retain([service], contexts_of(service))
                assert (await ask(rauta))[0] == 502
                assert "its certificate is not accepted: CRL has expired" in rauta.log_lines()[-1]
                assert there.connections == 1

    run(main())


def test_nobody_is_verified_where_that_is_off(other: Pair) -> None:
    async def main() -> None:
        async with behind(serving(other)) as backend:
            service = to(backend.port, BackendTls(verify=False, name="any.test"))
            async with before(service) as rauta:
                assert await ask(rauta) == (200, b"secure")
                assert backend.asked == ["any.test"]

    run(main())


def test_a_backend_asks_for_our_certificate(pair: Pair, other: Pair) -> None:
    async def main() -> None:
        async with behind(serving(pair, clients=other)) as backend:
            tls = BackendTls(ca=str(pair.cert), certificate=certificate(other))
            async with before(to(backend.port, tls)) as rauta:
                assert await ask(rauta) == (200, b"secure")
                assert backend.shown[0]["subjectAltName"] == (("DNS", "other.test"),)
        with refusing(serving(pair, clients=other)) as port:
            async with before(to(port, BackendTls(ca=str(pair.cert)))) as rauta:
                status, _ = await ask(rauta)
                assert status == 502
                assert "alert certificate required" in rauta.log_lines()[0]
                assert "_ssl.c" not in rauta.log_lines()[0]

    run(main())


def test_a_backend_that_speaks_no_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with before(to(port, BackendTls())) as rauta:
                assert (await ask(rauta))[0] == 502
                assert "it does not speak TLS on this port" in rauta.log_lines()[0]

    run(main())


def test_a_unix_socket(tmp_path: Path, pair: Pair) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok(b"unix"))

        path = str(tmp_path / "s")
        async with await asyncio.start_unix_server(serve, path, ssl=serving(pair)):
            for tls in (BackendTls(ca=str(pair.cert), name="localhost"), BackendTls(verify=False)):
                service = Service(name="s", backends=(Backend(address=Address.unix(path)),), tls=tls)
                async with before(service) as rauta:
                    assert await ask(rauta) == (200, b"unix")

    run(main())


def test_a_proxy_header_goes_before_tls(pair: Pair) -> None:
    async def main() -> None:
        first: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first.append(await reader.readuntil(b"\r\n"))
            await writer.start_tls(serving(pair))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok(b"behind it"))

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            service = to(port, BackendTls(ca=str(pair.cert)), proxy_protocol=ProxyProtocol.V1)
            async with before(service) as rauta, client(rauta.port) as peer:
                peer.send(request())
                assert (await peer.response())[1] == b"behind it"
                us = peer.writer.get_extra_info("sockname")[1]
        assert first == [b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (us, rauta.port)]

    run(main())


# --- what is agreed on --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", list(BackendProtocol))
@pytest.mark.parametrize("knows", [(), ("http/1.1",), ("h2",), ("h2", "http/1.1")], ids="+".join)
def test_alpn(pair: Pair, protocol: BackendProtocol, knows: tuple[str, ...]) -> None:
    """What is wanted and what the backend knows; without ALPN it is HTTP/1.1."""

    async def main() -> None:
        spoken: list[str | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            spoken.append(agreed)
            if agreed == "h2":
                await h2server.mirror(h2server.Connection(0, reader, writer, {}))
                return
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(ok(b"GET /"))
                await reader.read()
            except asyncio.IncompleteReadError:
                pass
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving(pair, *knows)) as server:
            port = server.sockets[0].getsockname()[1]
            async with before(to(port, BackendTls(ca=str(pair.cert)), protocol=protocol)) as rauta:
                answers = await asyncio.gather(*(ask(rauta) for _ in range(4)))
                if protocol is BackendProtocol.HTTP2 and "h2" not in knows:
                    assert {status for status, _ in answers} == {502}
                    assert "it does not speak HTTP/2 (ALPN)" in rauta.log_lines()[0]
                    return
                assert answers == [(200, b"GET /")] * 4
        wants = {"http1": ("http/1.1",), "http2": ("h2",), "auto": ("h2", "http/1.1")}[protocol.value]
        agreed = next((name for name in knows if name in wants), None)
        assert set(spoken) == {agreed}
        assert (len(spoken) == 1) == (agreed == "h2")

    run(main())


# --- reload -------------------------------------------------------------------------------------------------


def test_what_has_changed_is_used_from_the_next_request_on(tmp_path: Path, pair: Pair, other: Pair) -> None:
    """Idle connections that were verified by what counts no more are closed; those of others are kept."""

    async def main() -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(pair.cert.read_bytes())
        async with behind(serving(pair)) as backend:
            service = to(backend.port, BackendTls(ca=str(ca)))
            first = tls_to_backends([service], read_backend_credentials([service]), TlsToBackends())
            listener = Listener(name="web", address=Address("127.0.0.1", 1))
            async with gateway(
                services=[service], routes=[forward()], listener=listener, backend_contexts=first.contexts
            ) as rauta:
                assert (await ask(rauta))[0] == 200

                async def reload(before: TlsToBackends) -> TlsToBackends:
                    found = tls_to_backends([service], read_backend_credentials([service]), before)
                    configuration = Configuration(
                        listeners=(listener,), services=(service,), routes=(forward(),), access_log=AccessLog(to="off")
                    )
                    await rauta.plane.swap(Table(configuration), [Endpoint(listener=listener)], found.contexts)
                    return found

                same = await reload(first)
                assert (await ask(rauta))[0] == 200
                assert backend.connections == 1
                ca.write_bytes(other.cert.read_bytes())
                await reload(same)
                assert (await ask(rauta))[0] == 502
                assert backend.connections == 1

    run(main())


def test_a_connection_that_was_busy_is_not_kept_when_what_counts_has_changed(
    tmp_path: Path, pair: Pair, other: Pair
) -> None:
    go = asyncio.Event()

    async def main() -> None:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(pair.cert.read_bytes())

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readline():
                await reader.readuntil(b"\r\n\r\n")
                await go.wait()
                writer.write(ok(b"late"))

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving(pair)) as server:
            service = to(server.sockets[0].getsockname()[1], BackendTls(ca=str(ca)))
            first = tls_to_backends([service], read_backend_credentials([service]), TlsToBackends())
            async with (
                gateway(services=[service], routes=[forward()], backend_contexts=first.contexts) as rauta,
                client(rauta.port) as peer,
            ):
                peer.send(request())
                (pool,) = await connected(rauta)
                ca.write_bytes(other.cert.read_bytes())
                now = tls_to_backends([service], read_backend_credentials([service]), first)
                rauta.plane.pools.retain([service], now.contexts)
                go.set()
                assert (await peer.response())[1] == b"late"
                assert pool.idle == 0
                assert (await ask(rauta))[0] == 502

    run(main())


async def connected(rauta: Gateway) -> list[Any]:
    """The pools, once one is connected."""
    while not any(pool.made for pool in rauta.plane.pools):
        await asyncio.sleep(0.005)
    return [*rauta.plane.pools]


def test_what_cannot_be_read_or_used_is_told(tmp_path: Path, pair: Pair, other: Pair) -> None:
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    mixed = Certificate(cert=str(pair.cert), key=Secret(file=str(other.key)))
    for tls, why in (
        (BackendTls(ca=str(tmp_path / "none")), "service 's': there is no file"),
        (BackendTls(ca=str(broken)), "service 's': .* holds no PEM certificates, or broken ones: [^[(]+$"),
        (BackendTls(certificate=mixed), "service 's': .*the key does not belong to the certificate"),
    ):
        with pytest.raises(StartError, match=why):
            contexts_of(to(1, tls))


def test_two_ways_to_one_address_do_not_share_connections(pair: Pair) -> None:
    """Verified and not: what one of them takes must not serve the other."""

    async def main() -> None:
        async with behind(serving(pair)) as backend:
            strict = replace(to(backend.port, BackendTls()), name="strict")
            lax = replace(to(backend.port, BackendTls(verify=False)), name="lax")
            routes = [
                forward("strict", route="a", matches=(Match(path=PathMatch.exact("/strict")),)),
                forward("lax", route="b"),
            ]
            contexts = contexts_of(strict, lax)
            async with gateway(services=[strict, lax], routes=routes, backend_contexts=contexts) as rauta:
                assert (await ask(rauta))[0] == 200
                async with client(rauta.port) as peer:
                    peer.send(request("/strict"))
                    assert (await peer.response())[0].startswith(b"HTTP/1.1 502")

    run(main())
