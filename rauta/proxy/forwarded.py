"""The fields that tell a backend who the client is (RFC 7239 and its predecessors).

What a client sends of them never gets through (`http1.fields`); here only what rauta itself knows is written.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Final

from rauta.routing.settings import X_FORWARDED, Forwarded

Builder = Callable[[str, str, str], str]
"""(client's address, scheme, authority or "") -> complete field lines."""

_NAMES: Final = {  # field -> its name, and which of a builder's arguments is its value
    Forwarded.X_FORWARDED_FOR: ("X-Forwarded-For", 0),
    Forwarded.X_FORWARDED_PROTO: ("X-Forwarded-Proto", 1),
    Forwarded.X_FORWARDED_HOST: ("X-Forwarded-Host", 2),
}


def _rfc7239(address: str, scheme: str, authority: str) -> str:
    # RFC 7239 6: an IPv6 address is in brackets, and then quoted; what has no address (unix peers) is "unknown".
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    host = f';host="{authority}"' if authority else ""
    return f"Forwarded: for={node}{host};proto={scheme}\r\n"


def _x_forwarded(address: str, scheme: str, authority: str) -> str:
    return (
        f"X-Forwarded-For: {address or 'unknown'}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: {authority}\r\n"
    )


def builder_of(wanted: Set[Forwarded]) -> Builder | None:
    """The function that writes the wanted fields, chosen once per route; None if there are none."""
    if not wanted:
        return None
    if wanted == X_FORWARDED:
        return _x_forwarded  # the default, in one string
    rows = [_NAMES[field] for field in Forwarded if field in wanted and field in _NAMES]

    def build(address: str, scheme: str, authority: str) -> str:
        values = (address or "unknown", scheme, authority)
        lines = "".join([f"{name}: {values[place]}\r\n" for name, place in rows])
        return lines + _rfc7239(address, scheme, authority) if Forwarded.FORWARDED in wanted else lines

    return build
