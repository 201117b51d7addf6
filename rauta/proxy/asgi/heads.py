"""Heads between ASGI and the seam. A host may be lax, so what it has parsed goes through the one strict grammar again,
as the heads of HTTP/2 do: what a backend could read differently is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, unquote

from rauta.proxy.asgi.protocol import Scope
from rauta.proxy.http1.grammar import MalformedError, parse_request, parse_response
from rauta.proxy.http2 import heads as http2
from rauta.proxy.messages import CHUNKED, NO_BODY, UNTIL_CLOSE, Glimpse, RequestHead, ResponseHead
from rauta.proxy.reasons import phrase_of

Raw = tuple[bytes, bytes]

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+")
_TARGET: Final = re.compile(rb"[\x21-\x7e\x80-\xff]++")
_METHOD: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_OWN_LINES: Final = frozenset({"1.0", "1.1"})  # versions that have lines, and Connection among them
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# RFC 6455 11.3: what belongs to a handshake, and each side of a gateway has one of its own.
_OF_HANDSHAKES: Final = b"sec-websocket-"
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"te", b"transfer-encoding", b"upgrade", b"content-length"}
)


def scheme_of(scope: Scope) -> str:
    """`http` or `https`."""
    return _SCHEMES.get(str(scope.get("scheme", "http")).lower(), "http")


def address_of(value: Any) -> tuple[str, int]:
    """The client or the server of a scope; ("", 0) where the host does not know, or it is a unix socket."""
    if not value or value[1] is None:
        return "", 0
    return str(value[0]), int(value[1])


def is_framed(scope: Scope) -> bool:
    """Whether the head tells that a body follows, and how long it is."""
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def request_head(scope: Scope, *, ended: bool, limit: int, reject_encoded_slash: bool = False) -> RequestHead:
    """A request, from its scope; `ended`: it is known that no body follows. `limit`: bytes of head. Raises
    RequestError."""
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    head = _head(scope, headers, ended=ended, limit=limit, reject_encoded_slash=reject_encoded_slash)
    head.upgrade = None  # the host switches to nothing but WebSocket, which is another kind of scope
    return head


def handshake_head(scope: Scope, own: Iterable[Raw], *, limit: int, reject_encoded_slash: bool = False) -> RequestHead:
    """The request that opens a WebSocket, with `own` fields in the place of those of the host's handshake. Raises
    RequestError."""
    headers = [
        (bytes(name), bytes(value))
        for name, value in scope["headers"]
        if name.lower() not in _OF_CONNECTIONS and not name.lower().startswith(_OF_HANDSHAKES)
    ]
    headers += [(b"connection", b"upgrade"), (b"upgrade", b"websocket"), *own]
    shown = {**scope, "method": "GET", "http_version": "1.1"}
    return _head(shown, headers, ended=True, limit=limit, reject_encoded_slash=reject_encoded_slash)


def _head(scope: Scope, headers: list[Raw], *, ended: bool, limit: int, reject_encoded_slash: bool) -> RequestHead:
    target = target_of(scope)
    size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > limit:
        raise MalformedError("head_too_large", f"request head over {limit} bytes")
    method = str(scope["method"]).encode("latin-1", "replace")
    version = str(scope.get("http_version", "1.1"))
    if version in _OWN_LINES:
        head = _of_lines(method, target, version, headers, reject_encoded_slash=reject_encoded_slash)
        if not ended and head.length == NO_BODY:
            head.length, head.has_body = CHUNKED, True
    else:
        names = [(name.lower(), value) for name, value in headers]
        pseudo = [(b":method", method), (b":scheme", scheme_of(scope).encode()), (b":path", target)]
        head = http2.request_head(
            [*pseudo, *names], ended=ended, scheme=scheme_of(scope), reject_encoded_slash=reject_encoded_slash
        )
        head.version = version if "." in version else f"{version}.0"
    # The host answers the expectation, when the body is asked for: RFC 9110 10.1.1.
    head.expects = False
    return head


def _of_lines(
    method: bytes, target: bytes, version: str, headers: list[Raw], *, reject_encoded_slash: bool
) -> RequestHead:
    if not _METHOD.fullmatch(method):
        raise MalformedError("bad_request_line", "no valid method")
    if not _TARGET.fullmatch(target):
        raise MalformedError("bad_target", "the path is no path")
    lines = [method + b" " + target + b" HTTP/" + version.encode()]
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MalformedError("bad_field", "invalid character in a header field")
        lines.append(name + b": " + value)
    return parse_request(b"\r\n".join([*lines, b""]), reject_encoded_slash=reject_encoded_slash)


def target_of(scope: Scope) -> bytes:
    """Path and query as the client sent them, below the place where the gateway is mounted."""
    raw = scope.get("raw_path")
    path = quote(scope["path"], safe="/:@!$&'()*+,;=~*").encode() if raw is None else bytes(raw).partition(b"?")[0]
    root = str(scope.get("root_path") or "").rstrip("/")
    if root:
        path = _below(path, root)
    query = bytes(scope.get("query_string") or b"")
    return path + b"?" + query if query else path


def _below(path: bytes, root: str) -> bytes:
    """The path without the root path, which hosts put before it (some did not: then there is nothing to take away)."""
    parts = path.split(b"/")
    depth = root.count("/") + 1
    if unquote(b"/".join(parts[:depth])) != root:
        return path
    return b"/" + b"/".join(parts[depth:])


def glimpsed(scope: Scope) -> Glimpse:
    """What can be read of a request that was refused, for the log."""
    path, _, query = target_of(scope).decode("latin-1").partition("?")
    hosts = [bytes(value).decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
    return Glimpse(
        str(scope.get("method", "GET")),
        path if path[:1] == "/" else None,
        query or None,
        str(scope.get("http_version", "1.1")),
        hosts[0] if hosts else None,
    )


def application_head(status: int, headers: Iterable[Raw], method: str) -> ResponseHead:
    """The head of a response, from an application; `method` is that of the request. What belongs to a connection is
    left out: that is ours. Raises MalformedError."""
    lines = [b"HTTP/1.1 %d " % status]
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MalformedError("bad_field", "invalid character in a header field")
        if name not in _OF_CONNECTIONS or name == b"content-length":
            lines.append(name + b": " + value)
    head = parse_response(b"\r\n".join([*lines, b""]), method)
    head.phrase = phrase_of(status)
    head.keep_alive = True
    if head.length == UNTIL_CLOSE:
        head.length = CHUNKED
    return head


def response_headers(head: ResponseHead) -> list[Raw]:
    """The headers of a response. Without Date: hosts add theirs, and there must be one (RFC 9110 6.6.1)."""
    return [field for field in http2.response_fields(head)[1:] if field[0] != b"date"]
