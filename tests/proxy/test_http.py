"""What of a message is passed on, what is not, and when connections are kept (RFC 9110, 9112)."""

from __future__ import annotations

import asyncio
import re
import socket
import struct

import pytest

from rauta.routing.model import Match, Respond, Route, ValueKind, ValueMatch
from rauta.routing.settings import Address, Forwarded, Listener
from support.http import (
    WAIT,
    Peer,
    always,
    backend,
    client,
    gateway,
    ok,
    once,
    request,
    run,
    talk,
)

NOTHING = frozenset[Forwarded]()


def quiet() -> Listener:
    """A listener that adds no forwarded fields, so that heads can be compared whole."""
    return Listener(name="web", address=Address("127.0.0.1", 1), forwarded=NOTHING)


def seen_by_backend(data: bytes, response: bytes | None = None, listener: Listener | None = None) -> bytes:
    """What the backend receives when a client sends these bytes."""
    found: list[bytes] = []

    async def main() -> None:
        async with backend(always(response or ok())) as server:
            async with gateway(server.port, listener=listener or quiet()) as rauta, client(rauta.port) as peer:
                peer.send(data)
                await peer.head()
            found.extend(server.received)

    run(main())
    assert len(found) == 1
    return found[0]


def seen_by_client(response: bytes, data: bytes | None = None) -> bytes:
    """What a client receives when the backend answers with these bytes and closes."""
    found: list[bytes] = []

    async def main() -> None:
        async with backend(once(response)) as server, gateway(server.port, listener=quiet()) as rauta:
            found.append(undated(await talk(rauta.port, data or request("/", "Connection: close"))))

    run(main())
    return found[0]


def undated(data: bytes) -> bytes:
    """A response without the Date that it must have."""
    without, dates = re.subn(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT(?=\r\n)", b"", data)
    assert dates == 1
    return without


# --- requests -------------------------------------------------------------------------------------------


def test_fields_keep_order_spelling_and_value() -> None:
    sent = b"GET /p?q HTTP/1.1\r\nhOsT: TEST:80\r\nB: 2\r\na: \t1 \t\r\nB:\r\nC:x, y\r\n\xe9: no\r\n\r\n"
    sent = sent.replace(b"\xe9: no\r\n", b"D: \xe9\r\n")
    assert seen_by_backend(sent) == (
        b"GET /p?q HTTP/1.1\r\nHost: TEST:80\r\nB: 2\r\na: 1\r\nB: \r\nC: x, y\r\nD: \xe9\r\n\r\n"
    )


def test_hop_by_hop_fields_are_removed() -> None:
    lines = (
        "Connection: keep-alive, X-Secret",
        "connection: Other",
        "X-Secret: 1",
        "other: 2",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Upgrade: h2c, websocket",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "X-Kept: yes",
    )
    assert seen_by_backend(request("/", *lines)) == b"GET / HTTP/1.1\r\nHost: test\r\nX-Kept: yes\r\n\r\n"


def test_a_client_cannot_have_framing_removed_by_connection() -> None:
    got = seen_by_backend(request("/", "Connection: Content-Length, Host", method="PUT", body=b"hello"))
    assert got == b"PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 6.6.6.6",
        "x-forwarded-host: evil",
        "X-Forwarded-Anything: evil",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "x-forwarded_proto: https",
        "X_Real_IP: 6.6.6.6",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "HTTP2_Settings: x",
        "Host_: x",
    ],
)
def test_claims_about_the_client_and_look_alikes_are_removed(line: str) -> None:
    expected = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    if line.startswith("Host_"):
        expected = b"GET / HTTP/1.1\r\nHost: test\r\nHost_: x\r\n\r\n"  # no look-alike of Host: it reads as "host-"
    assert seen_by_backend(request("/", line)) == expected


def test_via_of_those_before_stays() -> None:
    web = Listener(name="web", address=Address("127.0.0.1", 1), forwarded=frozenset({Forwarded.VIA}))
    lines = b"Via: 1.0 fred\r\nVia: 1.1 rauta\r\n"
    expected = b"GET / HTTP/1.1\r\nHost: test\r\n%b\r\n" % lines
    assert seen_by_backend(request("/", "Via: 1.0 fred"), listener=web) == expected


