"""What holds for a route's requests besides where they go: filters, upgrades, time-outs and limits.

As text for a person, and as the JSON of `docs/rautactl.md`: there, durations are seconds and sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, Final

from rauta.routing.filters import Filter, HeaderChanges, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.model import Asgi, Forward, Route
from rauta.routing.services import (
    BackendProtocol,
    BackendTls,
    HealthCheck,
    HealthKind,
    Service,
    ServiceLimits,
    Timeouts,
)
from rauta.routing.units import duration, size

Document = dict[str, Any]

DEFAULT_UPGRADES: Final = frozenset({"websocket"})
_TIMEOUTS: Final = tuple(field.name for field in fields(Timeouts))


def timeouts_of(route: Route, service: Service) -> Timeouts:
    """The time-outs of a route's requests to one of its services."""
    own = {name: getattr(route.timeouts, name) for name in _TIMEOUTS}
    return Timeouts(**{name: getattr(service.timeouts, name) if own[name] is None else own[name] for name in _TIMEOUTS})


def limits_of(route: Route, service: Service) -> ServiceLimits:
    """The limits of a route's requests to one of its services."""
    limits = service.limits
    body = limits.body if route.limits.body is None else route.limits.body
    return ServiceLimits(body=body, connections=limits.connections, waiting=limits.waiting)


# --- for a person ---------------------------------------------------------------------------------------


def filter_text(item: Filter) -> str:
    """`request headers: set X-Env, remove Cookie`, `rewrite prefix to /v2`, `request id in X-Request-Id`."""
    match item:
        case RequestHeaders():
            return f"request headers: {_changes(item)}"
        case ResponseHeaders():
            return f"response headers: {_changes(item)}"
        case Rewrite():
            return f"rewrite {_rewrite(item)}"
        case RequestId():
            return f"request id in {item.header}" + (", the client's if it sends one" if item.accept else "")


def _changes(item: HeaderChanges) -> str:
    """The names only: a value may be a credential."""
    kinds = (("remove", item.remove), ("set", [name for name, _ in item.set]), ("add", [name for name, _ in item.add]))
    return ", ".join(f"{kind} {' and '.join(dict.fromkeys(names))}" for kind, names in kinds if names)


def _rewrite(item: Rewrite) -> str:
    parts = [
        f"{what} to {value}"
        for what, value in (("host", item.host), ("path", item.path), ("prefix", item.prefix))
        if value is not None
    ]
    if item.regex is not None:
        parts.append(f"path {item.regex} to {item.substitution}")
    return ", ".join(parts)


def timeouts_text(timeouts: Timeouts) -> str:
    """`connect 5s, response 60s, idle 60s, request 24h`."""
    return ", ".join(f"{name} {duration(getattr(timeouts, name))}" for name in _TIMEOUTS)


def limits_text(limits: ServiceLimits) -> str:
    """Those that differ from the defaults: `bodies up to 10MiB, 100 connections per worker and backend`."""
    default = ServiceLimits()
    parts = []
    if limits.body != default.body:
        parts.append(f"bodies up to {size(limits.body)}")
    if limits.connections != default.connections:
        parts.append(f"{limits.connections} connections per worker and backend")
    if limits.waiting != default.waiting:
        parts.append(f"{limits.waiting} requests that wait for one")
    return ", ".join(parts)


def upgrades_text(upgrades: Iterable[str]) -> str:
    """The protocols, or `none`."""
    return ", ".join(sorted(upgrades)) or "none"


def health_text(check: HealthCheck) -> str:
    """`GET /healthz every 5s`, `gRPC check of helloworld.Greeter every 5s`, `TCP connect every 5s`."""
    what = {
        HealthKind.HTTP: f"GET {check.path}",
        HealthKind.GRPC: f"gRPC check of {check.service or 'the server'}",
        HealthKind.TCP: "TCP connect",
    }
    secure = "" if check.tls is None else f" over TLS, {tls_text(check.tls)},"
    return f"{what[check.kind]}{secure} every {duration(check.interval)}"


_PROTOCOLS: Final = {
    BackendProtocol.HTTP1: "HTTP/1.1",
    BackendProtocol.HTTP2: "HTTP/2",
    BackendProtocol.AUTO: "HTTP/2 or HTTP/1.1, as the backend chooses",
}


