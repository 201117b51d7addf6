"""Outcomes of the table as answers, redirects, what the log says of them; and requests that end before the table."""

from __future__ import annotations

import json
import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest

from rauta.proxy.http1.grammar import parse_request
from rauta.proxy.redirects import redirect_location
from rauta.routing.hosts import HostPattern
from rauta.routing.model import (
    Match,
    PathMatch,
    Redirect,
    Respond,
    Route,
)
from rauta.routing.services import Backend, Service
from rauta.routing.settings import Address, EncodedSlash, Listener, LogFormat
from support.compiled import plain_only
from support.http import Gateway, always, backend, client, forward, gateway, ok, request, run, service, talk
from support.tls import make_pair


def respond(name: str, action: Respond | Redirect, prefix: str = "/") -> Route:
    return Route(name=name, action=action, matches=(Match(path=PathMatch.prefix(prefix)),))


async def answer_of(rauta: Gateway, target: str = "/", *lines: str, method: str = "GET") -> tuple[bytes, bytes]:
    async with client(rauta.port) as peer:
        peer.send(request(target, *lines, method=method))
        if method == "HEAD":
            return await peer.head(), b""
        return await peer.response()


def test_respond() -> None:
    async def main() -> None:
        routes = [
            respond("hello", Respond(body="grüß dich\n"), "/hello"),
            respond("teapot", Respond(status=418, content_type="text/tea"), "/teapot"),
            respond("none", Respond(status=204), "/none"),
        ]
        async with gateway(routes=routes, log=LogFormat.JSON) as rauta:
            head, body = await answer_of(rauta, "/hello")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nDate: " in head
            assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in head
            assert body == "grüß dich\n".encode()
            head, _ = await answer_of(rauta, "/hello", method="HEAD")
            assert b"\r\nContent-Length: 12\r\n" in head
            head, body = await answer_of(rauta, "/teapot")
            assert head.startswith(b"HTTP/1.1 418 ")
            assert b"\r\nContent-Type: text/tea\r\n" in head
            assert body == b""
            head, _ = await answer_of(rauta, "/none")
            assert b"Content-Length" not in head
            lines = [json.loads(line) for line in rauta.log_lines()]
            assert [(line["route"], line["status"], line["bytes"], line["reason"]) for line in lines] == [
                ("hello", 200, 12, None),
                ("hello", 200, 0, None),
                ("teapot", 418, 0, None),
                ("none", 204, 0, None),
            ]

    run(main())


def test_misses() -> None:
    async def main() -> None:
        only = Match(hosts=(HostPattern.parse("only.example"),), path=PathMatch.prefix("/x"))
        async with gateway(routes=[Route(name="r", action=Respond(), matches=(only,))], log=LogFormat.COMMON) as rauta:
            head, body = await answer_of(rauta)
            assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert b"\nunknown_host: " in body
            async with client(rauta.port) as peer:
                peer.send(b"GET / HTTP/1.1\r\nHost: Only.Example.:80\r\n\r\n")
                head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert b"\nno_route: " in body
            assert ["reason=unknown_host" in line for line in rauta.log_lines()] == [True, False]

    run(main())


def test_regex_timeout() -> None:
    async def main() -> None:
        # A back-reference: the linear engine cannot take it, so the time-out stands.
        hostile = Match(path=PathMatch.regex(r"/(a|aa)+(b)\2"))
        routes = [Route(name="slow", action=Respond(), matches=(hostile,)), respond("open", Respond(body="leaked"))]
        async with gateway(routes=routes, log=LogFormat.COMMON) as rauta:
            head, body = await answer_of(rauta, "/" + "a" * 60)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\nregex_timeout: " in body
            assert "route=slow" in rauta.log_lines()[0]

    run(main())


def test_no_backend_with_weight() -> None:
    async def main() -> None:
        idle = Service(name="s", backends=(Backend(address=Address("127.0.0.1", 1), weight=0),))
        async with gateway(services=[idle], routes=[forward()]) as rauta:
            head, body = await answer_of(rauta)
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\nno_backend: " in body

    run(main())