@pytest.mark.parametrize(
    ("wanted", "added"),
    [
        ({Forwarded.X_FORWARDED_FOR}, b"X-Forwarded-For: 127.0.0.1\r\n"),
        ({Forwarded.X_FORWARDED_PROTO}, b"X-Forwarded-Proto: http\r\n"),
        ({Forwarded.X_FORWARDED_HOST}, b"X-Forwarded-Host: test\r\n"),
        ({Forwarded.FORWARDED}, b'Forwarded: for=127.0.0.1;host="test";proto=http\r\n'),
        (
            set(Forwarded) - {Forwarded.CLIENT_CERT},
            (
                b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: test\r\n"
                b'Forwarded: for=127.0.0.1;host="test";proto=http\r\nVia: 1.1 rauta\r\n'
            ),
        ),
    ],
)
def test_forwarded_fields(wanted: set[Forwarded], added: bytes) -> None:
    async def main() -> None:
        listener = Listener(name="web", address=Address("127.0.0.1", 1), forwarded=frozenset(wanted))
        async with backend(always(ok())) as server, gateway(server.port, listener=listener) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                await peer.response()
            assert server.received == [b"GET / HTTP/1.1\r\nHost: test\r\n" + added + b"\r\n"]

    run(main())


def test_a_426_says_what_to_upgrade_to() -> None:
    """RFC 9110 15.5.22; of other responses Upgrade is dropped."""
    head = b"HTTP/1.1 %b\r\nUpgrade: websocket, a/1\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    got = seen_by_client(head % b"426 Upgrade Required")
    assert b"\r\nUpgrade: websocket, a/1\r\n" in got
    assert b"\r\nConnection: Upgrade\r\n" in got
    assert b"Upgrade:" not in seen_by_client(head % b"200 OK")


def test_routes_do_not_see_what_the_backend_does_not_get() -> None:
    """A field that the client names in Connection is for this hop alone (RFC 9110 7.6.1)."""
    match = Match(headers=(ValueMatch(name="x-tenant", kind=ValueKind.EXACT, value="blue"),))

    async def main() -> None:
        routes = [
            Route(name="blue", matches=(match,), action=Respond(body="blue")),
            Route(name="rest", action=Respond(body="rest")),
        ]
        async with gateway(routes=routes) as rauta, client(rauta.port) as peer:
            for lines, body in ((["X-Tenant: blue"], b"blue"), (["X-Tenant: blue", "Connection: x-tenant"], b"rest")):
                peer.send(request("/", *lines))
                assert (await peer.response())[1] == body

    run(main())


def test_the_path_that_was_matched_is_sent() -> None:
    got = seen_by_backend(request("/a/./b/../c//%7euser/%2f%c3?x=../%41"))
    assert got.startswith(b"GET /a/c//~user/%2F%C3?x=../%41 HTTP/1.1\r\n")


def test_absolute_form_overrides_host() -> None:
    got = seen_by_backend(b"GET HTTP://Other.example:81?q HTTP/1.1\r\nHost: test\r\n\r\n")
    assert got == b"GET /?q HTTP/1.1\r\nHost: Other.example:81\r\n\r\n"


def test_a_leading_empty_line_is_ignored() -> None:
    assert seen_by_backend(b"\r\n" + request()) == request()


