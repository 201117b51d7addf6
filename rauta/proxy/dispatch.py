"""From a request head to what is done with it: ask the table once, then forward, redirect, respond or refuse."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from rauta.proxy.accesslog import AccessLogWriter, Entry, logged_target
from rauta.proxy.clock import Clock
from rauta.proxy.exchange import Downstream, Exchange
from rauta.proxy.forwarded import Builder, builder_of
from rauta.proxy.messages import Glimpse, RequestHead
from rauta.proxy.pool import Pools
from rauta.proxy.reasons import REASONS
from rauta.proxy.wheel import Wheel
from rauta.routing.errors import RautaError
from rauta.routing.model import Forward, Redirect, Respond
from rauta.routing.outcome import Hit, Miss, Outcome, PluginFailed
from rauta.routing.request import RequestView
from rauta.routing.services import Service
from rauta.routing.settings import EncodedSlash, Listener
from rauta.routing.table import Table

# What is served at all; RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
ALLOW: Final = ("Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_UNSEEN: Final = Glimpse()


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """What a route says about forwarding to one service, put together once. Times are seconds."""

    hit: Hit
    connect_timeout: float
    response_timeout: float
    idle_timeout: float
    forwarded: Builder | None

    @classmethod
    def of(cls, hit: Hit, service: Service, forwarded: Builder | None) -> ForwardPlan:
        """The service's time-outs, overridden by the route's."""
        own, base = hit.route.timeouts, service.timeouts
        return cls(
            hit,
            base.connect if own.connect is None else own.connect,
            base.response if own.response is None else own.response,
            base.idle if own.idle is None else own.idle,
            forwarded,
        )


class Dispatcher:
    """Decides for one listener. Everything that exchanges share hangs on it."""

    __slots__ = ("_plans", "_pools", "clock", "listener", "log", "loop", "reject_encoded_slash", "table", "wheel")

    def __init__(
        self,
        listener: Listener,
        table: Table,
        *,
        loop: asyncio.AbstractEventLoop,
        pools: Pools,
        wheel: Wheel,
        clock: Clock,
        log: AccessLogWriter | None,
    ) -> None:
        self.listener = listener
        self.table = table
        self.clock = clock
        self.wheel = wheel
        self.log = log
        self.reject_encoded_slash = listener.encoded_slash is EncodedSlash.REJECT
        self.loop = loop
        self._pools = pools
        # By the identity of the table's answer: it gives the same one each time, the plan keeps it alive, and hashing a
        # route would cost more than all the rest.
        self._plans: dict[int, ForwardPlan] = {}

    def begin(self, downstream: Downstream, head: RequestHead) -> Exchange:
        """Take a request. It may have been answered completely when this returns."""
        exchange = Exchange(self, downstream, head)
        try:
            self._decide(exchange, head)
        except Exception as error:  # noqa: BLE001 - a defect of ours or of a plugin: this request fails, and no other
            self.loop.call_exception_handler({"message": "a request could not be dispatched", "exception": error})
            exchange.fail("internal_error", repr(error))
        return exchange

    def refused(
        self, client: tuple[str, int], reason: str, detail: str, *, seen: Glimpse = _UNSEEN, bytes_sent: int = 0
    ) -> None:
        """Log a request that never became an exchange; `seen` is what could be read of it."""
        if self.log is not None:
            self.log.write(
                Entry(
                    client=client[0],
                    status=REASONS[reason].status,
                    listener=self.listener.name,
                    method=seen.method,
                    target=None if seen.path is None else logged_target(seen.path, seen.query),
                    version=seen.version,
                    bytes_sent=bytes_sent,
                    host=seen.host,
                    reason=reason,
                    detail=detail,
                )
            )

    def _decide(self, exchange: Exchange, head: RequestHead) -> None:
        if head.path == "*":  # RFC 9110 9.3.7: "applies to the server in general rather than to a specific resource"
            exchange.answer(200, [ALLOW], b"")
            return
        outcome = self.table.match(
            self.listener.name,
            RequestView(
                method=head.method,
                host=head.host,
                path=head.path,
                query=head.query,
                headers=head,
                client=exchange.downstream.client,
            ),
        )
        if type(outcome) is Hit:
            exchange.route = outcome.route.name
            action = outcome.route.action
            if type(action) is Forward and outcome.service is not None:
                self._forward(exchange, outcome, outcome.service)
            elif type(action) is Redirect:
                self._redirect(exchange, action, outcome)
            elif type(action) is Respond:
                exchange.answer(action.status, [("Content-Type", action.content_type)], action.body.encode())
            else:
                exchange.fail("no_backend", f"route {outcome.route.name!r} has no service")
        else:
            self._no_hit(exchange, outcome)

    def _no_hit(self, exchange: Exchange, outcome: Outcome) -> None:
        if isinstance(outcome, PluginFailed):
            exchange.route = outcome.route.name
            exchange.fail(outcome.reason, f"plugin {outcome.plugin!r}: {outcome.error!r}")
        elif isinstance(outcome, Miss):
            exchange.fail(outcome.reason)
        elif not isinstance(outcome, Hit):
            exchange.route = outcome.route.name
            exchange.fail(outcome.reason)

    def _forward(self, exchange: Exchange, hit: Hit, service: Service) -> None:
        exchange.service = service.name
        try:
            backend = self.table.pick(service, exchange.downstream.client, self._pools.load)
        except RautaError as error:  # PluginFailedError
            exchange.fail("plugin_error", str(error))
            return
        if backend is None:
            exchange.fail("no_backend")
            return
        plan = self._plans.get(id(hit))
        if plan is None:
            forwarded = builder_of(self.table.configuration.forwarded_of(self.listener, hit.route))
            plan = self._plans[id(hit)] = ForwardPlan.of(hit, service, forwarded)
        exchange.forward(self._pools.of(backend), plan)

    def _redirect(self, exchange: Exchange, action: Redirect, hit: Hit) -> None:
        location = redirect_location(action, exchange.head, exchange.downstream.scheme, hit.match.path.value)
        if location is None:
            exchange.fail("bad_host", "a redirect needs the host of the request, and there is none")
        else:
            exchange.answer(action.status, [("Location", location)], b"")


def redirect_location(action: Redirect, head: RequestHead, scheme: str, matched: str) -> str | None:
    """The absolute URL of a redirect; None if it would keep the host and the request has none (HTTP/1.0).

    Absolute, because a path that begins with `//` would otherwise name a host (RFC 3986 4.2). What is None keeps
    what the request had; the port goes with the scheme unless the redirect has one. `matched` is the route's prefix.
    """
    host = action.host or head.host
    if not host:
        return None
    new_scheme = action.scheme or scheme
    port = action.port
    if port is None and action.scheme in (None, scheme) and action.host is None:
        port = _port_of(head.authority or "")
    if port == _DEFAULT_PORTS[new_scheme]:
        port = None
    if action.path is not None:
        path = action.path
    elif action.prefix is not None:
        path = (action.prefix.removesuffix("/") + head.path[len(matched) :]) or "/"
    else:
        path = head.path
    query = "" if head.query is None else f"?{head.query}"
    return f"{new_scheme}://{host}{'' if port is None else f':{port}'}{path}{query}"


def _port_of(authority: str) -> int | None:
    """The port of an authority that has been validated."""
    _, colon, port = authority.rpartition(":")
    return int(port) if colon and port.isdigit() else None
