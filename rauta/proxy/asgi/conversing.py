"""WebSockets that an ASGI application answers. To the client it is a tunnel of HTTP/1.1, or of HTTP/2 that is made
one (see `http2.upgrades`), whose server we are: the handshake (RFC 6455 4.2) and the frames are made here, and the
application has messages.

    client --frames--> exchange (a tunnel) --send_body--> Conversation --messages--> application
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.asgi.applications import LOGGER
from rauta.proxy.asgi.frames import ABNORMAL, INTERNAL_ERROR, NO_CODE, NORMAL, Closed, Frames, accept_of
from rauta.proxy.asgi.heads import application_head
from rauta.proxy.asgi.protocol import DENIAL, BrokenError, GoneError, Message
from rauta.proxy.asgi.running import Run
from rauta.proxy.http1.grammar import MalformedError
from rauta.proxy.messages import CHUNKED, NO_BODY, Field, RequestHead, ResponseHead
from rauta.proxy.reasons import phrase_of

if TYPE_CHECKING:
    from rauta.proxy.asgi.applications import App
    from rauta.proxy.exchange import Exchange
    from rauta.proxy.plan import RoutePlan
    from rauta.proxy.tasks import Tasks
    from rauta.proxy.wheel import Wheel

CLOSE_TIMEOUT: Final = 2.0  # seconds for the client to close, too, once it is told to
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_OF_HANDSHAKES: Final = "sec-websocket-"


class Conversation(Run):
    """One WebSocket."""

    __slots__ = ("_accepted", "_closing", "_denial", "_frames", "_key", "_messages", "_offered", "_told")

    def __init__(self, app: App, wheel: Wheel, tasks: Tasks) -> None:
        super().__init__(app, wheel, tasks)
        self._frames = Frames(client=False)
        self._messages: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._key = b""
        self._offered: list[str] = []
        self._accepted = False
        self._closing = False  # the application has closed, and the client has not yet
        self._denial: ResponseHead | None = None
        self._told = False  # the application knows that it is over

    # --- Upstream ---

    def send_request(self, exchange: Exchange, head: RequestHead, added: str, plan: RoutePlan) -> None:
        self._key = (_value(head, "sec-websocket-key") or "").encode("latin-1")
        version = _value(head, "sec-websocket-version")
        if version != "13" or not _is_key(self._key):
            # RFC 6455 4.2.2: a version that is not understood is answered 426, with those that are.
            status = 400 if version == "13" else 426
            fields = [] if version == "13" else [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]
            exchange.response_head(ResponseHead(status, phrase_of(status), fields, 0))
            exchange.response_end([])
            return
        super().send_request(exchange, head, added, plan)

    def _complete_scope(self, scope: dict[str, Any], head: RequestHead) -> None:
        offered = (_value(head, "sec-websocket-protocol") or "").split(",")
        self._offered = [name for name in map(str.strip, offered) if _TOKEN.fullmatch(name)]
        scope.update(
            type="websocket",
            scheme="wss" if scope["scheme"] == "https" else "ws",
            subprotocols=self._offered,
            extensions={DENIAL: {}},
        )

    def send_body(self, data: bytes) -> None:
        self._wheel.arm(self, CLOSE_TIMEOUT if self._closing else self._idle_timeout)
        messages = self._frames.receive(data)
        self._answer()
        for message in messages:
            if isinstance(message, Closed):
                self._closed(message)
            elif not self._closing:
                kind, other = ("text", "bytes") if isinstance(message, str) else ("bytes", "text")
                self._messages.append(({"type": "websocket.receive", kind: message, other: None}, len(message)))
                self._waits(len(message))

    def send_end(self, trailers: list[Field]) -> None:
        """The client has ended the tunnel; the exchange is over."""
        self._tell(ABNORMAL, "")
        self._let_go()

    def abort(self) -> None:
        self._tell(ABNORMAL, "")
        super().abort()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        exchange = self._exchange
        if self._closing and exchange is not None:
            self._let_go()
            exchange.response_end([])
        elif self._accepted:
            self._tell(ABNORMAL, "")
            self.fail("tunnel_idle", f"no byte either way for {self._idle_timeout:g} s")
        else:
            self.fail("upstream_timeout", f"no response within {self._response_timeout:g} s")

    # --- the application ---

    async def receive(self) -> Message:
        while not self._messages:
            self._wake.clear()
            await self._wake.wait()
        message, size = self._messages.popleft()
        self._taken(size)
        if message["type"] == "websocket.disconnect":
            self._messages.append((message, 0))  # whoever asks again learns it again
        return message

    async def send(self, message: Message) -> None:
        exchange = self._exchange
        if exchange is None or self._closing:
            raise GoneError("the WebSocket is closed")
        kind = message["type"]
        try:
            if kind == "websocket.accept" and not self._accepted and self._denial is None:
                self._accept(exchange, message)
            elif kind == "websocket.send" and self._accepted:
                text = message.get("text")
                self._send_out(self._frames.message(bytes(message["bytes"]) if text is None else str(text)))
            elif kind == "websocket.close":
                self._close(exchange, int(message.get("code") or NORMAL), str(message.get("reason") or ""))
            elif kind == f"{DENIAL}.start" and not self._accepted and self._denial is None:
                fields = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
                self._denial = application_head(int(message["status"]), fields, "GET")
            elif kind == f"{DENIAL}.body" and self._denial is not None:
                self._deny(exchange, bytes(message.get("body", b"")), more=bool(message.get("more_body")))
            else:
                raise BrokenError(f"{kind!r} has no place here")
        except MalformedError as error:
            raise BrokenError(str(error)) from error
        await self._writable.wait()

    def _accept(self, exchange: Exchange, message: Message) -> None:
        fields = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers") or ()]
        head = application_head(200, fields, "HEAD")
        if any(name.lower().startswith(_OF_HANDSHAKES) for name, _ in head.fields):
            raise BrokenError("the headers of websocket.accept hold some of the handshake")
        chosen = message.get("subprotocol")
        if chosen is not None and chosen not in self._offered:
            raise BrokenError(f"the subprotocol {chosen!r} was not offered")
        head.fields.append(("Sec-WebSocket-Accept", accept_of(self._key)))
        if chosen is not None:
            head.fields.append(("Sec-WebSocket-Protocol", chosen))
        self._accepted = True
        self._wheel.arm(self, self._idle_timeout)
        exchange.switched(ResponseHead(101, "Switching Protocols", head.fields, NO_BODY))

    def _close(self, exchange: Exchange, code: int, reason: str) -> None:
        if not self._accepted:
            # ASGI: to close before it was accepted is to refuse it, with 403.
            self._let_go()
            exchange.response_head(ResponseHead(403, "Forbidden", [], 0))
            exchange.response_end([])
            return
        self._closing = True
        self._tell(code, reason)
        self._wheel.arm(self, CLOSE_TIMEOUT)
        self._send_out(self._frames.close(code, reason))

    def _deny(self, exchange: Exchange, data: bytes, *, more: bool) -> None:
        head = self._denial
        if head is None:
            return
        if not exchange.status:
            if head.length == CHUNKED and not more:
                head.length = len(data)
            if head.length >= 0 and (head.length != len(data) or more):
                head.length = CHUNKED  # its own count is not to be trusted
            exchange.response_head(head)
        if data and head.length != NO_BODY:
            exchange.response_body(data)
        if more:
            exchange.response_flush()
        else:
            self._let_go()
            exchange.response_end([])

    def _returned(self) -> None:
        if self._closing:
            return  # the client closes, too, or its time is over
        self._lost("it returned without closing the WebSocket")

    def fail(self, reason: str, detail: str) -> None:
        if self._accepted and not self._closing and reason == "application_failed":
            self._lost(detail)
        else:
            super().fail(reason, detail)

    def _lost(self, detail: str) -> None:
        """The application has left a WebSocket open."""
        exchange = self._exchange
        if exchange is None:
            return
        if not self._accepted:
            super().fail("application_failed", detail)
            return
        LOGGER.warning("asgi %r: %s", self._app.name, detail)
        exchange.reason, exchange.detail = "application_failed", f"{self._app.name}: {detail}"
        self._close(exchange, INTERNAL_ERROR, "")

    # --- the client ---

    def _answer(self) -> None:
        """What the frames themselves want to be said."""
        self._send_out(self._frames.to_send())

    def _send_out(self, data: bytes) -> None:
        exchange = self._exchange
        if data and exchange is not None:
            exchange.response_body(data)
            exchange.response_flush()

    def _closed(self, end: Closed) -> None:
        self._tell(end.code, end.reason)
        exchange = self._exchange
        self._let_go()
        if exchange is not None:
            exchange.response_end([])

    def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            self._messages.append(({"type": "websocket.disconnect", "code": code or NO_CODE, "reason": reason}, 0))
            self._wake.set()


def _value(head: RequestHead, name: str) -> str | None:
    found = [value for known, value in head.fields if known.lower() == name]
    return ", ".join(found) if found else None


def _is_key(key: bytes) -> bool:
    """RFC 6455 4.1: 16 bytes, in base64."""
    try:
        return len(b64decode(key, validate=True)) == 16
    except Error:
        return False
