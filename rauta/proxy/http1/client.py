"""A connection to a backend that speaks HTTP/1.1: one exchange at a time, then back into the pool.

    IDLE --send_request--> HEAD --final head--> LENGTH | CHUNKS | CLOSE | (no body) --end--> IDLE, or closed
                            |  ^ 1xx  |
                            +--+      +--101, if it was asked for--> TUNNEL --either end--> closed

It goes back into the pool only if both messages are complete, the backend keeps the connection, and no byte came
behind the response: such bytes are either an attack or a broken server, and would answer the next request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from rauta.proxy.exchange import Upstream
from rauta.proxy.flow import HELD_FULL, HIGH_WATER, LARGE_READ, LOW_WATER, PEER_BLOCKED, ReadGate, write_all
from rauta.proxy.http1.chunked import CHUNKS_PER_TURN, ChunkDecoder, encode_chunk, encode_last_chunk
from rauta.proxy.http1.grammar import (
    HEAD_END,
    MalformedError,
    check_line_ends,
    not_a_status_line,
    parse_response,
)
from rauta.proxy.http1.serialise import request_bytes
from rauta.proxy.limits import MAX_INTERIM
from rauta.proxy.messages import CHUNKED, NO_BODY, UNTIL_CLOSE, Field, RequestHead, ResponseHead
from rauta.proxy.mismatch import doubt
from rauta.proxy.wheel import NEVER
from rauta.routing.defaults import HEAD_LIMIT
from rauta.routing.errors import words_of

if TYPE_CHECKING:
    import ssl

    from rauta.proxy.exchange import Exchange
    from rauta.proxy.plan import RoutePlan
    from rauta.proxy.pool import BackendPool

IDLE, HEAD, LENGTH, CHUNKS, CLOSE, CLOSED, TUNNEL = range(7)

_H: Final = ord("H")  # with which every status line begins


class ClientConnection(Upstream):
    """One connection to a backend. An asyncio.Protocol by its methods."""

    __slots__ = (
        "_buffer",
        "_decoder",
        "_exchange",
        "_gate",
        "_held",
        "_held_at",
        "_idle_timeout",
        "_interim",
        "_keep_alive",
        "_left",
        "_method",
        "_out",
        "_phase",
        "_pool",
        "_response_timeout",
        "_send_chunked",
        "_sent",
        "_transport",
        "_used",
        "_write_blocked",
        "kept_for",
        "made",
        "made_with",
        "said",
        "single",
    )

    _transport: asyncio.Transport
    _gate: ReadGate

    def __init__(self, pool: BackendPool) -> None:
        super().__init__()
        self._pool = pool
        self._phase = IDLE
        self._exchange: Exchange | None = None
        self._buffer = bytearray()  # a head that has not ended yet
        self._out: list[bytes] = []  # to be written with the next flush
        self._decoder: ChunkDecoder | None = None
        self._held = b""  # CHUNKS: what `_go_on` takes in the next turn of the loop, from `_held_at` on
        self._held_at = 0
        self._left = 0
        self._interim = 0
        self._write_blocked = False
        self._used = False  # it has answered a request before
        self._keep_alive = True
        self._sent = True  # the request is complete
        self._send_chunked = False
        self._method = ""
        self._response_timeout = 0.0
        self._idle_timeout = 0.0
        self.kept_for: float | None = None  # seconds for which the backend keeps it idle, as far as is known
        self.made = False  # it is, or was, a connection
        self.said = ""  # what came, in words, before it was asked for the first time
        self.made_with: ssl.SSLContext | None = None
        self.single = False  # it serves one request only, since the backend takes it for that client's

    @property
    def usable(self) -> bool:
        """Whether an idle connection can take a request, as far as is known."""
        return self._phase == IDLE and not self._transport.is_closing()

    @property
    def unused(self) -> bool:
        """Whether it serves no request now."""
        return self._exchange is None

    def peer_host(self) -> str:
        """The literal address of the backend; "" for a unix socket."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if isinstance(peer, tuple) else ""

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by create_connection
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._gate = ReadGate(self._transport)

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        try:
            if phase == HEAD:
                self._take_head(data)
            elif phase == IDLE:
                self._pool.forget(self)
                if not self._used:
                    self.said = not_a_status_line(data) if data[0] != _H else "it answered before it was asked"
                self._drop()
            elif phase == TUNNEL:
                self._carry(data)
            elif self._held:  # a TLS layer had read it before the pause
                self._held, self._held_at = self._held[self._held_at :] + data, 0
            elif phase != CLOSED:
                self._take_body(data, 0)
        except MalformedError as error:
            self._fail("upstream_malformed", str(error))
        if len(data) >= LARGE_READ:
            self._gate.rest(self._pool.loop)

    def eof_received(self) -> None:
        # Returning None closes the transport; connection_lost does the rest. No request may be put on it meanwhile.
        self._pool.forget(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held:
            self._take_held(None)  # it came before the end: it may be the rest of the response
        phase, self._phase = self._phase, CLOSED
        self._pool.forget(self)
        self._pool.wheel.forget(self)
        self._pool.lost()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if phase in (CLOSE, TUNNEL) and exc is None:
            exchange.response_end([])
            return
        stale = phase == HEAD and self._used and not self._buffer and not self._interim
        what = "closed" if exc is None else f"lost ({words_of(exc)})"
        part = "before the response" if phase == HEAD else "within the response"
        if phase == HEAD and not (self._used or self._buffer or self._interim):
            part += doubt(self._pool.scheme, "http2", proxied=self.single)
        exchange.upstream_failed("upstream_reset", f"{self._pool.name}: connection {what} {part}", stale=stale)

    def pause_writing(self) -> None:
        self._write_blocked = True
        if self._exchange is not None:
            self._exchange.upstream_blocked()

    def resume_writing(self) -> None:
        self._write_blocked = False
        if self._exchange is not None:
            self._exchange.upstream_ready()

    # --- Upstream ---

    def send_request(self, exchange: Exchange, head: RequestHead, added: str, plan: RoutePlan) -> None:
        self._exchange = exchange
        self._phase = HEAD
        self._method = head.method
        self._interim = 0
        self._send_chunked = head.length == CHUNKED
        self._response_timeout = plan.response_timeout
        self._idle_timeout = plan.idle_timeout
        if exchange.upgrade is not None:
            added += f"Connection: Upgrade\r\nUpgrade: {exchange.upgrade}\r\n"
        data = request_bytes(head, self._pool.host_name, added)
        if head.has_body:
            self._out.append(data)
            self._sent = False
            self._pool.wheel.arm(self, plan.idle_timeout)
        else:
            self._transport.write(data)
            self._sent = True
            self._pool.wheel.arm(self, plan.response_timeout)

    def send_body(self, data: bytes) -> None:
        if self._send_chunked:
            self._out += encode_chunk(data)
        else:
            self._out.append(data)
        self._pool.wheel.arm(self, self._idle_timeout)

    def send_end(self, trailers: list[Field]) -> None:
        self._sent = True
        if self._send_chunked:
            self._out.append(encode_last_chunk(trailers))
        self.flush()
        if self._phase == TUNNEL:
            self._exchange = None
            self._phase = CLOSED
            self._pool.wheel.arm(self, self._idle_timeout)
            self._transport.close()
            return
        self._pool.wheel.arm(self, self._response_timeout if self._phase == HEAD else self._idle_timeout)

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            write_all(self._transport, out)

    def abort(self) -> None:
        self._exchange = None
        self._drop()

    def pause_body(self) -> None:
        self._gate.close(PEER_BLOCKED)

    def resume_body(self) -> None:
        self._gate.open(PEER_BLOCKED)

    def close(self) -> None:
        """Close an idle connection."""
        self._phase = CLOSED
        self.deadline = NEVER
        self._transport.close()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        exchange = self._exchange
        if exchange is None:
            self._pool.forget(self)
            if self._phase == CLOSED:
                self._transport.abort()  # it does not take the rest of a tunnel
            else:
                self.close()
        elif self._gate.objections & PEER_BLOCKED and exchange.downstream.moved():
            self._pool.wheel.arm(self, self._idle_timeout)  # slowly, but it does
        elif self._phase == TUNNEL:
            self._fail("tunnel_idle", f"no byte either way for {self._idle_timeout:g} s")
        elif not self._sent and self._transport.get_write_buffer_size() == 0:
            # All that came from the client has gone to the backend: it is the client that is silent.
            self._fail("client_timeout", f"no byte of the request for {self._idle_timeout:g} s")
        elif self._phase == HEAD:
            waited = self._response_timeout if self._sent else self._idle_timeout
            self._fail("upstream_timeout", f"{self._pool.name}: no response within {waited:g} s")
        elif self._gate.objections & PEER_BLOCKED:
            self._fail("client_timeout", f"the client took nothing for {self._idle_timeout:g} s")
        else:
            self._fail("upstream_timeout", f"{self._pool.name}: no byte of the response for {self._idle_timeout:g} s")

    # --- the response ---

    def _take_head(self, data: bytes) -> None:
        checked = len(self._buffer)
        if checked:
            self._buffer += data
            end = self._buffer.find(HEAD_END, max(0, checked - 3))
            if end >= 0:
                data = bytes(self._buffer)
                self._buffer.clear()
        else:
            end = data.find(HEAD_END)
        at = 0
        while end >= 0:
            if end - at > HEAD_LIMIT:
                raise MalformedError("head_too_large", f"response head over {HEAD_LIMIT} bytes")
            head = parse_response(data[at : end + 2], self._method)
            at = end + 4
            if head.status >= 200:
                self._begin_response(head)
                self._take_body(data, at)
                return
            if head.status == 101:
                self._switch(head, data[at:])
                return
            self._take_interim(head)
            end = data.find(HEAD_END, at)
        if not self._buffer and at < len(data):
            self._buffer += data[at:]
        if len(self._buffer) > HEAD_LIMIT:
            raise MalformedError("head_too_large", f"response head over {HEAD_LIMIT} bytes")
        if self._buffer and self._buffer[0] != _H:
            raise MalformedError("bad_request_line", not_a_status_line(self._buffer))
        check_line_ends(self._buffer, checked if checked <= len(self._buffer) else 0)

    def _take_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise MalformedError("bad_framing", f"more than {MAX_INTERIM} interim responses")
        if self._exchange is not None:
            self._exchange.response_interim(head)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        """101 (Switching Protocols), and what came with it. RFC 9110 7.8: "A server MUST NOT switch to a protocol that
        was not indicated by the client in the corresponding request's Upgrade header field."""
        exchange = self._exchange
        if exchange is None or exchange.upgrade is None:
            raise MalformedError("bad_framing", "101 (Switching Protocols) without an upgrade")
        if head.upgrade != exchange.upgrade:
            raise MalformedError(
                "bad_framing", f"101 (Switching Protocols) to another protocol than {exchange.upgrade}"
            )
        self._phase = TUNNEL
        self._pool.wheel.arm(self, self._idle_timeout)
        exchange.switched(head)
        if data:
            self._carry(data)

    def _carry(self, data: bytes) -> None:
        """Bytes of a tunnel."""
        self._pool.wheel.arm(self, self._idle_timeout)
        if self._exchange is not None:
            self._exchange.response_body(data)
        if self._exchange is not None:
            self._exchange.response_flush()

    def _begin_response(self, head: ResponseHead) -> None:
        length = head.length
        if length >= 0:
            self._phase = LENGTH
            self._left = length
        elif length == CHUNKED:
            self._phase = CHUNKS
            self._decoder = ChunkDecoder(head.named)
        elif length == UNTIL_CLOSE:
            self._phase = CLOSE
        elif length == NO_BODY:
            self._phase = LENGTH
            self._left = 0
        self._keep_alive = head.keep_alive
        self.kept_for = head.kept_for
        if self._exchange is not None:
            self._exchange.response_head(head)

    def _take_body(self, data: bytes, at: int, most: int | None = CHUNKS_PER_TURN) -> None:
        """Body bytes from `at` on, no more than `most` chunks; the end of the body if it is there. What goes to the
        client goes as one write."""
        phase = self._phase
        exchange = self._exchange
        if exchange is None:
            return
        if phase == LENGTH:
            left = self._left
            have = len(data) - at
            if have > left:
                body, extra = data[at : at + left], True
            else:
                body, extra = (data[at:] if at else data), False
            self._left = left - len(body)
            if body:
                exchange.response_body(body)
            if not self._left:
                self._end([], extra)
            else:
                self._wait(exchange)
        elif phase == CHUNKS and self._decoder is not None:
            decoder = self._decoder
            body, at = decoder.feed(data, at, most)
            if body:
                exchange.response_body(body)
            if decoder.done:
                self._end(decoder.trailers, at < len(data))
            else:
                if at < len(data):
                    self._hold(data, at)
                self._wait(exchange)
        elif phase == CLOSE:
            if at < len(data):
                exchange.response_body(data[at:] if at else data)
            self._wait(exchange)

    def _hold(self, data: bytes, at: int) -> None:
        """Let other connections have their turn; nothing is read meanwhile."""
        self._held, self._held_at = data, at
        self._gate.close(HELD_FULL)
        asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._held:
            self._take_held(CHUNKS_PER_TURN)

    def _take_held(self, most: int | None) -> None:
        """Take no more than `most` chunks of what is held. A client that is blocked gets it too: it is less than one
        read."""
        data, self._held = self._held, b""
        try:
            self._take_body(data, self._held_at, most)
        except MalformedError as error:
            self._fail("upstream_malformed", str(error))
        if not self._held:
            self._gate.open(HELD_FULL)

    def _wait(self, exchange: Exchange) -> None:
        """More of the body is to come."""
        self._pool.wheel.arm(self, self._idle_timeout)
        exchange.response_flush()

    def _end(self, trailers: list[Field], extra: bool) -> None:
        exchange, self._exchange = self._exchange, None
        self._decoder = None
        if exchange is None:  # the client left while the last piece was handed over
            return
        whole = self._sent and not self._write_blocked  # else the next request would wait for the rest of this one
        if self._keep_alive and whole and not extra and not self._transport.is_closing():
            self._phase = IDLE
            self._used = True
            if self._gate.objections:
                self._gate.open(PEER_BLOCKED)
            self._pool.put(self)
        else:
            self._drop()
        exchange.response_end(trailers)

    # --- the end ---

    def _fail(self, reason: str, detail: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._drop()
        if exchange is not None:
            exchange.upstream_failed(reason, detail)

    def _drop(self) -> None:
        """Close at once; nothing that still waits to be written is of use."""
        self._phase = CLOSED
        self.deadline = NEVER
        self._transport.abort()
