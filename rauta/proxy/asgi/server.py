"""Requests that an ASGI host hands over: the side towards clients of an exchange, over `receive` and `send`.

    host --scope, receive--> Call --request--> exchange --> backend
         <-------send------- Call <-response--

A host calls once per request. Two tasks work for a call, as ASGI allows: one takes the request from `receive`, and
stops while the backend takes no more; the other gives the response to `send`, which waits while the client takes no
more; what waits here is bounded, and the backend is told to pause. The call returns when the response is complete. It
raises where it cannot be: a host that sees an application fail behind its response's head cuts the connection, and any
middleware between knows that the body has not simply ended.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.asgi.heads import address_of, glimpsed, is_framed, request_head, response_headers, scheme_of
from rauta.proxy.asgi.protocol import EARLY_HINT, TRAILERS, Message, Receive, Scope, Send
from rauta.proxy.exchange import Downstream, Exchange
from rauta.proxy.flow import HIGH_WATER, LOW_WATER
from rauta.proxy.http2.heads import raw_trailers
from rauta.proxy.messages import CHUNKED, Field, ResponseHead
from rauta.proxy.reasons import BODIES, REASONS
from rauta.proxy.tasks import Tasks
from rauta.routing.errors import RautaError, RequestError

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.messages import RequestHead

# With no length in the head, these are looked at before they are sent on: nearly all have no body. The others may be
# streams whose clients wait for an answer before they send anything.
_MOSTLY_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class ResponseCutError(RautaError):
    """A response could not be completed, and the host must let the client see that."""


class Hosted(Downstream):
    """One call of a host, whatever its scope; `exchange` is what it waits for."""

    __slots__ = (
        "_cut",
        "_dispatcher",
        "_over",
        "_readable",
        "_receive",
        "_scope",
        "_send",
        "_seen",
        "_size",
        "_wake",
        "exchange",
    )

    def __init__(self, dispatcher: Dispatcher, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scheme_of(scope))
        self.client = address_of(scope.get("client"))
        self.exchange: Exchange | None = None
        self._dispatcher = dispatcher
        self._scope = scope
        self._receive = receive
        self._send = send
        self._cut = False
        self._size = 0  # bytes that wait for `send`
        self._seen = 0  # of these, when `moved` was asked
        self._over: asyncio.Future[None] = dispatcher.loop.create_future()
        self._wake = asyncio.Event()  # there is something to send
        self._readable = asyncio.Event()  # the backend takes more of the request
        self._readable.set()

    async def run(self, *, draining: bool = False) -> None:
        """Answer the call. Raises ResponseCutError, and what the host's functions raise."""
        dispatcher = self._dispatcher
        full = len(dispatcher.connections) >= dispatcher.listener.limits.connections
        dispatcher.connections.add(self)
        try:
            if draining:
                await self._refuse("draining", "the gateway takes no new requests")
            elif full:
                await self._refuse("too_many_connections", "the listener's limits.connections is reached")
            else:
                await self._take()
        finally:
            dispatcher.connections.discard(self)
            dispatcher.wheel.forget(self)
            self._gone()  # nothing, unless the host has ended the call
        if self._cut:
            raise ResponseCutError("the response could not be completed: the access log says why")

    @abstractmethod
    async def _take(self) -> None:
        """Take the request, and answer it."""

    @abstractmethod
    async def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer without an exchange."""

    @abstractmethod
    async def _read(self) -> None:
        """The request, to its end; returns when the client has left."""

    @abstractmethod
    async def _write(self) -> None:
        """The response, to its end."""

    async def _refuse(self, reason: str, detail: str) -> None:
        status, body = REASONS[reason].status, BODIES[reason]
        self._dispatcher.refused(self.client, reason, detail, seen=glimpsed(self._scope), bytes_sent=len(body))
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await self._deny(status, headers, b"" if self._scope.get("method") == "HEAD" else body)

    async def _converse(self) -> None:
        """Read and write until one of the two is done with the call."""
        tasks = Tasks(self._dispatcher.loop)
        tasks.start(self._guarded(self._read, last=False), name="request of an ASGI host")
        tasks.start(self._guarded(self._write, last=True), name="response to an ASGI host")
        await tasks.until(self._over)

    async def _guarded(self, half: Any, *, last: bool) -> None:
        """`last`: the call ends with it, also in good order."""
        try:
            await half()
        except OSError:  # ASGI 2.4 of HTTP: the client has left
            self._gone()
            self._end()
        except Exception as error:  # noqa: BLE001 - of the host or of what stands between: the call fails with it
            if not self._over.done():
                self._over.set_exception(error)
        else:
            if last:
                self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _gone(self, reason: str = "client_gone") -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone(reason)

    def _waits(self, size: int) -> None:
        """So much more waits for `send`."""
        self._size += size
        if self._size > HIGH_WATER and self.exchange is not None:
            self._seen = self._size
            self.exchange.client_blocked()

    def _sent(self, size: int) -> None:
        before, self._size = self._size, self._size - size
        if before > LOW_WATER >= self._size and self.exchange is not None:
            self.exchange.client_ready()

    # --- Downstream ---

    def flush(self) -> None:
        self._wake.set()

    def cut(self) -> None:
        self.exchange = None
        self._cut = True
        self._end()

    def moved(self) -> bool:
        before, self._seen = self._seen, self._size
        return self._size < before

    def arm(self, seconds: float) -> None:
        self._dispatcher.wheel.arm(self, seconds)

    def local_address(self) -> tuple[str, int]:
        return address_of(self._scope.get("server"))

    def close_after(self) -> None:
        """Nothing: the connection is the host's."""

    def pause_body(self) -> None:
        self._readable.clear()

    def resume_body(self) -> None:
        self._readable.set()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self.exchange is not None:
            self.exchange.expired()
        else:
            self.cut()  # the client does not take the rest

    # --- draining ---

    def drain(self, grace: float) -> None:
        """Nothing: the host tells its clients."""

    def kill(self) -> None:
        """The time to drain is over."""
        self._gone("draining")
        self.cut()


