"""The routing table: from a listener and a request to the route and service that own it.

The specification of every tier. In short (each step in a module of its own):

1. `hosts`: the most specific host pattern with a route on the listener owns the request; no fall-through.
2. `precedence`: its rules in order: priority, exact > regex > longest prefix, named method, number of header
   matches, of query matches, order of the file.
3. `conditions`: a rule whose method, headers, query or plugins do not fit is skipped. The first that fits wins.
4. A regex that cannot be decided in its budget, or a plugin that fails, ends the search: never a fall-through,
   since the next rule might lack the policy of this one.
5. A route's service is chosen by weight, a service's backend by its balancer; by default both by the client's
   hash with independent seeds.

A table is immutable but for what balancers and regexes learn, and belongs to one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rauta.routing import plugins
from rauta.routing.balancers import BUILT_IN, LeastRequests
from rauta.routing.candidate import Candidate
from rauta.routing.conditions import PluginFailedError, conditions_of
from rauta.routing.hashing import client_hash
from rauta.routing.hosts import HostPattern
from rauta.routing.index import UNKNOWN_HOST, HostIndex, PathIndex
from rauta.routing.model import Configuration, Match
from rauta.routing.outcome import Outcome
from rauta.routing.plugins import Balancer, Load, Matcher
from rauta.routing.precedence import Rule, rules_by_host
from rauta.routing.regexes import Budget, RegexTimeoutError
from rauta.routing.request import RequestView
from rauta.routing.services import Backend, BalancerKey, Plugin, Service


@dataclass(frozen=True, slots=True)
class Consideration:
    """One rule in the order in which it was asked, and why it did or did not claim the request."""

    rule: Rule
    claimed: bool
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a request was decided. `host` is the pattern that owns it (None: any); `owned` is False if none does."""

    owned: bool
    host: HostPattern | None
    considered: tuple[Consideration, ...]
    outcome: Outcome


