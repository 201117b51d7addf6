"""The rules of precedence, as an order: which rule is asked first.

Within one host: higher `priority`, then exact > regex > longest prefix, then a named method, then more header
matches (plugins count as such), then more query matches, then the order of the file. The first rule whose
conditions all hold claims the request. Everything that needs this order (the table, the planner of the kernel
tiers, `explain`) takes it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rauta.routing.hosts import HostPattern
from rauta.routing.model import (
    Configuration,
    Match,
    PathKind,
    Route,
)

_KIND: Final = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}

Rank = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Rule:
    """One match of one route, as it stands in one host's list."""

    rank: Rank
    route: Route
    match: Match


def rank_of(route: Route, match: Match, position: int) -> Rank:
    """The place of a match in its host's list: lower is asked first. `position` is its place in the file."""
    length = len(match.path.value) if match.path.kind is PathKind.PREFIX else 0
    return (
        -route.priority,
        _KIND[match.path.kind],
        -length,
        0 if match.methods else 1,
        -len(match.headers) - len(match.plugins),
        -len(match.query),
        position,
    )


def rules_by_host(configuration: Configuration, listener: str) -> dict[HostPattern | None, list[Rule]]:
    """Each host pattern's rules on a listener in the order in which they are asked; None stands for any host."""
    by_host: dict[HostPattern | None, list[Rule]] = {}
    position = 0
    for route in configuration.routes:
        for match in route.matches:
            position += 1
            if not route.listeners or listener in route.listeners:
                rule = Rule(rank_of(route, match, position), route, match)
                for host in dict.fromkeys(match.hosts) or (None,):
                    by_host.setdefault(host, []).append(rule)
    for rules in by_host.values():
        rules.sort(key=lambda rule: rule.rank)
    return by_host
