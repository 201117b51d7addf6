"""The seam: one request in flight, between whatever speaks to the client and whatever speaks to the backend.

Theory of operation. A downstream codec parses a request head and asks the dispatcher to `begin`; it gets an
Exchange and tells it what follows: `request_body`, `request_end`, `client_gone`, `client_blocked`, `client_ready`.
The exchange talks back through the Downstream methods. On the other side an upstream connection gets the request
through the Upstream methods, and tells: `response_head`, `response_interim`, `response_body`, `response_end`,
`upstream_failed`, `upstream_blocked`, `upstream_ready`. All are plain calls, in the order of the bytes.

What ends an exchange, exactly once: the response's end, a failure (`fail`), or the client's leaving. Then the log line
is written, the backend's count goes down and neither side calls again.

    begin --+-- answer (redirect, respond, own error) ----------------------------------+
            +-- hand to an application: as below, with nothing to connect --------------+
            +-- forward: connect -> request -> response head -> body -> end ------------+--> finished
                   |  |                |  101: tunnel, bytes both ways until one ends --+
                   |  +-- refused: the next backend, three in all                       |
                   |            any failure before the head: own error (502, 504)       |
                   +----------- any failure behind it: the client's stream is cut ------+

A request is sent a second time only if nothing can have come of the first, and the body is empty or all of it is still
held: the backend says that it did nothing with it (HTTP/2); or the method is idempotent, and the connection had been
used before and closed without a byte of a response.
"""

from __future__ import annotations

from abc import abstractmethod
from time import perf_counter
from typing import TYPE_CHECKING, Final

from rauta.proxy import grpc
from rauta.proxy.messages import CHUNKED, NO_BODY, Field, RequestHead, ResponseHead
from rauta.proxy.reasons import BODIES, REASONS, phrase_of
from rauta.proxy.wheel import Expiring
from rauta.routing.defaults import CONNECT_ATTEMPTS, REPLAY_LIMIT

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.forwarded import Believed
    from rauta.proxy.handshake import Shown
    from rauta.proxy.plan import RoutePlan
    from rauta.proxy.pool import BackendPool, Waiter

# RFC 9110 9.2.2. Sending one of these twice means the same as once.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

# A tunnel has no time-out but that of silence; this is beyond all of them.
_WITHOUT_END: Final = 10 * 365 * 86400.0


class Downstream(Expiring):
    """What a codec towards clients offers to an exchange."""

    __slots__ = ("client", "scheme", "shown")

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.shown: Shown | None = None  # in the handshake, where clients are asked for certificates
        self.client: tuple[str, int] = ("", 0)
        self.scheme = scheme

    @abstractmethod
    def send_interim(self, head: ResponseHead) -> None:
        """A 1xx response; more will follow."""

    @abstractmethod
    def send_head(self, head: ResponseHead) -> None:
        """The head of the final response."""

    @abstractmethod
    def send_body(self, data: bytes) -> None:
        """A piece of its body, not empty."""

    @abstractmethod
    def flush(self) -> None:
        """Nothing more comes just now: what was given must not be held back any longer."""

    @abstractmethod
    def send_end(self, trailers: list[Field]) -> None:
        """The response is complete. The exchange is not called again."""

    @abstractmethod
    def cut(self) -> None:
        """The response cannot be completed: the client must see that. The exchange is not called again."""

    @abstractmethod
    def switch(self, head: ResponseHead, token: str) -> None:
        """The backend has switched to the protocol `token`: its 101; what follows are bytes of a tunnel, both ways."""

    @abstractmethod
    def arm(self, seconds: float) -> None:
        """Call the exchange's `expired` in that time, unless it ends before."""

    @abstractmethod
    def local_address(self) -> tuple[str, int]:
        """Where the client connected to: address and port; ("", 0) for a unix socket."""

    @abstractmethod
    def close_after(self) -> None:
        """The client is not to be waited for any more: keep no connection after this response."""

    @abstractmethod
    def pause_body(self) -> None:
        """Take no more of the request's body from the client for now."""

    @abstractmethod
    def resume_body(self) -> None:
        """Go on after `pause_body`."""

    @abstractmethod
    def moved(self) -> bool:
        """Whether the client has taken anything since this was asked last, or since it was blocked."""


