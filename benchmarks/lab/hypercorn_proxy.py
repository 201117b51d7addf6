"""What a Python user would write today who wants HTTP/2: an ASGI application on hypercorn, which forwards with
aiohttp's client, streamed. BACKENDS of the environment holds host:port, separated by spaces."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import ClientSession
from yarl import URL

from lab.aiohttp_proxy import HOP, client_session

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_TURNS = itertools.cycle(os.environ["BACKENDS"].split())
_sessions: list[ClientSession] = []  # of this process: one


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    first = await receive()
    body = _pieces(first, receive) if first.get("more_body") else first.get("body") or None
    query = scope["query_string"]
    target = scope["raw_path"] + (b"?" + query if query else b"")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    headers = [(name, value) for name, value in headers if name not in HOP]
    url = URL(f"http://{next(_TURNS)}{target.decode('latin-1')}", encoded=True)
    session = _sessions[0]
    async with session.request(scope["method"], url, headers=headers, data=body, allow_redirects=False) as answer:
        fields = [(name.lower(), value) for name, value in answer.raw_headers]
        kept = [item for item in fields if item[0] == b"content-length" or item[0].decode("latin-1") not in HOP]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        async for piece in answer.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pieces(event: dict[str, Any], receive: Receive) -> AsyncIterator[bytes]:
    while True:
        yield event.get("body", b"")
        if not event.get("more_body"):
            return
        event = await receive()


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    _sessions.append(client_session())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _sessions.pop().close()
    await send({"type": "lifespan.shutdown.complete"})
