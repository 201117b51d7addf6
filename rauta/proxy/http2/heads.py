"""Heads between HTTP/2 and the seam: RFC 9113 section 8, with names and values checked again.

A head becomes the one that HTTP/1.1 would have, and goes through the one strict grammar: what two protocols could read
differently, or what could become two fields on the way to an HTTP/1.1 peer, is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rauta.proxy.http1.fields import may_trail
from rauta.proxy.http1.grammar import MalformedError, parse_request, parse_response
from rauta.proxy.messages import CHUNKED, NO_BODY, UNTIL_CLOSE, Field, Glimpse, RequestHead, ResponseHead
from rauta.proxy.reasons import phrase_of

Raw = tuple[bytes, bytes]

_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority", b":protocol"})
_STATUS: Final = frozenset({b":status"})
# RFC 9113 8.2.1: "A field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff"; here the
# token of RFC 9110 5.6.2, in lower case.
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]++")
# "A field value MUST NOT contain the zero value, line feed, or carriage return at any position", nor "start or end with
# an ASCII whitespace character".
_VALUE: Final = re.compile(rb"(?![\t ])[\t\x20-\x7e\x80-\xff]*+(?<![\t ])")
_TARGET: Final = re.compile(rb"[\x21-\x7e\x80-\xff]++")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+")  # RFC 3986 3.1
_THREE_DIGITS: Final = re.compile(rb"[1-9][0-9][0-9]")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
# RFC 9113 8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields"; an
# intermediary must take such a message for malformed.
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)


def _malformed(what: str) -> MalformedError:
    return MalformedError("bad_field", what)


def _pseudo_and_lines(
    fields: Iterable[Raw], known: frozenset[bytes]
) -> tuple[dict[bytes, bytes], list[bytes], bytes | None]:
    """Pseudo-header fields; the others as lines, without Host; Host. Raises MalformedError."""
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    crumbs: list[bytes] = []
    host: bytes | None = None
    for name, value in fields:
        if name[:1] == b":":
            if lines or crumbs or host is not None:
                raise _malformed("a pseudo-header field behind a header field")  # RFC 9113 8.3
            if name not in known or name in pseudo:
                raise _malformed("an unknown or repeated pseudo-header field")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _malformed("invalid character in a header field")
        if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            raise _malformed(f"the field {name.decode()!r}, which has no place in HTTP/2")
        if name == b"host":
            if host is not None:
                raise MalformedError("bad_host", "the request has more than one Host field")
            host = value
        elif name == b"cookie":
            # RFC 9113 8.2.3: cookies may come in crumbs, which "MUST be concatenated into a single octet string using
            # the two-octet delimiter of 0x3b, 0x20" before they go to anything else.
            crumbs.append(value)
        else:
            lines.append(name + b": " + value)
    if crumbs:
        lines.append(b"cookie: " + b"; ".join(crumbs))
    return pseudo, lines, host


def _first_line(pseudo: dict[bytes, bytes], ended: bool) -> tuple[bytes, bytes, bytes | None]:
    """Method, path and the protocol of a CONNECT. Raises MalformedError."""
    method, path, protocol = pseudo.get(b":method", b""), pseudo.get(b":path", b""), pseudo.get(b":protocol")
    if not _TOKEN.fullmatch(method):
        raise MalformedError("bad_request_line", "no valid :method")
    if protocol is not None:
        if method != b"CONNECT" or ended or not _TOKEN.fullmatch(protocol):
            raise MalformedError("bad_request_line", "a :protocol, and no CONNECT that stays open")  # RFC 8441 4
        method = b"GET"
    if method != b"CONNECT":
        if not _SCHEME.fullmatch(pseudo.get(b":scheme", b"")):
            raise MalformedError("bad_request_line", "no valid :scheme")  # RFC 9113 8.3.1
        if not _TARGET.fullmatch(path) or not (path[:1] == b"/" or path == b"*"):
            raise MalformedError("bad_target", "the :path is no path")
    return method, path, protocol


def request_head(fields: Iterable[Raw], *, ended: bool, scheme: str, reject_encoded_slash: bool = False) -> RequestHead:
    """A request, from its field section; `ended`: no body follows. CONNECT with a `:protocol` (RFC 8441) is the GET
    with `upgrade` that it would be over HTTP/1.1. Raises RequestError."""
    pseudo, lines, host = _pseudo_and_lines(fields, _PSEUDO)
    method, path, protocol = _first_line(pseudo, ended)
    authority = pseudo.get(b":authority", host)
    if authority is not None:
        # RFC 9113 8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field that
        # identifies an entity that differs from the entity in the ":authority" pseudo-header field".
        if host is not None and host.lower() != authority.lower():
            raise MalformedError("bad_host", ":authority and Host differ")
        if not _VALUE.fullmatch(authority):
            raise MalformedError("bad_host", "the :authority is malformed")
        lines.insert(0, b"host: " + authority)
    first = method + b" " + (path or b"/") + b" HTTP/1.1"
    head = parse_request(b"\r\n".join([first, *lines, b""]), reject_encoded_slash=reject_encoded_slash)
    head.version = "2.0"
    named = pseudo.get(b":scheme", b"").decode("latin-1").lower()
    head.scheme = named if named in ("http", "https") and named != scheme else None
    if protocol is not None:
        if head.length != NO_BODY:
            raise MalformedError("bad_framing", "a CONNECT with a Content-Length")
        head.upgrade = protocol.decode("ascii").lower()
        head.insists = True
        return head
    if ended:
        if head.length > 0:
            raise MalformedError("bad_framing", "a Content-Length, and no body")
        head.length = NO_BODY if head.length == NO_BODY else 0
    elif head.length == NO_BODY:
        head.length = CHUNKED
    head.has_body = not ended
    head.expects = head.expects and not ended
    return head


def request_fields(
    head: RequestHead, default_host: str, added: str, scheme: str, protocol: str | None = None
) -> list[Raw]:
    """The field section of a request to a backend. `added` are complete field lines; `default_host` stands in for a
    client that named no host; with a `protocol` it is a CONNECT (RFC 8441)."""
    target = head.path if head.query is None else f"{head.path}?{head.query}"
    fields: list[Raw] = [
        (b":method", b"CONNECT" if protocol is not None else head.method.encode("ascii")),
        (b":scheme", scheme.encode("ascii")),
        (b":authority", (default_host if head.authority is None else head.authority).encode("latin-1")),
        (b":path", target.encode("latin-1")),
    ]
    if protocol is not None:
        fields.append((b":protocol", protocol.encode("ascii")))
    fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.fields]
    for line in added.split("\r\n"):
        name, colon, value = line.partition(": ")
        if colon:
            fields.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    if head.length >= 0 and protocol is None:
        fields.append((b"content-length", str(head.length).encode("ascii")))
    if head.expects:
        fields.append((b"expect", b"100-continue"))
    fields.append((b"te", b"trailers"))  # they are passed on; gRPC's servers want to be told
    return fields


def response_head(fields: Iterable[Raw], *, method: str, ended: bool) -> ResponseHead:
    """A response, from its field section; `method` is that of the request, `ended`: no body follows. Raises
    MalformedError."""
    pseudo, lines, host = _pseudo_and_lines(fields, _STATUS)
    status = pseudo.get(b":status", b"")
    if not _THREE_DIGITS.fullmatch(status) or status == b"101":
        raise MalformedError("bad_request_line", "no valid :status")  # RFC 9113 8.3.2, 8.6
    if host is not None:
        lines.append(b"host: " + host)
    head = parse_response(b"\r\n".join([b"HTTP/1.1 " + status + b" ", *lines, b""]), method)
    head.phrase = phrase_of(head.status)
    head.keep_alive = True
    if ended and head.length > 0:
        raise MalformedError("bad_framing", "a Content-Length, and no body")
    if head.length == UNTIL_CLOSE:
        head.length = 0 if ended else CHUNKED
    return head


def glimpsed(fields: Iterable[Raw]) -> Glimpse:
    """What can be read of a request that was refused, for the log."""
    found = {name: value.decode("latin-1") for name, value in fields if name in _PSEUDO}
    path, mark, query = found.get(b":path", "").partition("?")
    shown = path if path[:1] == "/" else None
    return Glimpse(found.get(b":method"), shown, query if mark and shown else None, "2.0", found.get(b":authority"))


def trailer_fields(fields: Iterable[Raw]) -> list[Field]:
    """The trailers of a message, without those that are not passed on. Raises MalformedError."""
    found: list[Field] = []
    for name, value in fields:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _malformed("invalid character in a trailer field")
        if name in _OF_CONNECTIONS:
            raise _malformed(f"the trailer field {name.decode()!r}, which has no place in HTTP/2")
        if may_trail(name.decode("ascii")):
            found.append((name.decode("ascii"), value.decode("latin-1")))
    return found


def raw_trailers(fields: list[Field]) -> list[Raw]:
    """Trailers as they are sent."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def _is_grpc(fields: list[Field]) -> bool:
    """Whether a response is one of gRPC, where one that ends with its head has no length: its fields are trailers."""
    return any(name.lower() == "content-type" and value.startswith("application/grpc") for name, value in fields)


def response_fields(head: ResponseHead) -> list[Raw]:
    """The field section of a response."""
    fields: list[Raw] = [(b":status", str(head.status).encode("ascii"))]
    length = head.length if head.length >= 0 else head.declared
    fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.fields]
    if length is not None and head.status >= 200 and head.status != 204 and (length or not _is_grpc(head.fields)):
        fields.append((b"content-length", str(length).encode("ascii")))
    return [field for field in fields if field[0] not in _OF_CONNECTIONS]
