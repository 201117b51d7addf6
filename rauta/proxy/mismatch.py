"""A backend that is spoken to in another way than it wants: what it says instead, and what the access log then asks.

Asked only when a connection fails, or before the first settings of HTTP/2.
"""

from __future__ import annotations

from typing import Final

TLS, HTTP1, HTTP2 = "TLS", "HTTP/1", "HTTP/2"

_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")  # RFC 8446 5.1: alert, handshake
_FRAMES: Final = (b"\x04", b"\x07")  # RFC 9113 6.5, 6.8: SETTINGS, GOAWAY

_WANTS: Final = {
    TLS: "TLS: does the service want `tls`?",
    HTTP1: "HTTP/1: does the service want `tls`, or `protocol: http1`?",
    HTTP2: "HTTP/2: does the service want `protocol: http2`?",
}

_SILENT: Final = {  # by what else might be spoken; the PROXY protocol goes with HTTP/1 alone
    "http1": ": does the service want `tls`, or `protocol: http1`?",
    "http2": ": does the service want `tls`, `protocol: http2` or `proxy_protocol`?",
}
_PROXIED: Final = ": does the backend want no `proxy_protocol`, or `tls` behind it?"


def spoken(data: bytes | bytearray) -> str:
    """What the first bytes of an answer belong to; empty: nothing that is known."""
    if data.startswith(_TLS_RECORDS):
        return TLS
    if data.startswith(b"HTTP/1."):
        return HTTP1
    # RFC 9113 3.4: a server's first frame is SETTINGS, with few of them, on stream 0.
    if data.startswith(b"\0\0") and data[3:4] in _FRAMES and not any(data[5:9]):
        return HTTP2
    return ""


def wants(what: str) -> str:
    """That in words, with the question that it raises."""
    return _WANTS[what]


def doubt(scheme: str, wanted: str, *, proxied: bool = False) -> str:
    """What to ask of a service whose new connection ends without a word, behind the words that say so. `proxied`: it
    began with a header of the PROXY protocol. Over TLS nothing: there ALPN has settled what is spoken, and a client
    certificate may be what is missing."""
    if scheme != "http":
        return ""
    return _PROXIED if proxied else _SILENT[wanted]


def doubt_of_refusal(scheme: str, *, proxied: bool = False) -> str:
    """What to ask of one that answers HTTP/1 with 400, as nginx does on a port of TLS, or to a header of the PROXY
    protocol that it does not expect."""
    if scheme != "http":
        return ""
    return _PROXIED if proxied else ": does the service want `tls`?"


def doubt_in_handshake(*, proxied: bool) -> str:
    """The same, where it ends in TLS's handshake, or what comes is no TLS."""
    return ": does the backend want no `proxy_protocol`?" if proxied else ""
