"""The model: services, their backends, and how these are reached and watched. Frozen, validated when built."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from rauta.routing import defaults
from rauta.routing.errors import ModelError, RequestError
from rauta.routing.hosts import HostError, normalise_host
from rauta.routing.paths import check_query, normalise_path
from rauta.routing.settings import Address, Certificate, check_duration, check_name


def check_authority(where: str, value: str) -> None:
    """A host with or without a port, as in a Host field. Raises ModelError."""
    try:
        normalise_host(value)
    except HostError:
        message = f"{value[:80]!r} is not a name, an IPv4 address or [IPv6], each with or without a port (1 to 65535)"
        raise ModelError.at(where, message) from None


def check_weight(weight: int) -> None:
    """Weights are small whole numbers. Raises ModelError."""
    if not 0 <= weight <= defaults.MAX_WEIGHT:
        raise ModelError.at("weight", f"{weight} is out of range: 0 to {defaults.MAX_WEIGHT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One server of a service. Its identity is its address; weight 0 gets no requests."""

    address: Address
    weight: int = 1

    def __post_init__(self) -> None:
        check_weight(self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin by its entry point's name, with the settings that its own typed model decoded."""

    name: str
    settings: Any = None


class BalancerKey(Enum):
    """What of the client a hashing balancer looks at."""

    ADDRESS_PORT = "address_port"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings:
    """How a service spreads requests: a built-in (`maglev`, `round_robin`, ...) or a plugin.

    `key=None` leaves the key to the protocol: the client's address and port for HTTP/1.1. It is not the same as
    ADDRESS_PORT, which asks for that whatever the protocol.
    """

    kind: Plugin = field(default_factory=lambda: Plugin(name="maglev"))
    key: BalancerKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Time-outs towards backends, in seconds: connect, until the response head, without a byte, and the request as a
    whole, from its head to the end of the response (a tunnel after an upgrade has only `idle`)."""

    connect: float = defaults.CONNECT_TIMEOUT
    response: float = defaults.RESPONSE_TIMEOUT
    idle: float = defaults.BACKEND_IDLE_TIMEOUT
    request: float = defaults.REQUEST_TIMEOUT

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_duration(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutOverrides:
    """What a route changes of its services' time-outs; None inherits."""

    connect: float | None = None
    response: float | None = None
    idle: float | None = None
    request: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None:
                check_duration(name, value)


def _check_body_limit(limit: int) -> None:
    if not 0 <= limit <= defaults.BODY_LIMIT:
        raise ModelError.at("body", f"{limit} bytes is out of range: 0 to {defaults.BODY_LIMIT >> 40} TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """Limits of a service: the longest request body in bytes (413 beyond); per worker and backend the connections,
    and the requests that may wait for one (503 beyond)."""

    body: int = defaults.BODY_LIMIT
    connections: int = defaults.BACKEND_CONNECTIONS
    waiting: int = defaults.BACKEND_WAITING

    def __post_init__(self) -> None:
        _check_body_limit(self.body)
        if not 1 <= self.connections <= 65536:
            raise ModelError.at("connections", f"{self.connections} is out of range: 1 to 65536")
        if not 0 <= self.waiting <= 65536:
            raise ModelError.at("waiting", f"{self.waiting} is out of range: 0 to 65536")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOverrides:
    """What a route changes of its services' limits; None inherits."""

    body: int | None = None

    def __post_init__(self) -> None:
        if self.body is not None:
            _check_body_limit(self.body)


_GOOD_STATUSES: Final = ((200, 399),)


class HealthKind(Enum):
    """What an active health check does: a GET, a call of gRPC's health service, or a connection alone (of TLS, where
    the service has that)."""

    HTTP = "http"
    GRPC = "grpc"
    TCP = "tcp"


# What a check of a kind does not have, with its default, and what to do about it.
_NO_REQUEST: Final = "a TCP check sends no request: remove the key, or write kind: http"
_NO_STATUS: Final = "a gRPC check asks gRPC's health service: remove the key, or write kind: http"
NOT_OF_KIND: Final[dict[HealthKind, dict[str, tuple[Any, str]]]] = {
    HealthKind.HTTP: {
        "service": ("", "only gRPC's health service knows services: remove the key, or write kind: grpc")
    },
    HealthKind.GRPC: {"path": ("/", _NO_STATUS), "statuses": (_GOOD_STATUSES, _NO_STATUS)},
    HealthKind.TCP: {
        "path": ("/", _NO_REQUEST),
        "host": (None, _NO_REQUEST),
        "statuses": (_GOOD_STATUSES, _NO_REQUEST),
        "service": ("", _NO_REQUEST),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Active health checks of a service's backends: each every `interval` seconds, give or take a tenth.

    A backend is taken out after `unhealthy` failures in a row and comes back after `healthy` successes. It counts as
    healthy until the first check says otherwise. `statuses` are the inclusive ranges of a good answer; `host` is the
    Host field (None: the backend's address); `path` has the query with it. `service` is what gRPC's health service is
    asked for, "" for the server as a whole. NOT_OF_KIND has which kind has which of these. `tls` is for services whose
    clients' TLS goes through: they have none of their own.
    """

    kind: HealthKind = HealthKind.HTTP
    path: str = "/"
    host: str | None = None
    statuses: tuple[tuple[int, int], ...] = _GOOD_STATUSES
    service: str = ""
    interval: float = defaults.HEALTH_INTERVAL
    timeout: float = defaults.HEALTH_TIMEOUT
    healthy: int = 2
    unhealthy: int = 3
    tls: BackendTls | None = None

    def __post_init__(self) -> None:
        check_duration("interval", self.interval)
        check_duration("timeout", self.timeout)
        if self.interval < 0.1:
            raise ModelError.at("interval", f"{self.interval:g} s is too often: 100 ms at least")
        path, mark, query = self.path.partition("?")
        try:
            normalise_path(path)
            if mark:
                check_query(query)
        except RequestError as error:
            raise ModelError.at("path", f"{self.path!r}: {error}") from None
        if self.host is not None:
            check_authority("host", self.host)
        if not self.statuses:
            raise ModelError.at("statuses", "the list is empty: no answer would be good")
        for position, (low, high) in enumerate(self.statuses):
            if not 200 <= low <= high <= 599:
                raise ModelError.at(("statuses", position), f"{low}-{high} is not a range of statuses, 200 to 599")
        for name in ("healthy", "unhealthy"):
            if not 1 <= getattr(self, name) <= 100:
                raise ModelError.at(name, f"{getattr(self, name)} is out of range: 1 to 100")
        for name, (default, message) in NOT_OF_KIND[self.kind].items():
            if getattr(self, name) != default:
                raise ModelError.at(name, message)


class ProxyProtocol(Enum):
    """Versions of the PROXY protocol, which tells a backend the client's address before the first request."""

    V1 = "v1"
    V2 = "v2"


class BackendProtocol(Enum):
    """What is spoken to backends. HTTP2 without TLS is by prior knowledge (RFC 9113 3.3); with TLS it is asked for by
    ALPN, and AUTO leaves the choice to the backend."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTls:
    """TLS towards backends. `ca`: PEM file with the CAs that sign their certificates (None: those of the system);
    `name`: what their certificates must cover, and what is asked for by SNI (None: the host of the backend's address);
    `certificate`: ours, for backends that ask for one. Without `verify` anybody may be the backend. `crl`: PEM file
    with the lists of what the CAs have revoked (None: nobody is asked)."""

    ca: str | None = None
    name: str | None = None
    certificate: Certificate | None = None
    verify: bool = True
    crl: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            try:
                valid = normalise_host(self.name) == self.name.lower()  # else it has a port
            except HostError:
                valid = False
            if not valid:
                raise ModelError.at("name", f"{self.name[:80]!r} is not a name or an IP address, without a port")
        if self.ca is not None and not self.verify:
            raise ModelError.at("ca", "with verify: false no certificate is looked at: remove one of the two")
        if self.crl is not None and self.ca is None:
            raise ModelError.at("crl", "needs ca: nobody has the lists of all the CAs of the system")


Way = tuple[BackendTls | None, BackendProtocol]
"""How the backends of a service are spoken to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A set of backends that serve the same thing, and how to reach them."""

    name: str
    backends: tuple[Backend, ...]
    balancer: BalancerSettings = field(default_factory=BalancerSettings)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    health: HealthCheck | None = None
    proxy_protocol: ProxyProtocol | None = None
    tls: BackendTls | None = None
    protocol: BackendProtocol = BackendProtocol.HTTP1

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_transport()
        if not self.backends:
            raise ModelError.at("backends", "a service needs at least one backend")
        seen: dict[Address, int] = {}
        for position, backend in enumerate(self.backends):
            if (first := seen.setdefault(backend.address, position)) != position:
                raise ModelError.at(
                    ("backends", position, "address"), f"{backend.address} is already backend {first + 1}; use weight"
                )

    @property
    def way(self) -> Way:
        """How its backends are spoken to."""
        return self.tls, self.protocol

    @property
    def way_of_checks(self) -> Way:
        """How they are when their health is checked."""
        if self.health is None or self.health.tls is None:
            return self.way
        return self.health.tls, self.protocol

    def tls_settings(self) -> Iterator[tuple[tuple[str, ...], BackendTls]]:
        """Its own and those of its checks, where there are any, each with the keys that lead to it."""
        if self.tls is not None:
            yield ("tls",), self.tls
        if self.health is not None and self.health.tls is not None:
            yield ("health", "tls"), self.health.tls

    def _check_transport(self) -> None:
        if self.health is not None and self.health.kind is HealthKind.GRPC and self.protocol is BackendProtocol.HTTP1:
            raise ModelError.at(("health", "kind"), "gRPC needs HTTP/2: write protocol: http2 in the service")
        if self.protocol is BackendProtocol.AUTO and self.tls is None:
            raise ModelError.at("protocol", "without TLS nobody can choose: write http1 or http2, or add tls")
        if self.protocol is not BackendProtocol.HTTP1 and self.proxy_protocol is not None:
            message = "with the PROXY protocol each client has connections of its own: write protocol: http1"
            raise ModelError.at("proxy_protocol", message)
        if self.tls is not None and self.health is not None and self.health.tls is not None:
            raise ModelError.at(("health", "tls"), "checks use the tls of the service: remove one of the two")
        for keys, tls in self.tls_settings():
            if not tls.verify or tls.name is not None:
                continue
            for position, backend in enumerate(self.backends):
                if backend.address.path is not None:
                    name = ".".join((*keys, "name"))
                    message = f"{backend.address} has no host whose certificate could be verified: write {name}"
                    raise ModelError.at(("backends", position, "address"), message)
