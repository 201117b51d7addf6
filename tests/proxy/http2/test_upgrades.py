"""WebSocket over HTTP/2 (RFC 8441): from clients, to backends, and both."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from rauta.routing.services import BackendProtocol, Timeouts
from rauta.routing.settings import LogFormat
from support import chat, h2client
from support.asgi import host
from support.h2server import Connection, server
from support.http import Gateway, Peer, backend, client, forward, gateway, request, service

CONNECT = SettingCodes.ENABLE_CONNECT_PROTOCOL


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, list[ServerConnection]]]:
    """A WebSocket server that knows a subprotocol."""
    async with chat.echo(subprotocols=["chat"]) as found:
        yield found


def ask(peer: h2client.Client, *more: tuple[str, str], path: str = "/ws", end: bool = False) -> int:
    """A WebSocket's CONNECT; its stream."""
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path), (":authority", "a"),
        ("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), *more,
    ]  # fmt: skip
    return peer.head(fields, end=end)


def say(peer: h2client.Client, stream: int, kind: Opcode, data: bytes, *, end: bool = False) -> None:
    peer.h2.send_data(stream, Frame(kind, data).serialize(mask=True), end_stream=end)
    peer.flush()


async def hear(peer: h2client.Client, stream: int, size: int) -> bytes:
    """So many bytes of the tunnel."""
    await peer.until(lambda: len(peer.streams[stream].body) >= size)
    body, peer.streams[stream].body = peer.streams[stream].body[:size], peer.streams[stream].body[size:]
    return body


# --- clients that speak HTTP/2 ------------------------------------------------------------------------------


async def test_a_client_is_told_that_it_may() -> None:
    async with gateway() as rauta, h2client.client(rauta.port) as peer:
        await peer.until(lambda: peer.h2.remote_settings.enable_connect_protocol == 1)
        assert peer.h2.remote_settings.enable_connect_protocol == 1


async def test_messages_both_ways_and_the_close() -> None:
    async with (
        echo() as (port, seen),
        gateway(port, log=LogFormat.COMMON) as rauta,
        h2client.client(rauta.port) as peer,
    ):
        stream = ask(peer, ("origin", "http://a"))
        await peer.until(lambda: peer.streams[stream].status)
        answer = peer.streams[stream]
        assert (answer.status, answer.fields["sec-websocket-protocol"]) == (200, "chat")
        assert not {"connection", "upgrade", "sec-websocket-accept", "transfer-encoding"} & answer.fields.keys()
        say(peer, stream, Opcode.TEXT, b"hello")
        assert await hear(peer, stream, 7) == b"\x81\x05hello"
        large = bytes(range(256)) * 1000
        for at in range(0, len(large), 8000):  # within the window of 64 KiB, given back as it is taken
            await peer.until(lambda: peer.h2.local_flow_control_window(stream) > 9000)
            say(peer, stream, Opcode.BINARY, large[at : at + 8000])
            assert (await hear(peer, stream, 4 + len(large[at : at + 8000])))[4:] == large[at : at + 8000]
        say(peer, stream, Opcode.CLOSE, (1000).to_bytes(2, "big"))
        assert await hear(peer, stream, 4) == b"\x88\x02\x03\xe8"
        await peer.until(lambda: peer.streams[stream].ended)
        assert seen[0].request is not None
        headers = seen[0].request.headers
        assert (headers["Connection"], headers["Upgrade"], headers["Origin"]) == ("Upgrade", "websocket", "http://a")
        assert len(headers["Sec-WebSocket-Key"]) == 24
        assert (await peer.answer(peer.request())).status == 426  # the connection goes on, and this is no handshake
        assert '"GET /ws HTTP/2.0" 101' in rauta.log_lines()[0]


async def test_a_client_that_gives_up_or_ends() -> None:
    async with echo() as (port, seen), gateway(port) as rauta, h2client.client(rauta.port) as peer:
        for number, end in enumerate((False, True)):
            stream = ask(peer)
            await peer.until(lambda stream=stream: peer.streams[stream].status)  # type: ignore[misc]
            if end:
                peer.h2.send_data(stream, b"", end_stream=True)
            else:
                peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
            peer.flush()
            await asyncio.wait_for(seen[number].wait_closed(), 5)


async def test_what_comes_before_the_answer_is_held() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        await go.wait()
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        peer.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n"
        )
        peer.send(await peer.exactly(5))

    async with backend(script) as behind, gateway(behind.port) as rauta, h2client.client(rauta.port) as peer:
        stream = ask(peer)
        peer.h2.send_data(stream, b"early")
        peer.flush()
        await peer.until(lambda: peer.h2.remote_settings.enable_connect_protocol)
        assert not peer.streams[stream].status
        go.set()
        assert await hear(peer, stream, 5) == b"early"


