"""The grammar of header fields, for settings that name fields or their values (RFC 9110 5)."""

from __future__ import annotations

import re
from typing import Final

from rauta.routing.errors import ModelError

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 5.6.2."""

PROTOCOL: Final = re.compile(rf"{TOKEN.pattern}(?:/{TOKEN.pattern})?")
"""RFC 9110 7.8: the name of a protocol, perhaps with a version."""

FIELD_VALUE: Final = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
"""RFC 9110 5.5, as Latin-1."""

# What rauta itself writes, since framing, connection and routing hang on it; no setting may touch it.
_OWN: Final = {
    "host": "write a rewrite filter with `host`",
    "content-length": "rauta writes it, from the body",
    "transfer-encoding": "rauta writes it, from the body",
    "connection": "it belongs to one connection, and rauta writes it",
    "proxy-connection": "it belongs to one connection, and rauta writes it",
    "keep-alive": "it belongs to one connection, and rauta writes it",
    "te": "it belongs to one connection, and rauta writes it",
    "trailer": "rauta writes it",
    "upgrade": "write `upgrades` on the route",
    "http2-settings": "it belongs to one connection",
    "expect": "rauta writes it",
    "date": "rauta writes it, or passes the backend's on",
}
_FORWARDED: Final = frozenset(
    {"client-cert", "client-cert-chain", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
)


def check_field_name(where: str | tuple[str | int, ...], name: str) -> None:
    """The name of a field that a setting may write or remove. Raises ModelError."""
    if not TOKEN.fullmatch(name):
        raise ModelError.at(where, f"{name!r} is not the name of a header field")
    why = _OWN.get(name.lower())
    if name.lower() in _FORWARDED:
        why = "`forwarded` on the listener or route says which of them are added"
    if why is not None:
        raise ModelError.at(where, f"{name!r} cannot be changed: {why}")


def check_field_value(where: str | tuple[str | int, ...], value: str) -> None:
    """The value of a field, without line breaks or space around it. Raises ModelError."""
    if not FIELD_VALUE.fullmatch(value):
        raise ModelError.at(where, f"{value!r} cannot be the value of a header field")
