"""One request that an ASGI application answers: the side towards backends of an exchange.

    client --> exchange --send_body--> Request --receive--> application
           <--------response---------- Request <---send----

The application runs in a task of its own. `send` waits while the client takes no more, and raises OSError once it has
left; what the client sends waits here, bounded, until the application receives it. An application that fails is
answered 500, or cut behind its head; its traceback goes to the log.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from rauta.proxy.asgi.applications import LOGGER
from rauta.proxy.asgi.heads import Raw, application_head
from rauta.proxy.asgi.protocol import EARLY_HINT, HTTP_SPEC, TRAILERS, VERSION, BrokenError, GoneError, Message
from rauta.proxy.exchange import Upstream
from rauta.proxy.flow import HIGH_WATER
from rauta.proxy.http1.grammar import MalformedError
from rauta.proxy.http2.heads import trailer_fields
from rauta.proxy.messages import CHUNKED, NO_BODY, Field, RequestHead, ResponseHead

if TYPE_CHECKING:
    from rauta.proxy.asgi.applications import App
    from rauta.proxy.exchange import Exchange
    from rauta.proxy.plan import RoutePlan
    from rauta.proxy.tasks import Tasks
    from rauta.proxy.wheel import Wheel


class Run(Upstream):
    """One call of an application, whatever its scope."""

    __slots__ = (
        "_app",
        "_exchange",
        "_idle_timeout",
        "_response_timeout",
        "_size",
        "_tasks",
        "_wake",
        "_wheel",
        "_writable",
    )

    def __init__(self, app: App, wheel: Wheel, tasks: Tasks) -> None:
        super().__init__()
        self._app = app
        self._wheel = wheel
        self._tasks = tasks
        self._exchange: Exchange | None = None
        self._size = 0  # bytes that wait for `receive`
        self._wake = asyncio.Event()  # there is something to receive
        self._writable = asyncio.Event()  # the client takes more
        self._writable.set()
        self._response_timeout = self._idle_timeout = 0.0

    # --- Upstream ---

    def send_request(self, exchange: Exchange, head: RequestHead, added: str, plan: RoutePlan) -> None:
        self._exchange = exchange
        self._response_timeout, self._idle_timeout = plan.response_timeout, plan.idle_timeout
        self._wheel.arm(self, plan.idle_timeout if head.has_body else plan.response_timeout)
        scope = scope_of(exchange, head, added)
        scope["state"] = self._app.state.copy()
        self._complete_scope(scope, head)
        self._tasks.start(self._run(scope), name=f"asgi {self._app.name}")

    def flush(self) -> None:
        """Nothing: what is there can be received."""

    def abort(self) -> None:
        self._let_go()

    def pause_body(self) -> None:
        self._writable.clear()

    def resume_body(self) -> None:
        self._writable.set()

    # --- the application ---

    @abstractmethod
    def _complete_scope(self, scope: dict[str, Any], head: RequestHead) -> None:
        """What this kind of scope has beside the rest."""

    @abstractmethod
    async def receive(self) -> Message:
        """ASGI's."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """ASGI's."""

    @abstractmethod
    def _returned(self) -> None:
        """The application has returned, and the exchange goes on."""

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app.call(scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - foreign code: this request fails, and no other
            if not isinstance(error, GoneError):
                LOGGER.error("asgi %r failed", self._app.name, exc_info=error)
            self.fail("application_failed", repr(error))
        else:
            if self._exchange is not None:
                self._returned()

    def fail(self, reason: str, detail: str) -> None:
        """The response cannot be completed."""
        exchange = self._exchange
        self._let_go()
        if exchange is not None:
            exchange.upstream_failed(reason, f"{self._app.name}: {detail}")

    def _let_go(self) -> None:
        self._exchange = None
        self._wheel.forget(self)
        self._wake.set()
        self._writable.set()

    def _taken(self, size: int) -> None:
        before, self._size = self._size, self._size - size
        if before > HIGH_WATER >= self._size and self._exchange is not None:
            self._exchange.upstream_ready()

    def _waits(self, size: int) -> None:
        before, self._size = self._size, self._size + size
        self._wake.set()
        if self._size > HIGH_WATER >= before and self._exchange is not None:
            self._exchange.upstream_blocked()


def scope_of(exchange: Exchange, head: RequestHead, added: str) -> dict[str, Any]:
    """What every scope has of a request; `added` are field lines."""
    believed, downstream = exchange.believed, exchange.downstream
    scheme = downstream.scheme if believed is None else believed.scheme or downstream.scheme
    headers: list[Raw] = [] if head.authority is None else [(b"host", head.authority.encode("latin-1"))]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.fields]
    for line in added.split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    if head.length >= 0:
        headers.append((b"content-length", str(head.length).encode()))
    elif head.length == CHUNKED and head.version == "1.1":
        headers.append((b"transfer-encoding", b"chunked"))
    local, client = downstream.local_address(), exchange.client
    return {
        "asgi": {"version": VERSION, "spec_version": HTTP_SPEC},
        "http_version": head.version.removesuffix(".0") if head.version != "1.0" else head.version,
        "scheme": scheme,
        "path": unquote(head.path),
        "raw_path": head.path.encode("latin-1"),
        "query_string": (head.query or "").encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": client if client[0] else None,
        "server": local if local[0] else None,
    }


_START: Final = "http.response.start"
_BODY: Final = "http.response.body"


class Request(Run):
    """A request of HTTP."""

    __slots__ = ("_body", "_ended", "_expects", "_head", "_left", "_method", "_received", "_sent_head", "_trailing")

    def __init__(self, app: App, wheel: Wheel, tasks: Tasks) -> None:
        super().__init__(app, wheel, tasks)
        self._body: deque[bytes] = deque()
        self._ended = False  # the request is complete
        self._received = False  # ... and the application has all of it
        self._expects = False  # the client waits for 100 (Continue)
        self._method = ""
        self._head: ResponseHead | None = None  # held until the first piece of the body: then its length may be known
        self._sent_head = False
        self._left = CHUNKED  # bytes of the response's body that are missing, where its length is known
        self._trailing = False  # trailers follow the body

    def _complete_scope(self, scope: dict[str, Any], head: RequestHead) -> None:
        self._method = head.method
        self._expects = head.expects
        self._ended = not head.has_body
        scope.update(type="http", method=head.method, extensions={TRAILERS: {}, EARLY_HINT: {}})

    def send_body(self, data: bytes) -> None:
        self._body.append(data)
        self._wheel.arm(self, self._idle_timeout)
        self._waits(len(data))

    def send_end(self, trailers: list[Field]) -> None:
        self._ended = True
        self._wheel.arm(self, self._idle_timeout if self._sent_head else self._response_timeout)
        self._wake.set()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if not self._ended and not self._body:
            self.fail("client_timeout", f"no byte of the request for {self._idle_timeout:g} s")
        elif not self._sent_head:
            waited = self._response_timeout if self._ended else self._idle_timeout
            self.fail("upstream_timeout", f"no response within {waited:g} s")
        elif not self._writable.is_set():
            self.fail("client_timeout", f"the client took nothing for {self._idle_timeout:g} s")
        else:
            self.fail("upstream_timeout", f"no byte of the response for {self._idle_timeout:g} s")

    # --- the application ---

    async def receive(self) -> Message:
        if self._expects and not self._sent_head and self._exchange is not None:
            self._expects = False
            self._exchange.response_interim(ResponseHead(100, "Continue", [], NO_BODY))
        while not self._received and self._exchange is not None:
            if self._body or self._ended:
                data = b"".join(self._body)
                self._body.clear()
                self._received = self._ended
                self._taken(len(data))
                return {"type": "http.request", "body": data, "more_body": not self._ended}
            self._wake.clear()
            await self._wake.wait()
        while self._exchange is not None:
            self._wake.clear()
            await self._wake.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if exchange is None:
            raise GoneError("the client has left")
        kind = message["type"]
        try:
            if kind == _START and self._head is None and not self._sent_head:
                self._start(message)
            elif kind == _BODY and (self._head is not None or self._sent_head):
                self._piece(exchange, bytes(message.get("body", b"")), more=bool(message.get("more_body")))
            elif kind == TRAILERS and self._trailing and self._left <= 0 and self._sent_head:
                self._end(exchange, trailer_fields(_lower(message.get("headers", ()))))
            elif kind == EARLY_HINT and not self._sent_head:
                links = [("Link", bytes(link).decode("latin-1").strip()) for link in message["links"]]
                exchange.response_interim(ResponseHead(103, "Early Hints", links, NO_BODY))
            else:
                raise BrokenError(f"{kind!r} has no place here")
        except MalformedError as error:
            raise BrokenError(str(error)) from error
        await self._writable.wait()

    def _start(self, message: Message) -> None:
        self._head = application_head(int(message["status"]), _lower(message.get("headers", ())), self._method)
        self._trailing = bool(message.get("trailers"))

    def _piece(self, exchange: Exchange, data: bytes, *, more: bool) -> None:
        last = not more and not self._trailing
        head, self._head = self._head, None
        if head is not None:
            if head.length == CHUNKED and last:
                head.length = len(data)
            self._left = 0 if head.length == NO_BODY else head.length
            if head.length == NO_BODY:
                data = b""
            self._sent_head = True
            exchange.response_head(head)
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                what = "missing" if self._left > 0 else "too many"
                raise BrokenError(f"{abs(self._left)} bytes of the body are {what}, by its Content-Length")
        self._wheel.arm(self, self._idle_timeout)
        if data and self._exchange is not None:
            exchange.response_body(data)
        if self._exchange is None:
            return
        if last:
            self._end(exchange, [])
        else:
            exchange.response_flush()

    def _end(self, exchange: Exchange, trailers: list[Field]) -> None:
        self._let_go()
        exchange.response_end(trailers)

    def _returned(self) -> None:
        self.fail("application_failed", "it returned without a complete response")


def _lower(headers: Any) -> list[Raw]:
    """As ASGI wants them, and some applications do not."""
    return [(bytes(name).lower(), bytes(value)) for name, value in headers]
