"""The types of ASGI 3, and what both sides need of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class GoneError(OSError):
    """The client has left: nothing that is sent reaches anybody (ASGI 2.4 of HTTP)."""


class BrokenError(Exception):
    """An application has sent what ASGI does not allow there."""


VERSION: Final = "3.0"
HTTP_SPEC: Final = "2.4"  # `send` raises OSError once the client has left
LIFESPAN_SPEC: Final = "2.0"

TRAILERS: Final = "http.response.trailers"
EARLY_HINT: Final = "http.response.early_hint"
DENIAL: Final = "websocket.http.response"