def test_http10() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port, listener=quiet()) as rauta:
            assert undated(await talk(rauta.port, b"GET / HTTP/1.0\r\n\r\n")) == (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            )
            # RFC 9112 3.2: a client must send Host; the only name there is, is the backend's.
            assert server.received[0] == b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.port
            async with client(rauta.port) as peer:
                for _ in range(2):
                    peer.send(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
                    head, _ = await peer.response()
                    assert b"\r\nConnection: keep-alive\r\n" in head

    run(main())


def test_content_length_is_written_anew() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.exactly(5)
            peer.send(ok())

        async with backend(script) as server, gateway(server.port, listener=quiet()) as rauta:
            async with client(rauta.port) as peer:
                peer.send(b"POST / HTTP/1.1\r\nContent-Length: 0005\r\nHost: test\r\n\r\nhello")
                await peer.response()
            assert server.received == [b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello"]

    run(main())


def test_an_empty_body_keeps_its_length() -> None:
    got = seen_by_backend(request("/", "Content-Length: 0", method="POST"))
    assert got == b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"


def test_chunked_requests_lose_extensions_and_dangerous_trailers() -> None:
    body = (
        b'3;a=b\r\nabc\r\n2 ; c = "d"\r\nde\r\n0;last\r\n'
        b"X-Sum: 1\r\nContent-Length: 9\r\nHost: evil\r\nAuthorization: x\r\nX_Forwarded_For: 1\r\nx-hop: 1\r\n\r\n"
    )

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.received += await peer.reader.readuntil(b"0\r\nX-Sum: 1\r\n\r\n")
        peer.send(ok())

    async def main() -> None:
        async with backend(script) as server, gateway(server.port, listener=quiet()) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/", "Transfer-Encoding: Chunked", "Connection: X-Hop", method="POST") + body)
                assert (await peer.response())[1] == b"hello"
            assert server.received == [
                (
                    b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"
                )
            ]

    run(main())


# --- responses ------------------------------------------------------------------------------------------


def test_response_fields() -> None:
    got = seen_by_client(
        b"HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nProxy-Connection: x\r\nContent-Length: 2\r\n\r\nok"
    )
    assert got == (
        b"HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n"
        b"Connection: close\r\n\r\nok"
    )


def test_phrases_of_any_kind() -> None:
    assert seen_by_client(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").startswith(b"HTTP/1.1 200 \r\n")
    assert seen_by_client(b"HTTP/1.1 404 \xfcber\r\nContent-Length: 0\r\n\r\n").startswith(b"HTTP/1.1 404 \xfcber\r\n")


def test_a_body_until_close_becomes_chunked() -> None:
    got = seen_by_client(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert got == (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


def test_a_body_until_close_for_http10() -> None:
    got = seen_by_client(b"HTTP/1.1 200 OK\r\n\r\nhello", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert got == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello"


def test_chunked_response_with_trailers() -> None:
    got = seen_by_client(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: x-hop\r\n\r\n"
        b"3\r\nabc\r\n2;ext\r\nde\r\n0\r\nX-Sum: 5\r\nX-Hop: 1\r\nSet-Cookie: evil\r\nTransfer-Encoding: x\r\n\r\n"
    )
    assert got == (
        b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nabcde\r\n0\r\nX-Sum: 5\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"Content-Length: 5\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\n", b""),
    ],
)
def test_head(response: bytes, expected: bytes) -> None:
    async def main() -> None:
        async with backend(always(response)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(3):
                peer.send(request(method="HEAD"))
                assert undated(await peer.head()) == b"HTTP/1.1 200 OK\r\n" + expected + b"\r\n"
            assert len(server.peers) == 1

    run(main())


def test_a_date_of_the_backend_is_kept() -> None:
    date = b"Sun, 06 Nov 1994 08:49:37 GMT"
    answer = ok(extra=b"date: " + date + b"\r\nX-Date: 1\r\n")

    async def main() -> None:
        async with backend(always(answer)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request())
            head = await peer.head()
            assert b"\r\ndate: " + date + b"\r\n" in head
            assert head.lower().count(b"\r\ndate:") == 1

    run(main())


def test_a_date_for_the_connection_alone_is_replaced() -> None:
    seen_by_client(b"HTTP/1.1 200 OK\r\nDate: x\r\nConnection: Date\r\nContent-Length: 0\r\n\r\n")  # checks the date


def test_a_204_has_no_length() -> None:
    """RFC 9110 8.6; a zero from the backend is harmless, but it is not ours to send."""
    got = seen_by_client(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
    assert got == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_bodiless_statuses(status: bytes) -> None:
    async def main() -> None:
        async with backend(always(b"HTTP/1.1 " + status + b"\r\n\r\n")) as server, gateway(server.port) as rauta:
            async with client(rauta.port) as peer:
                for _ in range(3):
                    peer.send(request())
                    assert undated(await peer.head()) == b"HTTP/1.1 " + status + b"\r\n\r\n"
            assert len(server.peers) == 1

    run(main())


def test_304_keeps_its_length() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"
        async with backend(always(answer)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(2):
                peer.send(request())
                assert undated(await peer.head()) == answer

    run(main())


# --- 1xx and Expect -------------------------------------------------------------------------------------


def test_expect_end_to_end() -> None:
    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert b"\r\nExpect: 100-continue\r\n" in head
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(ok(await peer.exactly(5)))

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", "expect: 100-Continue", "Content-Length: 5", method="POST"))
            assert await peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
            peer.send(b"howdy")
            assert (await peer.response())[1] == b"howdy"
            assert len(server.peers) == 1

    run(main())


def test_expect_refused_by_the_backend() -> None:
    async def main() -> None:
        refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
        async with backend(always(refusal)) as server, gateway(server.port) as rauta:
            answer = await talk(
                rauta.port, request("/", "Expect: 100-continue", "Content-Length: 5", method="POST")
            )  # fmt: skip
            assert undated(answer) == b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            assert len(server.peers) == 1

    run(main())


def test_expect_answered_by_rauta() -> None:
    async def main() -> None:
        async with gateway() as rauta:
            answer = await talk(
                rauta.port, request("/", "Expect: 100-continue", "Content-Length: 5", method="POST")
            )  # fmt: skip
            assert answer.startswith(b"HTTP/1.1 404 ")

    run(main())


def test_interim_responses() -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"

    async def main() -> None:
        async with (
            backend(always(hint + ok())) as server,
            gateway(server.port) as rauta,
            client(rauta.port) as peer,
        ):
            for _ in range(2):
                peer.send(request())
                assert await peer.head() == hint
                assert (await peer.response())[1] == b"hello"
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await peer.rest()).startswith(b"HTTP/1.1 200 OK\r\n")

    run(main())


# --- early answers --------------------------------------------------------------------------------------


def test_an_early_response_to_a_long_body() -> None:
    """The backend answers and closes before the body is over: the client gets the answer, not a reset."""

    async def main() -> None:
        response = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
        async with backend(once(response)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", "Content-Length: 3000000", method="POST"))
            head = await peer.head()
            assert head.startswith(b"HTTP/1.1 413 Too Large\r\n")
            assert b"\r\nConnection: close\r\n" in head
            for _ in range(30):
                peer.send(bytes(100_000))
            assert await peer.rest() == b"no!"
            assert len(server.peers) == 1

    run(main())


def test_after_an_early_response_the_backend_connection_is_not_used_again() -> None:
    """Its request is not complete: what is sent next would be read as the rest of the body."""

    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", "Content-Length: 1000", method="POST"))
            assert (await peer.response())[1] == b"hello"
            peer.send(bytes(1000))
            peer.send(request("/next"))
            assert (await peer.response())[1] == b"hello"
            assert len(server.peers) == 2
            assert server.received[1].startswith(b"GET /next ")

    run(main())


def test_a_body_until_close_that_breaks_off_is_a_reset() -> None:
    """Towards HTTP/1.0 the end of the stream is the end of the body; an orderly one would make half a body whole."""

    async def main() -> None:
        broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        async with backend(once(broken)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await peer.rest()

    run(main())


def test_a_short_body_of_an_unrouted_request_is_thrown_away() -> None:
    async def main() -> None:
        async with gateway() as rauta, client(rauta.port) as peer:
            for number in range(3):
                peer.send(request("/", "Content-Length: 1000", method="POST"))
                head, _ = await peer.response()
                assert head.startswith(b"HTTP/1.1 404 ")
                assert b"Connection" not in head
                peer.send(b"GET / HTTP/1.1\r\nHost: smuggled\r\n\r\n".ljust(1000, b"."))
                assert number >= 0

    run(main())


def test_a_long_body_of_an_unrouted_request_closes() -> None:
    async def main() -> None:
        async with gateway() as rauta, client(rauta.port) as peer:
            peer.send(request("/", "Content-Length: 1000000", method="POST"))
            head, _ = await peer.response()
            assert b"\r\nConnection: close\r\n" in head
            peer.send(bytes(1_000_000))
            assert await peer.rest() == b""

    run(main())


# --- writes and sockets ---------------------------------------------------------------------------------


def segments_received(sock: socket.socket) -> int:
    """Segments with data that have come in. Without Nagle each write of a few bytes makes one (linux/tcp.h, tcp_info:
    tcpi_data_segs_in)."""
    return int(struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 152)[0])


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "response", "end"),
    [
        (request(), ok(), b"hello"),
        (request(), CHUNKED, b"\r\n0\r\n\r\n"),
        (request("*", method="OPTIONS"), ok(), b"\r\n\r\n"),
        (request("/%zz"), ok(), b"malformed\n"),
    ],
    ids=["counted", "chunked", "no body", "refused"],
)
def test_a_response_is_one_write(sent: bytes, response: bytes, end: bytes) -> None:
    async def main() -> None:
        async with backend(always(response)) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(sent)
            async with asyncio.timeout(WAIT):
                await peer.reader.readuntil(end)
            assert segments_received(peer.writer.get_extra_info("socket")) == 1

    run(main())


def test_a_request_is_one_write() -> None:
    seen: list[int] = []

    async def script(peer: Peer) -> None:
        while await peer.head():
            await peer.exactly(5)
            seen.append(segments_received(peer.writer.get_extra_info("socket")))
            peer.send(ok())

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(3):  # the first makes the connection, the others find it
                peer.send(request(method="POST", body=b"hello"))
                await peer.response()

    run(main())
    assert seen == [1, 2, 3]


def test_a_head_without_its_body_is_not_held_back() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        assert await peer.exactly(2) == b"go"
        peer.send(b"data: 1\n\n")
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            peer.send(request("/", "Content-Length: 4", method="POST"))
            assert b"event-stream" in await peer.head()
            peer.send(b"go")
            assert await peer.exactly(14) == b"9\r\ndata: 1\n\n\r\n"

    run(main())
