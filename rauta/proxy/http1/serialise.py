"""Heads as bytes. They are written anew from the parse: what was matched is what is sent."""

from __future__ import annotations

from rauta.proxy.messages import CHUNKED, RequestHead, ResponseHead

_line = ": ".join  # of a field; mapped over all of them without a step of the interpreter


def request_bytes(head: RequestHead, default_host: str, added: str) -> bytes:
    """The head of a request to a backend. `added` are complete field lines; `default_host` stands in for a client
    that named no host (RFC 9112 3.2: "A client MUST send a Host header field")."""
    length = head.length
    if length >= 0:
        added += f"Content-Length: {length}\r\n"
    elif length == CHUNKED:
        added += "Transfer-Encoding: chunked\r\n"
    if head.expects:
        added += "Expect: 100-continue\r\n"
    host = default_host if head.authority is None else head.authority
    target = head.path if head.query is None else f"{head.path}?{head.query}"
    start = f"{head.method} {target} HTTP/1.1\r\nHost: {host}"
    return "\r\n".join([start, *map(_line, head.fields), f"{added}\r\n"]).encode("latin-1")


def response_bytes(head: ResponseHead, added: str) -> bytes:
    """The head of a response to a client. `added` are the complete lines of framing and connection."""
    start = f"HTTP/1.1 {head.status} {head.phrase}"
    return "\r\n".join([start, *map(_line, head.fields), f"{added}\r\n"]).encode("latin-1")