@plain_only
def test_a_failing_table_is_a_500_and_disturbs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from rauta.routing.model import WeightedService  # noqa: F401 - the model is complete before the patch
    from rauta.routing.outcome import PluginFailed
    from rauta.routing.table import Table

    broken = respond("broken", Respond())
    real = Table.match

    def match(self, listener, view):
        if view.path == "/broken":
            return PluginFailed(broken, "geo", ValueError("no database"))
        return real(self, listener, view)

    monkeypatch.setattr(Table, "match", match)

    async def main() -> None:
        async with gateway(routes=[respond("ok", Respond(body="fine"))], log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/broken") + request())
                head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 500 ")
                assert b"\nplugin_error: " in body
                assert b"database" not in body
                assert (await peer.response())[1] == b"fine"
            assert "no database" in rauta.log_lines()[0]

    run(main())


def test_encoded_slash_can_be_refused() -> None:
    async def main() -> None:
        listener = Listener(name="web", address=Address("127.0.0.1", 1), encoded_slash=EncodedSlash.REJECT)
        async with gateway(listener=listener, log=LogFormat.COMMON) as rauta:
            assert (await talk(rauta.port, request("/a%2fb"))).startswith(b"HTTP/1.1 400 ")
            assert "reason=encoded_slash" in rauta.log_lines()[0]

    run(main())


def test_the_balancer_spreads_clients_and_keeps_them() -> None:
    async def main() -> None:
        async with (
            backend(always(ok(b"1"))) as one,
            backend(always(ok(b"2"))) as two,
            gateway(services=[service(one.port, two.port)], routes=[forward()]) as rauta,
        ):
            seen = set()
            for _ in range(40):
                async with client(rauta.port) as peer:
                    peer.send(request() + request())
                    first, second = (await peer.response())[1], (await peer.response())[1]
                    assert first == second  # Maglev over address and port
                    seen.add(first)
            assert seen == {b"1", b"2"}

    run(main())


# --- redirects ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "line", "host", "expected"),
    [
        (Redirect(scheme="https"), "GET /a%2Fb?x=1", "test", "https://test/a%2Fb?x=1"),
        (Redirect(scheme="https"), "GET /a", "test:8080", "https://test/a"),
        (Redirect(scheme="https", port=8443), "GET /a", "test:8080", "https://test:8443/a"),
        (Redirect(scheme="https"), "GET /a", "[::1]:8080", "https://[::1]/a"),
        (Redirect(scheme="https", port=8443), "GET /a", "[::1]:8080", "https://[::1]:8443/a"),
        (Redirect(scheme="https", port=443), "GET /a", "test", "https://test/a"),
        (Redirect(host="new.example"), "GET /a?", "test:8080", "http://new.example/a?"),
        (Redirect(port=81), "GET /a", "test", "http://test:81/a"),
        (Redirect(path="/new"), "GET /a?x", "test:8080", "http://test:8080/new?x"),
        (Redirect(prefix="/new"), "GET /old", "test", "http://test/new"),
        (Redirect(prefix="/new"), "GET /old/", "test", "http://test/new/"),
        (Redirect(prefix="/new"), "GET /old/x/y?z", "test", "http://test/new/x/y?z"),
        (Redirect(prefix="/"), "GET /old", "test", "http://test/"),
        (Redirect(prefix="/"), "GET /old//evil.example", "test", "http://test//evil.example"),
        (Redirect(path="/new"), "GET /", "[::1]:80", "http://[::1]/new"),
        (Redirect(path="/new"), "GET http://other/a", "test", "http://other/new"),
    ],
)
def test_location(action: Redirect, line: str, host: str, expected: str) -> None:
    head = parse_request(f"{line} HTTP/1.1\r\nHost: {host}\r\n".encode())
    assert redirect_location(action, head, "http", "/old") == expected


def test_redirect_over_the_wire() -> None:
    async def main() -> None:
        action = Redirect(status=308, prefix="/new")
        async with gateway(routes=[respond("old", action, "/old")], log=LogFormat.COMMON) as rauta:
            head, body = await answer_of(rauta, "/old/./x?q=1", method="POST")
            assert head.startswith(b"HTTP/1.1 308 Permanent Redirect\r\n")
            assert b"\r\nLocation: http://test/new/x?q=1\r\n" in head
            assert body == b""
            async with client(rauta.port) as peer:  # nowhere to lead to without a host
                peer.send(b"GET /old HTTP/1.0\r\n\r\n")
                assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")
            assert "route=old" in rauta.log_lines()[0]

    run(main())