class Call(Hosted):
    """A request of HTTP."""

    __slots__ = ("_body", "_ended", "_first", "_hints", "_left", "_start", "_trailers")

    def __init__(self, dispatcher: Dispatcher, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(dispatcher, scope, receive, send)
        self._first: Message | None = None  # what was received to know whether there is a body
        self._left = CHUNKED  # bytes of the request's body that are missing, where its length is known
        self._hints: deque[Message] = deque()
        self._start: Message | None = None  # the response's head, until it is sent
        self._body: list[bytes] = []
        self._ended = False
        self._trailers: list[tuple[bytes, bytes]] | None = None  # None: the host sends none

    async def _take(self) -> None:
        try:
            head = await self._head()
        except RequestError as error:
            await self._refuse(error.reason, str(error))
            return
        self._left = head.length if head.has_body or head.length == CHUNKED else 0
        exchange = self._dispatcher.begin(self, head)
        if not exchange.finished:
            self.exchange = exchange
        await self._converse()

    async def _head(self) -> RequestHead:
        """Raises RequestError."""
        scope = self._scope
        ended = False
        if not is_framed(scope) and (scope.get("http_version", "1.1")[0] == "1" or scope["method"] in _MOSTLY_BODILESS):
            self._first = await self._receive()
            ended = not self._first.get("body") and not self._first.get("more_body")
        dispatcher = self._dispatcher
        return request_head(
            scope,
            ended=ended,
            limit=dispatcher.listener.limits.head,
            reject_encoded_slash=dispatcher.reject_encoded_slash,
        )

    async def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    # --- the request ---

    async def _read(self) -> None:
        ended = False
        while True:
            await self._readable.wait()
            message, self._first = self._first or await self._receive(), None
            exchange = self.exchange
            if exchange is None:
                return
            if message["type"] == "http.disconnect":
                self._gone()
                self._end()
                return
            if ended:
                return  # a host that says more than a request: who asked it again would get the same
            ended = not message.get("more_body")
            self._take_body(exchange, message.get("body", b""), more=not ended)

    def _take_body(self, exchange: Exchange, data: bytes, *, more: bool) -> None:
        if self._left >= 0:
            # The backend counts what comes by the head's length; the host should have.
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                what = "are missing" if self._left > 0 else "are too many"
                exchange.fail("bad_framing", f"{abs(self._left)} bytes of the body {what}")
                return
        if exchange.complete:
            return  # the end of no body
        if data:
            exchange.request_body(bytes(data))
        if more:
            exchange.request_flush()
        elif self.exchange is not None:
            exchange.request_end([])  # ASGI has no trailers of requests

    # --- the response ---

    async def _write(self) -> None:
        while True:
            while self._hints:
                await self._send(self._hints.popleft())
            if self._start is not None:
                start, self._start = self._start, None
                await self._send(start)
            elif self._body or self._ended:
                pieces, self._body = self._body, []
                last, data = self._ended, b"".join(pieces)
                await self._send({"type": "http.response.body", "body": data, "more_body": not last})
                self._sent(len(data))
                if last:
                    break
            else:
                self._wake.clear()
                await self._wake.wait()
        if self._trailers is not None:
            await self._send({"type": TRAILERS, "headers": self._trailers, "more_trailers": False})

    def send_interim(self, head: ResponseHead) -> None:
        """100 is the host's, 102 nobody's; of 103 (RFC 8297) hosts take the links, if anything."""
        links = [value.encode("latin-1") for name, value in head.fields if name.lower() == "link"]
        if head.status == 103 and links and EARLY_HINT in (self._scope.get("extensions") or ()):
            self._hints.append({"type": EARLY_HINT, "links": links})
            self._wake.set()

    def send_head(self, head: ResponseHead) -> None:
        self._start = {"type": "http.response.start", "status": head.status, "headers": response_headers(head)}
        if head.length == CHUNKED and TRAILERS in (self._scope.get("extensions") or ()):
            self._start["trailers"] = True
            self._trailers = []

    def send_body(self, data: bytes) -> None:
        self._body.append(data)
        self._waits(len(data))

    def send_end(self, trailers: list[Field]) -> None:
        self.exchange = None
        self._ended = True
        if self._trailers is not None:
            self._trailers = raw_trailers(trailers)
        self.arm(self._dispatcher.listener.timeouts.idle)  # for the client to take it
        self._wake.set()

    def switch(self, head: ResponseHead, token: str) -> None:
        raise RuntimeError("no upgrade is offered to an ASGI host")
