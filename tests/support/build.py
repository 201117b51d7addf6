"""Short ways to build model objects in tests."""

from __future__ import annotations

from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    Route,
    WeightedService,
)
from rauta.routing.services import Backend, BalancerKey, BalancerSettings, Plugin, Service
from rauta.routing.settings import Address, Listener


def backend(text: str, weight: int = 1) -> Backend:
    return Backend(address=Address.parse(text), weight=weight)


def service(
    name: str,
    *backends: Backend,
    balancer: str | Plugin = "maglev",
    key: BalancerKey | None = None,
) -> Service:
    kind = Plugin(name=balancer) if isinstance(balancer, str) else balancer
    return Service(
        name=name,
        backends=backends or (backend("10.0.0.1:80"),),
        balancer=BalancerSettings(kind=kind, key=key),
    )


def route(name: str, *matches: Match, to: str | dict[str, int] = "s", priority: int = 0) -> Route:
    shares = {to: 1} if isinstance(to, str) else to
    return Route(
        name=name,
        matches=matches or (Match(),),
        priority=priority,
        action=Forward(services=tuple(WeightedService(name=n, weight=w) for n, w in shares.items())),
    )


def configuration(*routes: Route, services: tuple[Service, ...] = ()) -> Configuration:
    return Configuration(
        listeners=(Listener(name="web", address=Address("0.0.0.0", 8080)),),
        services=services or (service("s"),),
        routes=routes,
    )
