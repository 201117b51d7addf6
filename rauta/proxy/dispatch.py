"""From a request head to what is done with it: ask the table once, then forward, redirect, respond or refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from rauta.proxy.accesslog import AccessLogWriter, Entry, logged_target
from rauta.proxy.exchange import Downstream, Exchange
from rauta.proxy.filters import FilterError
from rauta.proxy.forwarded import TrustedProxies
from rauta.proxy.generation import Generation
from rauta.proxy.handshake import Handshake, Shown
from rauta.proxy.messages import Glimpse, RequestHead
from rauta.proxy.plan import RoutePlan
from rauta.proxy.pool import BackendPool
from rauta.proxy.reasons import REASONS
from rauta.proxy.redirects import redirect_location
from rauta.proxy.shared import Shared
from rauta.routing.errors import RautaError
from rauta.routing.hosts import is_address
from rauta.routing.model import Asgi, Forward, Redirect, Respond
from rauta.routing.outcome import Hit, Miss, Outcome, PluginFailed
from rauta.routing.request import RequestView
from rauta.routing.settings import EncodedSlash, Listener, PassedNames

if TYPE_CHECKING:
    from rauta.proxy.metrics import WorkerMetrics
    from rauta.proxy.tls import ServerContexts

# What is served at all; RFC 9110 15.5.6: "The origin server MUST generate an Allow header field in a 405 response".
ALLOW: Final = ("Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")

# Beyond all chains of proxies; RFC 9110 7.6.2 lets a recipient have a maximum.
_MAX_FORWARDS: Final = 999

_UNSEEN: Final = Glimpse()


class FromClient(Protocol):
    """A connection from a client, whatever it speaks."""

    def drain(self, grace: float) -> None:
        """End it when what is in flight has ended; one that is idle after `grace` seconds."""

    def kill(self) -> None:
        """End it now."""


class Dispatcher:
    """Decides for one listener. Everything that its exchanges share hangs on it.

    `swap` changes listener and table between two requests; connections keep their dispatcher.
    """

    __slots__ = (
        "_applications",
        "_passed",
        "_plans",
        "_pools",
        "_tasks",
        "_trusted",
        "clock",
        "connections",
        "generation",
        "handshakes",
        "listener",
        "log",
        "loop",
        "metrics",
        "reject_encoded_slash",
        "rule",
        "timed",
        "wheel",
    )

    listener: Listener
    generation: Generation
    log: AccessLogWriter | None
    metrics: WorkerMetrics | None

    def __init__(
        self, listener: Listener, generation: Generation, shared: Shared, contexts: ServerContexts | None = None
    ) -> None:
        self.clock = shared.clock
        self.wheel = shared.wheel
        self.loop = shared.loop
        self.connections: set[FromClient] = set()
        self.handshakes: WeakSet[Handshake] = WeakSet()  # of connections that are not among them yet
        self._pools = shared.pools
        self._tasks = shared.tasks
        self._applications = shared.applications
        self.watch(shared)
        self.swap(listener, generation, contexts)

    @property
    def full(self) -> bool:
        """Whether the listener has as many connections as it may have, with those that are in their handshake."""
        return len(self.connections) + len(self.handshakes) >= self.listener.limits.connections

    def watch(self, shared: Shared) -> None:
        """Log and count as `shared` has it now."""
        self.log = shared.log
        self.metrics = shared.metrics
        self.timed = self.log is not None or self.metrics is not None

    def swap(self, listener: Listener, generation: Generation, contexts: ServerContexts | None) -> None:
        """From the next request on, also of a connection that is open, decide by these; TLS from the next handshake."""
        self.listener = listener
        self.generation = generation
        self.rule = _rule_of(listener, contexts)
        self._passed = PassedNames(listener.passthrough) if listener.passthrough else None
        self.reject_encoded_slash = listener.encoded_slash is EncodedSlash.REJECT
        self._trusted = TrustedProxies(listener.trusted_proxies) if listener.trusted_proxies else None
        # By the identity of the table's answer: it gives the same one each time, the plan keeps it alive, and hashing a
        # route would cost more than all the rest.
        self._plans: dict[int, RoutePlan] = {}

    def begin(self, downstream: Downstream, head: RequestHead) -> Exchange:
        """Take a request. It may have been answered completely when this returns."""
        exchange = Exchange(self, downstream, head)
        if self._trusted is not None:
            exchange.believed = self._trusted.believe(exchange.client, head)
            if exchange.believed is not None:
                exchange.client = exchange.believed.client
        try:
            self._decide(exchange, head)
        except Exception as error:  # noqa: BLE001 - a defect of ours or of a plugin: this request fails, and no other
            self.loop.call_exception_handler({"message": "a request could not be dispatched", "exception": error})
            exchange.fail("internal_error", repr(error))
        return exchange

    def refused(
        self, client: tuple[str, int], reason: str, detail: str, *, seen: Glimpse = _UNSEEN, bytes_sent: int = 0
    ) -> None:
        """Log and count a request that never became an exchange; `seen` is what could be read of it."""
        if self.metrics is not None:
            self.metrics.refused(self.listener.name, reason)
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

    def another(self, exchange: Exchange, plan: RoutePlan) -> BackendPool | None:
        """A backend that has not been offered this request yet: of those left, the one with the fewest requests in
        flight. Not the balancer's choice, since that would be the same one again."""
        service = plan.service
        usable = exchange.generation.usable(service.name)
        left = [
            pool
            for backend in (service.backends if usable is None else usable)
            if backend.weight and (pool := plan.backends.of(backend)) not in exchange.tried
        ]
        return min(left, key=lambda pool: pool.in_flight, default=None)

    def _decide(self, exchange: Exchange, head: RequestHead) -> None:
        astray = None if self.rule is None else _astray(exchange.downstream.shown, self.rule, head.host)
        if self._passed is not None and exchange.downstream.scheme == "https":
            astray = astray or _passes(self._passed, head.host)
        if astray:
            exchange.fail("misdirected", astray)
            return
        if head.scheme is not None and head.scheme != exchange.downstream.scheme and exchange.believed is None:
            # RFC 9110 7.4: "a request for an "https" resource MUST be rejected unless it has been received over a
            # connection that has been secured"; the other way round the two origins are different ones, too.
            detail = f"the target is an {head.scheme} URL, the connection is {exchange.downstream.scheme}"
            exchange.fail("misdirected", detail)
            return
        if head.method == "OPTIONS" and _options_end_here(exchange, head):
            return
        outcome = self.generation.table.match(
            self.listener.name,
            RequestView(
                method=head.method,
                host=head.host,
                path=head.path,
                query=head.query,
                headers=head,
                client=exchange.client,
            ),
        )
        if type(outcome) is not Hit:
            self._no_hit(exchange, outcome)
            return
        exchange.route = outcome.route.name
        plan = self._plans.get(id(outcome))
        if plan is None:
            configuration = self.generation.table.configuration
            reached = None if outcome.service is None else self._pools.of(outcome.service)
            plan = self._plans[id(outcome)] = RoutePlan.of(outcome, self.listener, configuration, reached)
        exchange.plan = plan
        if plan.filters is not None:
            try:
                exchange.sent_head, exchange.request_id = plan.filters.request(head)
            except FilterError as error:
                exchange.fail(error.reason, str(error))
                return
        self._act(exchange, plan, outcome)

    def _act(self, exchange: Exchange, plan: RoutePlan, hit: Hit) -> None:
        action = hit.route.action
        if type(action) is Forward:
            self._forward(exchange, plan)
        elif type(action) is Asgi:
            self._run(exchange, plan, action)
        elif type(action) is Redirect:
            self._redirect(exchange, action, hit)
        elif exchange.head.insists:
            exchange.fail("no_tunnel", "the route answers by itself")
        elif type(action) is Respond:
            exchange.answer(action.status, [("Content-Type", action.content_type)], action.body.encode())

    def _no_hit(self, exchange: Exchange, outcome: Outcome) -> None:
        if isinstance(outcome, PluginFailed):
            exchange.route = outcome.route.name
            exchange.fail(outcome.reason, f"plugin {outcome.plugin!r}: {outcome.error!r}")
        elif isinstance(outcome, Miss):
            exchange.fail(outcome.reason)
        elif not isinstance(outcome, Hit):
            exchange.route = outcome.route.name
            exchange.fail(outcome.reason)

    def _forward(self, exchange: Exchange, plan: RoutePlan) -> None:
        service = plan.service
        exchange.service = service.name
        if exchange.head.length > plan.body_limit:
            exchange.fail("body_too_large", f"Content-Length is {exchange.head.length}, allowed are {plan.body_limit}")
            return
        generation, backends = self.generation, plan.backends
        try:
            backend = generation.table.pick(
                service,
                exchange.client,
                backends.load,
                generation.usable(service.name),
                stream=exchange.head.version == "2.0",
            )
        except RautaError as error:  # PluginFailedError
            exchange.fail("plugin_error", str(error))
            return
        if backend is None:
            exchange.fail("no_backend")
            return
        if exchange.head.upgrade in plan.upgrades:
            exchange.upgrade = exchange.head.upgrade
        elif exchange.head.insists:
            exchange.fail("no_tunnel", f"the route switches to {', '.join(sorted(plan.upgrades)) or 'nothing'}")
            return
        exchange.forward(backends.of(backend), plan)

    def _run(self, exchange: Exchange, plan: RoutePlan, action: Asgi) -> None:
        from rauta.proxy.asgi.running import Request  # only where there is an application

        if exchange.head.length > plan.body_limit:
            exchange.fail("body_too_large", f"Content-Length is {exchange.head.length}, allowed are {plan.body_limit}")
            return
        app = self._applications.of(action.app)
        if exchange.head.upgrade == "websocket" and "websocket" in plan.upgrades:
            from rauta.proxy.asgi.conversing import Conversation

            exchange.upgrade = exchange.head.upgrade
            exchange.hand_to(Conversation(app, self.wheel, self._tasks), plan)
        elif exchange.head.insists:
            exchange.fail("no_tunnel", "applications know websocket alone")
        else:
            exchange.hand_to(Request(app, self.wheel, self._tasks), plan)

    def _redirect(self, exchange: Exchange, action: Redirect, hit: Hit) -> None:
        scheme = exchange.downstream.scheme
        if exchange.believed is not None and exchange.believed.scheme is not None:
            scheme = exchange.believed.scheme
        location = redirect_location(action, exchange.head, scheme, hit.match.path.value)
        if location is None:
            exchange.fail("bad_host", "a redirect needs the host of the request, and there is none")
        else:
            exchange.answer(action.status, [("Location", location)], b"")