def protocol_text(service: Service) -> str:
    """What its backends are spoken to in: `HTTP/1.1`, `HTTP/2 by prior knowledge`."""
    text = _PROTOCOLS[service.protocol]
    return f"{text} by prior knowledge" if service.protocol is BackendProtocol.HTTP2 and service.tls is None else text


def tls_text(tls: BackendTls) -> str:
    """`verified by ca.pem, as users.internal, with our certificate rauta.crt`, `not verified`."""
    name = "the host of its address" if tls.name is None else tls.name
    if tls.verify:
        text = f"verified by {tls.ca or 'the CAs of the system'}, as {name}"
        if tls.crl is not None:
            text += f", unless revoked by {tls.crl}"
    else:
        text = f"not verified: anybody may be the backend; asked for as {name}"
    return text if tls.certificate is None else f"{text}, with our certificate {tls.certificate.cert}"


def own_settings(route: Route) -> str:
    """What a route says for itself beyond match and action, for a table; empty where it says nothing."""
    parts = [filter_text(item) for item in route.filters]
    if isinstance(route.action, Forward | Asgi) and route.upgrades != DEFAULT_UPGRADES:
        parts.append(f"upgrades {upgrades_text(route.upgrades)}")
    if route.limits.body is not None:
        parts.append(f"bodies up to {size(route.limits.body)}")
    own = [(name, getattr(route.timeouts, name)) for name in _TIMEOUTS]
    parts += [f"{name} {duration(seconds)}" for name, seconds in own if seconds is not None]
    return "; ".join(parts)


# --- for a program --------------------------------------------------------------------------------------


def filter_document(item: Filter) -> Document:
    """A filter, in the keys of the file."""
    match item:
        case RequestHeaders():
            return {"request_headers": _changes_document(item)}
        case ResponseHeaders():
            return {"response_headers": _changes_document(item)}
        case Rewrite():
            return {"rewrite": {"host": item.host, "path": _path_document(item)}}
        case RequestId():
            return {"request_id": {"header": item.header, "accept": item.accept}}


def _changes_document(item: HeaderChanges) -> Document:
    """The names only, as above."""
    named = {kind: list(dict.fromkeys(name for name, _ in getattr(item, kind))) for kind in ("set", "add")}
    return {**named, "remove": list(item.remove)}


def _path_document(item: Rewrite) -> Document | None:
    if item.regex is not None:
        return {"regex": item.regex, "substitution": item.substitution}
    for key, value in (("full", item.path), ("prefix", item.prefix)):
        if value is not None:
            return {key: value}
    return None


def timeouts_document(timeouts: Timeouts) -> Document:
    """All four, in seconds."""
    return {name: getattr(timeouts, name) for name in _TIMEOUTS}


def limits_document(limits: ServiceLimits) -> Document:
    """All three; the body in bytes."""
    return {"body": limits.body, "connections": limits.connections, "waiting": limits.waiting}


def tls_document(tls: BackendTls) -> Document:
    """TLS towards backends, in the keys of the file; of our certificate its file alone."""
    ours = None if tls.certificate is None else tls.certificate.cert
    return {"ca": tls.ca, "name": tls.name, "certificate": ours, "verify": tls.verify, "crl": tls.crl}


def health_document(check: HealthCheck) -> Document:
    """A health check, in the keys of the file."""
    http = check.kind is HealthKind.HTTP
    return {
        "kind": check.kind.value,
        "path": check.path if http else None,
        "host": None if check.kind is HealthKind.TCP else check.host,
        "statuses": [list(pair) for pair in check.statuses] if http else None,
        "service": check.service if check.kind is HealthKind.GRPC else None,
        "interval": check.interval,
        "timeout": check.timeout,
        "healthy": check.healthy,
        "unhealthy": check.unhealthy,
        "tls": None if check.tls is None else tls_document(check.tls),
    }


def services_document(route: Route, services: Iterable[Service]) -> list[Document]:
    """What holds for a route's requests to each of its services."""
    return [
        {
            "service": service.name,
            "timeouts": timeouts_document(timeouts_of(route, service)),
            "limits": limits_document(limits_of(route, service)),
        }
        for service in services
    ]
