"""Warnings about how the backends of services are spoken to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rauta.config.errors import ConfigProblem
from rauta.config.origins import Origins
from rauta.routing.model import Configuration, Forward
from rauta.routing.services import BackendProtocol, HealthKind, Service

_HTTP: Final = 80
_HTTPS: Final = 443


def warnings(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """All of them. Linear in the size of the configuration."""
    yield from _of_grpc(configuration, origins)
    passed = {item.service for listener in configuration.listeners for item in listener.passthrough}
    for service in configuration.services:
        if service.name in passed:
            yield from _of_passthrough(service, origins)
            continue
        origin, tls = origins.named["services", service.name], service.tls
        if tls is not None and not tls.verify:
            message = "anybody may be the backend, and reads and changes all that is sent: better ca: FILE"
            yield origin.problem(message, ("tls", "verify"))
        for position, backend in enumerate(service.backends):
            port, place = backend.address.port, ("backends", position, "address")
            if tls is None and port == _HTTPS:
                message = f"{backend.address} is most likely a port of HTTPS, and is spoken to without: write tls: {{}}"
                yield origin.problem(message, place)
            elif tls is not None and port == _HTTP:
                message = f"{backend.address} is most likely a port of plain HTTP, and the service has tls"
                yield origin.problem(message, place)


def _of_grpc(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """About matches of gRPC whose requests go to a service that is not spoken to in HTTP/2."""
    http1 = {service.name for service in configuration.services if service.protocol is BackendProtocol.HTTP1}
    for position, route in enumerate(configuration.routes):
        if not isinstance(route.action, Forward):
            continue
        wrong = next((share.name for share in route.action.services if share.name in http1), None)
        origin = origins.routes[position]
        for index in range(0 if wrong is None else len(route.matches)):
            if origin.has("match", index, "grpc"):
                message = f"gRPC needs HTTP/2, and service {wrong!r} is spoken to in http1: write protocol: http2 there"
                yield origin.problem(message, ("match", index, "grpc"))
                break


def _of_passthrough(service: Service, origins: Origins) -> Iterator[ConfigProblem]:
    """About one whose clients speak TLS to its backends."""
    health = service.health
    if health is not None and health.tls is None and health.kind is not HealthKind.TCP:
        message = "plain requests to a port of TLS: write health: {tls: {name: NAME}}, or health: tcp"
        yield origins.named["services", service.name].problem(message, ("health",))
