"""Health checks over HTTP/2 and TLS: gRPC's health service by grpcio, and what else may be there instead."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from rauta.routing.model import Configuration, Forward, Route, WeightedService
from rauta.routing.services import Backend, BackendProtocol, BackendTls, HealthCheck, HealthKind, ProxyProtocol, Service
from rauta.routing.settings import Address, Certificate, Listener, Secret
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.backend_tls import TlsToBackends, tls_to_backends
from rauta.runtime.log import EventLog
from support import h2server
from support.tls import Pair, make_pair

GRPC = HealthCheck(kind=HealthKind.GRPC, interval=0.1, timeout=2.0, unhealthy=1, healthy=1)
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class Health(grpc.GenericRpcHandler):
    """grpc.health.v1.Health by hand: its messages are bytes."""

    def __init__(self, states: dict[bytes, bytes]) -> None:
        self.states = states

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self._check)

    def _check(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        name = request[2:] if request else b""  # field 1, of at most 127 bytes
        assert not request or request[:2] == b"\x0a" + bytes([len(name)])
        if name == b"broken":
            raise RuntimeError("by intention")
        if name not in self.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self.states[name]


@contextmanager
def health(states: dict[bytes, bytes] | None, pair: Pair | None = None, clients: Pair | None = None) -> Iterator[int]:
    """A server of grpcio, with the health service or without one; its port."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[] if states is None else [Health(states)])
        if pair is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            root = None if clients is None else clients.cert.read_bytes()
            credentials = grpc.ssl_server_credentials(
                [(pair.key.read_bytes(), pair.cert.read_bytes())], root, require_client_auth=root is not None
            )
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait(10)


def to(port: int, check: HealthCheck, **more: Any) -> Service:
    return Service(name="s", backends=(Backend(address=Address("127.0.0.1", port)),), health=check, **more)


def h2(port: int, check: HealthCheck = GRPC, **more: Any) -> Service:
    return to(port, check, protocol=BackendProtocol.HTTP2, **more)


async def checked(service: Service) -> str | None:
    """What one check finds, with the words of the agent."""
    contexts = tls_to_backends([service], read_backend_credentials([service]), TlsToBackends()).contexts
    checks = HealthChecks(asyncio.get_running_loop(), lambda name, down: None, EventLog(-1, terminal=False))
    checks._contexts = contexts
    key = (service.name, service.backends[0].address, service.health, service.proxy_protocol, service.way_of_checks)
    failure, _ = await checks._check(key)  # type: ignore[arg-type]
    return failure


def run(service: Service) -> str | None:
    return asyncio.run(asyncio.wait_for(checked(service), 20))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("backend"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("ours"), names="DNS:rauta.test")


# --- gRPC's health service ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "service", "failure"),
    [
        ({b"": SERVING}, "", None),
        ({b"a.B": SERVING, b"": NOT_SERVING}, "a.B", None),
        ({b"": NOT_SERVING}, "", "the server is NOT_SERVING"),
        ({b"a.B": NOT_SERVING, b"": SERVING}, "a.B", "gRPC service 'a.B' is NOT_SERVING"),
        ({b"": b""}, "", "the server is UNKNOWN"),
        ({b"": b"\x08\x03"}, "", "the server is SERVICE_UNKNOWN"),
        ({b"": b"\x08\x07"}, "", "the server is 7"),
        ({}, "a.B", "gRPC service 'a.B' is not known to the health service"),
        ({}, "broken", "gRPC status 2"),
        (None, "", "it has no gRPC health service (grpc.health.v1)"),
    ],
)
def test_states(states: dict[bytes, bytes] | None, service: str, failure: str | None) -> None:
    with health(states) as port:
        check = HealthCheck(kind=HealthKind.GRPC, service=service)
        assert run(h2(port, check)) == failure


@pytest.mark.parametrize("protocol", [BackendProtocol.HTTP2, BackendProtocol.AUTO])
def test_over_tls_and_with_a_certificate(pair: Pair, ours: Pair, protocol: BackendProtocol) -> None:
    certificate = Certificate(cert=str(ours.cert), key=Secret(file=str(ours.key)))
    with health({b"": SERVING}, pair, ours) as port:
        tls = BackendTls(ca=str(pair.cert), certificate=certificate)
        assert run(to(port, GRPC, tls=tls, protocol=protocol)) is None
        # grpcio closes without an alert.
        assert run(to(port, GRPC, tls=BackendTls(ca=str(pair.cert)), protocol=protocol)) is not None
        failure = run(to(port, GRPC, tls=BackendTls(), protocol=protocol))
        assert failure == "its certificate is not accepted: self-signed certificate"


