"""A connection to a backend that speaks HTTP/2: many exchanges at once, each on a stream of its own.

    ClientStream:  HEAD --final head--> BODY --end--> OVER       the stream leaves the connection, which has room again
                    |  ^ 1xx  |           |
                    |  +------+           +--reset, malformed, time-out--> OVER
                    +--refused (GOAWAY beyond `last`, REFUSED_STREAM): nothing was done; any request may go elsewhere

A connection is in the pool as long as it has room for one more stream. GOAWAY takes it out; streams that the backend
has taken go on, and the last of them closes it. Memory is bounded as towards clients: see `server` and `streams`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.exchange import Upstream
from rauta.proxy.flow import HIGH_WATER, LOW_WATER, ReadGate
from rauta.proxy.http1.grammar import MalformedError
from rauta.proxy.http2 import frames as wire
from rauta.proxy.http2.frames import (
    BrokenError,
    Control,
    Data,
    End,
    Fault,
    Goodbye,
    Head,
    Interim,
    Reset,
    Room,
    code_name,
)
from rauta.proxy.http2.heads import raw_trailers, request_fields, response_head, trailer_fields
from rauta.proxy.http2.streams import DONE, GONE, MORE, Multiplexed, Outbox, Window
from rauta.proxy.http2.upgrades import as_connect, as_switching
from rauta.proxy.limits import LINGER_TIME, MAX_INTERIM
from rauta.proxy.messages import NO_BODY, Field, RequestHead, ResponseHead
from rauta.proxy.mismatch import HTTP1, TLS, doubt, spoken, wants
from rauta.proxy.wheel import NEVER, TICKS_PER_SECOND
from rauta.routing.defaults import HEAD_LIMIT
from rauta.routing.errors import words_of

if TYPE_CHECKING:
    import ssl

    from rauta.proxy.exchange import Exchange
    from rauta.proxy.plan import RoutePlan
    from rauta.proxy.pool import BackendPool

# Bytes that a backend may send on a stream before its client has taken any, at first. More than towards clients: most
# responses fit, and a gateway has fewer of these connections.
WINDOW: Final = 256 * 1024


class ClientStream(Upstream):
    """One request and its response."""

    __slots__ = (
        "_connection",
        "_exchange",
        "_idle_timeout",
        "_interim",
        "_key",
        "_method",
        "_missing",
        "_no_body",
        "_out",
        "_paused",
        "_response_timeout",
        "_sent",
        "_status",
        "_tunnel",
        "number",
        "window",
    )

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__()
        self.number = 0
        self._connection = connection
        self._exchange: Exchange | None = None
        self._out = Outbox()
        self._method = ""
        self._sent = False  # the request is complete, and on its way
        self._status = 0  # of the response, once its head is there
        self._no_body = False
        self._missing = 0  # bytes of the body, by its Content-Length
        self._interim = 0
        self._tunnel = False  # a CONNECT with a protocol (RFC 8441)
        self._key: str | None = None  # of WebSocket's handshake with the client
        self._paused = False
        self.window = Window(WINDOW, connection.pool.wheel.now)
        self._response_timeout = 0.0
        self._idle_timeout = 0.0

    # --- Upstream ---

    @property
    def may_refuse(self) -> bool:
        return True

    def send_request(self, exchange: Exchange, head: RequestHead, added: str, plan: RoutePlan) -> None:
        self._exchange = exchange
        self._method = head.method
        self._response_timeout = plan.response_timeout
        self._idle_timeout = plan.idle_timeout
        if exchange.upgrade is None:
            self._open(head, added, None)
        elif self._connection.settled:
            self._connect(head, added)
        else:
            # RFC 8441 3: "A sender MUST NOT send" such a CONNECT before the setting that allows it has come.
            self._arm(self._response_timeout)
            self._connection.held[self] = lambda: self._connect(head, added)

    def _connect(self, head: RequestHead, added: str) -> None:
        """Ask for a tunnel, if the backend knows how to."""
        exchange = self._exchange
        if exchange is None:
            return
        self._tunnel = self._connection.frames.connects
        if not self._tunnel:
            self.fail("no_tunnel", f"{self._connection.pool.name}: it does not take CONNECT with a protocol")
            return
        self._method = "CONNECT"
        head, self._key = as_connect(head)
        self._open(head, added, exchange.upgrade)

    def _open(self, head: RequestHead, added: str, protocol: str | None) -> None:
        connection = self._connection
        self._sent = not head.has_body and protocol is None
        connection.opened(self)
        fields = request_fields(head, connection.pool.host_name, added, connection.pool.scheme, protocol)
        # At once, not in turn: numbers rise with the frames that open streams (RFC 9113 5.1.1).
        if not connection.frames.send_head(self.number, fields, end=self._sent):
            self.fail("upstream_reset", "the connection takes no more requests", refused=True)
            return
        self._arm(self._response_timeout if self._sent or protocol is not None else self._idle_timeout)
        if not head.has_body:
            connection.write()

    def send_body(self, data: bytes) -> None:
        self._out.body(data)
        if self._out.size > HIGH_WATER and self._exchange is not None:
            self._exchange.upstream_blocked()
        self._arm(self._idle_timeout)

    def send_end(self, trailers: list[Field]) -> None:
        if self._tunnel:
            self._exchange = None
        self._out.end(raw_trailers(trailers))
        self._connection.wake(self)

    def flush(self) -> None:
        self._connection.wake(self)

    def abort(self) -> None:
        self._exchange = None
        self._connection.reset(self, wire.CANCEL)

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        self._paused = False
        self._give_back()

    # --- streams.Sending ---

    def send_some(self) -> bool:
        """One frame of what waits, if there is room. False: nothing can be sent now."""
        before = self._out.size
        state = self._out.send_some(self._connection.frames, self.number)
        if self._out.size < before:
            self._connection.carried()
            self._arm(self._idle_timeout)
        if state == GONE:
            self._out.clear()  # what has ended it will be told
            return False
        if before > LOW_WATER >= self._out.size and self._exchange is not None:
            self._exchange.upstream_ready()
        if state == DONE:
            self._sent = True
            if self._tunnel and self._exchange is None:  # nobody wants what still comes
                self._connection.reset(self, wire.CANCEL)
                return False
            self._arm(self._idle_timeout if self._status else self._response_timeout)
        return state == MORE

    # --- wheel.Expiring ---

    def expired(self) -> None:
        name, idle = self._connection.pool.name, self._idle_timeout
        if self._exchange is None:
            self.abort()  # a tunnel whose end it does not take
        elif self._paused and self._exchange.downstream.moved():
            self._arm(idle)  # slowly, but it does
        elif not self.number:
            self._connection.doubt(self._response_timeout)
            self.fail("upstream_timeout", f"{name}: no settings of HTTP/2 within {self._response_timeout:g} s")
        elif self._tunnel and self._status:
            self.fail("tunnel_idle", f"no byte either way for {idle:g} s")
        elif self._tunnel:
            self.fail("upstream_timeout", f"{name}: no response within {self._response_timeout:g} s")
        elif not self._sent and not self._out.size:
            # All that came from the client has gone to the backend: it is the client that is silent.
            self.fail("client_timeout", f"no byte of the request for {idle:g} s")
        elif not self._status:
            waited = self._response_timeout if self._sent else idle
            self._connection.doubt(waited)
            self.fail("upstream_timeout", f"{name}: no response within {waited:g} s")
        elif self._paused:
            self.fail("client_timeout", f"the client took nothing for {idle:g} s")
        else:
            self._connection.doubt(idle)
            self.fail("upstream_timeout", f"{name}: no byte of the response for {idle:g} s")

    # --- from the connection ---

    @property
    def silent(self) -> bool:
        """Whether nothing of a response has come."""
        return not self._status and not self._interim

    def interim(self, event: Interim) -> None:
        """A 1xx response."""
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise MalformedError("bad_framing", f"more than {MAX_INTERIM} interim responses")
        head = response_head(event.fields, method=self._method, ended=False)
        if self._exchange is not None:
            self._exchange.response_interim(head)

    def response(self, event: Head) -> None:
        """The head of the final response."""
        head: ResponseHead = response_head(event.fields, method=self._method, ended=event.ended)
        self._status = head.status
        if self._tunnel and 200 <= head.status < 300 and not event.ended:
            self._arm(self._idle_timeout)
            if self._exchange is not None:
                self._exchange.switched(as_switching(head, self._key))
            return
        self._no_body = head.length == NO_BODY
        self._missing = max(0, head.length)
        self._arm(self._idle_timeout)
        if self._exchange is not None:
            self._exchange.response_head(head)

    def body(self, event: Data) -> None:
        """A piece of its body."""
        if self._no_body and event.data:
            raise MalformedError("bad_framing", "a body behind a response that has none")
        self._missing = max(0, self._missing - len(event.data))
        self._arm(self._idle_timeout)
        if self._exchange is not None and event.data:
            self._exchange.response_body(event.data)
        self.window.came(event.size)
        if not self._paused:
            self._give_back()

    def bring(self) -> None:
        """No more of the response has arrived for now."""
        if self._exchange is not None:
            self._exchange.response_flush()

    def ended(self, trailers: list[Field]) -> None:
        """The response is complete. Raises MalformedError if it is not (RFC 9113 8.1.1): with trailers nobody else
        counts, and the client would take the next response for the rest."""
        if self._missing:
            raise MalformedError("bad_framing", f"{self._missing} bytes of the body are missing")
        exchange, self._exchange = self._exchange, None
        if self._sent:
            self._connection.forget(self)
        else:
            # RFC 9113 8.1: a response may be complete before its request; the rest of that nobody wants.
            self._connection.reset(self, wire.NO_ERROR)
        if exchange is not None:
            exchange.response_end(trailers)

    def fail(
        self, reason: str, detail: str, *, refused: bool = False, stale: bool = False, code: int = wire.CANCEL
    ) -> None:
        """Give it up, and say so to both sides."""
        exchange, self._exchange = self._exchange, None
        self._connection.reset(self, code)
        if exchange is not None:
            exchange.upstream_failed(reason, detail, stale=stale, refused=refused)

    def _give_back(self) -> None:
        self.window.give_back(self._connection, self.number, self._connection.pool.wheel.now)

    def _arm(self, seconds: float) -> None:
        self._connection.pool.wheel.arm(self, seconds)


class ClientConnection(Multiplexed):
    """One connection to a backend. An asyncio.Protocol by its methods."""

    __slots__ = (
        "_draining",
        "_heard",
        "_placed",
        "_streams",
        "_used",
        "held",
        "kept_for",
        "made",
        "made_with",
        "pool",
        "settled",
        "single",
    )

    def __init__(self, pool: BackendPool) -> None:
        super().__init__(wire.make(head_limit=HEAD_LIMIT, window=WINDOW, client=True), pool.loop)
        self.pool = pool
        self._streams: dict[int, ClientStream] = {}
        self._draining = False
        self._placed = True  # it counts among the pool's `open`
        self._heard = 0  # when bytes came last, in ticks
        self.settled = False  # the backend's settings have come
        self.held: dict[ClientStream, Callable[[], None]] = {}  # requests that wait for them
        self._used = False  # a request has been answered
        self.kept_for: float | None = None  # of HTTP/1.1
        self.made = False  # it is, or was, a connection
        self.made_with: ssl.SSLContext | None = None
        self.single = False

    @property
    def usable(self) -> bool:
        """Whether it can take one more request, as far as is known."""
        # Not while it takes nothing: a head goes out at once, whatever waits.
        lives = not (self._closing or self._draining or self._blocked or self._transport.is_closing())
        return lives and self.room > 0

    def stream(self) -> ClientStream:
        """For one more request."""
        return ClientStream(self)

    @property
    def room(self) -> int:
        """How many more streams may be opened."""
        return self.frames.streams - len(self._streams) - len(self.held)

    @property
    def unused(self) -> bool:
        """Whether it serves no request now."""
        return not self._streams and not self.held

    def peer_host(self) -> str:
        """The literal address of the backend; "" for a unix socket."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    def close(self) -> None:
        """No more requests; those that are there go on."""
        self._draining = True
        if self.unused:
            self._end(wire.NO_ERROR)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by create_connection
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._gate = ReadGate(self._transport)
        self.write()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._heard = self.pool.wheel.now
        if not self.settled and (what := spoken(data)) in (TLS, HTTP1):
            self._break("upstream_malformed", f"{self.pool.name}: no HTTP/2, but {wants(what)}")
            return
        self.take_in(data)

    def _read(self, data: bytes) -> bool:
        """Take some frames. False: the connection is over."""
        try:
            events = self.frames.receive(data)
        except BrokenError as error:
            self._break("upstream_malformed", f"{self.pool.name}: {error}")
            return False
        for event in events:
            if not self._closing:
                _TAKE[type(event)](self, event)
        return not self._closing

    def eof_received(self) -> None:
        """Nothing: None closes the transport."""
        self.pool.forget(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self.pool.forget(self)
        self.pool.wheel.forget(self)
        self._give_up_place()
        what = "closed" if exc is None else f"lost ({words_of(exc)})"
        what += "" if self.settled else f" before its settings of HTTP/2{doubt(self.pool.scheme, 'http1')}"
        self._fail_all("upstream_reset", f"{self.pool.name}: connection {what}")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.usable:
            self.pool.put(self)

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self._closing:
            self._transport.abort()
        elif self.unused:
            self.pool.forget(self)
            self._end(wire.NO_ERROR)

    # --- for streams ---

    def opened(self, stream: ClientStream) -> None:
        """Give it its number; it is used at once."""
        self.deadline = NEVER
        stream.number = self.frames.open()
        if stream.number:
            self._streams[stream.number] = stream
        else:
            self._draining = True  # after 2^30 requests

    def doubt(self, seconds: float) -> None:
        """A response has not come in that time. If nothing else came either, the path may be dead, which TCP tells
        after a quarter of an hour: other requests take another connection."""
        if self.pool.wheel.now - self._heard >= seconds * TICKS_PER_SECOND:
            self._draining = True
            self.pool.forget(self)

    def reset(self, stream: ClientStream, code: int) -> None:
        """Give it up."""
        if stream.number in self._streams and not self._closing:
            self.frames.reset(stream.number, code)
            self.write()
        self.forget(stream)

    def forget(self, stream: ClientStream) -> None:
        """It is over: there is room for another."""
        self.pool.wheel.forget(stream)
        self._waiting.pop(stream, None)
        self.held.pop(stream, None)
        if self._streams.pop(stream.number, None) is not None:
            self.returned(stream.window)
        if self._closing:
            return
        if not self._draining:
            self.pool.put(self)
        elif self.unused:
            self._end(wire.NO_ERROR)

    def flooded(self, why: str) -> None:
        self._break("upstream_malformed", f"{self.pool.name}: {why}", wire.ENHANCE_YOUR_CALM)

    # --- events ---

    def _head(self, event: Head) -> None:
        if (stream := self._streams.get(event.stream)) is not None:
            self.touch(stream)
            try:
                stream.response(event)
            except MalformedError as error:
                self._malformed(stream, error)

    def _interim(self, event: Interim) -> None:
        if (stream := self._streams.get(event.stream)) is not None:
            try:
                stream.interim(event)
            except MalformedError as error:
                self._malformed(stream, error)

    def _data(self, event: Data) -> None:
        self.taken(event.size)
        if event.size:
            self.carried()
        else:
            self._control(Control("empty DATA"))
        if (stream := self._streams.get(event.stream)) is not None:
            self.touch(stream)
            try:
                stream.body(event)
            except MalformedError as error:
                self._malformed(stream, error)

    def _response_ended(self, event: End) -> None:
        if (stream := self._streams.get(event.stream)) is not None:
            self._used = True
            self.answered()
            try:
                stream.ended(trailer_fields(event.trailers) if event.trailers else [])
            except MalformedError as error:
                self._malformed(stream, error)

    def _reset(self, event: Reset) -> None:
        if (stream := self._streams.get(event.stream)) is not None:
            refused = event.code == wire.REFUSED_STREAM and stream.silent
            text = f"{self.pool.name}: the stream was reset ({code_name(event.code)})"
            stream.fail("upstream_reset", text, refused=refused)

    def _fault(self, event: Fault) -> None:
        if (stream := self._streams.get(event.stream)) is not None:
            stream.fail("upstream_malformed", f"{self.pool.name}: {event.why}")

    def _room(self, event: Room) -> None:
        self.has_room(self._streams, event.stream)
        if event.stream == wire.EVERY and self.usable:
            self.pool.put(self)  # perhaps it may have more streams now

    def _control(self, event: Control) -> None:
        if event.kind == "SETTINGS" and not self.settled:
            self.settled = True
            held, self.held = self.held, {}
            for ask in held.values():
                ask()
        self.count(event.kind, self.pool.now())

    def _goodbye(self, event: Goodbye) -> None:
        if not self._draining:
            self._draining = True
            self._give_up_place()  # its streams may last for hours; what comes next needs another connection
        self.pool.forget(self)
        text = f"{self.pool.name}: the backend takes no more requests on this connection ({code_name(event.code)})"
        for stream in [stream for number, stream in self._streams.items() if number > event.last]:
            stream.fail("upstream_reset", text, refused=stream.silent)
        if not self._streams and not self._closing:
            self._end(wire.NO_ERROR)

    # --- the end ---

    def _give_up_place(self) -> None:
        if self._placed:
            self._placed = False
            self.pool.lost()

    def _malformed(self, stream: ClientStream, error: MalformedError) -> None:
        stream.fail("upstream_malformed", f"{self.pool.name}: {error}", code=wire.PROTOCOL_ERROR)

    def _break(self, reason: str, why: str, code: int | None = None) -> None:
        """The connection cannot go on."""
        self.pool.forget(self)
        self._end(code)
        self._fail_all(reason, why)

    def _end(self, code: int | None) -> None:
        if self._closing:
            return
        if code is not None:
            self.frames.goaway(code)
        self.write()
        self._closing = True
        self.pool.wheel.arm(self, LINGER_TIME)
        self._transport.close()

    def _fail_all(self, reason: str, why: str) -> None:
        streams, unsent = list(self._streams.values()), list(self.held)
        self._streams.clear()
        self._waiting.clear()
        self.held.clear()
        # RFC 9113 3.4: a server's first bytes are its SETTINGS. One that closes without them stops listening while the
        # connection waits to be accepted, and has seen no request.
        refused = reason == "upstream_reset" and not self.settled
        for stream in streams:
            stale = self._used and reason == "upstream_reset" and stream.silent
            stream.fail(reason, why, stale=stale, refused=refused)
        for stream in unsent:
            stream.fail(reason, why, refused=True)


_TAKE: Final[dict[type, Callable[[ClientConnection, Any], None]]] = {
    Head: ClientConnection._head,  # noqa: SLF001 - of this module
    Interim: ClientConnection._interim,  # noqa: SLF001
    Data: ClientConnection._data,  # noqa: SLF001
    End: ClientConnection._response_ended,  # noqa: SLF001
    Reset: ClientConnection._reset,  # noqa: SLF001
    Fault: ClientConnection._fault,  # noqa: SLF001
    Room: ClientConnection._room,  # noqa: SLF001
    Control: ClientConnection._control,  # noqa: SLF001
    Goodbye: ClientConnection._goodbye,  # noqa: SLF001
}
