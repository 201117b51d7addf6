"""What `Table.match` answers: exactly one of four outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rauta.routing.model import Match, Route
    from rauta.routing.services import Service


@dataclass(frozen=True, slots=True)
class Hit:
    """A route claims the request. `match` is the one of its matches that did; `service` is None for routes that
    answer by themselves."""

    route: Route
    match: Match
    service: Service | None


@dataclass(frozen=True, slots=True)
class Miss:
    """No route claims the request: 404. `unknown_host`: no route has this host; `no_route`: none has the path."""

    reason: Literal["unknown_host", "no_route"]


@dataclass(frozen=True, slots=True)
class RegexTimeout:
    """A pattern of this route could not be decided within the budget: 503. Never falls through."""

    route: Route
    reason: Literal["regex_timeout"] = "regex_timeout"


@dataclass(frozen=True, slots=True)
class PluginFailed:
    """A plugin of this route raised: 500. Never falls through."""

    route: Route
    plugin: str
    error: Exception
    reason: Literal["plugin_error"] = "plugin_error"


Outcome = Hit | Miss | RegexTimeout | PluginFailed