class Upstream(Expiring):
    """What a connection to a backend offers to an exchange."""

    __slots__ = ()

    @property
    def may_refuse(self) -> bool:
        """Whether it can be told that nothing was done with a request, which may then be sent again, whatever it is
        (RFC 9113 8.7)."""
        return False

    @abstractmethod
    def send_request(self, exchange: Exchange, head: RequestHead, added: str, plan: RoutePlan) -> None:
        """The head of a request; `added` are field lines. If it has a body, that follows, or `flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Nothing more comes just now: what was given must not be held back any longer."""

    @abstractmethod
    def send_body(self, data: bytes) -> None:
        """A piece of the request's body, not empty."""

    @abstractmethod
    def send_end(self, trailers: list[Field]) -> None:
        """The request is complete; called only if it has a body. In a tunnel: the client has ended it; deliver what is
        there and close. The exchange is not called again then."""

    @abstractmethod
    def abort(self) -> None:
        """The exchange is over before its end; it is not called again."""

    @abstractmethod
    def pause_body(self) -> None:
        """Take no more of the response's body from the backend for now."""

    @abstractmethod
    def resume_body(self) -> None:
        """Go on after `pause_body`."""


class Exchange:
    """One request in flight. See the module's text."""

    __slots__ = (
        "_complete",
        "_early",
        "_early_trailers",
        "_open_ended",
        "_repeated",
        "_replay",
        "_seconds",
        "_upstream",
        "attempts",
        "backend",
        "believed",
        "bytes_received",
        "bytes_sent",
        "client",
        "detail",
        "dispatcher",
        "downstream",
        "finished",
        "generation",
        "grpc_status",
        "head",
        "plan",
        "reason",
        "request_id",
        "route",
        "sent_head",
        "service",
        "started",
        "status",
        "t_connected",
        "t_head",
        "tried",
        "tunnel",
        "upgrade",
        "waiter",
    )

    def __init__(self, dispatcher: Dispatcher, downstream: Downstream, head: RequestHead) -> None:
        self.dispatcher = dispatcher
        self.downstream = downstream
        self.generation = dispatcher.generation
        self.generation.in_flight += 1
        self.head = head
        self.sent_head = head  # what the backend gets: after the filters
        self.client = downstream.client
        self.believed: Believed | None = None  # what a trusted proxy said of the client
        self.upgrade: str | None = None  # the protocol that client and route agree to switch to
        self.tunnel = False  # the backend has switched
        self._upstream: Upstream | None = None
        self._complete = not head.has_body  # the whole request has arrived
        self._early: list[bytes] = []  # body that arrived before the connection; one read at most, then paused
        self._early_trailers: list[Field] = []
        self._replay: list[bytes] | None = None  # all of the body that was sent, in case it has to be sent again
        self._repeated = False  # over a new connection, after one that had gone stale
        self._seconds = 0.0  # that the request may take
        self._open_ended = False  # the response's head is out, and does not say how long its body is
        self.waiter: Waiter | None = None  # its place in a queue for a connection
        self.finished = False
        self.tried: tuple[BackendPool, ...] = ()  # backends that could not be reached
        self.attempts = 0
        # For log and counters.
        self.backend: BackendPool | None = None
        self.plan: RoutePlan | None = None
        self.route: str | None = None
        self.service: str | None = None
        self.request_id: str | None = None
        self.status = 0
        self.reason: str | None = None
        self.detail: str | None = None
        self.grpc_status: str | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self.started = perf_counter() if dispatcher.timed else 0.0
        self.t_connected = 0.0
        self.t_head = 0.0

    # --- the two ways to go ---

    def forward(self, backend: BackendPool, plan: RoutePlan) -> None:
        """Send the request to a backend, over an idle connection if there is one."""
        self._seconds = plan.request_timeout
        if plan.may_be_grpc:
            asked = grpc.timeout_of(self.head)
            if asked is not None and asked < self._seconds:
                self._seconds = asked
        self.downstream.arm(self._seconds)
        self.backend = backend
        self.attempts = 1
        backend.in_flight += 1
        upstream = backend.take() if plan.proxy_protocol is None else None
        if upstream is None:
            backend.connect(self, plan)
            return
        head = self.head
        if head.has_body and head.method in IDEMPOTENT:
            self._replay = []
        self.connected(upstream)

    def hand_to(self, upstream: Upstream, plan: RoutePlan) -> None:
        """Send the request to something that is no backend: nothing needs to be connected."""
        self._seconds = plan.request_timeout
        self.downstream.arm(self._seconds)
        self.attempts = 1
        self.connected(upstream)

    def answer(self, status: int, fields: list[Field], body: bytes) -> None:
        """Answer the request without a backend."""
        bodiless = status in (204, 304)
        if bodiless or self.head.method == "HEAD":
            declared = None if bodiless else len(body)
            self.response_head(ResponseHead(status, phrase_of(status), fields, NO_BODY, declared=declared))
        else:
            self.response_head(ResponseHead(status, phrase_of(status), fields, len(body)))
            if body:
                self.response_body(body)
        self.response_end([])

    def fail(self, reason: str, detail: str | None = None) -> None:
        """Give up: answer with an error of our own, or cut the response if its head is out already. A gRPC call has its
        status in the trailers, so that this can be told at any time."""
        if self.finished:
            return
        self.reason = reason
        self.detail = detail
        self._leave_upstream()
        if self.status:
            if self._open_ended and self.head.version == "2.0" and grpc.is_grpc(self.head):
                self.response_end(grpc.trailers(reason))
                return
            self._finish()
            self.downstream.cut()
            return
        if reason == "client_timeout":
            self.downstream.close_after()
        if grpc.is_grpc(self.head) and not self.head.insists:
            self.response_head(ResponseHead(200, "OK", grpc.failure(reason), 0))
            self.response_end([])
            return
        self.answer(REASONS[reason].status, [("Content-Type", "text/plain; charset=utf-8")], BODIES[reason])

    # --- from the client ---

    def request_body(self, data: bytes) -> None:
        """A piece of the request's body, not empty."""
        self.bytes_received += len(data)
        plan = self.plan
        if plan is not None and self.bytes_received > plan.body_limit and not self.tunnel:
            self.fail("body_too_large", f"more than {plan.body_limit} bytes")
            return
        upstream = self._upstream
        if upstream is None:
            self._early.append(data)
            self.downstream.pause_body()
            return
        if self._replay is not None:
            self._replay.append(data)
            if self.bytes_received > REPLAY_LIMIT:
                self._replay = None
        upstream.send_body(data)

    def request_flush(self) -> None:
        """No more of the request has arrived."""
        if self._upstream is not None:
            self._upstream.flush()

    def request_end(self, trailers: list[Field]) -> None:
        """The request's body is complete; or the client has ended a tunnel."""
        self._complete = True
        upstream = self._upstream
        if self.tunnel:
            self._upstream = None
            if upstream is not None:
                upstream.send_end([])
            self._finish()
            self.downstream.send_end([])
            return
        if trailers and self.plan is not None and self.plan.filters is not None:
            trailers = self.plan.filters.request_trailers(trailers)
        self._early_trailers = trailers
        if upstream is not None:
            upstream.send_end(trailers)

    def expired(self) -> None:
        """The time for the request as a whole is over."""
        self.fail("request_timeout", f"not complete within {self._seconds:g} s")

    def client_gone(self, reason: str = "client_gone") -> None:
        """Nobody waits for the response any more."""
        if not self.finished:
            self.reason = reason
            self.status = self.status or REASONS[reason].status
            self._leave_upstream()
            self._finish()

    def client_blocked(self) -> None:
        """The client takes less than the backend gives."""
        if self._upstream is not None:
            self._upstream.pause_body()

    def client_ready(self) -> None:
        """The client takes more again."""
        if self._upstream is not None:
            self._upstream.resume_body()

    # --- from the backend ---

    def connected(self, upstream: Upstream) -> None:
        """There is a connection: send what has arrived."""
        plan, head = self.plan, self.sent_head
        if plan is None:
            raise RuntimeError("connected() before forward()")
        self._upstream = upstream
        if self.dispatcher.timed:
            self.t_connected = perf_counter()
        added = ""
        if plan.forwarded is not None:
            shown = self.downstream.shown
            added = plan.forwarded(*self._client_of(), self.head.version, "" if shown is None else shown.certificate)
        early = self._early
        if head.has_body:
            self._early = []
            if upstream.may_refuse and not self._repeated:
                self._replay = []
            if self._replay is not None:
                self._replay += early
        upstream.send_request(self, head, added, plan)
        if not head.has_body or self._upstream is not upstream:  # it may have refused at once
            return
        for data in early:
            upstream.send_body(data)
        if self._complete:
            upstream.send_end(self._early_trailers)
        if early:
            self.downstream.resume_body()

    def connect_failed(self, reason: str, detail: str) -> None:
        """No connection could be made: nothing has been sent, so any request may go to another backend."""
        backend, plan = self.backend, self.plan
        if backend is None or plan is None:
            raise RuntimeError("connect_failed() before forward()")
        self.tried = (*self.tried, backend)
        other = self.dispatcher.another(self, plan) if self.attempts < CONNECT_ATTEMPTS else None
        if other is None:
            self.fail(reason, detail)
            return
        self.attempts += 1
        self.detail = detail  # told with the request, should it succeed elsewhere
        self.backend = other
        backend.in_flight -= 1
        other.in_flight += 1
        upstream = other.take() if plan.proxy_protocol is None else None
        if upstream is None:
            other.connect(self, plan)
        else:
            self.connected(upstream)

    def upstream_failed(self, reason: str, detail: str, *, stale: bool = False, refused: bool = False) -> None:
        """The connection is gone, or what came over it is no HTTP. `stale`: it had been used before, and closed
        before a byte of the response, most likely because the backend's idle time was over. `refused`: the backend says
        that it has done nothing with this request."""
        self._upstream = None
        backend, plan = self.backend, self.plan
        may_repeat = refused or (stale and self.head.method in IDEMPOTENT)
        may_repeat = may_repeat and (not self.head.has_body or self._replay is not None) and not self._repeated
        if may_repeat and backend is not None and plan is not None:
            # RFC 9110 9.2.2: "a client SHOULD NOT automatically retry a request with a non-idempotent method". A new
            # connection, not another idle one: a backend that restarted has closed them all. Once: it may be this
            # request that ends them.
            self._repeated = True
            if self._replay is not None:
                self._early, self._replay = self._replay, None
            self.attempts += 1
            backend.connect(self, plan, fresh=True)
            return
        self.fail(reason, detail)

    def switched(self, head: ResponseHead) -> None:
        """The backend's 101 (Switching Protocols) to the protocol that was asked for."""
        if self.upgrade is None:
            raise RuntimeError("switched() without an upgrade")
        self.tunnel = True
        self.status = head.status
        if self.dispatcher.timed:
            self.t_head = perf_counter()
        self.downstream.arm(_WITHOUT_END)
        self.downstream.switch(head, self.upgrade)

    def response_interim(self, head: ResponseHead) -> None:
        """A 1xx response."""
        self.downstream.send_interim(head)

    def response_head(self, head: ResponseHead) -> None:
        """The head of the final response."""
        if self.head.insists and 200 <= head.status < 300:
            # To CONNECT it would mean that there is a tunnel (RFC 9110 9.3.6).
            self.fail("upstream_malformed", f"status {head.status} to a request that can only be switched")
            return
        self.status = head.status
        if not head.dated:
            # RFC 9110 6.6.1: "A recipient with a clock that receives a response message without a Date header field
            # MUST record the time it was received and append a corresponding Date header field to the message's
            # header section if it is cached or forwarded downstream."
            head.fields.append(("Date", self.dispatcher.clock.http_date()))
        if self.dispatcher.timed:
            self.t_head = perf_counter()
        self._open_ended = head.length == CHUNKED
        if not head.length:
            self.grpc_status = grpc.told_in(head.fields)
        if self.plan is not None and self.plan.filters is not None:
            self.plan.filters.response(head, self.request_id)
        self.downstream.send_head(head)

    def response_body(self, data: bytes) -> None:
        """A piece of the response's body, not empty."""
        self.bytes_sent += len(data)
        self.downstream.send_body(data)

    def response_flush(self) -> None:
        """No more of the response has arrived."""
        self.downstream.flush()

    def response_end(self, trailers: list[Field]) -> None:
        """The response is complete; the backend's connection has let go of the exchange."""
        self._upstream = None
        if trailers:
            self.grpc_status = grpc.told_in(trailers)
            if self.plan is not None and self.plan.filters is not None:
                trailers = self.plan.filters.response_trailers(trailers)
        self._finish()
        self.downstream.send_end(trailers)

    def upstream_blocked(self) -> None:
        """The backend takes less than the client gives."""
        self.downstream.pause_body()

    def upstream_ready(self) -> None:
        """The backend takes more again."""
        self.downstream.resume_body()

    def _client_of(self) -> tuple[str, str, str]:
        """What the backend is told of the client: addresses, scheme, authority."""
        peer, scheme, authority = self.downstream.client[0], self.downstream.scheme, self.head.authority or ""
        believed = self.believed
        if believed is None:
            return peer, scheme, authority
        return believed.chain, believed.scheme or scheme, believed.host or authority

    # --- the end ---

    @property
    def complete(self) -> bool:
        """Whether the whole request has arrived."""
        return self._complete

    def _leave_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def _finish(self) -> None:
        self.finished = True
        if self.waiter is not None:
            self.waiter.leave()
        if self.backend is not None:
            self.backend.in_flight -= 1
        dispatcher = self.dispatcher
        if dispatcher.timed:
            duration = perf_counter() - self.started
            if dispatcher.log is not None:
                dispatcher.log.exchange(self, duration)
            if dispatcher.metrics is not None:
                dispatcher.metrics.exchange(self, duration)
        generation = self.generation
        generation.in_flight -= 1
        if not generation.in_flight:
            generation.ended()
