"""A gateway and a backend for frames: see the tables of cases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rauta.routing.model import Match, PathMatch, Respond, Route
from rauta.routing.settings import LogFormat
from support.http import Gateway, Peer, Script, backend, forward, gateway, ok, service

_ROUTES = [
    Route(name="none", matches=(Match(path=PathMatch.exact("/none")),), action=Respond(status=404, body="none")),
    forward(),
]


async def body_of(peer: Peer, head: bytes) -> bytes:
    """The body of a request, all of it."""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while size := int(await peer.reader.readuntil(b"\r\n"), 16):
            body += (await peer.exactly(size + 2))[:-2]
        while await peer.reader.readuntil(b"\r\n") != b"\r\n":
            pass  # trailers
        return body
    length = lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await peer.exactly(int(length)) if length else b""


def mirror(served: list[bytes]) -> Script:
    """A backend that answers with the request's body, or so many bytes of /size-; never, if the path is /held. `served`
    are the heads of the requests that were complete."""

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            path = head.split(b" ", 2)[1]
            if path == b"/held":
                await peer.closed()
                return
            body = await body_of(peer, head)
            served.append(head)
            peer.send(ok(bytes(int(path[6:])) if path.startswith(b"/size-") else body or b"hi"))

    return script


@asynccontextmanager
async def mirrored(served: list[bytes]) -> AsyncIterator[Gateway]:
    """A gateway before such a backend. It answers /none itself, and logs."""
    async with (
        backend(mirror(served)) as server,
        gateway(services=[service(server.port)], routes=_ROUTES, log=LogFormat.JSON) as rauta,
    ):
        yield rauta
