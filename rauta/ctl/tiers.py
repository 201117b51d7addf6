"""Which tier the planner gives a route or a request, and why no lower one."""

from __future__ import annotations

from dataclasses import dataclass

from rauta.ctl import codes
from rauta.offload import Capabilities, Decision, Passed, Plan, Refusal, plan
from rauta.routing.hosts import HostPattern
from rauta.routing.model import Configuration, Match, Route
from rauta.routing.request import RequestView


@dataclass(frozen=True, slots=True)
class Why:
    """One reason for not being in a lower tier: a stable code (see `codes.WHY`) and a sentence."""

    code: str
    message: str


_BEYOND_TIER_1 = Why(codes.BEYOND_TIER_1, codes.WHY[codes.BEYOND_TIER_1])


@dataclass(frozen=True, slots=True)
class Tier:
    """The lowest tier of the plan, and what keeps it (or some of its requests) from being lower."""

    number: int
    why: tuple[Why, ...]


class Tiers:
    """The planner's answers for one configuration."""

    __slots__ = ("_plan",)

    def __init__(self, configuration: Configuration, capabilities: Capabilities) -> None:
        self._plan: Plan = plan(configuration, capabilities)

    def of_route(self, route: Route) -> Tier:
        """The lowest tier that answers some of the route's requests, and all reasons why others go higher."""
        planned = self._plan.routes.get(route.name)
        why = tuple(_why(refusal, route) for refusal in self._plan.refusals.get(route.name, ()))
        if planned is None or not planned.tiers:
            return Tier(3, why)
        lowest = min(planned.tiers)
        return Tier(lowest, why if lowest == 1 else (*why, _BEYOND_TIER_1))

    def of_request(
        self,
        listener: str,
        request: RequestView,
        path: str,
        owner: HostPattern | None,
        claim: tuple[Route, Match] | None,
    ) -> Tier:
        """The tier of one request. `path` is its raw path, `owner` the pattern that owns its host, and `claim` what
        claims it in tier 3."""
        found = self._plan.look(listener, request.host, request.method, path)
        if isinstance(found, Decision):
            return Tier(found.tier, () if found.tier == 1 else (_BEYOND_TIER_1,))
        why = () if claim is None else self._why_not(listener, owner, *claim)
        if found in (Passed.ROUTE, Passed.LISTENER, Passed.UNKNOWN_HOST) and why:
            return Tier(3, why)
        return Tier(3, (Why(codes.of_request(found), codes.REQUEST_CODES[found]), *why))

    def _why_not(self, listener: str, owner: HostPattern | None, route: Route, match: Match) -> tuple[Why, ...]:
        """The refusals of a route that concern one of its matches on one listener and host."""
        position = next((i for i, own in enumerate(route.matches) if own is match), None)
        host = None if owner is None else str(owner)
        found: dict[Why, None] = {}
        for refusal in self._plan.refusals.get(route.name, ()):
            if (
                refusal.listener in (None, listener)
                and refusal.match in (None, position)
                and refusal.host in (None, host)
            ):
                found[Why(refusal.reason.value, refusal.message)] = None
        return tuple(found)


def _why(refusal: Refusal, route: Route) -> Why:
    """A refusal with the part of the route that it concerns in front, where it is not all of it."""
    place = []
    if refusal.match is not None and len(route.matches) > 1:
        place.append(f"match {refusal.match + 1}")
    if refusal.host is not None:
        place.append(f"host {refusal.host}")
    message = f"{', '.join(place)}: {refusal.message}" if place else refusal.message
    if refusal.listener is not None and refusal.listener not in refusal.message:
        message = f"on {refusal.listener}: {message}"
    return Why(refusal.reason.value, message)