def _rule_of(listener: Listener, contexts: ServerContexts | None) -> str | None:
    """How clients' certificates are verified; where they should be and are not, a rule that no connection meets."""
    if contexts is not None:
        return contexts.rule
    return None if listener.tls is None or listener.tls.clients is None else ""


def _astray(shown: Shown | None, rule: str, host: str) -> str | None:
    """Why a request must not be answered on its connection, where clients are asked for certificates.

    RFC 6066 11.1: "application server implementations that rely upon these names being the same MUST check to make sure
    the client did not present a different name in the application protocol". Who asked for no name can mean nothing but
    the address that it connected to."""
    if shown is None or shown.rule != rule:
        return "the connection was made before the listener asked for certificates as it does now"
    if shown.name:
        return None if shown.name == host else f"the TLS handshake was for {shown.name!r}"
    return None if not host or is_address(host) else "the TLS handshake named no host (SNI)"


def _passes(names: PassedNames, host: str) -> str | None:
    """Why a request must not be answered here: its host has connections of its own, which rauta does not look into.
    Browsers use a connection of HTTP/2 for all names that its certificate covers (RFC 9113 9.1.1)."""
    service = names.service_of(host)
    return None if service is None else f"connections for {host!r} are passed through to {service!r}"


def _options_end_here(exchange: Exchange, head: RequestHead) -> bool:
    """Whether an OPTIONS request is answered here; else its Max-Forwards is updated. RFC 9110 7.6.2: "Each intermediary
    that receives a TRACE or OPTIONS request containing a Max-Forwards header field MUST check and update its value
    prior to forwarding the request"."""
    if head.path == "*":  # RFC 9110 9.3.7: "applies to the server in general rather than to a specific resource"
        exchange.answer(200, [ALLOW], b"")
        return True
    value = head.get("max-forwards")
    if value is None:
        return False
    if not (value.isascii() and value.isdigit()):  # several of them are joined by a comma
        exchange.fail("bad_field", "Max-Forwards is no number")
        return True
    digits = value.lstrip("0")
    if not digits:
        # RFC 9110 7.6.2: "the intermediary MUST NOT forward the request; instead, the intermediary MUST respond as the
        # final recipient"
        exchange.answer(200, [ALLOW], b"")
        return True
    left = str(int(digits) - 1 if len(digits) <= 3 else _MAX_FORWARDS)
    head.fields = [(name, left if name.lower() == "max-forwards" else old) for name, old in head.fields]
    return False