class Table:
    """One generation of routing. Raises ModelError or PluginError when it cannot be built."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self._services = {service.name: service for service in configuration.services}
        self._matchers: dict[int, Matcher] = {}  # by identity of the model's Plugin: settings may not be hashable
        self._balancers: dict[str, Balancer] = {}
        self._of_streams = LeastRequests()
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for service in self.configuration.services:
            self._balancers[service.name] = _balancer_of(service.balancer.kind)
        self._usable: dict[str, tuple[Sequence[Backend], Sequence[Backend]]] = {}
        self._candidates = {
            service.name: tuple(backend for backend in service.backends if backend.weight)
            for service in self.configuration.services
        }
        self._hosts: dict[str, HostIndex[PathIndex]] = {}
        self._patterns: dict[str, HostIndex[HostPattern | str]] = {}
        for listener in self.configuration.listeners:
            by_host = rules_by_host(self.configuration, listener.name)
            self._hosts[listener.name] = HostIndex({host: self._index(rules) for host, rules in by_host.items()})
            self._patterns[listener.name] = HostIndex({host: host or _ANY for host in by_host})

    def _index(self, rules: list[Rule]) -> PathIndex:
        return PathIndex(
            Candidate(place, rule, conditions_of(rule.match, self._matchers_of(rule.match)), self._services)
            for place, rule in enumerate(rules)
        )

    def _matchers_of(self, match: Match) -> tuple[tuple[str, Matcher], ...]:
        found: list[tuple[str, Matcher]] = []
        for plugin in match.plugins:
            matcher = self._matchers.get(id(plugin))
            if matcher is None:
                matcher = self._matchers[id(plugin)] = plugins.build(plugins.MATCHERS, plugin.name, plugin.settings)
            found.append((plugin.name, matcher))
        return tuple(found)

    def match(self, listener: str, request: RequestView) -> Outcome:
        """Who owns a request that came in on a listener. Raises KeyError for a listener that is not in the table."""
        index = self._hosts[listener].get(request.host)
        return UNKNOWN_HOST if index is None else index.match(request)

    def pick(
        self,
        service: Service,
        client: tuple[str, int],
        load: Load,
        usable: Sequence[Backend] | None = None,
        *,
        stream: bool = False,
    ) -> Backend | None:
        """The backend for a client's request; `usable` are the backends that may be taken now (None: all).

        `stream`: the request is one of many on its connection at a time (HTTP/2), all of which Maglev would send to one
        backend. Unless a key is asked for, the backend with the fewest requests in flight gets it.

        Returns None if there is none. Raises PluginFailedError if a plugin balancer does not keep its contract.
        """
        candidates = self._candidates[service.name] if usable is None else self._usable_of(service, usable)
        if not candidates:
            return None
        settings = service.balancer
        if len(candidates) == 1 and settings.kind.name in BUILT_IN:
            return candidates[0]
        if stream and settings.key is None and settings.kind.name == "maglev":
            return self._of_streams.pick(candidates, 0, load)
        address, port = client
        key = client_hash(address, 0 if settings.key is BalancerKey.ADDRESS else port)
        if settings.kind.name in BUILT_IN:
            return self._balancers[service.name].pick(candidates, key, load)
        return self._pick_by_plugin(service, candidates, key, load)

    def _usable_of(self, service: Service, usable: Sequence[Backend]) -> Sequence[Backend]:
        """The candidates among the usable backends. The same object comes in until health changes, and the same
        goes out, so that balancers keep what they built."""
        last = self._usable.get(service.name)
        if last is None or last[0] is not usable:
            allowed = frozenset(usable)
            chosen = tuple(backend for backend in self._candidates[service.name] if backend in allowed)
            last = self._usable[service.name] = (usable, chosen)
        return last[1]

    def _pick_by_plugin(self, service: Service, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        name = service.balancer.kind.name
        try:
            backend = self._balancers[service.name].pick(candidates, key, load)
        except Exception as error:  # foreign code: its failure ends this request and nothing else
            raise PluginFailedError(name, f"raised {error!r}") from error
        if backend not in candidates:
            raise PluginFailedError(name, f"picked {backend!r}, which is not a candidate")
        return backend

    def explain(self, listener: str, request: RequestView) -> Explanation:
        """Every rule of the host that owns the request, in order, up to the one that settled it."""
        pattern = self._patterns[listener].get(request.host)
        index = self._hosts[listener].get(request.host)
        if pattern is None or index is None:
            return Explanation(False, None, (), UNKNOWN_HOST)
        fitting = {candidate.place for candidate in index.in_order(request.path)}
        considered: list[Consideration] = []
        budget = Budget()
        for candidate in index.candidates:
            settled, why = _verdict(candidate, candidate.place in fitting, request, budget)
            considered.append(Consideration(candidate.rule, settled and why == _CLAIMED, why))
            if settled:
                break
        host = None if isinstance(pattern, str) else pattern
        return Explanation(True, host, tuple(considered), self.match(listener, request))

    def close(self) -> None:
        """Close the plugins; the last request of this table is done."""
        for matcher in self._matchers.values():
            matcher.close()
        for balancer in self._balancers.values():
            balancer.close()
        self._matchers.clear()
        self._balancers.clear()


_ANY: Final = "any"
_CLAIMED: Final = "claims the request"


def _verdict(candidate: Candidate, fits: bool, request: RequestView, budget: Budget) -> tuple[bool, str]:
    """Whether a candidate settles the request, and why or why not, for a person."""
    if not fits:
        return False, f"path is not {candidate.rule.match.path}"
    try:
        refusing = candidate.refused_by(request, budget)
    except RegexTimeoutError:
        return True, "a regex used up its budget: the answer is 503"
    except PluginFailedError as error:
        return True, f"{error}: the answer is 500"
    return (True, _CLAIMED) if refusing is None else (False, f"needs {refusing.wanted()}")


def _balancer_of(kind: Plugin) -> Balancer:
    built_in = BUILT_IN.get(kind.name)
    if built_in is not None:
        return built_in(kind.settings)
    balancer: Balancer = plugins.build(plugins.BALANCERS, kind.name, kind.settings)
    return balancer
