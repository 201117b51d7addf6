"""The planner: from a configuration and the limits of an implementation to a plan. It allows, it does not deny.

A rule (one match of one route) answers in the kernel if the allow-list (`honoured`) finds nothing against the
configuration, its listener, its route, the services that the route uses, and the match. All other rules are still
there when a host is flattened, and make the requests that they could claim go to tier 3.

What does not fit into the capabilities is left out in the order of the file: a host whose entries, routes or
services do not fit owns its requests and passes them all; a listener whose hosts do not fit is left out as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rauta.offload.allow import Finding
from rauta.offload.capabilities import Capabilities
from rauta.offload.flatten import Flat, Loss, flatten
from rauta.offload.judge import Judge, is_blocked
from rauta.offload.plans import (
    HostPlan,
    ListenerPlan,
    Plan,
    PlannedRoute,
    PlannedService,
    Size,
    SuffixOwner,
    tier_of,
)
from rauta.offload.reasons import Reason, Refusal
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import (
    Configuration,
    Forward,
    Route,
    WeightedService,
)
from rauta.routing.precedence import Rule, rules_by_host
from rauta.routing.services import BalancerKey, ProxyProtocol, Service
from rauta.routing.settings import Listener

Hosts = Mapping[HostPattern | None, Sequence[Rule]]


def plan(configuration: Configuration, capabilities: Capabilities | None = None) -> Plan:
    """What the kernel can answer of a configuration, and why not the rest. Pure; 10,000 routes take 0.6 to 1.0 s."""
    return _Planner(configuration, capabilities or Capabilities()).plan()


@dataclass(slots=True)
class _Room:
    """What is left of the capabilities, in entries."""

    listeners: int
    hosts: int
    exact: int
    prefix: int
    routes: int
    services: int


class _Planner:
    def __init__(self, configuration: Configuration, capabilities: Capabilities) -> None:
        self._configuration = configuration
        self._capabilities = capabilities
        self._judge = Judge(configuration, capabilities)
        self._services = {service.name: service for service in configuration.services}
        self._room = _Room(
            capabilities.listeners,
            capabilities.hosts,
            capabilities.exact,
            capabilities.prefix,
            capabilities.routes,
            capabilities.services,
        )
        self._refusals: dict[str, dict[Refusal, None]] = {route.name: {} for route in configuration.routes}
        # Matches by identity: equal ones of two routes are two rules, and hashing a match costs 10 us.
        self._position: dict[tuple[str, int], int] = {}
        self._allowed: set[tuple[str, int]] = set()
        # What the plan holds so far: routes with the kernel tiers that answer by them, and services.
        self._tiers: dict[str, set[int]] = {}
        self._planned: dict[str, PlannedService] = {}

    def plan(self) -> Plan:
        """Everything, in the order of the file."""
        everything = self._judge.configuration()
        for route in self._configuration.routes:
            self._judge_route(route, everything)
        listeners = {
            listener.name: self._listener(listener)
            if not is_blocked(everything)
            else ListenerPlan(name=listener.name, address=listener.address)
            for listener in self._configuration.listeners
        }
        by_name = {route.name: route for route in self._configuration.routes}
        routes = {name: self._route(number, by_name[name]) for number, name in enumerate(self._tiers)}
        return Plan(
            capabilities=self._capabilities,
            listeners=listeners,
            routes=routes,
            services=self._planned,
            refusals={name: tuple(found) for name, found in self._refusals.items() if found},
            size=_size(listeners, routes, self._planned),
        )

    # --- judging ----------------------------------------------------------------------------------------

    def _judge_route(self, route: Route, everything: tuple[Finding, ...]) -> None:
        against = everything + self._judge.route(route)
        self._refuse(route, against)
        allowed = not is_blocked(against)
        for position, match in enumerate(route.matches):
            key = (route.name, id(match))
            if self._position.setdefault(key, position) == position:
                found = self._judge.match(match)
                self._refuse(route, found, match=position)
                if allowed and not is_blocked(found):
                    self._allowed.add(key)

    def _refuse(
        self,
        route: Route,
        against: Iterable[Finding],
        *,
        listener: Listener | None = None,
        match: int | None = None,
        host: HostPattern | None = None,
    ) -> None:
        for finding in against:
            refusal = Refusal(
                route=route.name,
                reason=finding.reason,
                message=finding.message,
                listener=None if listener is None else listener.name,
                match=match,
                host=None if host is None else str(host),
            )
            self._refusals[route.name][refusal] = None

    def _refuse_rules(
        self, reason: Reason, message: str, listener: Listener, host: HostPattern | None, rules: Iterable[Rule]
    ) -> None:
        finding = Finding(reason, message)
        for rule in rules:
            match = self._position[rule.route.name, id(rule.match)]
            self._refuse(rule.route, (finding,), listener=listener, match=match, host=host)

    # --- listeners --------------------------------------------------------------------------------------

    def _listener(self, listener: Listener) -> ListenerPlan:
        left_out = ListenerPlan(name=listener.name, address=listener.address)
        against = self._judge.listener(listener)
        answering: set[str] = set()  # routes that nothing on this listener speaks against
        for route in self._configuration.routes:
            if not route.listeners or listener.name in route.listeners:
                found = against + self._judge.forwarded(listener, route)
                self._refuse(route, found, listener=listener)
                if not is_blocked(found):
                    answering.add(route.name)
        if is_blocked(against):
            return left_out
        hosts: Hosts = rules_by_host(self._configuration, listener.name)
        keys = self._keys(listener, hosts, answering)
        entries = _host_entries(keys)
        if not self._room.listeners or entries > self._room.hosts:
            what = "listener: there are too many" if not self._room.listeners else f"listener's {entries} hosts"
            for host in keys:
                rules = self._answering(hosts[host], answering)
                self._refuse_rules(Reason.FULL, f"no room for the {what}", listener, host, rules)
            return left_out
        self._room.listeners -= 1
        self._room.hosts -= entries
        return _with_owners(left_out, {host: self._host(listener, host, hosts[host], answering) for host in keys})

    def _answering(self, rules: Sequence[Rule], routes: Collection[str]) -> list[Rule]:
        """Those rules that may answer in the kernel on a listener where these routes may."""
        return [
            rule for rule in rules if rule.route.name in routes and (rule.route.name, id(rule.match)) in self._allowed
        ]

    def _keys(self, listener: Listener, hosts: Hosts, answering: set[str]) -> list[HostPattern | None]:
        """The hosts that the maps hold. A host that is no key here must never be looked up by the kernel, or
        nothing may stand for "any host": its requests would go there."""
        keys: list[HostPattern | None] = []
        unknown = not self._capabilities.wildcard_hosts and any(map(_is_wildcard, hosts))
        for host, rules in hosts.items():
            complaint = None
            if unknown and (host is None or _is_wildcard(host)):
                complaint = "the offload knows no wildcard hosts, so it cannot tell which requests are for other hosts"
            elif host is not None and host.name.startswith("["):
                complaint = "requests for an IPv6 literal as the host go to tier 3"
            elif host is not None and len(host.name) > self._capabilities.host_length:
                complaint = f"longer than the {self._capabilities.host_length} bytes that the kernel tiers look up"
            if complaint is None:
                keys.append(host)
            else:
                message = f"host {'any' if host is None else host}: {complaint}"
                self._refuse_rules(Reason.HOST, message, listener, host, self._answering(rules, answering))
        return keys

    # --- hosts ------------------------------------------------------------------------------------------

    def _host(
        self, listener: Listener, host: HostPattern | None, rules: Sequence[Rule], answering: set[str]
    ) -> HostPlan:
        may_answer = self._answering(rules, answering)
        if not may_answer:
            return HostPlan(pattern=host)
        allowed = set(map(id, may_answer))
        answers = [rule.route.name if id(rule) in allowed else None for rule in rules]
        flat = flatten(rules, answers, self._capabilities.methods, self._capabilities.path_length)
        named = dict.fromkeys(name for row in flat.rows() for name in row if name is not None)
        routes = {rule.route.name: rule.route for rule in may_answer if rule.route.name in named}
        full = self._no_room(flat, routes.values())
        if full is not None:
            self._refuse_rules(Reason.FULL, f"no room for host {host or 'any'}: {full}", listener, host, may_answer)
            return HostPlan(pattern=host)
        self._take(flat, routes.values())
        self._explain_losses(flat, listener, host, rules)
        return HostPlan(pattern=host, exact=flat.exact, prefix=flat.prefix)

    def _no_room(self, flat: Flat, routes: Iterable[Route]) -> str | None:
        """What a host needs more of than is left."""
        needs = {
            "exact": len(flat.exact),
            "prefix": len(flat.prefix),
            "routes": sum(1 for route in routes if route.name not in self._tiers),
            "services": len({name for route in routes for name in _services_of(route)} - self._planned.keys()),
        }
        for what, needed in needs.items():
            left: int = getattr(self._room, what)
            if needed > left:
                return f"it needs {needed} {what if what[-1] == 's' else what + ' entries'}, {left} are left"
        return None

    def _take(self, flat: Flat, routes: Iterable[Route]) -> None:
        self._room.exact -= len(flat.exact)
        self._room.prefix -= len(flat.prefix)
        for route in routes:
            if route.name not in self._tiers:
                self._tiers[route.name] = set()
                self._room.routes -= 1
            for name in _services_of(route):
                if name not in self._planned:
                    self._planned[name] = _service(len(self._planned), self._services[name])
                    self._room.services -= 1
        for is_exact, rows in ((True, flat.exact.values()), (False, flat.prefix.values())):
            for row in rows:
                for column, answer in enumerate(row):
                    if answer is not None:
                        self._tiers[answer].add(tier_of(column, is_exact=is_exact))

    def _explain_losses(self, flat: Flat, listener: Listener, host: HostPattern | None, rules: Sequence[Rule]) -> None:
        def refuse(reason: Reason, loss: Loss, what: str) -> None:
            other = rules[loss.by]
            same = other.route is rules[loss.victim].route
            name = "another match of this route" if same else f"route {other.route.name!r}"
            more = f", and at {loss.more} more" if loss.more else ""
            message = f"at {loss.at or 'any path'}{more}: {name} ({other.match.path}) {what}"
            self._refuse_rules(reason, message, listener, host, (rules[loss.victim],))

        for loss in flat.shadowed.values():
            refuse(Reason.SHADOWED, loss, "goes first, and only tier 3 can tell whether it claims a request")
        for loss in flat.unreached.values():
            refuse(Reason.UNREACHED, loss, "goes first and claims every request")

    def _route(self, number: int, route: Route) -> PlannedRoute:
        services = tuple(self._planned[name] for name in _services_of(route))
        return PlannedRoute(
            number=number,
            name=route.name,
            services=services,
            cumulative=tuple(accumulate(share.weight for share in _shares_of(route))),
            by_address=all(service.by_address for service in services),
            tiers=frozenset(self._tiers[route.name]),
        )


# --- parts of the plan ----------------------------------------------------------------------------------


def _shares_of(route: Route) -> list[WeightedService]:
    """The services that a route may choose: weight 0 gets no connection."""
    return [share for share in route.action.services if share.weight] if isinstance(route.action, Forward) else []


def _services_of(route: Route) -> list[str]:
    return [share.name for share in _shares_of(route)]


def _service(number: int, service: Service) -> PlannedService:
    used = [backend for backend in service.backends if backend.weight]
    return PlannedService(
        number=number,
        name=service.name,
        backends=tuple(sorted(used, key=lambda backend: str(backend.address))),  # as `maglev.build` has them
        by_address=service.balancer.key is BalancerKey.ADDRESS,
        proxied=service.proxy_protocol is ProxyProtocol.V2,
    )


def _is_wildcard(host: HostPattern | None) -> bool:
    return host is not None and host.kind is not HostKind.EXACT


def _host_entries(hosts: Iterable[HostPattern | None]) -> int:
    """Entries of the host maps: the two kinds of wildcard share the entry of their suffix."""
    return len({(host.name, _is_wildcard(host)) if host is not None else None for host in hosts})


def _with_owners(listener: ListenerPlan, owners: Mapping[HostPattern | None, HostPlan]) -> ListenerPlan:
    """Flatten the order of hosts: each suffix knows the owner of what it does not own itself."""
    by_kind: dict[HostKind, dict[str, HostPlan]] = {kind: {} for kind in HostKind}
    for host, owner in owners.items():
        if host is not None:
            by_kind[host.kind][host.name] = owner
    other = owners.get(None)

    def deeper(suffix: str) -> HostPlan | None:
        dot = "."
        while dot:
            if (found := by_kind[HostKind.WILDCARD].get(suffix)) is not None:
                return found
            _, dot, suffix = suffix.partition(".")
        return other

    suffixes: dict[str, SuffixOwner] = {}
    for suffix in by_kind[HostKind.ONE_LABEL] | by_kind[HostKind.WILDCARD]:
        below = deeper(suffix)
        suffixes[suffix] = SuffixOwner(by_kind[HostKind.ONE_LABEL].get(suffix, below), below)
    return ListenerPlan(
        name=listener.name,
        address=listener.address,
        included=True,
        hosts=by_kind[HostKind.EXACT],
        suffixes=suffixes,
        other=other,
        owners=tuple(owners.values()),
    )


def _size(
    listeners: Mapping[str, ListenerPlan], routes: Collection[str], services: Mapping[str, PlannedService]
) -> Size:
    included = [listener for listener in listeners.values() if listener.included]
    owners = [owner for listener in included for owner in listener.owners]
    sets = {service.backends for service in services.values()}
    return Size(
        listeners=len(included),
        hosts=sum(_host_entries(owner.pattern for owner in listener.owners) for listener in included),
        exact=sum(len(owner.exact) for owner in owners),
        prefix=sum(len(owner.prefix) for owner in owners),
        routes=len(routes),
        services=len(services),
        backends=len({backend.address for backends in sets for backend in backends}),
        tables=len(sets),
    )
