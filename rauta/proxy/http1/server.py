"""A connection from a client that speaks HTTP/1.1.

Requests are taken one after the other; what a client sends ahead (pipelining) is held, up to a limit, until the
response before it is complete. The request side is in one phase:

    HEAD --head--> LENGTH | CHUNKS --end of body--> WAIT --end of response--> HEAD, or LINGER
      |              |                               |
      +--malformed---+--> LINGER --end of stream,    +--101 of the backend--> TUNNEL --either end--> CLOSED
                                 or enough--> CLOSED

LINGER: the last response is written and our side of the stream ended, but the client may still be sending. Closing
now would make the kernel answer with a reset, which can destroy the response before the client has read it
(RFC 9112 9.6), so what comes is read and thrown away, for a bounded time and amount.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from rauta.proxy.exchange import Downstream
from rauta.proxy.flow import HELD_FULL, HIGH_WATER, LARGE_READ, LOW_WATER, PEER_BLOCKED, ReadGate, write_all
from rauta.proxy.handshake import shown_in
from rauta.proxy.http1.chunked import CHUNKS_PER_TURN, ChunkDecoder, encode_chunk, encode_last_chunk
from rauta.proxy.http1.grammar import HEAD_END, MalformedError, check_partial, glimpse, parse_request
from rauta.proxy.http1.handover import PREFACE, PREFACE_HEAD, agreed_on, client_of, hand_over, local_of, reset_on_close
from rauta.proxy.http1.serialise import response_bytes
from rauta.proxy.limits import DISCARD_LIMIT, HEADS_PER_TURN, HELD_LIMIT, LINGER_LIMIT, LINGER_TIME
from rauta.proxy.messages import CHUNKED, NO_BODY, Field, Glimpse, RequestHead, ResponseHead
from rauta.proxy.reasons import BODIES, REASONS, phrase_of
from rauta.proxy.wheel import NEVER
from rauta.routing.errors import RequestError

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher, FromClient
    from rauta.proxy.exchange import Exchange
    from rauta.proxy.handshake import Handshake
    from rauta.proxy.proxyprotocol import Origin

HEAD, LENGTH, CHUNKS, WAIT, LINGER, CLOSED, TUNNEL = range(7)

_CR: Final = 13
_NOT_BEGUN: Final = (b"", b"\r", b"\r\n")  # what may stand before a request
_CLOSE: Final = "Connection: close\r\n"
_SWITCHED: Final = "Connection: Upgrade\r\nUpgrade: {}\r\n"
_UPGRADE: Final = "Connection: Upgrade\r\n"
_KEEP_ALIVE: Final = "Connection: keep-alive\r\n"  # only HTTP/1.0 clients need to be told
_ALLOW: Final = "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n"


class ServerConnection(Downstream):
    """One connection from a client. An asyncio.Protocol by its methods."""

    __slots__ = (
        "_body_left",
        "_buffer",
        "_chunked_out",
        "_connections",
        "_decoder",
        "_dispatcher",
        "_exchange",
        "_expects",
        "_fresh",
        "_gate",
        "_handshake",
        "_grace",
        "_http10",
        "_keep_alive",
        "_origin",
        "_out",
        "_phase",
        "_seen",
        "_taking",
        "_thrown_away",
        "_transport",
        "_until_close",
        "_write_blocked",
        "_yielded",
    )

    _transport: asyncio.Transport
    _gate: ReadGate

    def __init__(
        self,
        dispatcher: Dispatcher,
        connections: set[FromClient],
        scheme: str,
        handshake: Handshake | None = None,
        origin: Origin | None = None,
    ) -> None:
        super().__init__(scheme)
        self._origin = origin
        self._dispatcher = dispatcher
        self._connections = connections
        self._handshake = handshake
        self._phase = HEAD
        self._exchange: Exchange | None = None
        self._buffer = bytearray()  # HEAD: a head that has not ended yet; WAIT: what is held
        self._out: list[bytes] = []  # to be written with the next flush
        self._decoder: ChunkDecoder | None = None
        self._body_left = 0
        self._taking = False  # `_take` is on the stack
        self._yielded = False  # `_go_on` takes what is held, in the next turn of the loop
        self._thrown_away = 0
        self._seen = 0  # bytes that waited when `moved` was asked
        self._write_blocked = False
        self._grace: float | None = None  # draining: how long an idle connection is still kept
        self._fresh = True  # no request has come yet
        self._keep_alive = True
        self._http10 = False
        self._expects = False
        self._chunked_out = False
        self._until_close = False

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream transport, by create_server
        if self._handshake is not None and agreed_on(transport) == "h2":
            self._handshake = None
            self._hand_over(b"")
            return
        self.client = client_of(transport, self._origin)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._gate = ReadGate(self._transport)
        if self._dispatcher.rule is not None:
            self.shown = shown_in(transport)
        self._connections.add(self)
        self._handshake = None
        # A client that connects and says nothing is given the time of a head.
        self._dispatcher.wheel.arm(self, self._dispatcher.listener.timeouts.head)

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == WAIT or self._yielded or (phase == HEAD and self._write_blocked):
            self._hold(data)
        elif phase == HEAD and self._buffer:
            self._continue_head(data)
        elif phase == TUNNEL:
            self._carry(data)
        else:
            self._take(data)
        if len(data) >= LARGE_READ:
            self._gate.rest(self._dispatcher.loop)

    def eof_received(self) -> None:
        # A client that ends its stream while it waits is taken as gone, as by most gateways: it cannot be told from
        # one that has closed. Returning None closes the transport once everything is written.
        if self._exchange is None:
            return
        if self._phase == TUNNEL:
            self._exchange.request_end([])
        else:
            self._client_gone()
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = CLOSED
        self._dispatcher.wheel.forget(self)
        self._connections.discard(self)
        self._client_gone()

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._seen = self._transport.get_write_buffer_size()
        if self._exchange is not None:
            self._exchange.client_blocked()

    def resume_writing(self) -> None:
        self._write_blocked = False
        if self._exchange is not None:
            self._exchange.client_ready()
        elif self._phase == HEAD and not self._yielded:
            self._take_held()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self._exchange is not None:
            self._exchange.expired()
            return
        begun = b"" if self._phase != HEAD or self._write_blocked else bytes(self._buffer)
        if begun not in _NOT_BEGUN:
            seconds = self._dispatcher.listener.timeouts.head
            self._refuse("head_timeout", f"no complete head within {seconds:g} s", begun)
        elif self._transport.get_write_buffer_size() and self._grace is None:
            self._transport.abort()  # the client does not take the response; an orderly close would wait for it
        else:
            self._phase = CLOSED
            self._transport.close()

    # --- draining ---

    def drain(self, grace: float) -> None:
        """Tell the client with the next response that the connection ends there. One that is idle is closed after
        `grace` seconds: a request that is on its way when it is closed would be lost (RFC 9112 9.5)."""
        self._grace = grace
        if self._phase != HEAD or self._buffer:
            return
        if grace:
            self._dispatcher.wheel.arm(self, grace)
        else:
            self._phase = CLOSED
            self._transport.close()

    def kill(self) -> None:
        """The time to drain is over."""
        if self._exchange is not None:
            self._exchange.client_gone("draining")
            self._exchange = None
        self._transport.abort()

    # --- Downstream ---

    def send_interim(self, head: ResponseHead) -> None:
        # RFC 9110 15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client"
        if not self._http10:
            self._transport.write(response_bytes(head, ""))

    def send_head(self, head: ResponseHead) -> None:
        length = head.length
        if length >= 0:
            framing = f"Content-Length: {length}\r\n"
        elif length == NO_BODY:
            framing = "" if head.declared is None else f"Content-Length: {head.declared}\r\n"
        elif self._http10:
            # RFC 9112 6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding
            # request indicates HTTP/1.1 (or later minor revisions)."
            framing = ""
            self._until_close = True
            self._keep_alive = False
        else:
            framing = "Transfer-Encoding: chunked\r\n"
            self._chunked_out = True
        may_keep = self._keep_alive and self._grace is None
        if not may_keep or (self._phase != WAIT and not self._may_discard()):
            framing += _CLOSE
            self._keep_alive = False
        elif self._http10:
            framing += _KEEP_ALIVE
        if head.status == 426:
            framing += _UPGRADE  # RFC 9110 7.8: whoever sends Upgrade has to name it there, too
        self._out.append(response_bytes(head, framing))

    def send_body(self, data: bytes) -> None:
        if self._chunked_out:
            self._out += encode_chunk(data)
        else:
            self._out.append(data)

    def flush(self) -> None:
        if self._out:
            out, self._out = self._out, []
            write_all(self._transport, out)

    def send_end(self, trailers: list[Field]) -> None:
        if self._chunked_out:
            self._chunked_out = False
            self._out.append(encode_last_chunk(trailers))
        self.flush()
        self._exchange = None
        if self._phase == TUNNEL:
            # What is on its way to the client is delivered; what it sends meanwhile nobody wants.
            self._phase = CLOSED
            self._dispatcher.wheel.arm(self, LINGER_TIME)
            self._transport.close()
        elif not self._keep_alive:
            self._close_gently()
        elif self._phase == WAIT:
            self._next()
        else:
            # The rest of the request body, no longer than DISCARD_LIMIT, is thrown away; then the next head follows.
            self._gate.open(PEER_BLOCKED)
            self._dispatcher.wheel.arm(self, self._dispatcher.listener.timeouts.head)

    def switch(self, head: ResponseHead, token: str) -> None:
        self._phase = TUNNEL
        self._keep_alive = False
        self._transport.write(response_bytes(head, _SWITCHED.format(token)))
        held = bytes(self._buffer)  # sent before it could know of the switch
        self._buffer.clear()
        self._gate.open(HELD_FULL)
        if held:
            self._carry(held)

    def cut(self) -> None:
        self.flush()
        self._exchange = None
        self._phase = CLOSED
        if self._until_close and not self._transport.is_closing():
            # The end of the stream would look like the end of the body; only a reset tells that it is not.
            reset_on_close(self._transport)
            self._transport.abort()
        elif self._transport.get_write_buffer_size() > HIGH_WATER:
            self._transport.abort()  # it takes nothing: that may be why the response is cut
        else:
            self._dispatcher.wheel.arm(self, LINGER_TIME)
            self._transport.close()

    def arm(self, seconds: float) -> None:
        self._dispatcher.wheel.arm(self, seconds)

    def local_address(self) -> tuple[str, int]:
        return local_of(self._transport, self._origin)

    def close_after(self) -> None:
        self._keep_alive = False

    def pause_body(self) -> None:
        self._gate.close(PEER_BLOCKED)

    def resume_body(self) -> None:
        self._gate.open(PEER_BLOCKED)

    def moved(self) -> bool:
        before, self._seen = self._seen, self._transport.get_write_buffer_size()
        return self._seen < before

    # --- the request ---

    def _continue_head(self, data: bytes) -> None:
        """More of a head that came in pieces."""
        buffer = self._buffer
        known = len(buffer)
        buffer += data
        if buffer.find(HEAD_END, max(0, known - 3)) < 0:
            self._check_unfinished(known)
            return
        data = bytes(buffer)
        buffer.clear()
        self._take(data)

    def _hold(self, data: bytes) -> None:
        """The client sends ahead."""
        self._buffer += data
        if len(self._buffer) > HELD_LIMIT:
            self._gate.close(HELD_FULL)

    def _carry(self, data: bytes) -> None:
        """Bytes of a tunnel."""
        if self._exchange is not None:
            self._exchange.request_body(data)
        if self._exchange is not None:
            self._exchange.request_flush()

    def _take_held(self) -> None:
        if self._buffer:
            held = bytes(self._buffer)
            self._buffer.clear()
            self._gate.open(HELD_FULL)
            self._take(held)

    def _take(self, data: bytes) -> None:
        """Take all that may be taken of `data` now, and keep the rest."""
        self._taking = True
        at = heads = 0
        size = len(data)
        try:
            while at < size and not self._yielded:
                phase = self._phase
                if phase == HEAD:
                    if self._write_blocked:
                        break  # the client sends requests and takes no responses
                    taken = self._take_head(data, at)
                    if taken < 0:
                        return
                    at = taken
                    heads += 1
                    self._yielded = heads == HEADS_PER_TURN and at < size
                elif phase == LENGTH:
                    at = self._take_counted(data, at)
                elif phase == CHUNKS:
                    at = self._take_chunks(data, at)
                elif phase == WAIT:
                    break
                else:
                    self._throw_away(size - at)
                    return
        except RequestError as error:
            self._malformed(error, data[at:] if self._phase == HEAD else b"")
            return
        finally:
            self._taking = False
        if self._yielded:
            self._yield(data[at:])
        elif at < size:
            self._hold(data[at:])
        if self._exchange is not None and self._phase != WAIT:
            self._exchange.request_flush()

    def _yield(self, rest: bytes) -> None:
        """Let other connections have their turn; nothing is read meanwhile."""
        self._buffer += rest
        self._gate.close(HELD_FULL)
        self._dispatcher.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._yielded:
            self._yielded = False
            if self._phase in (LENGTH, CHUNKS) or (self._phase == HEAD and not self._write_blocked):
                self._take_held()

    def _take_head(self, data: bytes, at: int) -> int:
        """The position behind the head at `at`; -1 if it has not ended, and is kept."""
        start = at
        if data[at] == _CR and data.startswith(b"\r\n", at):
            # RFC 9112 2.2: "a server that is expecting to receive and parse a request-line SHOULD ignore at least one
            # empty line (CRLF) received prior to the request-line". One is ignored.
            at += 2
            if data.startswith(b"\r\n", at):
                raise MalformedError("bad_request_line", "more than one empty line before the request line")
        dispatcher = self._dispatcher
        if self._fresh and data.startswith(PREFACE_HEAD):
            if not data.startswith(PREFACE[: len(data)]):
                raise MalformedError("bad_version", "an HTTP/2 preface that is none")
            if len(data) < len(PREFACE):
                self._buffer += data
                return -1
            self._hand_over(data)
            return -1
        end = data.find(HEAD_END, at)
        if end < 0:
            # With the empty line: what follows is judged, and timed, as if it had come at once.
            self._buffer += data[start:]
            self._dispatcher.wheel.arm(self, dispatcher.listener.timeouts.head)
            self._check_unfinished(0)
            return -1
        if end - at > dispatcher.listener.limits.head:
            raise self._too_large(data[at:end])
        head = parse_request(data[at : end + 2], reject_encoded_slash=dispatcher.reject_encoded_slash)
        self._begin(head)
        return end + 4

    def _hand_over(self, data: bytes) -> None:
        self._phase = CLOSED
        self._dispatcher.wheel.forget(self)
        self._connections.discard(self)
        hand_over(self._transport, self._dispatcher, self.scheme, data, self._origin, self._grace)

    def _check_unfinished(self, known: int) -> None:
        if self._fresh and PREFACE.startswith(self._buffer):
            return
        try:
            if len(self._buffer) > self._dispatcher.listener.limits.head:
                raise self._too_large(self._buffer)
            check_partial(self._buffer, known)
        except RequestError as error:
            self._malformed(error, bytes(self._buffer))

    def _too_large(self, data: bytes | bytearray) -> MalformedError:
        limit = self._dispatcher.listener.limits.head
        if b"\r\n" not in data[:limit]:
            return MalformedError("target_too_long", f"request line over {limit} bytes")
        return MalformedError("head_too_large", f"request head over {limit} bytes")

    def _begin(self, head: RequestHead) -> None:
        self._fresh = False
        self.deadline = NEVER  # from here on the exchange has the time-outs
        self._keep_alive = head.keep_alive
        self._http10 = head.version == "1.0"
        self._expects = head.expects
        self._until_close = False
        if not head.has_body:
            self._phase = WAIT
        elif head.length == CHUNKED:
            self._phase = CHUNKS
            self._decoder = ChunkDecoder(head.named)
        else:
            self._phase = LENGTH
            self._body_left = head.length
        exchange = self._dispatcher.begin(self, head)
        if not exchange.finished:
            self._exchange = exchange
            if self._write_blocked:
                exchange.client_blocked()

    def _take_counted(self, data: bytes, at: int) -> int:
        piece = data[at : at + self._body_left]
        self._body_left -= len(piece)
        self._body(piece)
        if not self._body_left and self._phase == LENGTH:
            self._body_end([])
        return at + len(piece)

    def _take_chunks(self, data: bytes, at: int) -> int:
        decoder = self._decoder
        if decoder is None:
            raise RuntimeError("a chunked body without a decoder")
        piece, at = decoder.feed(data, at, CHUNKS_PER_TURN)
        if piece:
            self._body(piece)
        if decoder.done and self._phase == CHUNKS:
            self._decoder = None
            self._body_end(decoder.trailers)
        else:
            self._yielded = at < len(data) and self._phase == CHUNKS
        return at

    def _body(self, piece: bytes) -> None:
        """Pass a piece on, or drop it if the response is out already."""
        if self._exchange is not None:
            self._exchange.request_body(piece)

    def _body_end(self, trailers: list[Field]) -> None:
        self._phase = WAIT
        if self._exchange is not None:
            self._exchange.request_end(trailers)
        else:
            self._next()

    def _next(self) -> None:
        """The exchange is over on both sides; wait for the next request."""
        self._phase = HEAD
        if self._gate.objections:
            self._gate.open(PEER_BLOCKED)
        grace = self._grace  # draining since the response's head went out, which did not tell
        self._dispatcher.wheel.arm(self, self._dispatcher.listener.timeouts.idle if grace is None else grace)
        if self._buffer and not self._taking and not self._write_blocked:
            self._take_held()

    # --- the end ---

    def _may_discard(self) -> bool:
        """Whether what is still to come of the request's body may be thrown away, so that the connection is kept."""
        if self._expects:
            return False  # RFC 9110 10.1.1: whether its body comes, only the client knows
        return self._phase == LENGTH and self._body_left <= DISCARD_LIMIT

    def _malformed(self, error: RequestError, head: bytes) -> None:
        """What the client sends cannot be understood: say so, and take nothing more from it. `head`: see `_refuse`."""
        exchange, self._exchange = self._exchange, None
        self._buffer.clear()
        if exchange is None:
            self._refuse(error.reason, str(error), head)
            return
        # A broken body. Its exchange ends; the client is answered if no response has begun.
        self._exchange = exchange
        self._keep_alive = False
        self._phase = LINGER
        exchange.fail(error.reason, str(error))

    def _refuse(self, reason: str, detail: str, head: bytes) -> None:
        """Answer a request that never became an exchange, and close. `head` is what has come of its head."""
        seen = glimpse(head) if self._dispatcher.log is not None else Glimpse()
        if self._phase in (LENGTH, CHUNKS):  # its response is out already
            self._dispatcher.refused(self.client, reason, detail, seen=seen)
            self._close_gently()
            return
        status, body = REASONS[reason].status, BODIES[reason]
        self._dispatcher.refused(self.client, reason, detail, seen=seen, bytes_sent=len(body))
        self._transport.write(
            (
                f"HTTP/1.1 {status} {phrase_of(status)}\r\nDate: {self._dispatcher.clock.http_date()}\r\n"
                f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
                f"{_ALLOW if status == 405 else ''}{_CLOSE}\r\n"
            ).encode("latin-1")
            + body
        )
        self._close_gently()

    def _close_gently(self) -> None:
        """End our side of the stream and read on for a while. See LINGER in the module's text."""
        done = self._phase == WAIT and not self._buffer
        self._phase = LINGER
        self._buffer.clear()
        self._yielded = False
        self._thrown_away = 0
        if self._transport.is_closing():
            return
        self._gate.open(PEER_BLOCKED | HELD_FULL)
        if done:
            # The client has sent one complete request and nothing behind it: nothing is unread that could reset.
            self._dispatcher.wheel.arm(self, self._dispatcher.listener.timeouts.idle)
            self._transport.close()
            return
        self._dispatcher.wheel.arm(self, LINGER_TIME)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _throw_away(self, size: int) -> None:
        self._thrown_away += size
        if self._phase == LINGER and self._thrown_away > LINGER_LIMIT:
            self._phase = CLOSED
            self._transport.abort()

    def _client_gone(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
