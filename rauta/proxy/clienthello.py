"""The name that a client asks for in its TLS handshake (SNI), read without taking part in it.

Source: RFC 8446 4.1.2 and 5.1 (the ClientHello, in records that may split it anywhere), RFC 6066 3 (server_name). Only
what leads to the name is looked at: unknown versions, ciphers and extensions (GREASE, RFC 8701) are the server's
concern, and with ECH the name is the outer one, which is what a gateway is meant to see.
"""

from __future__ import annotations

from typing import Final

from rauta.routing.errors import RequestError
from rauta.routing.hosts import normalise_host

# Bytes of all records. Clients send 250 to 2,000; keys of post-quantum exchanges and tickets are the longest parts.
MAX_HELLO: Final = 16 * 1024
HANDSHAKE: Final = 22  # content type of a record
_RECORD: Final = 5  # bytes of a record's header
_RECORD_MAX: Final = 1 << 14  # RFC 8446 5.1
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0


class ClientHelloError(Exception):
    """What has come is no beginning of a ClientHello; the text quotes nothing of it."""


def read(data: bytes) -> str | int:
    """The name, in lower case and without a trailing dot ("": none); or, as long as the message is not complete, how
    many bytes there must be for more to be known. Raises ClientHelloError."""
    message = bytearray()
    at = 0
    while True:
        if data[at : at + 1] not in (b"", b"\x16"):
            raise ClientHelloError("not a TLS handshake")
        if data[at + 1 : at + 2] not in (b"", b"\x03"):
            raise ClientHelloError("another version of TLS records")
        if at + _RECORD > len(data):
            return _more(at + _RECORD)
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        # RFC 8446 5.1: "Implementations MUST NOT send zero-length fragments of Handshake types".
        if not 0 < size <= _RECORD_MAX:
            raise ClientHelloError("a record of a length that none has")
        message += data[at + _RECORD : at + _RECORD + size]
        at += _RECORD + size
        if not message:
            return _more(at)
        if message[0] != _CLIENT_HELLO:
            raise ClientHelloError("the handshake does not begin with a ClientHello")
        if len(message) >= 4:
            wanted = 4 + int.from_bytes(message[1:4], "big")
            _more(wanted)
            if len(message) >= wanted:
                return _name_in(bytes(message[4:wanted]))
        if at > len(data):
            return _more(at)


def _more(size: int) -> int:
    if size > MAX_HELLO:
        raise ClientHelloError(f"longer than {MAX_HELLO} bytes")
    return size


class _Reader:
    """Takes vectors off a message."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ClientHelloError("a part reaches beyond what it is in")
        return self._data[start : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """One whose length is told in `size` bytes."""
        return self.take(self.number(size))

    def left(self) -> int:
        return len(self._data) - self._at


def _name_in(body: bytes) -> str:
    hello = _Reader(body)
    hello.take(2 + 32)  # version, random
    if len(hello.vector(1)) > 32 or len(hello.vector(2)) % 2 or not hello.vector(1):
        raise ClientHelloError("a malformed session, ciphers or compression")
    if not hello.left():
        return ""  # no extensions (RFC 5246 7.4.1.2)
    extensions = _Reader(hello.vector(2))
    if hello.left():
        raise ClientHelloError("more behind the extensions")
    name: str | None = None
    while extensions.left():
        kind, value = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            # RFC 8446 4.2: "There MUST NOT be more than one extension of the same type".
            if name is not None:
                raise ClientHelloError("two server names")
            name = _host_in(value)
    return name or ""


def _host_in(value: bytes) -> str:
    """RFC 6066 3: "The ServerNameList MUST NOT contain more than one name of the same name_type", and there is one
    type; OpenSSL and others refuse more, too."""
    outer = _Reader(value)
    names = _Reader(outer.vector(2))
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME or names.left() or outer.left() or not name:
        raise ClientHelloError("a malformed list of server names")
    try:
        text = name.decode("ascii")
        host = normalise_host(text)
    except (UnicodeDecodeError, RequestError):
        raise ClientHelloError("a server name that no host has") from None
    if ":" in text or not host:
        raise ClientHelloError("a server name that no host has")
    return host
