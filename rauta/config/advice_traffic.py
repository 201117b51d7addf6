"""Warnings about filters, trusted proxies and load balancers, health checks and the admin interface."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rauta.config.errors import ConfigProblem
from rauta.config.nodes import shorten
from rauta.config.origins import Origins
from rauta.routing.filters import Filter, RequestHeaders, RequestId, Rewrite
from rauta.routing.model import Configuration, Forward, Match, PathKind, Route
from rauta.routing.paths import prefix_matches
from rauta.routing.regexes import literal_prefix
from rauta.routing.units import duration

_KEYS: Final = {RequestHeaders: "request_headers", Rewrite: "rewrite"}


def warnings(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """All of them. Linear in the size of the configuration."""
    yield from _request_ids(configuration, origins)
    yield from _filters_without_backend(configuration, origins)
    yield from _rewrites(configuration, origins)
    yield from _moved_prefixes(configuration, origins)
    yield from _trusted_proxies(configuration, origins)
    yield from _proxy_sources(configuration, origins)
    yield from _health(configuration, origins)
    yield from _admin(configuration, origins)


def _ids_of(filters: tuple[Filter, ...]) -> list[int]:
    return [position for position, item in enumerate(filters) if isinstance(item, RequestId)]


def _request_ids(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Request ids that another one of the same list replaces. A route's may replace its listener's on purpose."""
    message = "only the last request id of a list counts: remove this one"
    for listener in configuration.listeners:
        for position in _ids_of(listener.filters)[:-1]:
            place = ("filters", position, "request_id")
            yield origins.named["listeners", listener.name].problem(message, place)
    for number, route in enumerate(configuration.routes):
        for position in _ids_of(route.filters)[:-1]:
            yield origins.routes[number].problem(message, ("filters", position, "request_id"))


def _filters_without_backend(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Changes of what a backend gets, on routes that rauta answers itself."""
    for number, route in enumerate(configuration.routes):
        if isinstance(route.action, Forward):
            continue
        for position, item in enumerate(route.filters):
            key = _KEYS.get(type(item))
            if key is not None:
                message = "this changes what a backend gets, and the route has none: rauta answers by itself"
                yield origins.routes[number].problem(message, ("filters", position, key))


def _rewrites(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Rewrites by a regex that no path of the route can match, if nothing before it changed the path."""
    for number, route in enumerate(configuration.routes):
        found = _first_path_rewrite(route)
        if found is None:
            continue
        position, regex = found
        start = literal_prefix(regex)
        if start and not any(_may_start(match, start) for match in route.matches):
            yield origins.routes[number].problem(
                f"it rewrites paths that start with {shorten(start)}, and the route matches none: it changes nothing",
                ("filters", position, "rewrite", "path", "regex"),
            )


def _first_path_rewrite(route: Route) -> tuple[int, str] | None:
    """The first filter that rewrites the path, if it is by a regex, and its place."""
    for position, item in enumerate(route.filters):
        if isinstance(item, Rewrite) and (item.path, item.prefix, item.regex) != (None, None, None):
            return None if item.regex is None else (position, item.regex)
    return None


def _may_start(match: Match, start: str) -> bool:
    """Whether a path that the match claims can start with a text; True when in doubt."""
    path = match.path
    if path.kind is PathKind.EXACT:
        return path.value.startswith(start)
    if path.kind is PathKind.PREFIX:
        return prefix_matches(path.value, start) or f"{path.value}/".startswith(start)
    own = literal_prefix(path.value)
    return own.startswith(start) or start.startswith(own)


def _moved_prefixes(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Rewrites of a prefix that an earlier rewrite has taken away."""
    for number, route in enumerate(configuration.routes):
        moved = None
        for position, item in enumerate(route.filters):
            if not isinstance(item, Rewrite):
                continue
            if moved is not None and item.prefix is not None:
                yield origins.routes[number].problem(
                    f"the rewrite before it leads to {moved!r}, without the prefix of the route: it changes nothing",
                    ("filters", position, "rewrite", "path", "prefix"),
                )
                break
            target = item.path or item.prefix
            if target is not None and not any(_has_prefix(match, target, item) for match in route.matches):
                moved = target


def _has_prefix(match: Match, target: str, item: Rewrite) -> bool:
    """Whether a rewritten path may still have the prefix that the route matched."""
    prefix = match.path.value
    below = prefix_matches(prefix, target)
    return below if item.path is not None else below or prefix_matches(target.removesuffix("/"), prefix)


def _trusted_proxies(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    for listener in configuration.listeners:
        origin = origins.named["listeners", listener.name]
        for position, network in enumerate(listener.trusted_proxies):
            if network.prefixlen == 0:
                message = f"{network} trusts every client: each of them can say that it has any other address"
                yield origin.problem(message, ("trusted_proxies", position))
        # Where it is the default of a file with offload that adds no fields, the listener may still mean it.
        if listener.trusted_proxies and listener.forwarded is not None and not listener.forwarded:
            message = "what the trusted proxies say is not passed on: backends see neither them nor the client"
            yield origin.problem(message, ("forwarded",))


def _proxy_sources(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    for listener in configuration.listeners:
        for position, network in enumerate(() if listener.proxy_protocol is None else listener.proxy_protocol.sources):
            if network.prefixlen == 0:
                message = f"{network} trusts every client: each of them can say that it has any other address"
                place = ("proxy_protocol", "from", position)
                yield origins.named["listeners", listener.name].problem(message, place)


def _health(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    for service in configuration.services:
        check = service.health
        if check is not None and check.timeout > check.interval:
            yield origins.named["services", service.name].problem(
                f"a check may take {duration(check.timeout)}, and one is due every {duration(check.interval)}: "
                "a backend that hangs is checked less often than that",
                ("health", "timeout"),
            )


def _admin(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    admin = configuration.admin
    if admin is None or admin.address is None:
        return
    ip = admin.address.ip
    if ip is not None and not ip.is_loopback:
        yield origins.main.problem(
            f"{admin.address} can be reached from other machines, and the token goes there in plain text: whoever sees "
            "it can give commands; use a loopback address, with a tunnel or a TLS listener in front",
            ("admin", "address"),
        )
