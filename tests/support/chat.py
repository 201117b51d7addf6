"""A WebSocket server that is not ours, by `websockets`, which knows HTTP/1.1 alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve


@asynccontextmanager
async def echo(*, parts: Sequence[str] = (), **more: Any) -> AsyncIterator[tuple[int, list[ServerConnection]]]:
    """Its port, and the connections that it has had. It sends back what it gets, `parts` in fragments for "parts", and
    closes by 4001 for "close". `more` is for `serve`."""
    seen: list[ServerConnection] = []

    async def handler(connection: ServerConnection) -> None:
        seen.append(connection)
        async for message in connection:
            if message == "close":
                await connection.close(4001, "as you like")
            else:
                await connection.send(parts if message == "parts" else message)

    async with serve(handler, "127.0.0.1", 0, compression=None, **more) as listening:
        yield listening.sockets[0].getsockname()[1], seen