def accept_of(key: bytes) -> bytes:
    """RFC 6455 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n", 502),
        (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
        (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n", 502),
    ],
    ids=["refused", "no switch", "a wrong key", "no key", "another protocol"],
)
async def test_a_backend_that_does_not_switch(answer: bytes, status: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(answer)
        await peer.rest()

    async with backend(script) as behind, gateway(behind.port) as rauta, h2client.client(rauta.port) as peer:
        stream = ask(peer)
        found = await peer.answer(stream)
        assert found.status == status


async def test_requests_that_are_no_good() -> None:
    routes = [forward(upgrades=frozenset())]
    async with echo() as (port, _), gateway(port, routes=routes) as rauta, h2client.client(rauta.port) as peer:
        assert (await peer.answer(ask(peer))).status == 501
        for fields in (
            [(":method", "GET"), (":protocol", "websocket")],
            [(":method", "CONNECT"), (":protocol", "web socket")],
            [(":method", "CONNECT"), (":protocol", "websocket"), ("content-length", "3")],
        ):
            rest = [(":scheme", "http"), (":path", "/"), (":authority", "a")]
            pseudo = [field for field in fields if field[0][0] == ":"]
            stream = peer.head([*pseudo, *rest, *fields[len(pseudo) :]], end=False)
            found = await peer.answer(stream)
            assert found.status == 400 or found.reset == 1, fields
        assert (await peer.answer(ask(peer, end=True))).status in (0, 400)


# --- backends that speak HTTP/2 -----------------------------------------------------------------------------


@asynccontextmanager
async def before(port: int, timeouts: Timeouts | None = None) -> AsyncIterator[Gateway]:
    services = [replace(service(port, timeouts=timeouts), protocol=BackendProtocol.HTTP2)]
    async with gateway(services=services, routes=[forward()], log=LogFormat.COMMON) as rauta:
        yield rauta


async def test_from_http_1_over_http_2_to_http_1() -> None:
    """Two gateways, with HTTP/2 between them."""
    async with echo() as (port, seen), gateway(port) as inner, before(inner.port) as outer:
        url = f"ws://127.0.0.1:{outer.port}/ws?x=1"
        chat: Any = ["chat"]
        async with connect(url, subprotocols=chat, compression=None) as one, connect(url, subprotocols=chat) as two:
            assert one.subprotocol == "chat"
            for peer in (one, two):
                for message in ("hello", bytes(1_000_000)):
                    await peer.send(message)
                    assert await peer.recv() == message
            await one.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                await one.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4001
            await two.send("still there")
            assert await two.recv() == "still there"
        assert seen[0].request is not None
        assert seen[0].request.path == "/ws?x=1"
        (pool,) = outer.plane.pools
        assert pool.connects == 1


async def test_a_backend_is_asked_once_it_has_said_that_it_may() -> None:
    """RFC 8441 3. It is a CONNECT without a key."""

    async def script(peer: Connection) -> None:
        await peer.until(lambda: peer.requests)
        request = peer.requests[1]
        names = dict(request.fields)
        assert names[":method"] == "CONNECT"
        assert names[":protocol"] == "websocket"
        assert "sec-websocket-key" not in names
        peer.head(1, [(":status", "200")])
        await peer.until(lambda: len(request.body) >= 8)
        peer.data(1, b"\x81\x02hi", end=True)
        await peer.until(lambda: False)

    async with server(script, {CONNECT: 1}) as behind, before(behind.port) as rauta:
        peer = await connect(f"ws://127.0.0.1:{rauta.port}/", compression=None)
        await peer.send("ab")
        assert await peer.recv() == "hi"
        with pytest.raises(ConnectionClosed):
            await peer.recv()


@pytest.mark.parametrize(("status", "seen"), [("403", 403), ("101", 502), (None, 501)])
async def test_a_backend_that_does_not_want_to(status: str | None, seen: int) -> None:
    async def script(peer: Connection) -> None:
        await peer.until(lambda: peer.requests)
        if status is not None:
            peer.answer(1, b"", ("x", "y"), status=int(status))
        await peer.until(lambda: False)

    async with server(script, {} if status is None else {CONNECT: 1}) as behind, before(behind.port) as rauta:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{rauta.port}/")
        assert refused.value.response.status_code == seen


async def test_a_tunnel_in_which_nothing_happens() -> None:
    async def script(peer: Connection) -> None:
        await peer.until(lambda: peer.requests)
        peer.head(1, [(":status", "200")])
        await peer.until(lambda: peer.requests[1].reset is not None)

    async with server(script, {CONNECT: 1}) as behind, before(behind.port, Timeouts(idle=0.2)) as rauta:
        async with connect(f"ws://127.0.0.1:{rauta.port}/", ping_interval=None) as peer:
            with pytest.raises(ConnectionClosed):
                await peer.recv()
        assert "reason=tunnel_idle" in rauta.log_lines()[0]


ECHO = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{scope['http_version']} {message['text']}"})
"""


async def test_hypercorn_takes_websockets_over_http_2(tmp_path: Path) -> None:
    """Another's server side of RFC 8441."""
    (tmp_path / "echo.py").write_text(ECHO)
    chat: Any = ["chat"]
    with host("hypercorn", "echo:app", tmp_path) as other:
        async with (
            before(other.port) as rauta,
            connect(f"ws://127.0.0.1:{rauta.port}/", subprotocols=chat) as peer,
        ):
            assert peer.subprotocol == "chat"
            await peer.send("hello")
            assert await peer.recv() == "2 hello"


async def test_a_connection_with_requests_that_wait_for_its_settings_is_in_use() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(silent, "127.0.0.1", 0) as listening,
        before(listening.sockets[0].getsockname()[1], Timeouts(response=0.5)) as rauta,
        client(rauta.port) as peer,
    ):
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x")
        peer.send(request("/", *upgrade))
        while not any(pool.made for pool in rauta.plane.pools):
            await asyncio.sleep(0.005)
        (pool,) = rauta.plane.pools
        assert (pool.open, pool.idle) == (1, 0)
        assert b" 504 " in await peer.head()
