"""A connection from a client that speaks HTTP/2: many exchanges at once, each on a stream of its own.

Memory is bounded by windows. Towards us, a stream has a window of 64 KiB, and more where that is little for its path,
but all of a connection together not more than 2 MiB more. Its bytes are credited when its backend has taken them; the
connection's window is larger than those of all streams together and is credited at once, so a stream that is slow stops
itself and no other. The way out is in `streams`.

Floods (frames that cost their sender nothing: resets, pings, settings, empty data) end the connection with
ENHANCE_YOUR_CALM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.exchange import Downstream
from rauta.proxy.flow import HIGH_WATER, LOW_WATER, ReadGate
from rauta.proxy.handshake import Shown, shown_in
from rauta.proxy.http1.handover import client_of, local_of
from rauta.proxy.http2 import frames as wire
from rauta.proxy.http2.frames import (
    STREAM_WINDOW,
    STREAMS,
    BrokenError,
    Control,
    Data,
    End,
    Fault,
    Goodbye,
    Head,
    Noticed,
    Reset,
    Room,
)
from rauta.proxy.http2.heads import glimpsed, raw_trailers, request_head, response_fields, trailer_fields
from rauta.proxy.http2.streams import DONE, GONE, MORE, Multiplexed, Outbox, Window
from rauta.proxy.http2.upgrades import as_success, as_upgrade
from rauta.proxy.limits import DRAIN_GRACE, LINGER_LIMIT, LINGER_TIME
from rauta.proxy.messages import Field, ResponseHead
from rauta.proxy.reasons import BODIES, REASONS
from rauta.proxy.wheel import NEVER, TICKS_PER_SECOND
from rauta.routing.errors import RequestError

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.exchange import Exchange
    from rauta.proxy.proxyprotocol import Origin

# Ticks of the wheel (0.2 to 0.3 s). A stream that is reset before, and has got nothing, has cost more than its request;
# of older ones no client can have more than an honest one. Calls of gRPC are reset when their deadlines are over.
_YOUNG: Final = 3
_LINGER: Final = int(LINGER_TIME * TICKS_PER_SECOND)  # in ticks


class Stream(Downstream):
    """One request and its response."""

    __slots__ = (
        "_connection",
        "_early",
        "_held",
        "_out",
        "_paused",
        "_seen",
        "_since",
        "asked",
        "exchange",
        "key",
        "missing",
        "number",
        "window",
    )

    def __init__(self, connection: ServerConnection, number: int) -> None:
        super().__init__(connection.scheme)
        self.client = connection.client
        self.shown = connection.shown
        self.number = number
        self.exchange: Exchange | None = None
        self.asked = False  # the request is complete
        self.missing = 0  # bytes of its body, by its Content-Length
        self.key: str | None = None  # of WebSocket's handshake
        self._early = False  # it is a tunnel that is not there yet
        self._held = bytearray()  # of the body, not handed on yet
        self._connection = connection
        self._out = Outbox()
        self._paused = False
        self._seen = 0  # bytes that waited when `moved` was asked
        self._since = connection.dispatcher.wheel.now
        self.window = Window(STREAM_WINDOW, self._since)

    # --- Downstream ---

    def send_interim(self, head: ResponseHead) -> None:
        self._connection.frames.send_head(self.number, response_fields(head), end=False)
        self._connection.write()

    def send_head(self, head: ResponseHead) -> None:
        self._out.head(response_fields(head))

    def send_body(self, data: bytes) -> None:
        self._out.body(data)
        if self._out.size > HIGH_WATER and self.exchange is not None:
            self._seen = self._out.size
            self.exchange.client_blocked()

    def moved(self) -> bool:
        before, self._seen = self._seen, self._out.size
        return self._seen < before

    def flush(self) -> None:
        self._connection.wake(self)

    def send_end(self, trailers: list[Field]) -> None:
        self._out.end(raw_trailers(trailers))
        self.exchange = None
        self._seen = self._out.size
        self.arm(self._connection.dispatcher.listener.timeouts.idle)  # for the client to take it
        self._connection.wake(self)

    def cut(self) -> None:
        self.exchange = None
        self._connection.drop(self, wire.INTERNAL_ERROR)

    def switch(self, head: ResponseHead, token: str) -> None:
        answer = as_success(head, self.key)
        exchange = self.exchange
        if exchange is None:
            return
        if answer is None:
            exchange.status = 0  # nothing has been sent
            exchange.fail("upstream_malformed", "Sec-WebSocket-Accept is missing or wrong")
            return
        self._out.head(response_fields(answer))
        self._connection.wake(self)
        self._early = False
        self.bring()

    def arm(self, seconds: float) -> None:
        self._connection.dispatcher.wheel.arm(self, seconds)

    def local_address(self) -> tuple[str, int]:
        return self._connection.local_address()

    def close_after(self) -> None:
        """Nothing: the connection has other streams."""

    def pause_body(self) -> None:
        self._paused = True

    def resume_body(self) -> None:
        self._paused = False
        self.bring()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self.exchange is not None:
            self.exchange.expired()
        elif self.moved():
            self.arm(self._connection.dispatcher.listener.timeouts.idle)
        else:
            self._connection.drop(self, wire.CANCEL)

    # --- from the connection ---

    @property
    def young(self) -> bool:
        """Whether it has just begun, and nothing of a response has come of it."""
        answered = self.exchange is not None and self.exchange.status
        return not answered and self._connection.dispatcher.wheel.now - self._since < _YOUNG

    def body(self, data: bytes, size: int) -> None:
        """A piece of the request's body."""
        self.missing = max(0, self.missing - len(data))
        self.window.came(size)
        if self.exchange is None:
            self._give_back()
            return
        # In one piece, whatever pieces it came in, and however long it waits; as much as the window lets through.
        self._held += data
        self._connection.touch(self)

    def bring(self) -> None:
        """Hand on what has come of the body."""
        if self._early or self._paused:
            return
        self.bring_all()
        if not self._paused:
            self._give_back()

    def bring_all(self) -> None:
        """The same, though nobody takes it yet: the end has come, too."""
        if self.exchange is not None and self._held:
            data, self._held = bytes(self._held), bytearray()
            self.exchange.request_body(data)
        if self.exchange is not None:
            self.exchange.request_flush()

    def ended(self) -> None:
        """The client has ended a tunnel, or does not wait for it any more."""
        exchange = self.exchange
        if exchange is None:
            return
        if exchange.tunnel:
            self.bring_all()
            exchange.request_end([])
        else:
            self.gone()
            self._connection.drop(self, wire.CANCEL)

    def tunnels(self, key: str | None) -> None:
        """It is a CONNECT: what comes is held until there is a tunnel."""
        self.key = key
        self._early = True

    def send_some(self) -> bool:
        """One frame of what waits, if there is room. False: nothing can be sent now."""
        before = self._out.size
        state = self._out.send_some(self._connection.frames, self.number)
        if self._out.size < before:
            self._connection.carried()
        if state in (DONE, GONE):
            return self._over()
        if before > LOW_WATER >= self._out.size and self.exchange is not None:
            self.exchange.client_ready()
        return state == MORE

    def gone(self, reason: str = "client_gone", detail: str | None = None) -> None:
        """The client has given it up, or the connection is no more."""
        exchange, self.exchange = self.exchange, None
        self._out.clear()
        self._held.clear()
        if exchange is not None:
            exchange.detail = detail or exchange.detail
            exchange.client_gone(reason)

    def _give_back(self) -> None:
        """Part of the window; nothing, once the request is complete."""
        if not self.asked:
            self.window.give_back(self._connection, self.number, self._connection.dispatcher.wheel.now)

    def _over(self) -> bool:
        self._connection.answered()
        if not self.asked:
            # RFC 9113 8.1: "When this is true, a server MAY request that the client abort transmission of a request
            # without error by sending a RST_STREAM with an error code of NO_ERROR after sending a complete response".
            self._connection.frames.reset(self.number, wire.NO_ERROR)
        self._connection.forget(self)
        return False


