"""What a file may say, and most likely does not mean: warnings, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from rauta.config import advice_backends, advice_traffic
from rauta.config.errors import ConfigProblem
from rauta.config.nodes import shorten
from rauta.config.origins import Origins
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    PathKind,
    Route,
    ValueKind,
)
from rauta.routing.regexes import is_linear
from rauta.routing.settings import Address

MAX_CLAIMS: Final = 10_000  # of one match; hosts times methods would no longer be linear


def warnings(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """All warnings. Linear in the size of the configuration."""
    yield from _regexes(configuration, origins)
    yield from _unreachable(configuration, origins)
    yield from _unread(configuration, origins)
    yield from _services(configuration, origins)
    yield from _loops(configuration, origins)
    yield from advice_backends.warnings(configuration, origins)
    yield from advice_traffic.warnings(configuration, origins)


def _regexes(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Patterns that only the engine with a time limit can take: they end in 503 when the time is over."""
    linear: dict[str, bool] = {}
    for position, route in enumerate(configuration.routes):
        for index, match in enumerate(route.matches):
            for where, pattern in _patterns(match):
                if pattern not in linear:
                    linear[pattern] = is_linear(pattern)
                if not linear[pattern]:
                    yield origins.routes[position].problem(
                        f"pattern {shorten(pattern)} has look-around or back-references, or is too large: if a request "
                        "uses up its time for regexes, the answer is 503 (regex_timeout)",
                        ("match", index, *where, "regex"),
                    )


def _patterns(match: Match) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if match.path.kind is PathKind.REGEX:
        yield ("path",), match.path.value
    for section in ("headers", "query"):
        for index, condition in enumerate(getattr(match, section)):
            if condition.kind is ValueKind.REGEX:
                yield (section, index), condition.value


def _unreachable(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Routes all of whose matches are also matches of routes that go first.

    Equal conditions on the same listener and host differ in priority and order only, so the first one always wins.
    """
    everywhere = tuple(listener.name for listener in configuration.listeners)
    order = sorted(range(len(configuration.routes)), key=lambda i: (-configuration.routes[i].priority, i))
    taken: dict[Any, int] = {}
    found: list[tuple[int, int]] = []
    for position in order:
        route = configuration.routes[position]
        claims = [*_claims(route, route.listeners or everywhere)]
        winners = [taken.setdefault(claim, position) if claim is not None else position for claim in claims]
        if claims and position not in winners:
            found.append((position, winners[0]))
    for position, winner in sorted(found):
        first = configuration.routes[winner].name
        yield origins.routes[position].problem(
            f"this route is never reached: {first!r} has the same match and goes first", ("match",)
        )


def _unread(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Routes of nothing but listeners on which no request is ever read."""
    passing = {one.name for one in configuration.listeners if one.passthrough and one.tls is None}
    everywhere = tuple(listener.name for listener in configuration.listeners)
    for position, route in enumerate(configuration.routes):
        listeners = route.listeners or everywhere
        if passing.issuperset(listeners):
            names = ", ".join(map(repr, listeners))
            message = f"this route is never reached: no request is read on {names}, with passthrough and no tls"
            yield origins.routes[position].problem(message, ("listeners",))


def _claims(route: Route, listeners: Iterable[str]) -> Iterator[Any]:
    """What a route claims, taken apart so that equal conditions are equal keys; None for what is not comparable."""
    for match in route.matches:
        if match.plugins:  # settings are foreign objects: equal ones need not mean the same
            yield None
            continue
        if len(match.hosts) * len(match.methods) > MAX_CLAIMS:
            yield None
            continue
        rest = (match.path, frozenset(match.headers), frozenset(match.query))
        for listener in listeners:
            for host in match.hosts or (None,):
                for method in match.methods or (None,):
                    yield (listener, host, method, rest)


def _services(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    used = {
        share.name
        for route in configuration.routes
        if isinstance(route.action, Forward)
        for share in route.action.services
    }
    used |= {item.service for listener in configuration.listeners for item in listener.passthrough}
    for service in configuration.services:
        origin = origins.named["services", service.name]
        if service.name not in used:
            yield origin.problem("no route uses this service")
        if not any(backend.weight for backend in service.backends):
            yield origin.problem("all weights are 0: its requests are answered 503", ("backends",))


def _loops(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Backends that are this gateway's own listeners."""
    own: dict[Address, str] = {}
    for listener in configuration.listeners:
        address = listener.address
        own[address] = listener.name
        if address.ip is not None and address.ip.is_unspecified:
            own.update({Address(host, address.port): listener.name for host in ("127.0.0.1", "::1", "localhost")})
    for service in configuration.services:
        for position, backend in enumerate(service.backends):
            name = own.get(backend.address)
            if name is not None:
                yield origins.named["services", service.name].problem(
                    f"{backend.address} is this gateway's own listener {name!r}: requests would go round in circles",
                    ("backends", position, "address"),
                )
