"""The model: filters, which change requests on their way to a backend and responses on their way back.

A route's filters run in the order of the list, after those of its listener. They run when the route is decided, so
none of them changes which route that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rauta.routing.errors import ModelError, RequestError
from rauta.routing.fields import check_field_name, check_field_value
from rauta.routing.hosts import HostPattern
from rauta.routing.paths import normalise_path
from rauta.routing.regexes import check_substitution

NameValue = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChanges:
    """Changes of header fields: `remove` first, then `set` (replaces), then `add` (keeps what is there)."""

    set: tuple[NameValue, ...] = ()
    add: tuple[NameValue, ...] = ()
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.set or self.add or self.remove):
            raise ModelError.at((), "the filter changes nothing: give set, add or remove")
        for kind in ("set", "add"):
            for name, value in getattr(self, kind):
                check_field_name((kind, name), name)
                check_field_value((kind, name), value)
        for position, name in enumerate(self.remove):
            check_field_name(("remove", position), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders(HeaderChanges):
    """Changes of the request's fields before it goes to a backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHeaders(HeaderChanges):
    """Changes of the response's fields before it goes to the client; also of answers that rauta gives itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Another host or path for the backend. `path` is a whole path; `prefix` replaces the one that the route matched;
    `regex` is a full match of the path, whose groups `substitution` names as `\\1` to `\\9`, `\\0` being the whole;
    a path that it does not match stays. The query is kept."""

    host: str | None = None
    path: str | None = None
    prefix: str | None = None
    regex: str | None = None
    substitution: str | None = None

    def __post_init__(self) -> None:
        if self.host is not None:
            try:
                object.__setattr__(self, "host", HostPattern(self.host).name)
            except ModelError as error:
                raise ModelError.at("host", error.problems[0].message) from None
        ways = [name for name in ("path", "prefix", "regex") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ModelError.at("path", f"{ways[0]} and {ways[1]}: a rewrite has one of path, prefix and regex")
        if not ways and self.host is None:
            raise ModelError.at((), "the rewrite changes nothing: give a host or a path")
        for name in ("path", "prefix"):
            value = getattr(self, name)
            if value is not None:
                try:
                    object.__setattr__(self, name, normalise_path(value))
                except RequestError as error:
                    raise ModelError.at(name, f"{value!r}: {error}") from None
        if (self.regex is None) != (self.substitution is None):
            raise ModelError.at("regex", "regex and substitution belong together")
        if self.regex is not None and self.substitution is not None:
            check_substitution(self.regex, self.substitution)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestId:
    """A random id (UUID 4, RFC 9562) for each request: sent to the backend, returned to the client, and in the access
    log. `accept`: an id that the client sends is kept if it is 1 to 128 visible ASCII characters."""

    header: str = "X-Request-Id"
    accept: bool = False

    def __post_init__(self) -> None:
        check_field_name("header", self.header)


Filter = RequestHeaders | ResponseHeaders | Rewrite | RequestId

ON_LISTENERS: Final = (RequestHeaders, ResponseHeaders, RequestId)
"""The filters that a listener may have; a rewrite needs the route's match."""
