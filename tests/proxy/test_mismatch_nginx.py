"""An nginx that wants to be spoken to otherwise: what the access log and a health check say of it, and ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from rauta.proxy.pool import BackendContexts
from rauta.routing.services import Backend, BackendProtocol, BackendTls, HealthCheck, ProxyProtocol, Service
from rauta.routing.settings import Address, LogFormat
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.backend_tls import TlsToBackends, tls_to_backends
from rauta.runtime.log import EventLog
from support.http import client, forward, free_port, gateway, request, run
from support.nginx import nginx
from support.tls import make_pair

FAILED = "the TLS handshake failed: "
CLOSED = "the connection was closed before an answer"
UNVERIFIED = BackendTls(verify=False)
NO_ALPN = "it speaks none of the protocols that are offered (ALPN): does the service want another `protocol`?"


@dataclass(frozen=True)
class Ports:
    """One nginx: without anything, with TLS for `named.test`, and with the PROXY protocol."""

    plain: int
    tls: int
    proxied: int
    ca: str


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("nginx")
    pair = make_pair(folder, names="DNS:named.test")
    tls, proxied = free_port(), free_port()
    server = (
        f"listen 127.0.0.1:{tls} ssl; ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
        f"listen 127.0.0.1:{proxied} proxy_protocol;"
    )
    with nginx(folder / "home", server) as running:
        (running.www / "index.html").write_text("here")
        yield Ports(running.port, tls, proxied, str(pair.cert))


def service(port: int, **way: Any) -> Service:
    backends = (Backend(address=Address("127.0.0.1", port)),)
    return Service(name="s", backends=backends, **{"health": HealthCheck(timeout=10.0), **way})


def contexts_of(one: Service) -> BackendContexts:
    return tls_to_backends([one], read_backend_credentials([one]), TlsToBackends()).contexts


async def checked(one: Service) -> str | None:
    """What is wrong by a health check."""
    checks = HealthChecks(asyncio.get_running_loop(), lambda name, down: None, EventLog(-1, terminal=False))
    checks._contexts = contexts_of(one)
    assert one.health is not None
    key = (one.name, one.backends[0].address, one.health, one.proxy_protocol, one.way_of_checks)
    failure, _ = await checks._check(key)
    return failure


async def told(port: int, **way: Any) -> tuple[int, str, str | None]:
    """The status of a request and its detail, and what is wrong by a health check."""
    one = service(port, **way)
    async with (
        gateway(services=[one], routes=[forward()], log=LogFormat.JSON, backend_contexts=contexts_of(one)) as rauta,
        client(rauta.port) as peer,
    ):
        peer.send(request())
        await peer.response()
        line = json.loads(rauta.log_lines()[-1])
    return line["status"], line.get("detail", "").removeprefix(f"127.0.0.1:{port}: "), await checked(one)


def test_what_fits(ports: Ports) -> None:
    async def main() -> None:
        assert await told(ports.plain) == (200, "", None)
        assert await told(ports.tls, tls=BackendTls(ca=ports.ca, name="named.test")) == (200, "", None)
        assert await told(ports.proxied, proxy_protocol=ProxyProtocol.V2) == (200, "", None)

    run(main())


def test_an_address_without_a_name(ports: Ports) -> None:
    async def main() -> None:
        why = (
            "its certificate is not accepted: IP address mismatch, certificate is not valid for '127.0.0.1': "
            "does `tls` want `name`?"
        )
        tls = BackendTls(ca=ports.ca)
        assert await told(ports.tls, tls=tls) == (502, why, why)
        assert await checked(service(ports.tls, health=HealthCheck(timeout=10.0, tls=tls))) == why

    run(main())


def test_tls_without_the_protocol_that_is_offered(ports: Ports) -> None:
    async def main() -> None:
        found = await told(ports.tls, tls=UNVERIFIED, protocol=BackendProtocol.HTTP2)
        assert found == (502, FAILED + NO_ALPN, FAILED + NO_ALPN)

    run(main())


def test_plain_http_to_a_port_of_tls(ports: Ports) -> None:
    """Its 400 is what the client gets, so the log asks nothing."""

    async def main() -> None:
        assert await told(ports.tls) == (400, "", "status 400: does the service want `tls`?")
        status, detail, failure = await told(ports.tls, protocol=BackendProtocol.HTTP2)
        asked = ": does the service want `tls`, or `protocol: http1`?"
        assert failure == f"the answer is no HTTP/2, but HTTP/1{asked}"
        # It may have answered the preface, and closed, before the request went out.
        assert (status, detail) in (
            (502, f"no HTTP/2, but HTTP/1{asked}"),
            (502, f"connection closed as soon as it was made{asked}"),
        )

    run(main())


def test_the_proxy_protocol(ports: Ports) -> None:
    """nginx closes, usually by a reset, where it misses the header, and answers one that it does not expect."""

    async def main() -> None:
        silent = ": does the service want `tls`, `protocol: http2` or `proxy_protocol`?"
        status, detail, failure = await told(ports.proxied)
        assert (status, detail.endswith(f" before the response{silent}")) == (502, True)
        assert failure is not None
        assert failure in {f"{how}{silent}" for how in ("connection reset by peer", CLOSED)}
        for version in ProxyProtocol:
            status, detail, failure = await told(ports.tls, tls=UNVERIFIED, proxy_protocol=version)
            assert status == 502
            assert detail == failure
            assert (failure or "").endswith(": does the backend want no `proxy_protocol`?")
            *answer, failure = await told(ports.plain, proxy_protocol=version)
            unexpected = ": does the backend want no `proxy_protocol`, or `tls` behind it?"
            assert failure == f"status 400{unexpected}"
            # It may have answered the header before the request went out.
            assert answer in ([400, ""], [502, f"it answered before it was asked{unexpected}"])

    run(main())