# --- Max-Forwards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "forwarded"),
    [
        (["Max-Forwards: 1"], b"0"),
        (["max-forwards: 007"], b"6"),
        (["Max-Forwards: 999"], b"998"),
        (["Max-Forwards: 1000"], b"999"),
        (["Max-Forwards: " + 9000 * "9"], b"999"),
        ([], None),
        (["Max_Forwards: 0"], b""),
        (
            ["Max-Forwards: 0", "Connection: Max-Forwards"],
            b"",
        ),  # for us alone, the client says: as if it were not there
    ],
)
def test_options_pass_with_one_forward_less(lines: list[str], forwarded: bytes | None) -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta:
            head, _ = await answer_of(rauta, "/", *lines, method="OPTIONS")
            assert head.startswith(b"HTTP/1.1 200 ")
            (received,) = server.received
            values = [
                line.partition(b": ")[2]
                for line in received.split(b"\r\n")
                if line.lower().startswith(b"max-forwards:")
            ]
            assert values == ([forwarded] if forwarded else [])

    run(main())


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Max-Forwards: 0"], 200),
        (["Max-Forwards: 000"], 200),
        (["Max-Forwards: -1"], 400),
        (["Max-Forwards: 1.0"], 400),
        (["Max-Forwards: \xb2"], 400),
        (["Max-Forwards:"], 400),
        (["Max-Forwards: 1, 2"], 400),
        (["Max-Forwards: 1", "Max-Forwards: 2"], 400),
    ],
)
def test_options_that_may_not_be_forwarded(lines: list[str], status: int) -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta:
            head, body = await answer_of(rauta, "/", *lines, method="OPTIONS")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert (b"\r\nAllow: GET, HEAD, " in head) is (status == 200)
            assert (b"bad_field" in body) is (status == 400)
            assert server.received == []

    run(main())


def test_other_methods_pass_with_their_max_forwards() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta:
            await answer_of(rauta, "/", "Max-Forwards: 0")
            assert b"\r\nMax-Forwards: 0\r\n" in server.received[0]

    run(main())


# --- targets of the other scheme ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "secured", "status"),
    [
        ("http://test/a", False, 200),
        ("HTTP://test/a", False, 200),
        ("https://test/a", False, 421),
        ("HTTPS://test/a?token=secret", False, 421),
        ("https://test/a", True, 200),
        ("http://test/a", True, 421),
        ("/a", True, 200),
    ],
)
def test_a_url_of_the_other_scheme_is_misdirected(target: str, secured: bool, status: int, tmp_path: Path) -> None:
    context, more = None, {}
    if secured:
        pair = make_pair(tmp_path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        more = {"ssl": ssl.create_default_context(cafile=pair.cert), "server_hostname": "localhost"}

    async def main() -> None:
        async with (
            backend(always(ok())) as server,
            gateway(server.port, ssl=context, log=LogFormat.JSON) as rauta,
            client(rauta.port, **more) as peer,
        ):
            peer.send(request(target))
            head, body = await peer.response()
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert (b"misdirected" in body) is (status == 421)
            peer.send(request("/b"))  # its end was clear: the connection is kept
            assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
            (received,) = server.received
            assert (b"GET /a HTTP/1.1\r\nHost: test\r\n" in received) is (status == 200)
            line = json.loads(rauta.log_lines()[0])
            assert line["reason"] == ("misdirected" if status == 421 else None)
            assert "secret" not in json.dumps(line)

    run(main())


@pytest.mark.parametrize(("network", "status"), [("127.0.0.0/8", 200), ("192.0.2.0/24", 421)])
def test_a_trusted_proxy_may_have_ended_the_tls(network: str, status: int) -> None:
    async def main() -> None:
        listener = Listener(name="web", address=Address("127.0.0.1", 1), trusted_proxies=(ip_network(network),))
        async with backend(always(ok())) as server, gateway(server.port, listener=listener) as rauta:
            head, _ = await answer_of(rauta, "https://test/")
            assert head.startswith(b"HTTP/1.1 %d " % status)

    run(main())
