"""What a Python user would write today: aiohttp's server and client, streamed, two processes on one port."""

from __future__ import annotations

import itertools
import os
import re
import sys

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

HOP = frozenset(
    {"connection", "keep-alive", "te", "transfer-encoding", "upgrade", "proxy-connection", "content-length"}
)
_REGEX = re.compile(r"/re/[0-9]+")


def client_session() -> ClientSession:
    """Connections to backends, kept."""
    return ClientSession(
        connector=TCPConnector(limit=0, keepalive_timeout=4), timeout=ClientTimeout(total=60), auto_decompress=False
    )


async def _application(backends: list[str]) -> web.Application:
    turns = itertools.cycle(backends)
    session = client_session()

    async def forward(request: web.Request) -> web.StreamResponse:
        _REGEX.fullmatch(request.path)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP]
        body = request.content if request.body_exists else None
        url = f"http://{next(turns)}{request.raw_path}"
        async with session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in HOP or name.lower() == "content-length":
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    application = web.Application(client_max_size=1 << 40)
    application.router.add_route("*", "/{path:.*}", forward)
    return application


def main() -> None:
    """PORT BACKEND...: two processes."""
    port, *backends = sys.argv[1:]
    os.fork()
    uvloop.install()
    web.run_app(_application(backends), port=int(port), reuse_port=True, access_log=None, print=None)


if __name__ == "__main__":
    main()
