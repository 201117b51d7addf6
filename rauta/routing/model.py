"""The model: services, routes and the configuration that holds them. Frozen, validated when built.

A route has one or more matches (any of them claims a request) and exactly one action. Order of the routes
is the order of the file; it decides only where the rules of precedence (see `table`) leave a tie.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from rauta.routing.errors import ModelError, Problem, RequestError
from rauta.routing.fields import FIELD_VALUE, PROTOCOL, TOKEN
from rauta.routing.filters import Filter, Rewrite
from rauta.routing.hosts import HostPattern
from rauta.routing.paths import normalise_path
from rauta.routing.regexes import check_pattern
from rauta.routing.services import LimitOverrides, Plugin, Service, TimeoutOverrides, check_weight
from rauta.routing.settings import (
    X_FORWARDED,
    AccessLog,
    Address,
    AdminSettings,
    Forwarded,
    Listener,
    OffloadMode,
    OffloadSettings,
    Shutdown,
    check_name,
)

# --- matches --------------------------------------------------------------------------------------------


class PathKind(Enum):
    """How a path is compared, in order of precedence."""

    EXACT = "exact"
    REGEX = "regex"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A path condition. Exact and prefix values are normalised as requests are; a prefix loses its final slash,
    so the root prefix is ""."""

    kind: PathKind
    value: str

    def __post_init__(self) -> None:
        if self.kind is PathKind.REGEX:
            check_pattern(self.value, where=self.kind.value)
            return
        try:
            value = normalise_path(self.value)
        except RequestError as error:
            raise ModelError.at(self.kind.value, f"{self.value!r}: {error}") from None
        if self.kind is PathKind.PREFIX:
            value = value.removesuffix("/")
            if value.endswith("/"):
                raise ModelError.at(self.kind.value, f"{self.value!r} must not end in '//': elements would be empty")
        object.__setattr__(self, "value", value)

    @classmethod
    def exact(cls, path: str) -> PathMatch:
        """The whole path; a trailing slash matters."""
        return cls(PathKind.EXACT, path)

    @classmethod
    def prefix(cls, path: str) -> PathMatch:
        """The path and everything below it, element by element."""
        return cls(PathKind.PREFIX, path)

    @classmethod
    def regex(cls, pattern: str) -> PathMatch:
        """A full match, case-sensitive, ASCII."""
        return cls(PathKind.REGEX, pattern)

    def __str__(self) -> str:
        return f"{self.kind.value} {self.value or '/'}"


class ValueKind(Enum):
    """How the value of a header field or query parameter is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A condition on one header field or query parameter. Header names are lower case."""

    name: str
    kind: ValueKind
    value: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ModelError.at("name", "the name is empty")
        if self.kind is ValueKind.REGEX:
            check_pattern(self.value, where="regex")

    def __str__(self) -> str:
        return f"{self.name} {self.kind.value} {self.value}".rstrip()


