"""Where a redirect leads."""

from __future__ import annotations

from typing import Final

from rauta.proxy.messages import RequestHead
from rauta.routing.model import Redirect

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def redirect_location(action: Redirect, head: RequestHead, scheme: str, matched: str) -> str | None:
    """The absolute URL of a redirect; None if it would keep the host and the request has none (HTTP/1.0).

    Absolute, because a path that begins with `//` would otherwise name a host (RFC 3986 4.2). What is None keeps
    what the request had; the port goes with the scheme unless the redirect has one. `matched` is the route's prefix.
    """
    host = action.host or head.host
    if not host:
        return None
    new_scheme = action.scheme or scheme
    port = action.port
    if port is None and action.scheme in (None, scheme) and action.host is None:
        port = _port_of(head.authority or "")
    if port == _DEFAULT_PORTS[new_scheme]:
        port = None
    if action.path is not None:
        path = action.path
    elif action.prefix is not None:
        path = (action.prefix.removesuffix("/") + head.path[len(matched) :]) or "/"
    else:
        path = head.path
    query = "" if head.query is None else f"?{head.query}"
    return f"{new_scheme}://{host}{'' if port is None else f':{port}'}{path}{query}"


def _port_of(authority: str) -> int | None:
    """The port of an authority that has been validated."""
    _, colon, port = authority.rpartition(":")
    return int(port) if colon and port.isdigit() else None
