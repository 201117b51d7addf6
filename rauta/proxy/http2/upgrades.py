"""Upgrades between HTTP/1.1 and HTTP/2: `Upgrade: x` there is CONNECT with `:protocol` here (RFC 8441).

Between the two sides of an exchange it is always the former: a GET with `upgrade`, and a 101. WebSocket's handshake has
a key and its answer only there (RFC 6455 4; RFC 8441 5: "The Sec-WebSocket-Key and Sec-WebSocket-Accept header fields
are not included"), so they are made, and checked, here.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Final

from rauta.proxy.messages import CHUNKED, NO_BODY, Field, RequestHead, ResponseHead
from rauta.proxy.reasons import phrase_of

WEBSOCKET: Final = "websocket"
_KEY: Final = "sec-websocket-key"
_ACCEPT: Final = "sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


def _accept_of(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


def _without(fields: list[Field], name: str) -> list[Field]:
    return [field for field in fields if field[0].lower() != name]


def value_of(fields: list[Field], name: str) -> str | None:
    """The value of the first field of that name, which is in lower case."""
    return next((value for each, value in fields if each.lower() == name), None)


def as_upgrade(head: RequestHead, protocol: str) -> str | None:
    """Make a CONNECT the GET that it would be over HTTP/1.1. The key of its handshake, if it has one."""
    head.upgrade = protocol
    if protocol != WEBSOCKET:
        return None
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    head.fields = [*_without(head.fields, _KEY), ("Sec-WebSocket-Key", key)]
    return key


def as_connect(head: RequestHead) -> tuple[RequestHead, str | None]:
    """The request without the key of its handshake, and that key."""
    key = value_of(head.fields, _KEY)
    if key is None:
        return head, None
    head = head.copy()
    head.fields = _without(head.fields, _KEY)
    return head, key


def as_success(head: ResponseHead, key: str | None) -> ResponseHead | None:
    """The answer to CONNECT, of a backend's 101; None: its handshake is wrong."""
    if key is not None and value_of(head.fields, _ACCEPT) != _accept_of(key):
        return None
    return ResponseHead(200, phrase_of(200), _without(head.fields, _ACCEPT), CHUNKED)


def as_switching(head: ResponseHead, key: str | None) -> ResponseHead:
    """The 101 of a backend that has answered CONNECT with success."""
    fields = [field for field in head.fields if field[0].lower() not in (_ACCEPT, "content-length")]
    if key is not None:
        fields.append(("Sec-WebSocket-Accept", _accept_of(key)))
    return ResponseHead(101, phrase_of(101), fields, NO_BODY)