def test_with_tls_of_its_own(pair: Pair, ours: Pair) -> None:
    """For services whose clients' TLS goes through."""
    certificate = Certificate(cert=str(ours.cert), key=Secret(file=str(ours.key)))
    with health({b"": SERVING}, pair, ours) as port:
        tls = BackendTls(ca=str(pair.cert), certificate=certificate)
        assert run(h2(port, replace(GRPC, tls=tls))) is None
        assert run(h2(port, replace(GRPC, tls=replace(tls, certificate=None)))) is not None
        assert run(h2(port, GRPC)) is not None
        wrong = replace(tls, name="wrong.test")
        assert "Hostname mismatch" in (run(h2(port, replace(GRPC, tls=wrong))) or "")


def test_a_backend_goes_down_and_comes_back() -> None:
    states = {b"": SERVING}

    async def main(port: int) -> None:
        told: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        checks = HealthChecks(loop, lambda service, down: told.put_nowait(down), EventLog(-1, terminal=False))
        service = h2(port)
        route = Route(name="r", action=Forward(services=(WeightedService(name="s"),)))
        listener = Listener(name="web", address=Address("127.0.0.1", 1))
        states[b""] = NOT_SERVING
        checks.update(Configuration(listeners=(listener,), services=(service,), routes=(route,)))
        assert await told.get() == {f"127.0.0.1:{port}"}
        states[b""] = SERVING
        assert await told.get() == frozenset()
        await checks.close()

    with health(states) as port:
        asyncio.run(asyncio.wait_for(main(port), 20))


# --- what else may be there ---------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.close()


def _h2(script: h2server.Script) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = h2server.Connection(0, reader, writer, {})
        try:
            await peer.until(lambda: 1 in peer.requests)
            await script(peer)
            await peer.until(lambda: False)
        except ConnectionError:
            pass  # the check is over
        finally:
            writer.close()

    return serve


async def _page(peer: h2server.Connection) -> None:
    peer.answer(1, b"<h1>no</h1>", status=404)


async def _reset(peer: h2server.Connection) -> None:
    peer.reset(1, h2server.ErrorCodes.REFUSED_STREAM)


async def _goaway(peer: h2server.Connection) -> None:
    peer.leave(0, h2server.ErrorCodes.ENHANCE_YOUR_CALM)


async def _leaves(peer: h2server.Connection) -> None:
    peer.leave(0)


async def _malformed(peer: h2server.Connection) -> None:
    peer.head(1, [(":status", "200"), ("connection", "x")])


async def _bad_trailer(peer: h2server.Connection) -> None:
    peer.head(1, [(":status", "200")])
    peer.head(1, [("connection", "x")], end=True)


async def _endless(peer: h2server.Connection) -> None:
    peer.head(1, [(":status", "200"), ("content-type", "application/grpc")])
    for _ in range(3):
        peer.data(1, bytes(10_000))


@pytest.mark.parametrize(
    ("serve", "failure"),
    [
        (_web, "the answer is no HTTP/2, but HTTP/1"),
        (_close, "the connection was closed before an answer"),
        (_h2(_page), "status 404, and no gRPC"),
        (_h2(_reset), "the stream was reset (REFUSED_STREAM)"),
        (_h2(_goaway), "the backend ended the connection (ENHANCE_YOUR_CALM)"),
        (_h2(_leaves), "the backend ended the connection (NO_ERROR)"),
        (_h2(_malformed), "the answer is no HTTP"),
        (_h2(_bad_trailer), "the answer is no HTTP"),
        (_h2(_endless), "the answer is too long for gRPC's health service"),
    ],
    ids=["http1", "closed", "a page", "reset", "goaway", "leaving", "malformed", "trailer", "endless"],
)
def test_who_is_no_health_service(serve: Serve, failure: str) -> None:
    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            found = await checked(h2(server.sockets[0].getsockname()[1]))
            assert found is not None
            assert found.startswith(failure)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_nobody_is_there() -> None:
    with health({}) as port:
        pass
    assert run(h2(port)) == "connection refused"


# --- http and tcp -------------------------------------------------------------------------------------------


def serving(pair: Pair, *protocols: str, clients: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if protocols:
        context.set_alpn_protocols([*protocols])
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.cert)
    return context