def header_match(name: str, kind: ValueKind, value: str = "") -> ValueMatch:
    """A condition on a header field; several fields of one name count as one list (RFC 9110 5.3)."""
    if not TOKEN.fullmatch(name):
        raise ModelError.at("name", f"{name!r} is not the name of a header field")
    # A prefix may end in a space ("Bearer "): a value goes on after it.
    whole = value.rstrip(" \t") if kind is ValueKind.PREFIX else value
    if kind in (ValueKind.EXACT, ValueKind.PREFIX) and not FIELD_VALUE.fullmatch(whole):
        raise ModelError.at(kind.value, f"{value!r} can never be the value of a header field")
    return ValueMatch(name.lower(), kind, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Conditions that all hold for a request. Empty hosts or methods mean any; plugins count as headers."""

    hosts: tuple[HostPattern, ...] = ()
    path: PathMatch = field(default_factory=lambda: PathMatch.prefix("/"))
    methods: frozenset[str] = frozenset()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        for method in sorted(self.methods):
            if not TOKEN.fullmatch(method):
                raise ModelError.at("methods", f"{method!r} is not a method")
            if method != method.upper() and method.upper() in _KNOWN_METHODS:
                raise ModelError.at("methods", f"{method!r}: methods are case-sensitive, write {method.upper()!r}")
            if method in ("CONNECT", "TRACE"):
                raise ModelError.at("methods", f"{method} is never routed: it is answered 405")


_KNOWN_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})


# --- actions and routes ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedService:
    """A service's share of a route's connections."""

    name: str
    weight: int = 1

    def __post_init__(self) -> None:
        check_weight(self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the request to one of the services, chosen by weight and the client's hash."""

    services: tuple[WeightedService, ...]

    def __post_init__(self) -> None:
        if not self.services:
            raise ModelError.at("services", "the list is empty")
        names: set[str] = set()
        for position, share in enumerate(self.services):
            if share.name in names:
                raise ModelError.at(("services", position, "name"), f"service {share.name!r} is listed twice")
            names.add(share.name)
        if not any(share.weight for share in self.services):
            raise ModelError.at("services", "all weights are 0: no service would get a request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Answer with a redirect. Fields that are None keep what the request had; a `prefix` replaces the one that
    the route matched."""

    status: int = 302
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    prefix: str | None = None

    def __post_init__(self) -> None:
        if self.status not in (301, 302, 303, 307, 308):
            raise ModelError.at("status", f"{self.status} is not a redirect: 301, 302, 303, 307 or 308")
        if self.scheme not in (None, "http", "https"):
            raise ModelError.at("scheme", f"{self.scheme!r} is neither 'http' nor 'https'")
        if self.port is not None and not 0 < self.port < 65536:
            raise ModelError.at("port", f"port {self.port} is out of range: 1 to 65535")
        if self.path is not None and self.prefix is not None:
            raise ModelError.at("path", "a redirect replaces either the whole path or its prefix")
        if self.host is not None:
            try:
                object.__setattr__(self, "host", HostPattern(self.host).name)
            except ModelError as error:
                raise ModelError.at("host", error.problems[0].message) from None
        for name in ("path", "prefix"):
            value = getattr(self, name)
            if value is not None:
                try:
                    object.__setattr__(self, name, normalise_path(value))
                except RequestError as error:
                    raise ModelError.at(
                        ("path", "full" if name == "path" else "prefix"), f"{value!r}: {error}"
                    ) from None
        if (self.scheme, self.host, self.port, self.path, self.prefix) == (None,) * 5:
            raise ModelError.at((), "the redirect would lead to itself: give a scheme, host, port or path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer with a fixed response."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ModelError.at("status", f"{self.status} is not a final status: 200 to 599")
        if self.body and self.status in (204, 205, 304):
            raise ModelError.at("body", f"a {self.status} response has no body")
        if not self.content_type or not FIELD_VALUE.fullmatch(self.content_type):
            raise ModelError.at("content_type", f"{self.content_type!r} is not a header value")


# A module, and what of it: names, joined by dots.
APPLICATION: Final = (
    r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
)
_APPLICATION: Final = re.compile(APPLICATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asgi:
    """Let an ASGI 3 application answer, in the worker's own loop. `app` is `module:attribute`."""

    app: str

    def __post_init__(self) -> None:
        if not _APPLICATION.fullmatch(self.app):
            raise ModelError.at("app", f"{self.app[:80]!r} is not module:attribute, such as shop.web:app")
        module, _, attribute = self.app.partition(":")
        if module.endswith(".py"):
            instead = f"{module.removesuffix('.py')}:{attribute}"
            raise ModelError.at("app", f"{self.app[:80]!r} names a file, not a module: write {instead[:80]!r}")


Action = Forward | Redirect | Respond | Asgi


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What to do with the requests that one of its matches claims. Empty listeners mean all of them.

    `filters` run in order, after the listener's. `upgrades` are the protocols, in lower case, that a client may switch
    to by `Upgrade` (RFC 9110 7.8); one with a version (`name/version`) is another than the name alone.
    """

    name: str
    action: Action
    matches: tuple[Match, ...] = field(default_factory=lambda: (Match(),))
    listeners: tuple[str, ...] = ()
    priority: int = 0
    timeouts: TimeoutOverrides = field(default_factory=TimeoutOverrides)
    limits: LimitOverrides = field(default_factory=LimitOverrides)
    forwarded: frozenset[Forwarded] | None = None
    filters: tuple[Filter, ...] = ()
    upgrades: frozenset[str] = frozenset({"websocket"})

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_upgrades()
        self._check_rewrites()
        if not self.matches:
            raise ModelError.at("match", "the list is empty: leave it out to match everything")
        if not -1_000_000 <= self.priority <= 1_000_000:
            raise ModelError.at("priority", f"{self.priority} is out of range: -1000000 to 1000000")
        if isinstance(self.action, Redirect) and self.action.prefix is not None:
            for position, match in enumerate(self.matches):
                if match.path.kind is not PathKind.PREFIX:
                    message = f"a redirect of the prefix needs a prefix match, not {match.path}"
                    raise ModelError.at(("match", position, "path"), message)

    def _check_upgrades(self) -> None:
        for token in sorted(self.upgrades):
            if not PROTOCOL.fullmatch(token):
                raise ModelError.at("upgrades", f"{token!r} is not the name of a protocol, with or without a version")
            if token.lower().startswith(("h2c", "http", "tls")):
                raise ModelError.at(
                    "upgrades", f"{token!r} cannot be tunnelled: the requests in it would not be routed"
                )
        object.__setattr__(self, "upgrades", frozenset(token.lower() for token in self.upgrades))

    def _check_rewrites(self) -> None:
        for position, item in enumerate(self.filters):
            if isinstance(item, Rewrite) and item.prefix is not None:
                for match in self.matches:
                    if match.path.kind is not PathKind.PREFIX:
                        message = f"a rewrite of the prefix needs a prefix match, not {match.path}"
                        raise ModelError.at(("filters", position, "prefix"), message)


# --- the whole ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Everything that one generation of the gateway is built from. `workers=None`: one per usable CPU."""

    listeners: tuple[Listener, ...]
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    offload: OffloadSettings | None = None
    access_log: AccessLog = field(default_factory=AccessLog)
    workers: int | None = None
    admin: AdminSettings | None = None
    shutdown: Shutdown = field(default_factory=Shutdown)

    def __post_init__(self) -> None:
        problems = [*self._problems()]
        if problems:
            raise ModelError(*problems)

    def _problems(self) -> Iterator[Problem]:
        if not self.listeners:
            yield Problem(("listeners",), "there is no listener: nothing would be served")
        if self.workers is not None and not 1 <= self.workers <= 256:
            yield Problem(("workers",), f"{self.workers} is out of range: 1 to 256")
        yield from _twins("listeners", (listener.name for listener in self.listeners))
        yield from _twins("services", (service.name for service in self.services))
        yield from _twins("routes", (route.name for route in self.routes))
        bound: dict[Address, str] = {}
        for listener in self.listeners:
            first = bound.setdefault(listener.address, listener.name)
            if first != listener.name:
                yield Problem(("listeners", listener.name, "address"), f"{listener.address} is taken by {first!r}")
        if self.admin is not None and self.admin.address in bound:
            first = bound[self.admin.address]
            yield Problem(("admin", "address"), f"{self.admin.address} is taken by listener {first!r}")
        if self.admin is not None and (first_on := bound.get(Address.unix(self.admin.socket))) is not None:
            yield Problem(("admin", "socket"), f"unix:{self.admin.socket} is taken by listener {first_on!r}")
        listeners = _Known("listener", (listener.name for listener in self.listeners))
        services = _Known("service", (service.name for service in self.services))
        for listener in self.listeners:
            yield from self._problems_of_passthrough(listener, services)
        yield from self._problems_of_checks()
        for position, route in enumerate(self.routes):
            for index, name in enumerate(route.listeners):
                yield from listeners.check(name, ("routes", position, "listeners", index))
            if isinstance(route.action, Forward):
                for index, share in enumerate(route.action.services):
                    yield from services.check(share.name, ("routes", position, "services", index, "name"))

    def _problems_of_passthrough(self, listener: Listener, services: _Known) -> Iterator[Problem]:
        with_tls = {service.name for service in self.services if service.tls is not None}
        for position, item in enumerate(listener.passthrough):
            where = ("listeners", listener.name, "passthrough", position, "service")
            yield from services.check(item.service, where)
            if item.service in with_tls:
                message = (
                    f"service {item.service!r} has tls: the client's own goes through, so it needs a service without"
                )
                yield Problem(where, message)

    def _problems_of_checks(self) -> Iterator[Problem]:
        passed = {item.service for listener in self.listeners for item in listener.passthrough}
        for service in self.services:
            if service.health is not None and service.health.tls is not None and service.name not in passed:
                message = "is for a service that a listener passes TLS through to: write tls in the service"
                yield Problem(("services", service.name, "health", "tls"), message)

    def forwarded_of(self, listener: Listener, route: Route | None = None) -> frozenset[Forwarded]:
        """The forwarded fields that are added for a route on a listener.

        It depends on the file and never on the machine: by default the three X-Forwarded fields, but none on
        plain listeners of a file that has an offload section, since the kernel adds none.
        """
        if route is not None and route.forwarded is not None:
            return route.forwarded
        if listener.forwarded is not None:
            return listener.forwarded
        offloading = self.offload is not None and self.offload.mode is not OffloadMode.NONE
        return frozenset() if offloading and listener.tls is None else X_FORWARDED


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a person most likely meant, or None."""
    import difflib  # 5 ms of import that only errors need

    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


class _Known:
    """The names that references may use. Only the first few unknown ones get a guess: each compares with all names."""

    def __init__(self, what: str, names: Iterable[str]) -> None:
        self._what = what
        self._names = sorted(set(names))
        self._set = frozenset(self._names)
        self._guesses = 20

    def check(self, name: str, where: tuple[str | int, ...]) -> Iterator[Problem]:
        """A problem if nothing has that name."""
        if name in self._set:
            return
        message = f"there is no {self._what} {name!r}"
        self._guesses -= 1
        guess = nearest(name, self._names) if self._guesses >= 0 else None
        if guess:
            message += f"; did you mean {guess!r}?"
        elif self._names:
            message += f"; known: {', '.join(self._names[:10])}"
        yield Problem(where, message)


def _twins(section: str, names: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            yield Problem((section, position, "name"), f"the name {name!r} is used twice")
        seen.add(name)
