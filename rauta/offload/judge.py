"""Applies the allow-list to the parts of a configuration, each by itself, so that a refusal concerns what uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rauta.offload.allow import Finding, Scope, findings
from rauta.offload.capabilities import Capabilities
from rauta.offload.honoured import HONOURED, WORDINGS
from rauta.offload.reasons import Reason
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    Route,
)
from rauta.routing.services import Service
from rauta.routing.settings import Listener


def is_blocked(against: Iterable[Finding]) -> bool:
    """Whether something of what was found keeps all requests in tier 3."""
    return any(finding.blocking for finding in against)


class Judge:
    """Applies the allow-list. Each method gives what is found against one part; nothing blocking means honoured."""

    def __init__(self, configuration: Configuration, capabilities: Capabilities) -> None:
        self._scope = Scope(configuration, capabilities)
        self._services = {service.name: service for service in configuration.services}
        self._of_service: dict[str, tuple[Finding, ...]] = {}

    def _findings(self, value: object, subject: str = "") -> tuple[Finding, ...]:
        return tuple(findings(value, replace(self._scope, subject=subject), HONOURED, WORDINGS))

    def configuration(self) -> tuple[Finding, ...]:
        """Against offloading anything."""
        return self._findings(self._scope.configuration)

    def listener(self, listener: Listener) -> tuple[Finding, ...]:
        """Against anything on this listener."""
        return self._findings(listener, f"listener {listener.name!r}")

    def route(self, route: Route) -> tuple[Finding, ...]:
        """Against the route on any listener: itself and the services that it may choose."""
        found = [*self._findings(route)]
        if isinstance(route.action, Forward):
            for share in route.action.services:
                if share.weight:
                    found += self._service(self._services[share.name])
        return tuple(found)

    def _service(self, service: Service) -> tuple[Finding, ...]:
        found = self._of_service.get(service.name)
        if found is None:
            found = self._of_service[service.name] = self._findings(service, f"service {service.name!r}")
        return found

    def match(self, match: Match) -> tuple[Finding, ...]:
        """Against one match of a route."""
        return self._findings(match)

    def forwarded(self, listener: Listener, route: Route) -> tuple[Finding, ...]:
        """The field `forwarded` of listener and route: the set that results must be empty."""
        fields = self._scope.configuration.forwarded_of(listener, route)
        if not fields:
            return ()
        names = ", ".join(sorted(field.value for field in fields))
        return (Finding(Reason.FORWARDED, f"adds {names}: the kernel tiers change no request"),)
