"""The admin interface: HTTP on a unix socket, whose file mode says who may use it, and on a TCP address for reading.

What a browser could be made to send is refused: a Host that is no address of ours (DNS rebinding), an Origin (a page of
another site), a command that is not JSON (a form). Beyond loopback everything but the two probes needs the token.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import web

if TYPE_CHECKING:
    from rauta.runtime.control import Result

# By the names that the supervisor knows.
COMMANDS: Final[Mapping[str, str]] = {
    "reload": "/v1/reload",
    "reopen": "/v1/reopen",
    "drain": "/v1/drain",
    "detach": "/v1/offload/detach",
}
BODY_LIMIT: Final = 64 * 1024
PROBES: Final = frozenset({"/healthz", "/readyz"})
_HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Views(Protocol):
    """What the interface shows and does."""

    def status(self) -> Mapping[str, Any]:
        """The state of the processes."""

    def services(self) -> list[dict[str, Any]]:
        """Services and their backends, with their health."""

    async def refresh(self) -> None:
        """Have the kernel's counters read for `stats`, `offload` and `metrics`; if that takes long, they show the last
        ones."""

    def certificates(self) -> Mapping[str, Any]:
        """The certificates that listeners serve, and those that backends are shown."""

    def stats(self) -> Mapping[str, Any]:
        """Counters, for people."""

    def offload(self) -> Mapping[str, Any]:
        """What the kernel does and holds."""

    def config(self) -> Mapping[str, Any]:
        """The configuration that is served, secrets as references."""

    def metrics(self) -> bytes:
        """The text format of Prometheus."""

    async def command(self, name: str) -> Result:
        """Do it; how it ended."""


class Admin:
    """Serves the interface until it is closed."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._runners: list[web.AppRunner] = []
        self.token: str | None = None

    async def serve(self, sock: socket.socket, *, address: str | None = None) -> None:
        """On a listening socket; `address` is that of a TCP one (host:port), which is for reading without a token."""
        guard = _Guard(self, address)
        application = web.Application(middlewares=[guard.check], client_max_size=BODY_LIMIT)
        application.add_routes(
            [
                web.get("/healthz", self._alive),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
                web.get("/v1/status", self._shown(self._views.status)),
                web.get("/v1/services", self._shown(lambda: {"services": self._views.services()})),
                web.get("/v1/certificates", self._shown(self._views.certificates)),
                web.get("/v1/stats", self._shown(self._views.stats, fresh=True)),
                web.get("/v1/offload", self._shown(self._views.offload, fresh=True)),
                web.get("/v1/config", self._shown(self._views.config)),
                *(web.post(path, self._command(name)) for name, path in COMMANDS.items()),
            ]
        )
        runner = web.AppRunner(application, access_log=None, keepalive_timeout=15, handle_signals=False)
        await runner.setup()
        self._runners.append(runner)
        site = web.SockSite(runner, sock, backlog=128)
        await site.start()

    async def close(self) -> None:
        """Stop serving."""
        for runner in self._runners:
            await runner.cleanup()

    async def _alive(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n", headers=_HEADERS)

    async def _ready(self, _: web.Request) -> web.Response:
        status = self._views.status()
        if status.get("ready") and not status.get("draining"):
            return web.Response(text="ready\n", headers=_HEADERS)
        why = "draining" if status.get("draining") else "starting"
        return web.Response(status=503, text=f"{why}\n", headers=_HEADERS)

    async def _metrics(self, _: web.Request) -> web.Response:
        await self._views.refresh()
        text = await asyncio.to_thread(self._views.metrics)
        headers = {**_HEADERS, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=text, headers=headers)

    def _shown(self, view: Callable[[], Mapping[str, Any]], *, fresh: bool = False) -> Handler:
        async def show(_: web.Request) -> web.Response:
            if fresh:
                await self._views.refresh()
            return _json(200, view())

        return show

    def _command(self, name: str) -> Handler:
        async def run(request: web.Request) -> web.Response:
            if request.content_type != "application/json":
                return refusal(415, "content_type", "a command is sent as Content-Type: application/json")
            await request.read()  # nothing in it is used; one that is too long is refused
            result = await self._views.command(name)
            if not result.ok:
                return refusal(409, "failed", result.text)
            warnings = {"warnings": result.warnings} if name == "reload" else {}
            return _json(200, {"ok": True, "text": result.text, **warnings})

        return run


class _Guard:
    """Who may ask for what."""

    def __init__(self, admin: Admin, address: str | None) -> None:
        self._admin = admin
        self._address = address
        host = "" if address is None else address.rpartition(":")[0].strip("[]")
        self._loopback = address is None or ipaddress.ip_address(host).is_loopback

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A middleware of aiohttp."""
        why = self._refused(request)
        if why is not None:
            return why
        try:
            return await handler(request)
        except web.HTTPException as error:
            return refusal(error.status, "not_found" if error.status == 404 else "http", error.reason)

    def _refused(self, request: web.Request) -> web.Response | None:
        if self._address is None:
            return None  # a unix socket: no browser gets here, and its mode is the right
        if not self._is_ours(request.host):
            return refusal(421, "host", f"{request.host!r} is not an address of this interface")
        if "Origin" in request.headers:
            return refusal(403, "origin", "pages of other sites have no business here")
        reading = request.method in ("GET", "HEAD")
        if request.path in PROBES and reading:
            return None
        if self._may(request) or (reading and self._loopback and self._admin.token is None):
            return None
        if reading and self._loopback:
            return None
        return refusal(401, "token", "send Authorization: Bearer TOKEN, or use the unix socket")

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name.lower() == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or not self._loopback  # an address cannot be rebound, only a name can

    def _may(self, request: web.Request) -> bool:
        token = self._admin.token
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        return token is not None and scheme.lower() == "bearer" and hmac.compare_digest(sent.encode(), token.encode())


def refusal(status: int, code: str, text: str) -> web.Response:
    """An error, as JSON."""
    return _json(status, {"error": {"code": code, "text": text}})


def _json(status: int, what: Mapping[str, Any]) -> web.Response:
    return web.Response(
        status=status, text=json.dumps(what, default=str) + "\n", content_type="application/json", headers=_HEADERS
    )
