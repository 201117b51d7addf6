"""A small ASGI application, for asgi.yaml: it counts in its lifespan's state, and echoes over WebSocket."""

from __future__ import annotations

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI 3."""
    if scope["type"] == "lifespan":
        await lifespan(scope["state"], receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        scope["state"]["counts"]["requests"] += 1
        body = f"hello, number {scope['state']['counts']['requests']} of this worker\n".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


async def lifespan(state: dict[str, Any], receive: Any, send: Any) -> None:
    """Once in each worker."""
    await receive()
    state["counts"] = {"requests": 0}
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def echo(receive: Any, send: Any) -> None:
    """What comes goes back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})