async def either(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of both protocols, by ALPN; 503 for paths other than /live."""
    tls = writer.get_extra_info("ssl_object")
    try:
        if tls is None or tls.selected_alpn_protocol() == "h2":
            peer = h2server.Connection(0, reader, writer, {})
            asked = await peer.request()
            peer.answer(1, b"x", status=200 if asked[":path"] == "/live" else 503)
            await peer.until(lambda: False)
        else:
            asked = await reader.readuntil(b"\r\n\r\n")
            status = b"200" if asked.startswith(b"GET /live HTTP/1.1\r\n") else b"503"
            writer.write(b"HTTP/1.1 " + status + b" x\r\nContent-Length: 0\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        pass  # a check of TCP, or one that has seen enough
    finally:
        writer.close()


@pytest.mark.parametrize("protocol", list(BackendProtocol))
@pytest.mark.parametrize("knows", [(), ("http/1.1",), ("h2",), ("h2", "http/1.1")], ids="+".join)
def test_http_over_tls(pair: Pair, ours: Pair, protocol: BackendProtocol, knows: tuple[str, ...]) -> None:
    certificate = Certificate(cert=str(ours.cert), key=Secret(file=str(ours.key)))
    tls = BackendTls(ca=str(pair.cert), certificate=certificate)

    async def main() -> None:
        context = serving(pair, *knows, clients=ours)
        async with await asyncio.start_server(either, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            service = to(port, HealthCheck(path="/live"), tls=tls, protocol=protocol)
            other = to(port, HealthCheck(path="/other"), tls=tls, protocol=protocol)
            if protocol is BackendProtocol.HTTP2 and "h2" not in knows:
                assert await checked(service) == "it does not speak HTTP/2 (ALPN)"
            else:
                assert await checked(service) is None
                assert await checked(other) == "status 503"
            assert await checked(to(port, HealthCheck(path="/live"), tls=BackendTls(ca=str(pair.cert)))) is not None
            if protocol is not BackendProtocol.HTTP1:
                grpc = await checked(to(port, GRPC, tls=tls, protocol=protocol))
                assert grpc is not None
                assert grpc.startswith(
                    "status 503, and no gRPC" if "h2" in knows else "it does not speak HTTP/2 (ALPN)"
                )

    asyncio.run(asyncio.wait_for(main(), 20))


def test_http_over_plain_http2() -> None:
    async def main() -> None:
        async with await asyncio.start_server(either, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await checked(h2(port, HealthCheck(path="/live"))) is None
            assert await checked(h2(port, HealthCheck(path="/other"))) == "status 503"

    asyncio.run(asyncio.wait_for(main(), 20))


def test_tcp_is_the_handshake_where_there_is_tls(pair: Pair) -> None:
    tcp = HealthCheck(kind=HealthKind.TCP)

    async def main() -> None:
        async with await asyncio.start_server(either, "127.0.0.1", 0, ssl=serving(pair)) as server:
            port = server.sockets[0].getsockname()[1]
            assert await checked(to(port, tcp, tls=BackendTls(ca=str(pair.cert)))) is None
            failure = await checked(to(port, tcp, tls=BackendTls(ca=str(pair.cert), name="wrong.test")))
            assert failure is not None
            assert failure.startswith("its certificate is not accepted: Hostname mismatch")
        async with await asyncio.start_server(_web, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await checked(to(port, tcp, tls=BackendTls())) == (
                "the TLS handshake failed: it does not speak TLS on this port"
            )

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("kind", list(HealthKind))
@pytest.mark.parametrize("own", [False, True], ids=["service", "checks"])
def test_a_handshake_that_is_cut_off(kind: HealthKind, *, own: bool) -> None:
    async def main() -> None:
        async with await asyncio.start_server(_close, "127.0.0.1", 0) as server:
            port, tls = server.sockets[0].getsockname()[1], BackendTls()
            service = h2(port, HealthCheck(kind=kind, tls=tls)) if own else h2(port, HealthCheck(kind=kind), tls=tls)
            assert await checked(service) == "the backend closed the connection in the TLS handshake"

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("kind", [HealthKind.TCP, HealthKind.HTTP])
def test_the_proxy_header_goes_before_tls(pair: Pair, kind: HealthKind) -> None:
    first = b""

    def serve(listening: socket.socket) -> None:
        nonlocal first
        sock, _ = listening.accept()
        with sock:
            while not first.endswith(b"\n"):  # no byte more: what follows is TLS
                first += sock.recv(1)
            with serving(pair).wrap_socket(sock, server_side=True) as secure:
                if secure.recv(1000):
                    secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            served = asyncio.create_task(asyncio.to_thread(serve, listening))  # noqa: TID251 - awaited below
            tls = BackendTls(ca=str(pair.cert))
            port = listening.getsockname()[1]
            told = await checked(to(port, HealthCheck(kind=kind), tls=tls, proxy_protocol=ProxyProtocol.V1))
            await asyncio.gather(served, return_exceptions=True)  # a check resets the connection in the end
        assert (told, first) == (None, b"PROXY UNKNOWN\r\n")

    asyncio.run(asyncio.wait_for(main(), 20))
