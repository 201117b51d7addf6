"""WebSockets that an ASGI host hands over. The host has spoken the protocol to the client and has messages for us; to
the backend it is a tunnel of HTTP/1.1, as for any other client, with a handshake and frames that are made here.

    host --messages--> Socket --frames--> exchange (a tunnel) --> backend

Pings are answered on either side, and extensions are not passed on: what is compressed between client and host is not
between us and the backend.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import deque
from typing import TYPE_CHECKING, Final

from rauta.proxy.asgi.frames import (
    ABNORMAL,
    BAD_GATEWAY,
    GOING_AWAY,
    NO_CODE,
    NORMAL,
    Closed,
    Frames,
    accept_of,
)
from rauta.proxy.asgi.heads import handshake_head, response_headers
from rauta.proxy.asgi.protocol import DENIAL, Message, Receive, Scope, Send
from rauta.proxy.asgi.server import Hosted
from rauta.proxy.reasons import BODIES, REASONS
from rauta.routing.errors import RequestError

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.messages import Field, ResponseHead

_NONE: Final[list[tuple[bytes, bytes]]] = []


class Socket(Hosted):
    """One WebSocket."""

    __slots__ = ("_accepted", "_ended", "_frames", "_key", "_out", "_told")

    def __init__(self, dispatcher: Dispatcher, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(dispatcher, scope, receive, send)
        self._frames = Frames(client=True)
        self._key = b64encode(os.urandom(16))  # RFC 6455 4.1: "a randomly selected 16-byte value"
        self._out: deque[tuple[Message, int]] = deque()  # messages for the host, and their bytes
        self._accepted = False
        self._told = False  # the host knows how it ended
        self._ended = False

    async def _take(self) -> None:
        message = await self._receive()
        if message["type"] != "websocket.connect":
            return
        offers = [str(name).encode("latin-1", "replace") for name in self._scope.get("subprotocols") or ()]
        own = [(b"sec-websocket-version", b"13"), (b"sec-websocket-key", self._key)]
        if offers:
            own.append((b"sec-websocket-protocol", b", ".join(offers)))
        dispatcher = self._dispatcher
        try:
            head = handshake_head(
                self._scope,
                own,
                limit=dispatcher.listener.limits.head,
                reject_encoded_slash=dispatcher.reject_encoded_slash,
            )
        except RequestError as error:
            await self._refuse(error.reason, str(error))
            return
        exchange = dispatcher.begin(self, head)
        if not exchange.finished:
            self.exchange = exchange
        await self._converse()

    async def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._told = True
        if DENIAL in (self._scope.get("extensions") or ()):
            await self._send({"type": f"{DENIAL}.start", "status": status, "headers": headers})
            await self._send({"type": f"{DENIAL}.body", "body": body})
        else:
            await self._send({"type": "websocket.close"})  # which is 403 to the client

    # --- from the client ---

    async def _read(self) -> None:
        while True:
            await self._readable.wait()
            message = await self._receive()
            exchange = self.exchange
            if exchange is None:
                return
            if message["type"] == "websocket.disconnect":
                self._disconnected(message)
                return
            if message["type"] == "websocket.receive" and exchange.tunnel:
                text = message.get("text")
                exchange.request_body(self._frames.message(bytes(message["bytes"]) if text is None else text))
                exchange.request_flush()

    def _disconnected(self, message: Message) -> None:
        self._told = True
        exchange = self.exchange
        if exchange is None or not exchange.tunnel:
            self._gone()
            self._end()
            return
        code = int(message.get("code") or NO_CODE)
        # RFC 6455 7.4.1: 1006 is no code for frames; the backend learns that its peer went away.
        last = self._frames.close(GOING_AWAY if code == ABNORMAL else code, str(message.get("reason") or ""))
        if last:
            exchange.request_body(last)
        exchange.request_end([])

    # --- to the client ---

    async def _write(self) -> None:
        while True:
            while self._out:
                message, size = self._out.popleft()
                await self._send(message)
                self._sent(size)
            if self._ended:
                return
            self._wake.clear()
            await self._wake.wait()

    def _put(self, message: Message, size: int = 0) -> None:
        self._out.append((message, size))
        self._waits(size)
        self._wake.set()

    def _close(self, code: int, reason: str = "") -> None:
        """Tell the host how it ended, once."""
        if not self._told:
            self._told = True
            self._put({"type": "websocket.close", "code": code, "reason": reason})

    def send_interim(self, head: ResponseHead) -> None:
        """Nothing that a host could pass on."""

    def switch(self, head: ResponseHead, token: str) -> None:
        exchange = self.exchange
        values = {name.lower(): value for name, value in head.fields}
        chosen = values.get("sec-websocket-protocol")
        wrong = ""
        if values.get("sec-websocket-accept") != accept_of(self._key):
            wrong = "Sec-WebSocket-Accept does not fit the key"
        elif "sec-websocket-extensions" in values:
            wrong = "it has chosen an extension, and none was offered"
        elif chosen is not None and chosen not in self._scope.get("subprotocols", ()):
            wrong = "it has chosen a subprotocol that was not offered"
        if wrong:
            if exchange is not None:
                exchange.fail("upstream_malformed", f"the WebSocket handshake: {wrong}")
            return
        self._accepted = True
        headers = [field for field in response_headers(head) if not field[0].startswith(b"sec-websocket-")]
        self._put({"type": "websocket.accept", "subprotocol": chosen, "headers": headers})

    def send_head(self, head: ResponseHead) -> None:
        """The backend, or a route, answers otherwise."""
        self._told = True
        if DENIAL in (self._scope.get("extensions") or ()):
            headers = response_headers(head)
            self._put({"type": f"{DENIAL}.start", "status": head.status, "headers": headers})
        else:
            self._put({"type": "websocket.close"})

    def send_body(self, data: bytes) -> None:
        if not self._accepted:
            if DENIAL in (self._scope.get("extensions") or ()):
                self._put({"type": f"{DENIAL}.body", "body": data, "more_body": True}, len(data))
            return
        exchange = self.exchange
        if exchange is None:
            return
        messages = self._frames.receive(data)
        answer = self._frames.to_send()
        if answer:
            exchange.request_body(answer)
            exchange.request_flush()
        for message in messages:
            if isinstance(message, Closed):
                code = {NO_CODE: NORMAL, ABNORMAL: BAD_GATEWAY}.get(message.code, message.code)
                self._close(code, message.reason)
                exchange.request_end([])
            elif isinstance(message, str):
                self._put({"type": "websocket.send", "text": message}, len(message))
            else:
                self._put({"type": "websocket.send", "bytes": message}, len(message))

    def send_end(self, trailers: list[Field]) -> None:
        self.exchange = None
        self._ended = True
        if self._accepted:
            self._close(BAD_GATEWAY, "the backend has closed the connection")
        elif DENIAL in (self._scope.get("extensions") or ()):
            self._put({"type": f"{DENIAL}.body", "body": b""})
        self.arm(self._dispatcher.listener.timeouts.idle)  # for the client to take it
        self._wake.set()

    def cut(self) -> None:
        exchange, self.exchange = self.exchange, None
        if self._told:  # within an answer, or with nobody left to tell
            super().cut()
            return
        reason = "" if exchange is None or exchange.reason is None else exchange.reason
        self._ended = True
        if self._accepted:
            self._close(BAD_GATEWAY if reason.startswith("upstream") else GOING_AWAY, reason)
        else:
            self._told = True
            status, body = REASONS["upstream_malformed"].status, BODIES.get(reason, b"")
            if DENIAL in (self._scope.get("extensions") or ()):
                self._put({"type": f"{DENIAL}.start", "status": status, "headers": _NONE})
                self._put({"type": f"{DENIAL}.body", "body": body})
            else:
                self._put({"type": "websocket.close"})
        self.arm(self._dispatcher.listener.timeouts.idle)
        self._wake.set()

    def kill(self) -> None:
        self._gone("draining")
        self.cut()
