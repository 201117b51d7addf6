"""What a route says about its requests, put together once per route, listener and generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rauta.proxy.filters import Filters
from rauta.proxy.forwarded import Builder, builder_of
from rauta.routing.model import Configuration
from rauta.routing.outcome import Hit
from rauta.routing.services import BackendProtocol, ProxyProtocol, Service, ServiceLimits, Timeouts
from rauta.routing.settings import Listener

if TYPE_CHECKING:
    from rauta.proxy.pool import ServiceBackends

_NO_SERVICE_TIMEOUTS = Timeouts()
_NO_SERVICE_LIMITS = ServiceLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePlan:
    """How the requests of a route are treated. Times are seconds, sizes bytes.

    `series` is for the counters, which keep there what they found for this route.
    """

    hit: Hit
    connect_timeout: float
    response_timeout: float
    idle_timeout: float
    request_timeout: float
    body_limit: int
    connections: int
    waiting: int
    forwarded: Builder | None
    filters: Filters | None
    upgrades: frozenset[str]
    proxy_protocol: ProxyProtocol | None
    reached: ServiceBackends | None
    may_be_grpc: bool
    series: dict[Any, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, hit: Hit, listener: Listener, configuration: Configuration, reached: ServiceBackends | None = None
    ) -> RoutePlan:
        """The service's settings, overridden by the route's; the filters of listener and route. `reached` are the
        backends of its service."""
        route, service = hit.route, hit.service
        timeouts = _NO_SERVICE_TIMEOUTS if service is None else service.timeouts
        limits = _NO_SERVICE_LIMITS if service is None else service.limits
        own = route.timeouts
        return cls(
            hit=hit,
            connect_timeout=timeouts.connect if own.connect is None else own.connect,
            response_timeout=timeouts.response if own.response is None else own.response,
            idle_timeout=timeouts.idle if own.idle is None else own.idle,
            request_timeout=timeouts.request if own.request is None else own.request,
            body_limit=limits.body if route.limits.body is None else route.limits.body,
            connections=limits.connections,
            waiting=limits.waiting,
            forwarded=builder_of(configuration.forwarded_of(listener, route)),
            filters=Filters.of(listener, route, hit.match),
            upgrades=route.upgrades,
            proxy_protocol=None if service is None else service.proxy_protocol,
            reached=reached,
            may_be_grpc=service is not None and service.protocol is not BackendProtocol.HTTP1,
        )

    @property
    def backends(self) -> ServiceBackends:
        """The service's backends. Raises LookupError for a route that does not forward."""
        if self.reached is None:
            raise LookupError(f"route {self.hit.route.name!r} forwards to no service")
        return self.reached

    @property
    def service(self) -> Service:
        """The service of a route that forwards. Raises LookupError for any other."""
        if self.hit.service is None:
            raise LookupError(f"route {self.hit.route.name!r} forwards to no service")
        return self.hit.service
