"""WebSocket over HTTP/2 (RFC 8441) with ASGI applications: to these it is as over HTTP/1.1."""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from h2.errors import ErrorCodes
from websockets.frames import Frame, Opcode

from rauta.proxy.asgi import conversing
from rauta.routing.model import Asgi, Match, PathMatch, Route
from rauta.routing.services import TimeoutOverrides
from rauta.routing.settings import LogFormat
from support import applications as apps
from support import h2client
from support.http import Gateway, gateway

APP = Route(name="app", action=Asgi(app="support.applications:app"))


@pytest.fixture(autouse=True)
def _clean() -> None:
    apps.events.clear()


@asynccontextmanager
async def meet(route: Route = APP) -> AsyncIterator[tuple[Gateway, h2client.Client]]:
    async with gateway(routes=(route,), log=LogFormat.JSON) as rauta, h2client.client(rauta.port) as peer:
        await peer.until(lambda: peer.h2.remote_settings.enable_connect_protocol)
        yield rauta, peer


def ask(peer: h2client.Client, path: str = "/socket", *more: tuple[str, str], version: str = "13") -> int:
    """A WebSocket's CONNECT; its stream."""
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", path), (":authority", "a"),
        ("sec-websocket-version", version), *more,
    ]  # fmt: skip
    return peer.head(fields, end=False)


async def opened(peer: h2client.Client, *more: tuple[str, str]) -> int:
    stream = ask(peer, "/socket", *more)
    await peer.until(lambda: peer.streams[stream].status)
    assert peer.streams[stream].status == 200
    return stream


def say(peer: h2client.Client, stream: int, kind: Opcode, data: bytes, *, fin: bool = True) -> None:
    peer.h2.send_data(stream, Frame(kind, data, fin=fin).serialize(mask=True))
    peer.flush()


async def hear(peer: h2client.Client, stream: int, size: int) -> bytes:
    """So many bytes of the tunnel."""
    await peer.until(lambda: len(peer.streams[stream].body) >= size)
    body, peer.streams[stream].body = peer.streams[stream].body[:size], peer.streams[stream].body[size:]
    return body


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_messages_both_ways() -> None:
    async with meet() as (_, peer):
        stream = await opened(peer)
        assert "sec-websocket-protocol" not in peer.streams[stream].fields
        say(peer, stream, Opcode.TEXT, b"hello")
        assert await hear(peer, stream, 7) == b"\x81\x05hello"
        say(peer, stream, Opcode.BINARY, b"in ", fin=False)
        say(peer, stream, Opcode.CONT, b"pieces")
        assert await hear(peer, stream, 11) == b"\x82\x09in pieces"
        say(peer, stream, Opcode.PING, b"?")
        assert await hear(peer, stream, 3) == b"\x8a\x01?"
        large = bytes(range(256)) * 1000  # four windows
        head = Frame(Opcode.BINARY, large).serialize(mask=True)
        for at in range(0, len(head), 8000):
            await peer.until(lambda: peer.h2.local_flow_control_window(stream) > 9000)
            peer.h2.send_data(stream, head[at : at + 8000])
            peer.flush()
        assert (await hear(peer, stream, len(large) + 10))[10:] == large
        assert (await peer.answer(peer.request(path="/state"))).status == 200  # others go on meanwhile
        say(peer, stream, Opcode.TEXT, b"still")
        assert await hear(peer, stream, 7) == b"\x81\x05still"


async def test_what_the_application_is_told() -> None:
    shown = replace(APP, action=Asgi(app="support.applications:shown"))
    async with meet(shown) as (_, peer):
        stream = ask(peer, "/a%20b?c=d", ("origin", "http://a"), ("sec-websocket-protocol", "one, two"))
        scope = ast.literal_eval((await hear_text(peer, stream)).decode())
        assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "2")
        assert (scope["path"], scope["query_string"], scope["subprotocols"]) == ("/a b", b"c=d", ["one", "two"])
        assert (b"origin", b"http://a") in scope["headers"]
        assert not [name for name, _ in scope["headers"] if name.startswith(b":")]


async def hear_text(peer: h2client.Client, stream: int) -> bytes:
    """One message of 126 to 65,535 bytes."""
    size = await hear(peer, stream, 4)
    assert size[:2] == b"\x81\x7e"
    return await hear(peer, stream, int.from_bytes(size[2:], "big"))


async def test_a_subprotocol_and_headers() -> None:
    async with meet() as (_, peer):
        stream = await opened(peer, ("sec-websocket-protocol", "chat, other"))
        fields = peer.streams[stream].fields
        assert (fields["sec-websocket-protocol"], fields["x-mine"]) == ("chat", "1")
        assert not {"connection", "upgrade", "sec-websocket-accept", "sec-websocket-key"} & fields.keys()


