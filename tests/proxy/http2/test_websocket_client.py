"""WebSocket over HTTP/2 with a client of others: hyper's h2 and tungstenite, in Rust, by `wreq`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
import wreq
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from rauta.routing.services import BackendProtocol
from rauta.routing.settings import LogFormat
from rauta.runtime.tls import new_context
from support import chat
from support.asgi import host
from support.http import Gateway, forward, gateway, service
from support.tls import Pair, make_pair

LARGE = bytes(range(256)) * 4000  # sixteen windows
PARTS = ["in ", "three ", "parts"]

# What the server below does, as an application of ASGI.
APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    if scope["path"] == "/no":
        await send({"type": "websocket.close"})
        return
    assert scope["http_version"] == "2"
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you like"})
            return
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
"""


@asynccontextmanager
async def over_http_1() -> AsyncIterator[tuple[int, list[ServerConnection]]]:
    """A server that speaks HTTP/1.1, and refuses /no."""

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(HTTPStatus.FORBIDDEN, "no\n") if request.path == "/no" else None

    async with chat.echo(parts=PARTS, subprotocols=["chat"], process_request=refuse, max_size=1 << 22) as found:
        yield found


@pytest.fixture(scope="module")
def over_http_2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of hypercorn with the application."""
    folder = tmp_path_factory.mktemp("application")
    (folder / "echo.py").write_text(APPLICATION)
    with host("hypercorn", "echo:app", folder) as other:
        yield other.port


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["by ALPN", "by prior knowledge"])
def secured(request: pytest.FixtureRequest, pair: Pair) -> ssl.SSLContext | None:
    """What the gateway's listener has."""
    if request.param == "by prior knowledge":
        return None
    context = new_context(ssl.PROTOCOL_TLS_SERVER, "h2", "http/1.1")
    context.load_cert_chain(pair.cert, pair.key)
    return context


@asynccontextmanager
async def before(port: int, secured: ssl.SSLContext | None, protocol: BackendProtocol) -> AsyncIterator[Gateway]:
    services = [replace(service(port), protocol=protocol)]
    async with gateway(services=services, routes=[forward()], log=LogFormat.COMMON, ssl=secured) as rauta:
        yield rauta


async def connect(rauta: Gateway, pair: Pair, *, secure: bool, path: str = "/ws") -> wreq.WebSocket:
    client = wreq.Client(tls_verify=Path(pair.cert), no_proxy=True, tcp_nodelay=True)
    url = f"{'wss' if secure else 'ws'}://localhost:{rauta.port}{path}"
    return await client.websocket(url, version=wreq.Version.HTTP_2, protocols=["chat"])


async def talk(peer: wreq.WebSocket) -> None:
    """What every way must carry; the server closes in the end."""
    assert (peer.version, peer.status.as_int(), peer.protocol) == (wreq.Version.HTTP_2, 200, "chat")
    for text in ("hello", "", "gr\u00fc\u00df dich"):
        await peer.send(wreq.Message.from_text(text))
        assert (await heard(peer)).text == text
    for data in (b"\x00\xff", LARGE):
        await peer.send(wreq.Message.from_binary(data))
        answer = await heard(peer)
        assert answer.binary is not None
        assert bytes(answer.binary) == data
    await peer.send(wreq.Message.from_ping(b"are you there"))
    pong = (await heard(peer)).pong
    assert pong is not None
    assert bytes(pong) == b"are you there"
    await peer.send(wreq.Message.from_text("close"))
    assert (await heard(peer)).close == (4001, "as you like")


async def heard(peer: wreq.WebSocket) -> wreq.Message:
    message = await peer.recv()
    assert message is not None
    return message


async def logged(rauta: Gateway, count: int) -> list[str]:
    """The lines of the access log, once there are so many."""
    while len(lines := rauta.log_lines()) < count:
        await asyncio.sleep(0.005)
    return lines


async def test_to_a_backend_of_http_1(pair: Pair, secured: ssl.SSLContext | None) -> None:
    async with over_http_1() as (port, seen), before(port, secured, BackendProtocol.HTTP1) as rauta:
        peer = await connect(rauta, pair, secure=secured is not None)
        await talk(peer)
        assert await peer.recv() is None
        await seen[0].wait_closed()
        assert (seen[0].close_code, seen[0].close_reason) == (4001, "as you like")  # the client has said it, too
        peer = await connect(rauta, pair, secure=secured is not None)
        await peer.send(wreq.Message.from_text("parts"))
        assert (await heard(peer)).text == "".join(PARTS)
        await peer.send(wreq.Message.from_close(4002, "enough"))  # `close` resets the stream before that is out
        assert (await heard(peer)).close == (4002, "enough")
        await seen[1].wait_closed()
        assert (seen[1].close_code, seen[1].close_reason) == (4002, "enough")
        assert all('"GET /ws HTTP/2.0" 101 ' in line for line in await logged(rauta, 2))


async def test_to_a_backend_of_http_2(pair: Pair, secured: ssl.SSLContext | None, over_http_2: int) -> None:
    async with before(over_http_2, secured, BackendProtocol.HTTP2) as rauta:
        # hypercorn ends its stream with its close, and so the client's answer to that is no longer wanted.
        await talk(await connect(rauta, pair, secure=secured is not None))


@pytest.mark.parametrize("protocol", [BackendProtocol.HTTP1, BackendProtocol.HTTP2])
async def test_a_backend_that_refuses(
    protocol: BackendProtocol, pair: Pair, secured: ssl.SSLContext | None, over_http_2: int
) -> None:
    async with over_http_1() as (port, _):
        there = port if protocol is BackendProtocol.HTTP1 else over_http_2
        async with before(there, secured, protocol) as rauta:
            with pytest.raises(wreq.exceptions.UpgradeError, match="403"):
                await connect(rauta, pair, secure=secured is not None, path="/no")
            assert '"GET /no HTTP/2.0" 403 ' in (await logged(rauta, 1))[0]
