"""The gateway as an ASGI application, for a host in memory: each message and its order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rauta.api import (
    AccessLog,
    Address,
    ClientLimits,
    ClientTimeouts,
    Configuration,
    Gateway,
    GatewayError,
    Listener,
    Match,
    PathMatch,
    Respond,
    ResponseCutError,
    Route,
)
from support.asgi import Call, ask, body, configuration, scope
from support.http import Peer, Script, always, backend, ok, run

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def app(script: Script, **more: Any) -> AsyncIterator[tuple[Gateway, Any]]:
    async with backend(script) as peer:
        gateway = Gateway(configuration(peer.port, **more))
        try:
            yield gateway, peer
        finally:
            if gateway._running is not None:
                await gateway.drain(0.05)
            await gateway.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_request_and_its_response() -> None:
    async def main() -> None:
        async with app(always(ok(b"hello", b"X-A: 1\r\nDate: never\r\nConnection: x-b\r\nX-B: 2\r\n"))) as (
            gateway,
            peer,
        ):
            call = await ask(gateway, scope("/a%2Fb/c?q=%20", (b"x-mine", b"1"), (b"connection", b"close, x-mine")))
            assert call.status == 200
            # Fields of the backend's connection end here, and Date is the host's.
            assert call.headers == {b"x-a": b"1", b"content-length": b"5"}
            assert call.sent[1:] == [{"type": "http.response.body", "body": b"hello", "more_body": False}]
            head = peer.received[0]
            assert head.startswith(b"GET /a%2Fb/c?q=%20 HTTP/1.1\r\nHost: test\r\n")
            assert b"x-mine" not in head

    run(main())


def test_no_body_is_sent_on_where_there_is_none() -> None:
    """Hosts do not say whether a body follows: with no length in the head the first message tells."""

    async def main() -> None:
        async with app(always(ok())) as (gateway, peer):
            for version in ("1.1", "2"):
                for method in ("GET", "DELETE"):
                    await ask(gateway, scope(method=method, http_version=version))
            await ask(gateway, scope(method="POST"))
            assert b"ransfer-" not in b"".join(peer.received)

    run(main())


@pytest.mark.parametrize(
    ("version", "method", "headers", "wanted"),
    [
        ("1.1", "POST", ((b"content-length", b"6"),), b"Content-Length: 6\r\n\r\nabcdef"),
        ("1.1", "POST", ((b"transfer-encoding", b"chunked"),), b"chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
        ("1.1", "POST", (), b"chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
        ("2", "POST", (), b"chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
        ("2", "DELETE", ((b"content-length", b"6"),), b"Content-Length: 6\r\n\r\nabcdef"),
        ("3", "GET", (), b"chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"),
    ],
)
def test_bodies_of_requests(version: str, method: str, headers: Any, wanted: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(len(wanted.partition(b"\r\n\r\n")[2]))
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        async with app(script) as (gateway, peer):
            call = Call(gateway, scope("/", *headers, method=method, http_version=version), body(b"abc", more=True))
            call.give(body(b"def"))
            await call.end()
            assert call.status == 200
            assert peer.received[0].endswith(wanted)

    run(main())


@pytest.mark.parametrize("sent", [b"abcde", b"abcdefg"])
def test_a_host_that_counts_otherwise_than_its_head_says(sent: bytes) -> None:
    """What is too much would be the next request to the backend."""

    async def main() -> None:
        async with app(always(b"")) as (gateway, peer):
            call = Call(gateway, scope("/", (b"content-length", b"6"), method="POST"), body(sent))
            await call.end()
            assert call.status == 400
            assert b"bad_framing" in call.body
            assert b"abcdefg" not in b"".join(peer.received)

    run(main())


@pytest.mark.parametrize(
    ("headers", "more", "reason"),
    [
        (((b"x", b"a\r\nb: c"),), {}, b"bad_field"),
        (((b"x y", b"a"),), {}, b"bad_field"),
        (((b"x", b"\x00"),), {}, b"bad_field"),
        (((b"content-length", b"1"), (b"content-length", b"2")), {}, b"bad_framing"),
        (((b"content-length", b"1"), (b"transfer-encoding", b"chunked")), {}, b"bad_framing"),
        (((b"transfer-encoding", b"gzip"),), {}, b"unsupported_coding"),
        (((b"host", b"other"),), {}, b"bad_host"),
        ((), {"headers": []}, b"bad_host"),
        ((), {"raw_path": b"/a b"}, b"bad_target"),
        ((), {"raw_path": b"/a HTTP/1.1\r\nx: y"}, b"bad_target"),
        ((), {"raw_path": b"/%zz"}, b"bad_path"),
        ((), {"query_string": b"a b"}, b"bad_target"),
        ((), {"method": "G T"}, b"bad_request_line"),
        ((), {"method": "CONNECT"}, b"method_not_allowed"),
        (((b"x", b"a" * 5000),), {}, b"head_too_large"),
        (((b"connection", b"close"),), {"http_version": "2"}, b"bad_field"),
        (((b"transfer-encoding", b"chunked"),), {"http_version": "2"}, b"bad_field"),
    ],
)
def test_the_strict_grammar_holds_for_hosts_too(headers: Any, more: dict[str, Any], reason: bytes) -> None:
    async def main() -> None:
        async with app(always(ok()), limits=ClientLimits(head=4096)) as (gateway, peer):
            call = await ask(gateway, scope("/", *headers, **more))
            assert 400 <= call.status <= 501
            assert reason + b":" in call.body
            assert not peer.peers

    run(main())


@pytest.mark.parametrize(
    ("root", "raw", "wanted"),
    [
        ("/gw", b"/gw/a", b"/a"),
        ("/gw", b"/gw", b"/"),
        ("/gw/", b"/gw/a", b"/a"),
        ("/g w", b"/g%20w/a%2Fb", b"/a%2Fb"),
        ("/gw", b"/gwx/a", b"/gwx/a"),
        ("/gw", b"/a", b"/a"),
        ("", b"/a", b"/a"),
    ],
)
def test_mounted_below_a_path(root: str, raw: bytes, wanted: bytes) -> None:
    async def main() -> None:
        async with app(always(ok())) as (gateway, peer):
            await ask(gateway, scope(root_path=root, raw_path=raw))
            assert peer.received[0].split()[1] == wanted

    run(main())


def test_a_host_without_raw_path() -> None:
    async def main() -> None:
        async with app(always(ok())) as (gateway, peer):
            without = scope(query_string=b"x=1", path="/ä b/c")
            del without["raw_path"]
            await ask(gateway, without)
            assert peer.received[0].split()[1] == b"/%C3%A4%20b/c?x=1"

    run(main())


def test_a_streamed_response_is_given_as_it_comes() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED + b"3\r\nabc\r\n")
        await go.wait()
        peer.send(b"3\r\ndef\r\n0\r\nX-T: 1\r\n\r\n")
        await peer.closed()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(extensions={"http.response.trailers": {}}), body())
            assert await call.until(2)
            assert call.sent[0]["trailers"] is True
            assert call.sent[1] == {"type": "http.response.body", "body": b"abc", "more_body": True}
            go.set()
            await call.end()
            assert call.body == b"abcdef"
            last = {"type": "http.response.trailers", "headers": [(b"x-t", b"1")], "more_trailers": False}
            assert call.sent[-1] == last

    run(main())


def test_trailers_end_at_a_host_that_sends_none() -> None:
    async def main() -> None:
        async with app(always(CHUNKED + b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n")) as (gateway, _):
            call = await ask(gateway, scope())
            assert "trailers" not in call.sent[0]
            assert call.sent[-1]["type"] == "http.response.body"

    run(main())


def test_early_hints_where_the_host_has_them() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-No: 1\r\n\r\n"

    async def main() -> None:
        async with app(always(hints + ok())) as (gateway, _):
            call = await ask(gateway, scope(extensions={"http.response.early_hint": {}}))
            assert call.sent[0] == {"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]}
            assert call.sent[1]["status"] == 200
            assert (await ask(gateway, scope())).status == 200

    run(main())


def test_a_client_that_takes_nothing_stops_the_backend() -> None:
    size = 64 * 1024 * 1024
    written = 0

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while written < size:
            peer.send(bytes(1 << 16))
            await peer.writer.drain()
            written += 1 << 16
        await peer.closed()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            await call.until(1)
            call.taking.clear()
            before = -1
            while before != written:  # it goes on until all buffers are full
                before = written
                await asyncio.sleep(0.2)
            assert written < 16 * 1024 * 1024
            call.taking.set()
            await call.end()
            assert len(call.body) == size

    run(main())


def test_a_backend_that_takes_nothing_stops_the_host() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        await peer.exactly(64 << 20)
        peer.received = b""
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope("/", (b"content-length", b"%d" % (64 << 20)), method="POST"))
            for piece in range(64):
                call.give(body(bytes(1 << 20), more=piece < 63))
            before = -1
            while before != call.asked:
                before = call.asked
                await asyncio.sleep(0.2)
            assert call.asked < 20
            go.set()
            await call.end()
            assert call.status == 200

    run(main())


def test_a_client_that_leaves() -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.closed()
        closed.set()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            await arrived.wait()
            call.give({"type": "http.disconnect"})
            await call.end()
            await closed.wait()
            assert not call.sent
            assert [(found.status, found.count) for found in gateway.stats().requests] == [(499, 1)]
            assert gateway.stats().in_flight == gateway.stats().connections == 0

    run(main())


def test_a_client_that_leaves_is_also_told_by_send() -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED + b"3\r\nabc\r\n")
        await peer.closed()
        closed.set()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            call.failure = OSError("gone")
            await call.end()
            await closed.wait()

    run(main())


def test_a_host_that_fails_fails_the_call() -> None:
    async def main() -> None:
        async with app(always(ok())) as (gateway, _):
            call = Call(gateway, scope(), body())
            call.failure = KeyError("of the host")
            with pytest.raises(KeyError):
                await call.end()
            assert not gateway.stats().connections

    run(main())


def test_a_host_that_ends_the_call() -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.closed()
        closed.set()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            await arrived.wait()
            call.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.end()
            await closed.wait()
            assert not gateway.stats().in_flight

    run(main())


def test_a_response_that_is_cut_raises() -> None:
    """Whoever stands between must not take what came for all of it."""

    there = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED + b"3\r\nabc\r\n")
        await there.wait()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            await until(lambda: call.body == b"abc")
            there.set()
            with pytest.raises(ResponseCutError, match="access log"):
                await call.end()
            assert call.sent[-1] == {"type": "http.response.body", "body": b"abc", "more_body": True}

    run(main())


def test_an_error_of_our_own_is_answered() -> None:
    async def main() -> None:
        refused = Gateway(configuration(1))
        call = await ask(refused, scope())
        assert call.status == 502
        assert b"upstream_refused" in call.body
        await refused.close()

    run(main())


def test_a_client_that_does_not_take_the_rest() -> None:
    async def main() -> None:
        async with app(always(ok()), patience=ClientTimeouts(idle=0.2)) as (gateway, _):
            call = Call(gateway, scope(), body())
            call.taking.clear()
            with pytest.raises(ResponseCutError):
                await call.end()

    run(main())


def test_the_listeners_limit_of_connections() -> None:
    arrived = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.closed()

    async def main() -> None:
        async with app(script, limits=ClientLimits(connections=1)) as (gateway, _):
            first = Call(gateway, scope(), body())
            await arrived.wait()
            second = await ask(gateway, scope())
            assert second.status == 503
            assert b"too_many_connections" in second.body
            first.give({"type": "http.disconnect"})
            await first.end()

    run(main())


def test_head_and_304_have_a_length_and_no_body() -> None:
    async def main() -> None:
        async with app(always(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as (gateway, _):
            call = await ask(gateway, scope(method="HEAD"))
            assert call.headers[b"content-length"] == b"5"
            assert call.body == b""

    run(main())


# --- lifespan -------------------------------------------------------------------------------------------


def test_lifespan_opens_and_drains(tmp_path: Path) -> None:
    go, arrived = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await go.wait()
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        log = tmp_path / "log"
        async with backend(script) as peer:
            gateway = Gateway(configuration(peer.port, log=str(log)))
            life = Call(gateway, {"type": "lifespan"}, {"type": "lifespan.startup"})
            assert await life.until(1) == [{"type": "lifespan.startup.complete"}]
            call = Call(gateway, scope(), body())
            await arrived.wait()
            life.give({"type": "lifespan.shutdown"})
            await until(lambda: gateway.stats().draining)
            late = await ask(gateway, scope())
            assert late.status == 503
            assert b"draining" in late.body
            go.set()
            await call.end()
            assert call.status == 200
            await life.end()
            assert life.sent[1:] == [{"type": "lifespan.shutdown.complete"}]
            assert '"client":"192.0.2.7"' in log.read_text()
            with pytest.raises(GatewayError, match="closed"):
                await ask(gateway, scope())

    run(main())


def test_a_start_that_fails_is_told() -> None:
    async def main() -> None:
        two = tuple(Listener(name=name, address=Address("127.0.0.1", port)) for port, name in enumerate(("a", "b"), 1))
        route = Route(name="r", action=Respond())
        gateway = Gateway(Configuration(listeners=two, routes=(route,)))
        life = Call(gateway, {"type": "lifespan"}, {"type": "lifespan.startup"})
        await life.end()
        assert life.sent[0]["type"] == "lifespan.startup.failed"
        assert "listener=NAME" in life.sent[0]["message"]

    run(main())


def test_a_listener_is_chosen_by_its_name() -> None:
    async def main() -> None:
        two = tuple(Listener(name=name, address=Address("127.0.0.1", port)) for port, name in enumerate(("a", "b"), 1))
        routes = tuple(Route(name=name, listeners=(name,), action=Respond(body=name)) for name in ("a", "b"))
        gateway = Gateway(Configuration(listeners=two, routes=routes, access_log=AccessLog(to="off")), listener="b")
        assert (await ask(gateway, scope())).body == b"b"
        await gateway.close()

    run(main())


def test_without_lifespan_the_first_request_opens() -> None:
    async def main() -> None:
        async with app(always(ok())) as (gateway, _):
            calls = await asyncio.gather(*(ask(gateway, scope()) for _ in range(20)))
            assert {call.status for call in calls} == {200}
            assert gateway.stats().requests[0].count == 20

    run(main())


def test_mounted_in_an_application_that_opens_it() -> None:
    async def main() -> None:
        async with backend(always(ok())) as peer, Gateway(configuration(peer.port), sockets={}) as gateway:
            assert (await ask(gateway, scope())).status == 200
            life = Call(gateway, {"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
            await life.end()  # of a host that asks all the same: it is not the one who closes
            assert [message["type"] for message in life.sent] == [
                *("lifespan.startup.complete", "lifespan.shutdown.complete"),
            ]
            assert (await ask(gateway, scope())).status == 200

    run(main())


def test_a_change_of_the_table_while_calls_are_open() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await go.wait()
        peer.send(ok(b"old"))
        await peer.closed()

    async def main() -> None:
        async with app(script) as (gateway, _):
            call = Call(gateway, scope(), body())
            await arrived.wait()
            new = Route(name="new", matches=(Match(path=PathMatch.prefix("/")),), action=Respond(body="new"))
            await gateway.apply(configuration(routes=(new,)))
            assert (await ask(gateway, scope())).body == b"new"
            assert gateway.stats().in_flight == 1
            go.set()
            await call.end()
            assert call.body == b"old"

    run(main())


def test_unknown_scopes_are_refused() -> None:
    async def main() -> None:
        gateway = Gateway(configuration(1))
        with pytest.raises(GatewayError, match="scope 'ftp'"):
            await gateway({"type": "ftp"}, None, None)  # type: ignore[arg-type]
        await gateway.close()

    run(main())
