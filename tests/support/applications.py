"""ASGI applications for tests, by what they do. Routes name them as `support.applications:NAME`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

events: list[str] = []  # of the lifespan


async def _lifespan(receive: Any, send: Any, state: dict[str, Any], name: str) -> None:
    while True:
        message = await receive()
        events.append(f"{name} {message['type'].partition('.')[2]}")
        if message["type"] == "lifespan.startup":
            state["greeting"] = f"hello of {name}"
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    """A whole response."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def app(scope: Any, receive: Any, send: Any) -> None:
    """What the path names."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send, scope["state"], "app")
    else:
        await _PATHS[scope["path"]](scope, receive, send)


async def other(scope: Any, receive: Any, send: Any) -> None:
    """Another one, with a lifespan of its own."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send, scope["state"], "other")
    else:
        await answer(send, scope["state"]["greeting"].encode())


async def no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """As most old ones."""
    assert scope["type"] == "http"
    await answer(send, b"no lifespan")


async def pid(scope: Any, receive: Any, send: Any) -> None:
    """Who serves it."""
    assert scope["type"] == "http"
    await answer(send, str(os.getpid()).encode())


async def broken(scope: Any, receive: Any, send: Any) -> None:
    """Does not start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def held(scope: Any, receive: Any, send: Any) -> None:
    """Starts once somebody writes into the FIFO that the environment names."""
    if scope["type"] == "lifespan":
        await asyncio.to_thread(Path(os.environ["RAUTA_TEST_FIFO"]).read_bytes)
        await _lifespan(receive, send, scope["state"], "held")
    else:
        await answer(send, b"held")


async def prints(scope: Any, receive: Any, send: Any) -> None:
    """More than a pipe holds, also by a process of its own; /held once somebody writes into the FIFO."""
    assert scope["type"] == "http"
    if scope["path"] == "/held":
        await asyncio.to_thread(Path(os.environ["RAUTA_TEST_FIFO"]).read_bytes)
        await asyncio.to_thread(subprocess.run, ["sh", "-c", "echo a child >&2"], check=True)
    for _ in range(100):
        print("x" * 1000, file=sys.stderr, flush=True)  # noqa: T201 - it is what it does
    await answer(send, b"printed")


both_begin = asyncio.Barrier(2)
gate = threading.Event()  # for what blocks a thread


async def patient(scope: Any, receive: Any, send: Any) -> None:
    """Starts when its like does."""
    if scope["type"] == "lifespan":
        await both_begin.wait()
        await _lifespan(receive, send, scope["state"], "patient")


async def patient_too(scope: Any, receive: Any, send: Any) -> None:
    """The other one."""
    await patient(scope, receive, send)


async def endless(scope: Any, receive: Any, send: Any) -> None:
    """Never starts."""
    await receive()
    await asyncio.Event().wait()


async def late(scope: Any, receive: Any, send: Any) -> None:
    """Does not start, when told to."""
    await receive()
    events.append("late begins")
    await go.wait()
    await send({"type": "lifespan.startup.failed", "message": "on purpose"})


async def show(scope: Any, receive: Any, send: Any) -> None:
    shown = {key: value for key, value in scope.items() if key not in ("state", "extensions")}
    await answer(send, repr(shown).encode())


async def state(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, scope["state"]["greeting"].encode())


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """The body, as it comes."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Mixed-Case", b"1")]})
    while True:
        message = await receive()
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        if not message["more_body"]:
            break
    await send({"type": "http.response.body"})


async def trailers(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"hi"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})


async def fail(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("on purpose")


async def fail_late(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    raise ValueError("on purpose")


async def fail_before_the_body(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("on purpose")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    return


async def twice(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def split(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hi", (b"x", b"a\r\nset-cookie: b"))


async def too_long(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello", (b"content-length", b"2"))


async def too_short(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello", (b"content-length", b"20"))


async def hang(scope: Any, receive: Any, send: Any) -> None:
    """Until the client has left."""
    events.append("waits")
    while (await receive())["type"] != "http.disconnect":
        pass
    events.append("left")


async def stream(scope: Any, receive: Any, send: Any) -> None:
    """64 MiB, and how much of it could be sent is among the events."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    try:
        for piece in range(1024):
            events.append(f"piece {piece}")
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
    except OSError:
        events.append("gone")
        raise
    await send({"type": "http.response.body"})


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Takes its request in pieces when told to."""
    await go.wait()
    size = 0
    while True:
        message = await receive()
        size += len(message["body"])
        if not message["more_body"]:
            break
    await answer(send, str(size).encode())


go = asyncio.Event()


async def block(scope: Any, receive: Any, send: Any) -> None:
    """What nobody should do."""
    time.sleep(0.4)
    await answer(send, b"done")


async def socket(scope: Any, receive: Any, send: Any) -> None:
    """Sends back what comes."""
    assert (await receive())["type"] == "websocket.connect"
    chosen = scope["subprotocols"][0] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen, "headers": [(b"x-mine", b"1")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            events.append(f"disconnect {message['code']} {message['reason']}")
            return
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you like"})
            return
        if message.get("text") == "fail":
            raise ValueError("on purpose")
        if message.get("text") == "return":
            return
        await send({**message, "type": "websocket.send"})


async def shown(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that tells its scope."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        told = {key: value for key, value in scope.items() if key not in ("state", "extensions")}
        await send({"type": "websocket.send", "text": repr(told)})
        await receive()


async def hesitant(scope: Any, receive: Any, send: Any) -> None:
    """A WebSocket that is accepted when told to."""
    if scope["type"] == "websocket":
        events.append("asked")
        await go.wait()
        await socket(scope, receive, send)


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close"})


async def deny(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"1")]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def unasked(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.accept", "subprotocol": "unasked"})


_PATHS = {
    f"/{call.__name__}": call
    for call in (
        *(show, state, echo, trailers, fail, fail_late, fail_before_the_body, nothing, twice, split),
        *(too_long, too_short, hang, stream, slow, block, socket, refuse, deny, unasked),
    )
}
