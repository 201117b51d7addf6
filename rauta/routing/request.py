"""What of a request routing looks at, and how a request target becomes that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from rauta.routing.errors import RequestError
from rauta.routing.hosts import HostError, normalise_host
from rauta.routing.paths import PathError, check_query, normalise_path

_ABSOLUTE: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)(.*)", re.DOTALL)


class Headers(Protocol):
    """Header fields of a request, by lower-case name."""

    def get(self, name: str, /) -> str | None:
        """The field's value, several of one name joined by ", " in order (RFC 9110 5.3); None if absent."""


class FieldList:
    """Headers over a list of (name, value) pairs; the names in lower case."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: Sequence[tuple[str, str]] = [(name.lower(), value) for name, value in fields]

    def get(self, name: str, /) -> str | None:
        """See Headers.get. Cookie fields are joined by "; " (RFC 9113 8.2.3)."""
        values = [value for field, value in self._fields if field == name]
        return ("; " if name == "cookie" else ", ").join(values) if values else None


class RequestView:
    """One request, as routes and plugins see it. `host` and `path` are normalised, `query` is raw (None: no `?`)."""

    __slots__ = ("client", "headers", "host", "method", "path", "query")

    def __init__(
        self,
        *,
        method: str,
        host: str,
        path: str,
        query: str | None = None,
        headers: Headers | None = None,
        client: tuple[str, int] = ("", 0),
    ) -> None:
        self.method = method
        self.host = host
        self.path = path
        self.query = query
        self.headers: Headers = FieldList() if headers is None else headers
        self.client = client


class Target(NamedTuple):
    """A request target taken apart. `path` is `*` for OPTIONS *; `authority` is set by absolute-form only.

    A tuple: one is built for every request, and a frozen dataclass takes three times as long.
    """

    path: str
    query: str | None
    authority: str | None


def parse_target(method: str, target: str, *, reject_encoded_slash: bool = False) -> Target:
    """Take a request target apart and normalise its path (RFC 9112 3.2: origin, absolute and asterisk form).

    `target` is decoded as Latin-1. Raises PathError or HostError (400).
    """
    authority = None
    if target[:1] != "/":
        if target == "*":
            if method != "OPTIONS":
                raise PathError("bad_target", "the target '*' is only for OPTIONS")
            return Target("*", None, None)
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            # Not quoted: it may be a URL with a password, and this text is logged.
            raise PathError("bad_target", "the target is neither a path nor an http URL")
        authority, target = absolute[1], absolute[2]
        if not authority:
            raise HostError("bad_host", "the target is a URL without a host")
        if not target:
            target = "*" if method == "OPTIONS" else "/"  # RFC 9112 3.2.4
            if target == "*":
                return Target("*", None, authority)
        elif target[0] == "?":
            target = "/" + target
    path, mark, query = target.partition("?")
    if mark:
        check_query(query)
    return Target(normalise_path(path, reject_encoded_slash=reject_encoded_slash), query if mark else None, authority)


def host_of(authority: str | None, host_fields: Sequence[str], *, http10: bool = False) -> str:
    """The host that a request is for, normalised: absolute-form overrides Host (RFC 9112 3.2.2), which must be
    there exactly once in HTTP/1.1 (3.2). An HTTP/1.0 request without Host is for the empty host.

    Raises HostError (400).
    """
    if len(host_fields) != 1:
        if host_fields:
            raise HostError("bad_host", "the request has more than one Host field")
        if not http10:
            raise HostError("bad_host", "the request has no Host field")
    host = normalise_host(host_fields[0]) if host_fields else ""
    return host if authority is None else normalise_host(authority)


__all__ = [
    "FieldList",
    "Headers",
    "HostError",
    "PathError",
    "RequestError",
    "RequestView",
    "Target",
    "host_of",
    "parse_target",
]
