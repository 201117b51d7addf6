"""WebSockets of an ASGI host, in memory: handshakes, ends from every side, and what backends do wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from rauta.api import Gateway, Redirect, Route, Timeouts
from rauta.proxy.asgi.frames import MESSAGE_LIMIT, accept_of
from support.asgi import Call, configuration, scope
from support.http import Peer, Script, always, backend, forward, run, service

DENIAL = {"websocket.http.response": {}}


def asked(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """A scope of WebSocket, with what a browser's handshake has."""
    own = (
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
    )
    found = scope(
        "/ws", *own, *headers, type="websocket", scheme="ws", **{"subprotocols": [], "extensions": DENIAL, **more}
    )
    del found["method"]
    return found


CONNECT = {"type": "websocket.connect"}


def text(value: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": value, "bytes": None}


@asynccontextmanager
async def behind(script: Script, **more: Any) -> AsyncIterator[tuple[Gateway, Any]]:
    async with backend(script) as peer:
        gateway = Gateway(configuration(peer.port, **more))
        try:
            yield gateway, peer
        finally:
            if gateway._running is not None and not gateway.stats().draining:
                await gateway.drain(0.05)
            await gateway.close()


async def switched(peer: Peer, *fields: bytes, accept: bytes | None = None) -> None:
    """The handshake of a backend."""
    head = await peer.head()
    found = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
    assert found is not None
    accept = accept_of(found[1]).encode() if accept is None else accept
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket"]
    peer.send(b"\r\n".join([*lines, b"Sec-WebSocket-Accept: " + accept, *fields, b"", b""]))


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def test_messages_and_the_end_by_the_backend() -> None:
    seen: list[Any] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers)
        async for message in connection:
            await connection.send(message)
            if message == "end":
                await connection.close(4001, "as you like")

    async def main() -> None:
        async with serve(handler, "127.0.0.1", 0, subprotocols=["a"]) as server:  # type: ignore[list-item]
            gateway = Gateway(configuration(server.sockets[0].getsockname()[1]))
            call = Call(gateway, asked((b"cookie", b"x=1"), subprotocols=["b", "a"]), CONNECT)
            await call.until(1)
            assert call.sent[0]["type"] == "websocket.accept"
            assert call.sent[0]["subprotocol"] == "a"
            assert not [name for name, _ in call.sent[0]["headers"] if name.startswith(b"sec-") or name == b"upgrade"]
            call.give(text("hällo"))
            call.give({"type": "websocket.receive", "bytes": b"\x00\xff"})
            call.give(text("end"))
            await call.end()
            assert call.sent[1:] == [
                {"type": "websocket.send", "text": "hällo"},
                {"type": "websocket.send", "bytes": b"\x00\xff"},
                {"type": "websocket.send", "text": "end"},
                {"type": "websocket.close", "code": 4001, "reason": "as you like"},
            ]
            # The handshake is ours: its key is not the browser's, and no extension is offered.
            assert seen[0]["Sec-WebSocket-Key"] != "AAAAAAAAAAAAAAAAAAAAAA=="
            assert "Sec-WebSocket-Extensions" not in seen[0]
            assert seen[0]["Sec-WebSocket-Protocol"] == "b, a"
            assert seen[0]["Cookie"] == "x=1"
            (count,) = gateway.stats().requests
            assert (count.status, count.count) == (101, 1)
            await gateway.close()

    run(main())


@pytest.mark.parametrize(
    ("told", "code", "reason"),
    [
        ({"code": 4002, "reason": "bye"}, 4002, "bye"),
        ({"code": 1005}, 1005, ""),
        ({"code": 1006}, 1001, ""),
        ({}, 1005, ""),
    ],
)
def test_the_end_by_the_client(told: dict[str, Any], code: int, reason: str) -> None:
    closed: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        await connection.wait_closed()
        closed.put_nowait((connection.close_code, connection.close_reason))

    async def main() -> None:
        async with serve(handler, "127.0.0.1", 0) as server:
            gateway = Gateway(configuration(server.sockets[0].getsockname()[1]))
            call = Call(gateway, asked(), CONNECT)
            await call.until(1)
            call.give({"type": "websocket.disconnect", **told})
            await call.end()
            assert await asyncio.wait_for(closed.get(), 5) == (code, reason)
            assert len(call.sent) == 1
            await gateway.close()

    run(main())


def test_pings_are_answered_and_fragments_joined() -> None:
    answers: list[bytes] = []

    async def script(peer: Peer) -> None:
        await switched(peer)
        peer.send(frame(Opcode.PING, b"are you there"))
        head = await peer.exactly(6)
        mask, data = head[2:], await peer.exactly(head[1] & 0x7F)
        answers.append(bytes(byte ^ mask[place % 4] for place, byte in enumerate(data)))
        peer.send(frame(Opcode.TEXT, b"h\xc3", fin=False) + frame(Opcode.PING) + frame(Opcode.CONT, b"\xa4llo"))
        peer.send(frame(Opcode.CLOSE))
        await peer.closed()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.end()
            assert answers == [b"are you there"]
            assert call.sent[1:] == [
                {"type": "websocket.send", "text": "hällo"},
                {"type": "websocket.close", "code": 1000, "reason": ""},
            ]

    run(main())


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 1014),  # the connection ends without a word
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (b"\x83\x00", 1002),  # an opcode that is none
        (frame(Opcode.BINARY, bytes(10))[:1] + b"\x7f" + (MESSAGE_LIMIT + 1).to_bytes(8, "big"), 1009),
    ],
)
def test_backends_that_break_it(sent: bytes, code: int) -> None:
    async def script(peer: Peer) -> None:
        await switched(peer)
        peer.send(sent)
        if sent:
            await peer.closed()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.end()
            assert call.sent[0]["type"] == "websocket.accept"
            assert call.sent[-1]["type"] == "websocket.close"
            assert call.sent[-1]["code"] == code

    run(main())


