"""A rule compiled for matching: the conditions that are left once an index has found it, and its answer."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate

from rauta.routing.conditions import Condition, PluginFailedError
from rauta.routing.hashing import SERVICE_SEED, client_hash
from rauta.routing.model import Forward, Route
from rauta.routing.outcome import Hit, Outcome, PluginFailed, RegexTimeout
from rauta.routing.precedence import Rule
from rauta.routing.regexes import Budget, RegexTimeoutError
from rauta.routing.request import RequestView
from rauta.routing.services import BalancerKey, Service


class Answer:
    """What a rule answers once it claims a request: its route, and one of the route's services by weight."""

    __slots__ = ("_by_address", "_cumulative", "_hits", "only")

    def __init__(self, rule: Rule, services: dict[str, Service]) -> None:
        shares: list[tuple[Service | None, int]] = [(None, 1)]
        if isinstance(rule.route.action, Forward):
            shares = [(services[share.name], share.weight) for share in rule.route.action.services if share.weight]
        self._hits = [Hit(rule.route, rule.match, service) for service, _ in shares]
        self._cumulative = list(accumulate(weight for _, weight in shares))
        self._by_address = all(
            service is not None and service.balancer.key is BalancerKey.ADDRESS for service, _ in shares
        )
        self.only: Hit | None = self._hits[0] if len(self._hits) == 1 else None

    def hit(self, request: RequestView) -> Hit:
        """A client's connection stays with one service: the choice is a hash with a seed of its own. Where all
        services balance by address alone, the client's port does not count here either."""
        if self.only is not None:
            return self.only
        address, port = request.client
        key = client_hash(address, 0 if self._by_address else port, SERVICE_SEED)
        return self._hits[bisect(self._cumulative, key % self._cumulative[-1])]


class Candidate:
    """A compiled rule. `place` is its position in its host's order."""

    __slots__ = ("answer", "conditions", "final", "place", "rule")

    def __init__(self, place: int, rule: Rule, conditions: tuple[Condition, ...], services: dict[str, Service]) -> None:
        self.place = place
        self.rule = rule
        self.conditions = conditions
        self.answer = Answer(rule, services)
        # A rule without further conditions that always answers the same needs no evaluation at all.
        self.final: Hit | None = None if conditions else self.answer.only

    @property
    def route(self) -> Route:
        """The route that the rule belongs to."""
        return self.rule.route

    def refused_by(self, request: RequestView, budget: Budget) -> Condition | None:
        """The first condition that does not hold. Raises RegexTimeoutError, PluginFailedError."""
        for condition in self.conditions:
            if not condition.holds(request, budget):
                return condition
        return None

    def ask(self, request: RequestView, budget: Budget) -> Outcome | None:
        """The outcome if this rule settles the request, None if the next one is to be asked."""
        try:
            if self.refused_by(request, budget) is not None:
                return None
        except RegexTimeoutError:
            return RegexTimeout(self.route)
        except PluginFailedError as error:
            cause = error.__cause__
            return PluginFailed(self.route, error.plugin, cause if isinstance(cause, Exception) else error)
        return self.answer.hit(request)