async def test_the_client_closes() -> None:
    async with meet() as (rauta, peer):
        stream = await opened(peer)
        say(peer, stream, Opcode.CLOSE, (4002).to_bytes(2, "big") + b"bye")
        assert await hear(peer, stream, 7) == b"\x88\x05\x0f\xa2bye"
        await peer.until(lambda: peer.streams[stream].ended)
        await until(lambda: "disconnect 4002 bye" in apps.events)
        await until(rauta.log_lines)
        line = json.loads(rauta.log_lines()[0])
        assert (line["status"], line["reason"], line["route"]) == (101, None, "app")


async def test_the_application_closes() -> None:
    async with meet() as (rauta, peer):
        stream = await opened(peer)
        say(peer, stream, Opcode.TEXT, b"close")
        assert await hear(peer, stream, 15) == b"\x88\x0d\x0f\xa1as you like"
        say(peer, stream, Opcode.CLOSE, (4001).to_bytes(2, "big"))
        await peer.until(lambda: peer.streams[stream].ended)
        await until(lambda: not rauta.plane.in_flight)


async def test_a_client_that_does_not_close_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversing, "CLOSE_TIMEOUT", 0.2)
    async with meet() as (_, peer):
        stream = await opened(peer)
        say(peer, stream, Opcode.TEXT, b"close")
        await peer.until(lambda: peer.streams[stream].ended or peer.streams[stream].reset is not None)
        assert (await peer.answer(peer.request(path="/state"))).status == 200


@pytest.mark.parametrize("how", ["fail", "return"])
async def test_an_application_that_leaves(how: str) -> None:
    async with meet() as (rauta, peer):
        stream = await opened(peer)
        say(peer, stream, Opcode.TEXT, how.encode())
        assert await hear(peer, stream, 4) == b"\x88\x02\x03\xf3"  # 1011
        say(peer, stream, Opcode.CLOSE, (1011).to_bytes(2, "big"))
        await until(rauta.log_lines)
        assert json.loads(rauta.log_lines()[0])["reason"] == "application_failed"


@pytest.mark.parametrize(("path", "status"), [("/refuse", 403), ("/deny", 401), ("/unasked", 500), ("/fail", 500)])
async def test_refusals(path: str, status: int) -> None:
    async with meet() as (rauta, peer):
        stream = ask(peer, path)
        answer = await peer.answer(stream)
        assert answer.status == status
        if status == 401:
            assert (answer.fields["x-why"], answer.body) == ("1", b"no")
        await until(lambda: not rauta.plane.in_flight)
        assert (await peer.answer(peer.request(path="/state"))).status == 200


async def test_a_version_that_is_not_spoken() -> None:
    async with meet() as (_, peer):
        answer = await peer.answer(ask(peer, version="8"))
        assert (answer.status, answer.fields["sec-websocket-version"]) == (426, "13")
        assert "upgrade" not in answer.fields  # RFC 9113 8.2.2


@pytest.mark.parametrize("how", ["reset", "end", "connection"])
async def test_a_client_that_leaves(how: str) -> None:
    async with meet() as (rauta, peer):
        stream = await opened(peer)
        if how == "reset":
            peer.h2.reset_stream(stream, ErrorCodes.CANCEL)
        elif how == "end":
            peer.h2.send_data(stream, b"", end_stream=True)
        else:
            peer.writer.transport.abort()
        peer.flush()
        await until(lambda: "disconnect 1006 " in apps.events)
        await until(lambda: not rauta.plane.in_flight)
        if how != "connection":
            assert (await peer.answer(peer.request(path="/state"))).status == 200


async def test_what_comes_before_the_answer_is_kept() -> None:
    slow = replace(APP, action=Asgi(app="support.applications:hesitant"))
    apps.go = asyncio.Event()
    async with meet(slow) as (_, peer):
        stream = ask(peer)
        say(peer, stream, Opcode.TEXT, b"early")
        await until(lambda: "asked" in apps.events)
        assert not peer.streams[stream].status
        apps.go.set()
        assert await hear(peer, stream, 7) == b"\x81\x05early"


async def test_a_tunnel_without_traffic() -> None:
    async with meet(replace(APP, timeouts=TimeoutOverrides(idle=0.3))) as (rauta, peer):
        await opened(peer)
        await peer.until(rauta.log_lines)
        assert json.loads(rauta.log_lines()[0])["reason"] == "tunnel_idle"
        await until(lambda: "disconnect 1006 " in apps.events)


async def test_a_route_that_switches_to_nothing() -> None:
    route = replace(APP, upgrades=frozenset(), matches=(Match(path=PathMatch.prefix("/")),))
    async with meet(route) as (_, peer):
        assert (await peer.answer(ask(peer))).status == 501
