"""The last words to a client that will not be served, on a connection that is read no further."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from rauta.proxy.clock import Clock
from rauta.proxy.limits import LINGER_TIME
from rauta.proxy.reasons import BODIES, REASONS, phrase_of
from rauta.proxy.wheel import Expiring

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher

# As in http1.server: a close while the client still sends would be a reset, and may destroy what was said to it.
LINGER_LIMIT: Final = 256 * 1024

# RFC 8446 6: a record of type alert; fatal, unrecognized_name (RFC 6066 3).
ALERT_UNRECOGNIZED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"


def is_plain_http(data: bytes) -> bool:
    """Whether what a connection begins with is the method of a request, and not a record of TLS."""
    return data[:1].isalpha() and data[:1].isupper()


def plain_on_tls() -> bytes:
    """The answer to who speaks plain HTTP where TLS is expected."""
    reason = REASONS["plain_on_tls"]
    body = BODIES[reason.name]
    head = (
        f"HTTP/1.1 {reason.status} {phrase_of(reason.status)}\r\nDate: {Clock().http_date()}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


class Farewell(Expiring):
    """Says it, ends our side of the stream, and reads on for a while. An asyncio.Protocol by its methods."""

    __slots__ = ("_dispatcher", "_left", "_transport", "_words")

    def __init__(self, dispatcher: Dispatcher, words: bytes) -> None:
        super().__init__()
        self._dispatcher = dispatcher
        self._words = words
        self._left = LINGER_LIMIT
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast("asyncio.Transport", transport)  # uvloop's are no instances of it
        self._dispatcher.connections.add(self)
        self._dispatcher.wheel.arm(self, LINGER_TIME)
        made.write(self._words)
        made.write_eof()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.kill()

    def eof_received(self) -> None:
        """Nothing: None closes the transport."""

    def pause_writing(self) -> None:
        """It says no more."""

    def resume_writing(self) -> None:
        """It says no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._dispatcher.wheel.forget(self)
        self._dispatcher.connections.discard(self)

    def drain(self, grace: float) -> None:
        """It ends by itself."""

    def kill(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    def expired(self) -> None:
        self.kill()
