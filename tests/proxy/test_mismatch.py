"""Backends that are spoken to in another way than they want: what the access log says, and asks."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from rauta.proxy.mismatch import HTTP1, HTTP2, TLS, spoken
from rauta.routing.services import Backend, BackendProtocol, HealthCheck, HealthKind, ProxyProtocol, Service
from rauta.routing.settings import Address, LogFormat
from rauta.runtime.agent.probes import CheckFailedError, probe
from support.http import client, forward, free_port, gateway, request, run
from support.tls import make_pair

ALERT: Final = b"\x15\x03\x01\x00\x02\x02\x46"
SETTINGS: Final = b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"
EITHER: Final = ": does the service want `tls`, or `protocol: http1`?"
ANY: Final = ": does the service want `tls`, `protocol: http2` or `proxy_protocol`?"
NO_HEADER: Final = ": does the backend want no `proxy_protocol`, or `tls` behind it?"


async def logged(port: int, protocol: BackendProtocol, *later: bytes, **more: Any) -> dict[str, Any]:
    """What the last of some requests is in the access log."""
    service = Service(name="s", backends=(Backend(address=Address("127.0.0.1", port)),), protocol=protocol, **more)
    routes = (forward("s"),)
    async with gateway(services=(service,), routes=routes, log=LogFormat.JSON) as rauta, client(rauta.port) as peer:
        for message in (request("/"), *later):
            peer.send(message)
            _, body = await peer.response()
        assert b"does the service" not in body  # that is for those who run it
        return dict(json.loads(rauta.log_lines()[-1]))


class Raw:
    """A backend that says some bytes, when it has heard something or at once, and hangs up."""

    def __init__(self, answer: bytes, *, reset: bool = False, first: bytes = b"") -> None:
        self._answers = [first, answer] if first else [answer]
        self._reset = reset

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self._answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        if self._reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()


@pytest.mark.parametrize(
    ("raw", "protocol", "reason", "detail"),
    [
        (Raw(b""), "http1", "upstream_reset", f"connection closed before the response{ANY}"),
        (Raw(b"", reset=True), "http1", "upstream_reset", f" before the response{ANY}"),
        (Raw(ALERT), "http1", "upstream_malformed", "no status line, but TLS: does the service want `tls`?"),
        (
            Raw(SETTINGS),
            "http1",
            "upstream_malformed",
            "no status line, but HTTP/2: does the service want `protocol: http2`?",
        ),
        (Raw(b"HTTP/1.1 200"), "http1", "upstream_reset", "connection closed before the response"),
        (Raw(b"hello\r\n\r\n"), "http1", "upstream_malformed", "no status line"),
        (Raw(b"", reset=True), "http2", "upstream_reset", f" before its settings of HTTP/2{EITHER}"),
        (Raw(ALERT), "http2", "upstream_malformed", "no HTTP/2, but TLS: does the service want `tls`?"),
        (
            Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "http2",
            "upstream_malformed",
            "no HTTP/2, but HTTP/1: does the service want `tls`, or `protocol: http1`?",
        ),
    ],
)
def test_what_the_log_asks(raw: Raw, protocol: str, reason: str, detail: str) -> None:
    async def main() -> None:
        async with await asyncio.start_server(raw, "127.0.0.1", 0) as server:
            line = await logged(server.sockets[0].getsockname()[1], BackendProtocol(protocol))
            assert (line["status"], line["reason"]) == (502, reason)
            assert line["detail"].endswith(detail)

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_a_header_of_the_proxy_protocol_is_doubted(*, reset: bool) -> None:
    async def main() -> None:
        async with await asyncio.start_server(Raw(b"", reset=reset), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            line = await logged(port, BackendProtocol.HTTP1, proxy_protocol=ProxyProtocol.V1)
            assert line["detail"].endswith(f" before the response{NO_HEADER}")
            with pytest.raises(CheckFailedError) as raised:
                await probe(Address("127.0.0.1", port), HealthCheck(), ProxyProtocol.V1)
            assert str(raised.value).endswith(NO_HEADER)

    run(main())


def test_a_connection_that_has_answered_asks_nothing() -> None:
    async def main() -> None:
        raw = Raw(b"", first=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"  # which is not sent again
        async with await asyncio.start_server(raw, "127.0.0.1", 0) as server:
            line = await logged(server.sockets[0].getsockname()[1], BackendProtocol.HTTP1, post)
            assert line["detail"].endswith("connection closed before the response")

    run(main())


def test_real_servers(tmp_path: Path) -> None:
    """They say first what they are, or hang up: openssl, and gRPC with and without TLS."""
    pair, port = make_pair(tmp_path), free_port()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    plain = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = ["openssl", "s_server", "-accept", str(port), "-cert", str(pair.cert), "-key", str(pair.key), "-quiet"]
    openssl = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    async def main() -> None:
        line = await logged(plain, BackendProtocol.HTTP1)
        assert line["detail"].endswith("no status line, but HTTP/2: does the service want `protocol: http2`?")
        while (line := await logged(port, BackendProtocol.HTTP1))["reason"] == "upstream_refused":
            await asyncio.sleep(0.02)  # it does not listen yet
        assert "does the service want `tls`" in line["detail"]
        line = await logged(port, BackendProtocol.HTTP2)
        assert "does the service want `tls`" in line["detail"]

    try:
        run(main())
    finally:
        openssl.kill()
        openssl.wait()
        server.stop(None).wait(10)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (ALERT, TLS),
        (b"\x16\x03\x03", TLS),
        (SETTINGS, HTTP2),
        (b"\0\0\x08\x07\0\0\0\0\0", HTTP2),
        (b"HTTP/1.0 200 OK", HTTP1),
        (b"HTTP/2", ""),
        (b"\0\0\x08\x07\0\0\0\0\1", ""),
        (b"\0\0\x08", ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_what_the_first_bytes_belong_to(data: bytes, what: str) -> None:
    assert spoken(data) == what


@pytest.mark.parametrize(
    ("answer", "protocol", "kind", "failure"),
    [
        (ALERT, "http1", "http", "the answer is no HTTP/1.1, but TLS: does the service want `tls`?"),
        (SETTINGS, "http1", "http", "the answer is no HTTP/1.1, but HTTP/2: does the service want `protocol: http2`?"),
        (b"HTTP/1.1 2", "http1", "http", "the connection was closed before an answer"),
        (b"", "http1", "http", f"the connection was closed before an answer{ANY}"),
        (ALERT, "http2", "http", "the answer is no HTTP/2, but TLS: does the service want `tls`?"),
        (b"HTTP/1.1 400 ", "http2", "grpc", "the answer is no HTTP/2, but HTTP/1"),  # which gRPC has not
    ],
)
def test_health_checks_ask_the_same(answer: bytes, protocol: str, kind: str, failure: str) -> None:
    async def main() -> None:
        async with await asyncio.start_server(Raw(answer), "127.0.0.1", 0) as server:
            address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
            check = HealthCheck(kind=HealthKind(kind))
            with pytest.raises(CheckFailedError) as raised:
                await probe(address, check, None, (None, BackendProtocol(protocol)))
            assert str(raised.value) == failure

    run(main())
