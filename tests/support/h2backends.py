"""A gateway in front of a scripted backend that speaks HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from rauta.routing.services import BackendProtocol, Service
from rauta.routing.settings import LogFormat
from support.h2server import Connection, Script, Server, server
from support.http import Client, Gateway, forward, gateway, service

Pair = tuple[Server, Gateway]


def spoken_to(*ports: int, **more: Any) -> Service:
    """A service whose backends know HTTP/2."""
    return replace(service(*ports), protocol=BackendProtocol.HTTP2, **more)


@asynccontextmanager
async def between(script: Script, settings: dict[Any, int] | None = None, **more: Any) -> AsyncIterator[Pair]:
    """A scripted backend, and a gateway in front of it."""
    async with server(script, settings) as behind:
        services = [spoken_to(behind.port, **more)]
        async with gateway(services=services, routes=[forward()], log=LogFormat.COMMON) as rauta:
            yield behind, rauta


async def status_of(peer: Client) -> int:
    return int((await peer.response())[0].split()[1])


async def connection_has(connection: Connection, ready: Any) -> None:
    while not ready():
        await asyncio.sleep(0.005)
