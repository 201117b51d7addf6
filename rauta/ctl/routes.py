"""`rautactl routes`: every route with what it claims, what it does, and its tier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rauta.ctl import availability, describe, effective, files
from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output
from rauta.ctl.tables import Row, Style
from rauta.ctl.tiers import Tier, Tiers
from rauta.routing.model import Configuration, Forward, Route
from rauta.routing.services import Service

MAX_REASONS: Final = 3  # of one route in the table; more are not read
_HEADER: Final = ("route", "priority", "listeners", "hosts", "match", "action", "settings", "tier", "why no lower")


def run(output: Output, *, file: str | None) -> int:
    """In the order of the file. Of a route with several matches, each has a row."""
    configuration = files.load(file).configuration
    offload = availability.of(configuration)
    tiers = Tiers(configuration, offload.capabilities)
    if output.json:
        services = {service.name: service for service in configuration.services}
        routes = [_document(route, tiers.of_route(route), services) for route in configuration.routes]
        output.document({"offload": offload.document(), "routes": routes})
        return EXIT_OK
    shared = _shared([tiers.of_route(route) for route in configuration.routes])
    rows = [row for route in configuration.routes for row in _rows(configuration, route, tiers.of_route(route), shared)]
    output.table(_HEADER, rows)
    for message in shared:
        output.line()
        output.line(f"Of all routes: {message}.", Style.FAINT)
    if not configuration.routes:
        output.line("there is no route: every request is answered 404")
    elif not offload.available and any(tiers.of_route(route).number < 3 for route in configuration.routes):
        output.line()
        output.line(f"The tiers are those of the plan. For now tier 3 serves all: {offload.why}.", Style.FAINT)
    return EXIT_OK


def _shared(tiers: list[Tier]) -> list[str]:
    """What holds for every route, of several, is told once."""
    if len(tiers) < 2:
        return []
    others = [{reason.message for reason in tier.why} for tier in tiers[1:]]
    messages = dict.fromkeys(reason.message for reason in tiers[0].why)
    return [message for message in messages if all(message in other for other in others)]


def _rows(configuration: Configuration, route: Route, tier: Tier, shared: list[str]) -> list[Row]:
    why = _short(tier, shared)
    rows: list[Row] = []
    for number, match in enumerate(route.matches):
        first = number == 0
        rows.append(
            (
                route.name,
                str(route.priority) if first and route.priority else "",
                describe.listeners(route) if first and len(configuration.listeners) > 1 else "",
                describe.hosts(match),
                describe.conditions(match),
                describe.action(route.action) if first else "",
                effective.own_settings(route) if first else "",
                str(tier.number) if first else "",
                why if first else "",
            )
        )
    return rows


def _short(tier: Tier, shared: list[str]) -> str:
    reasons = [message for message in dict.fromkeys(reason.message for reason in tier.why) if message not in shared]
    more = len(reasons) - MAX_REASONS
    return "; ".join(reasons[:MAX_REASONS]) + (f"; and {more} more (--json has all)" if more > 0 else "")


def _document(route: Route, tier: Tier, services: Mapping[str, Service]) -> describe.Document:
    why = [{"code": reason.code, "message": reason.message} for reason in tier.why]
    shares = route.action.services if isinstance(route.action, Forward) else ()
    return {
        **describe.route_document(route),
        "effective": effective.services_document(route, [services[share.name] for share in shares]),
        "tier": tier.number,
        "why_no_lower": why,
    }