class ServerConnection(Multiplexed):
    """One connection. An asyncio.Protocol by its methods."""

    __slots__ = (
        "_draining",
        "_notified",
        "_origin",
        "_over_since",
        "_streams",
        "_thrown_away",
        "client",
        "dispatcher",
        "scheme",
        "shown",
    )

    def __init__(self, dispatcher: Dispatcher, scheme: str, origin: Origin | None = None) -> None:
        super().__init__(wire.make(head_limit=dispatcher.listener.limits.head), dispatcher.loop)
        self.dispatcher = dispatcher
        self.scheme = scheme
        self.client: tuple[str, int] = ("", 0)
        self._origin = origin
        self.shown: Shown | None = None
        self._streams: dict[int, Stream] = {}
        self._notified = False  # the client knows, or will, that it ends; new streams are still taken
        self._draining = False  # none are
        self._over_since = -_LINGER  # when a stream ended last, in ticks
        self._thrown_away = 0  # bytes that came after the end

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by create_server
        self.client = client_of(transport, self._origin)
        if self.dispatcher.rule is not None:
            self.shown = shown_in(transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._gate = ReadGate(self._transport)
        self.dispatcher.connections.add(self)
        self.dispatcher.wheel.arm(self, self.dispatcher.listener.timeouts.head)
        self.write()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._thrown_away += len(data)
            if self._thrown_away > LINGER_LIMIT:
                self._transport.abort()
            return
        self.take_in(data)

    def _read(self, data: bytes) -> bool:
        """Take some frames. False: the connection is over."""
        try:
            events = self.frames.receive(data)
        except BrokenError as error:
            self._broken(str(error))
            return False
        for event in events:
            self._take(event)
        return not self._closing

    def eof_received(self) -> None:
        """Nothing: None closes the transport."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self.dispatcher.wheel.forget(self)
        self.dispatcher.connections.discard(self)
        streams = list(self._streams.values())
        self._streams.clear()
        self._waiting.clear()
        for stream in streams:
            self.dispatcher.wheel.forget(stream)
            stream.gone()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self._closing:
            self._transport.abort()
        elif self._notified:
            self._close_for_new()
        elif not self._streams:
            self.drain(DRAIN_GRACE)  # a request may be on its way to this one, too

    # --- draining ---

    def drain(self, grace: float) -> None:
        """Tell the client that it ends. What it asks for before it knows is answered; then, after `grace` seconds at
        most, new streams are refused (RFC 9113 6.8), and the last of those that are open ends the connection."""
        if self._closing or self._draining:
            return
        if not grace:
            self._close_for_new()
        elif not self._notified:
            self._notified = True
            self.frames.notice()
            self.write()
            self.dispatcher.wheel.arm(self, grace)

    def _close_for_new(self) -> None:
        self._draining = True
        self.deadline = NEVER
        if self._streams:
            self.frames.goaway(wire.NO_ERROR)
            self.write()
        else:
            self._end(wire.NO_ERROR)

    def kill(self) -> None:
        """The time to drain is over."""
        for stream in list(self._streams.values()):
            stream.gone("draining")
        self._transport.abort()

    # --- for streams ---

    def local_address(self) -> tuple[str, int]:
        """Where the client connected to."""
        return local_of(self._transport, self._origin)

    def drop(self, stream: Stream, code: int) -> None:
        """Reset it."""
        self.frames.reset(stream.number, code)
        self.forget(stream)
        self.write()

    def forget(self, stream: Stream) -> None:
        """It is over."""
        if self._streams.pop(stream.number, None) is not None:
            self.returned(stream.window)
        self.dispatcher.wheel.forget(stream)
        self._waiting.pop(stream, None)
        self._over_since = self.dispatcher.wheel.now
        if not self._streams and not self._closing:
            if self._draining:
                self._end(wire.NO_ERROR)
            elif not self._notified:
                self.dispatcher.wheel.arm(self, self.dispatcher.listener.timeouts.idle)

    # --- events ---

    def _take(self, event: wire.Event) -> None:
        if not self._closing:
            _TAKE[type(event)](self, event)

    def _data(self, event: Data) -> None:
        self.taken(event.size)
        if event.size:
            self.carried()
        else:
            self._count("empty DATA")
        stream = self._streams.get(event.stream)
        if stream is not None:
            stream.body(event.data, event.size)

    def _reset(self, event: Reset) -> None:
        stream = self._streams.get(event.stream)
        if stream is None or stream.young:
            self._count("RST_STREAM")
        if stream is not None:
            stream.gone()
            self.forget(stream)

    def _fault(self, event: Fault) -> None:
        """A stream error: nothing else is concerned."""
        self._count("wrong")
        stream = self._streams.get(event.stream)
        if stream is None or stream.exchange is None:
            self.dispatcher.refused(self.client, "bad_frame", event.why)
        if stream is not None:
            stream.gone("bad_frame", event.why)
            self.forget(stream)

    def _room(self, event: Room) -> None:
        self._count("WINDOW_UPDATE")
        self.has_room(self._streams, event.stream)

    def _control(self, event: Control) -> None:
        self._count(event.kind)

    def _goodbye(self, _: Goodbye) -> None:
        self._draining = True
        if not self._streams:
            self._end(wire.NO_ERROR)

    def _noticed(self, _: Noticed) -> None:
        """The client knows. What it was about to send may be a moment behind."""
        if self.deadline > self.dispatcher.wheel.now + 2 and self._notified:  # once, and never later than it would be
            self.dispatcher.wheel.arm(self, 0.0)

    def _begin(self, event: Head) -> None:
        dispatcher = self.dispatcher
        if self._draining or len(self._streams) >= STREAMS:
            self.frames.reset(event.stream, wire.REFUSED_STREAM)
            if not self._draining:
                self._count("HEADERS")
                dispatcher.refused(
                    self.client, "bad_frame", f"more than {STREAMS} streams", seen=glimpsed(event.fields)
                )
            return
        stream = self._streams[event.stream] = Stream(self, event.stream)
        stream.asked = event.ended
        if not self._notified:
            self.deadline = NEVER
        try:
            head = request_head(
                event.fields,
                ended=event.ended,
                scheme=self.scheme,
                reject_encoded_slash=dispatcher.reject_encoded_slash,
            )
        except RequestError as error:
            self._refuse(stream, event, error)
            return
        stream.missing = max(0, head.length)
        if head.insists and head.upgrade is not None:
            stream.tunnels(as_upgrade(head, head.upgrade))
        exchange = dispatcher.begin(stream, head)
        if not exchange.finished:
            stream.exchange = exchange

    def _refuse(self, stream: Stream, event: Head, error: RequestError) -> None:
        """Answer a request that cannot be taken: RFC 9113 8.1.1 lets a server "send an HTTP response prior to closing
        or resetting the stream"."""
        reason = REASONS[error.reason]
        body = BODIES[error.reason]
        self.dispatcher.refused(
            self.client, error.reason, str(error), seen=glimpsed(event.fields), bytes_sent=len(body)
        )
        fields = [
            ("Date", self.dispatcher.clock.http_date()),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]
        stream.send_head(ResponseHead(reason.status, "", fields, len(body)))
        stream.send_body(body)
        stream.send_end([])

    def _request_ended(self, event: End) -> None:
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        stream.asked = True
        if stream.exchange is not None and stream.exchange.upgrade is not None:
            stream.ended()
            return
        if stream.exchange is None or stream.exchange.complete:
            return
        if stream.missing:
            # RFC 9113 8.1.1: "if the value of a content-length header field does not equal the sum of the DATA frame
            # payload lengths". With trailers, nobody else counts; the backend would take the next request for the rest.
            stream.exchange.fail("bad_framing", f"{stream.missing} bytes of the body are missing")
            return
        try:
            trailers = trailer_fields(event.trailers)
        except RequestError as error:
            stream.exchange.fail(error.reason, str(error))
            return
        stream.bring_all()
        if stream.exchange is not None:
            stream.exchange.request_end(trailers)

    def _count(self, kind: str) -> None:
        self.count(kind, self.dispatcher.loop.time())

    def flooded(self, why: str) -> None:
        self.dispatcher.refused(self.client, "flood", why)
        self._end(wire.ENHANCE_YOUR_CALM)

    # --- the end ---

    def _broken(self, why: str) -> None:
        self.dispatcher.refused(self.client, "bad_frame", why)
        self._leave(gently=True)

    def _end(self, code: int) -> None:
        if not self._closing:
            self.frames.goaway(code)
            # A client sends WINDOW_UPDATE as long as it reads the last response.
            self._leave(gently=bool(code) or self.dispatcher.wheel.now - self._over_since < _LINGER)

    def _leave(self, *, gently: bool) -> None:
        """Nothing more is taken; what was made is still sent. `gently` to a client that may be sending: what is unread
        when a socket is closed lets the kernel reset the connection, and GOAWAY would be lost."""
        self.write()
        self._closing = True
        for stream in list(self._streams.values()):
            stream.gone()
            self.dispatcher.wheel.forget(stream)
        self._streams.clear()
        self._waiting.clear()
        self.dispatcher.wheel.arm(self, LINGER_TIME)
        if not gently or self._transport.is_closing():
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()


_TAKE: Final[dict[type, Callable[[ServerConnection, Any], None]]] = {
    Head: ServerConnection._begin,  # noqa: SLF001 - of this module
    Data: ServerConnection._data,  # noqa: SLF001
    End: ServerConnection._request_ended,  # noqa: SLF001
    Reset: ServerConnection._reset,  # noqa: SLF001
    Fault: ServerConnection._fault,  # noqa: SLF001
    Room: ServerConnection._room,  # noqa: SLF001
    Control: ServerConnection._control,  # noqa: SLF001
    Goodbye: ServerConnection._goodbye,  # noqa: SLF001
    Noticed: ServerConnection._noticed,  # noqa: SLF001
}