@pytest.mark.parametrize(
    ("fields", "accept"),
    [
        ((), b"c29tZXRoaW5nIGVsc2U="),
        ((b"Sec-WebSocket-Extensions: permessage-deflate",), None),
        ((b"Sec-WebSocket-Protocol: unasked",), None),
    ],
)
def test_handshakes_that_are_wrong(fields: tuple[bytes, ...], accept: bytes | None) -> None:
    async def script(peer: Peer) -> None:
        await switched(peer, *fields, accept=accept)
        await peer.closed()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.end()
            assert call.sent[0]["type"] == "websocket.http.response.start"
            assert call.sent[0]["status"] == 502
            assert b"upstream_malformed" in call.body
            plain = Call(gateway, asked(extensions={}), CONNECT)
            await plain.end()
            assert plain.sent == [{"type": "websocket.close"}]

    run(main())


def test_a_backend_that_refuses() -> None:
    async def main() -> None:
        async with behind(always(b"HTTP/1.1 401 No\r\nX-Why: 1\r\nContent-Length: 2\r\n\r\nno")) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.end()
            assert call.sent[0]["status"] == 401
            assert (b"x-why", b"1") in call.sent[0]["headers"]
            assert call.body == b"no"
            plain = Call(gateway, asked(extensions={}), CONNECT)
            await plain.end()
            assert plain.sent == [{"type": "websocket.close"}]

    run(main())


def test_routes_that_answer_themselves_and_that_switch_to_nothing() -> None:
    routes = (
        Route(name="away", action=Redirect(host="elsewhere.example", scheme="https")),
        forward(route="no", upgrades=frozenset()),
    )

    async def main() -> None:
        script = always(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        async with behind(script, routes=routes[:1]) as (gateway, peer):
            away = Call(gateway, asked(), CONNECT)
            await away.end()
            assert away.sent[0]["status"] == 302
            assert (b"location", b"https://elsewhere.example/ws") in away.sent[0]["headers"]
            await gateway.apply(configuration(peer.port, routes=routes[1:]))
            no = Call(gateway, asked(), CONNECT)
            await no.end()
            assert no.sent[0]["status"] == 426
            assert b"pgrade" not in peer.received[0].replace(b"sec-websocket", b"")

    run(main())


@pytest.mark.parametrize("extensions", [DENIAL, {}])
def test_a_scope_that_is_malformed(extensions: dict[str, Any]) -> None:
    async def main() -> None:
        async with behind(always(b"")) as (gateway, peer):
            call = Call(gateway, asked((b"x", b"a\r\nb: c"), extensions=extensions), CONNECT)
            await call.end()
            assert call.sent[0].get("status", 403) == (400 if extensions else 403)
            assert not peer.peers

    run(main())


def test_a_client_that_leaves_before_it_was_accepted() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.closed()
        gone.set()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await arrived.wait()
            call.give({"type": "websocket.disconnect", "code": 1006})
            await call.end()
            await gone.wait()
            assert not call.sent

    run(main())


def test_what_is_idle_for_too_long_is_closed() -> None:
    async def script(peer: Peer) -> None:
        await switched(peer)
        await peer.closed()

    async def main() -> None:
        async with backend(script) as peer:
            patient = service(peer.port, timeouts=Timeouts(idle=0.3))
            gateway = Gateway(configuration(services=(patient,)))
            call = Call(gateway, asked(), CONNECT)
            await call.end()
            assert call.sent[-1] == {"type": "websocket.close", "code": 1001, "reason": "tunnel_idle"}
            await gateway.close()

    run(main())


def test_draining_closes_what_is_left() -> None:
    async def script(peer: Peer) -> None:
        await switched(peer)
        await peer.closed()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.until(1)
            assert not await gateway.drain(0.05)
            await call.end()
            assert call.sent[-1]["type"] == "websocket.close"
            assert call.sent[-1]["code"] == 1001
            late = Call(gateway, asked(), CONNECT)
            await late.end()
            assert late.sent[0]["status"] == 503

    run(main())


def _steady(value: Callable[[], int]) -> Any:
    async def wait() -> None:
        before = -1
        while before != value():
            before = value()
            await asyncio.sleep(0.2)

    return wait()


def test_backpressure_both_ways() -> None:
    sent = 0
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await switched(peer)
        await go.wait()
        try:
            while sent < 64:
                peer.send(frame(Opcode.BINARY, bytes(1 << 20)))
                await peer.writer.drain()
                sent += 1
        finally:
            peer.writer.transport.abort()

    async def main() -> None:
        async with behind(script) as (gateway, _):
            call = Call(gateway, asked(), CONNECT)
            await call.until(1)
            for _ in range(64):
                call.give({"type": "websocket.receive", "bytes": bytes(1 << 20)})
            await _steady(lambda: call.asked)  # the backend reads nothing
            assert call.asked < 20
            call.taking.clear()
            go.set()
            await _steady(lambda: sent)
            assert sent < 20

    run(main())
