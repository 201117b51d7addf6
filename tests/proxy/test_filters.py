"""Filters, trusted proxies and PROXY headers: what the backend and the client really get."""

from __future__ import annotations

import re
import socket
import uuid
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.filters import new_id
from rauta.proxy.forwarded import MAX_CHAIN, TrustedProxies
from rauta.proxy.messages import NO_BODY, RequestHead
from rauta.proxy.proxyprotocol import encode, encode_own, encode_unknown
from rauta.routing.filters import Filter, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.model import Match, PathMatch, Redirect, Respond, Route
from rauta.routing.services import Backend, ProxyProtocol, Service
from rauta.routing.settings import Address, Forwarded, Listener, LogFormat
from support.http import Peer, backend, client, forward, gateway, ok, request, run, service
from support.nginx import nginx


async def through(
    *filters: Filter,
    sent: bytes,
    match: Match | None = None,
    answer: bytes | None = None,
    listener: tuple[Filter, ...] = (),
) -> tuple[bytes, bytes]:
    """The head that the backend got, and the head that the client got."""
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        received.append(await peer.head())
        peer.send(ok() if answer is None else answer)
        await peer.closed()

    web = Listener(name="web", address=Address("127.0.0.1", 1), filters=listener, forwarded=frozenset())
    async with backend(script) as server:
        routes = [forward(matches=(match or Match(),), filters=filters)]
        async with (
            gateway(services=[service(server.port)], routes=routes, listener=web) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(sent)
            head = await peer.head()
    return (received[0] if received else b""), head


def at(path: str) -> tuple[Match, ...]:
    return (Match(path=PathMatch.exact(path)),)


def test_request_fields_are_removed_set_and_added_in_that_order() -> None:
    async def main() -> None:
        changes = RequestHeaders(set=(("X-A", "new"),), add=(("X-B", "two"), ("X-B", "three")), remove=("cookie",))
        got, _ = await through(changes, sent=request("/", "x-a: old", "X-B: one", "Cookie: secret", "X_C: kept"))
        assert got == (
            b"GET / HTTP/1.1\r\nHost: test\r\nX-B: one\r\nX_C: kept\r\nX-A: new\r\nX-B: two\r\nX-B: three\r\n\r\n"
        )

    run(main())


def test_what_is_set_or_removed_is_so_in_all_spellings_and_in_trailers() -> None:
    """For many servers `X_User` is `X-User`, and trailers are fields."""
    changes = RequestHeaders(set=(("X-User", "anon"),), remove=("X-Internal-Auth",))
    back = ResponseHeaders(set=(("X-Cache", "no"),), remove=("X-Debug",))
    names = ("X_User", "x.user", "X_Internal_Auth", "X.Internal-Auth", "X_Request_Id")

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert head.endswith(b"Transfer-Encoding: chunked\r\n\r\n")
        await peer.reader.readuntil(b"0\r\n")
        peer.received += await peer.reader.readuntil(b"\r\n\r\n")
        fields = b"X_Debug: 1\r\nX-Cache: yes\r\nX-Request-Id: forged\r\nX-Kept: 2\r\n"
        peer.send(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n0\r\n%b\r\n" % (fields, fields))
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            routes = [forward(filters=(changes, back, RequestId()))]
            web = Listener(name="web", address=Address("127.0.0.1", 1), forwarded=frozenset())
            async with (
                gateway(services=[service(server.port)], routes=routes, listener=web) as rauta,
                client(rauta.port) as peer,
            ):
                lines = [f"{name}: forged" for name in names]
                peer.send(request("/", *lines, "Transfer-Encoding: chunked", method="POST"))
                peer.send(b"0\r\n" + "".join(f"{line}\r\n" for line in [*lines, "X-Kept: 1"]).encode() + b"\r\n")
                head = await peer.head()
                trailers = await peer.exactly(len(b"0\r\nX-Kept: 2\r\n\r\n"))
            (received,) = server.received
        assert b"forged" not in received
        assert received.count(b"X-User: anon\r\n") == 1
        assert received.endswith(b"X-Kept: 1\r\n\r\n")
        assert b"forged" not in head
        assert b"X_Debug" not in head
        assert b"X-Cache: no\r\n" in head
        assert b"X-Kept: 2\r\n" in head
        assert trailers == b"0\r\nX-Kept: 2\r\n\r\n"

    run(main())


def test_response_fields_also_of_own_answers() -> None:
    changes = ResponseHeaders(set=(("Server", "mine"),), remove=("x-powered-by",))

    async def main() -> None:
        answer = b"HTTP/1.1 200 OK\r\nServer: theirs\r\nX-Powered-By: a\r\nContent-Length: 0\r\n\r\n"
        _, head = await through(changes, sent=request(), answer=answer)
        assert b"\r\nServer: mine\r\n" in head
        assert b"theirs" not in head
        assert b"Powered" not in head
        routes = [
            Route(name="a", action=Respond(body="x"), filters=(changes,), matches=(Match(path=PathMatch.exact("/a")),)),
            Route(
                name="b", action=Redirect(path="/c"), filters=(changes,), matches=(Match(path=PathMatch.exact("/b")),)
            ),
            forward(filters=(changes,)),
        ]
        async with gateway(services=[service(1)], routes=routes) as rauta:
            for path, status in (("/a", b"200"), ("/b", b"302"), ("/refused", b"502")):
                async with client(rauta.port) as peer:
                    peer.send(request(path))
                    head = await peer.head()
                    assert head.split()[1] == status
                    assert b"\r\nServer: mine\r\n" in head

    run(main())


@pytest.mark.parametrize(
    ("rewrite", "match", "target", "expected"),
    [
        (Rewrite(path="/all"), PathMatch.prefix("/"), "/a/b?q=1", "/all?q=1"),
        (Rewrite(prefix="/new"), PathMatch.prefix("/old"), "/old/a%2Fb?q", "/new/a%2Fb?q"),
        (Rewrite(prefix="/new/"), PathMatch.prefix("/old"), "/old", "/new"),
        (Rewrite(prefix="/"), PathMatch.prefix("/old"), "/old/x", "/x"),
        (Rewrite(prefix="/"), PathMatch.prefix("/old"), "/old", "/"),
        (Rewrite(prefix="/v1"), PathMatch.prefix("/"), "/x", "/v1/x"),
        (Rewrite(regex="/users/([0-9]+)", substitution=r"/u/\1"), PathMatch.prefix("/"), "/users/7", "/u/7"),
        (Rewrite(regex="/users/([0-9]+)", substitution=r"/u/\1"), PathMatch.prefix("/"), "/users/x", "/users/x"),
        (Rewrite(regex="/(a)?(b)?", substitution=r"/\2-\1-\0"), PathMatch.prefix("/"), "/b", "/b--/b"),
    ],
)
def test_paths_are_rewritten_and_queries_kept(rewrite: Rewrite, match: PathMatch, target: str, expected: str) -> None:
    async def main() -> None:
        got, _ = await through(rewrite, sent=request(target), match=Match(path=match))
        assert got.split()[1].decode() == expected

    run(main())


def test_a_rewrite_that_makes_no_path_is_an_error_of_ours() -> None:
    async def main() -> None:
        got, head = await through(Rewrite(regex="/(.*)", substitution=r"/../\1"), sent=request("/x"))
        assert (got, head.split()[1]) == (b"", b"500")

    run(main())


def test_a_host_is_rewritten_for_the_backend_alone() -> None:
    async def main() -> None:
        got, _ = await through(Rewrite(host="internal.example"), sent=request())
        assert b"\r\nHost: internal.example\r\n" in got

    run(main())


@pytest.mark.parametrize(
    ("accept", "sent", "kept"),
    [
        (False, "mine", False),
        (True, "mine", True),
        (True, "a b", False),
        (True, "x" * 129, False),
        (True, "\xe9", False),
    ],
)
def test_request_ids(accept: bool, sent: str, kept: bool) -> None:
    async def main() -> None:
        filters = (RequestId(accept=accept),)
        got, head = await through(sent=request("/", f"x-request-id: {sent}"), listener=filters)
        (given,) = re.findall(rb"(?i)\r\nx-request-id: ([^\r]*)\r\n", got)
        assert re.findall(rb"\r\nX-Request-Id: ([^\r]*)\r\n", head) == [given]
        if kept:
            assert given.decode() == sent
        else:
            assert uuid.UUID(given.decode()).version == 4

    run(main())


def test_ids_are_uuids_and_differ() -> None:
    found = {new_id() for _ in range(1000)}
    assert len(found) == 1000
    for text in found:
        parsed = uuid.UUID(text)
        assert (parsed.version, str(parsed), parsed.variant) == (4, text, uuid.RFC_4122)


# --- trusted proxies ------------------------------------------------------------------------------------

TRUSTED = TrustedProxies((ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))


def claiming(**fields: str) -> RequestHead:
    head = RequestHead("GET", "/", None, "test", "test", "1.1", NO_BODY)
    head.claims = lambda: [(name.replace("_", "-"), value) for name, value in fields.items()]
    return head


@pytest.mark.parametrize(
    ("chain", "client_address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("198.51.100.9, 192.0.2.1, 10.1.1.1", "192.0.2.1"),
        ("192.0.2.1, 10.1.1.1, 10.2.2.2", "192.0.2.1"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("[2001:db9::1]:4711", "2001:db9::1"),
        ("2001:db9::1", "2001:db9::1"),
        ("unknown, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, unknown", "10.0.0.1"),
        ("192.0.2.1, _secret, 10.1.1.1", "10.1.1.1"),
        ("garbage garbage, 10.1.1.1", "10.1.1.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_vouches_for(chain: str, client_address: str) -> None:
    believed = TRUSTED.believe(("10.0.0.1", 1), claiming(x_forwarded_for=chain))
    assert believed is not None
    assert believed.client[0] == client_address
    assert believed.chain.endswith("10.0.0.1")


def test_others_are_not_believed() -> None:
    assert TRUSTED.believe(("192.0.2.9", 1), claiming(x_forwarded_for="127.0.0.1")) is None


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_chain_breaks_a_line_or_grows_without_end(chain: str) -> None:
    believed = TRUSTED.believe(("10.0.0.1", 1), claiming(x_forwarded_for=chain * 50, x_forwarded_host=chain))
    assert believed is not None
    assert re.fullmatch(r"[\x21-\x7e]+(, [\x21-\x7e]+)*", believed.chain)
    assert believed.chain.count(",") <= MAX_CHAIN


def test_what_the_wire_and_the_log_have() -> None:
    received: list[bytes] = []

    async def script(peer: Peer) -> None:
        received.append(await peer.head())
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        every = frozenset(Forwarded) - {Forwarded.CLIENT_CERT}
        for networks, known in (((ip_network("127.0.0.0/8"),), True), ((), False)):
            web = Listener(name="web", address=Address("127.0.0.1", 1), trusted_proxies=networks, forwarded=every)
            async with (
                backend(script) as server,
                gateway(server.port, listener=web, log=LogFormat.JSON) as rauta,
                client(rauta.port) as peer,
            ):
                lines = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: www.example.com")
                peer.send(request("/", *lines, "Forwarded: for=198.51.100.1"))
                await peer.response()
                (logged,) = rauta.log_lines()
            assert ('"client":"192.0.2.1"' in logged) is known
        trusted, other = received
        assert b"\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n" in trusted
        assert b"\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.example.com\r\n" in trusted
        assert b'\r\nForwarded: for=192.0.2.1;host="www.example.com";proto=https, for=127.0.0.1\r\n' in trusted
        assert b"192.0.2.1" not in other
        assert b"198.51" not in trusted + other

    run(main())


# --- PROXY protocol -------------------------------------------------------------------------------------


def test_headers_by_the_tables_of_the_specification() -> None:
    four, six = (("192.0.2.1", 4711), ("192.0.2.2", 80)), (("2001:db8::1", 4711), ("2001:db8::2", 80))
    assert encode(ProxyProtocol.V1, *four) == b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n"
    assert encode(ProxyProtocol.V1, *six) == b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 80\r\n"
    signature = bytes.fromhex("0d0a0d0a000d0a515549540a")
    assert encode(ProxyProtocol.V2, *four) == signature + bytes.fromhex("2111000cc0000201c000020212670050")
    longer = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    assert encode(ProxyProtocol.V2, *six) == signature + bytes.fromhex("21210024") + longer + bytes.fromhex("12670050")
    assert encode(ProxyProtocol.V1, ("192.0.2.1", 0), ("2001:db8::2", 80)).startswith(b"PROXY TCP6 ::ffff:")
    assert encode(ProxyProtocol.V1, ("", 0), ("", 0)) == b"PROXY UNKNOWN\r\n" == encode_own(ProxyProtocol.V1)
    assert encode_unknown(ProxyProtocol.V2) == signature + bytes.fromhex("21000000")
    assert encode_own(ProxyProtocol.V2) == signature + bytes.fromhex("20000000")


@pytest.mark.parametrize("version", ProxyProtocol)
def test_nginx_learns_the_client_and_no_connection_is_shared(version: ProxyProtocol, tmp_path: Path) -> None:
    extra = socket.socket()
    extra.bind(("127.0.0.1", 0))
    port = extra.getsockname()[1]
    extra.close()
    shown = "$proxy_protocol_addr:$proxy_protocol_port $connection"
    server = f'listen 127.0.0.1:{port} proxy_protocol; location / {{ return 200 "{shown}"; }}'

    async def main() -> None:
        backends = (Backend(address=Address("127.0.0.1", port)),)
        services = [Service(name="s", backends=backends, proxy_protocol=version)]
        async with gateway(services=services, routes=[forward()]) as rauta:
            seen = []
            for _ in range(2):
                async with client(rauta.port) as peer:
                    local = peer.writer.get_extra_info("sockname")
                    for _ in range(2):
                        peer.send(request())
                        _, body = await peer.response()
                        address, connection = body.decode().split()
                        assert address == f"{local[0]}:{local[1]}"
                        seen.append(connection)
            assert len(set(seen)) == 4

    with nginx(tmp_path / "n", server):
        run(main())
