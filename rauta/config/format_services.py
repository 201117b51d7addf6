"""The file format: services, their backends, balancers, time-outs, limits and health checks."""

from __future__ import annotations

from typing import Any, Final

from rauta.config.addresses import AddressText
from rauta.config.composite import Either, ListOf
from rauta.config.format_common import PATH, WEIGHT
from rauta.config.format_tls import BACKEND_TLS
from rauta.config.plugins import PluginType, plugin_fields
from rauta.config.scalars import Choice, Duration, Integer, Size, Statuses, Text, Word
from rauta.config.schema import Field, Object, switched
from rauta.routing import services, settings
from rauta.routing.balancers import BUILT_IN
from rauta.routing.errors import ModelError
from rauta.routing.plugins import BALANCERS

_PROTOCOLS: Final = {
    **dict.fromkeys(("h2", "h2c", "grpc", "http/2", "http/2.0", "2"), "http2"),
    **dict.fromkeys(("h1", "http", "http/1", "http/1.1", "http1.1", "1.1"), "http1"),
}
_WITH_TLS: Final = {
    **dict.fromkeys(("https", "tls", "ssl"), "write tls: {}, which also goes with a protocol"),
    **dict.fromkeys(("grpcs", "h2s"), "write tls: {} and protocol: http2"),
}
_ADDRESS: Final = r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"


def _url_instead_of_address(text: str) -> str | None:
    scheme, found, rest = text.partition("://")
    if not found:
        return None
    authority = rest.partition("/")[0]
    has_port = authority.rpartition(":")[2].isdigit()
    if scheme.lower() == "https":
        return (
            f"{text!r} is a URL: write {authority if has_port else authority + ':443'!r}, and in the service tls: {{}}"
        )
    return f"{text!r} is a URL: write {authority if has_port else authority + ':80'!r}"


_backend = Object(
    name="backend",
    doc="One server of a service.",
    fields=(
        Field(
            key="address",
            type=AddressText(
                "an address such as 10.0.2.2:80", settings.Address.parse, pattern=_ADDRESS, hint=_url_instead_of_address
            ),
            doc="`host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name. `unix:PATH`: a unix socket, "
            "relative to this file.",
            example='"10.0.2.2:80"',
        ),
        Field(key="weight", type=WEIGHT, doc="Its share of the requests; 0 gets none.", example="2"),
    ),
    model=services.Backend,
    instead="{address: '%s'}",
    share=True,
)


class _BalancerType(PluginType):
    """A balancer: its name, or an object with its name, settings and what it hashes."""

    def build(self, plugin: services.Plugin, values: dict[str, Any]) -> services.BalancerSettings:
        return services.BalancerSettings(kind=plugin, key=values.get("key"))

    def show(self, value: Any) -> str:
        return str(value.kind.name)


_balancer = _BalancerType(
    BALANCERS,
    Object(
        name="balancer",
        doc=f"How a service spreads requests: {', '.join(BUILT_IN)}, or a plugin.",
        fields=(
            *plugin_fields("balancer", example="least_requests"),
            Field(
                key="key",
                type=Choice(services.BalancerKey),
                doc="What of the client is hashed. `address` keeps a client on one backend.",
                example="address",
                absent="address and port; of clients with HTTP/2 nothing: each request goes where fewest are in flight",
            ),
        ),
        model=services.BalancerSettings,
    ),
    built_in=BUILT_IN,
    bare=True,
)

TIMEOUT_DOCS: Final = {
    "connect": ("Until the connection is there.", "2s"),
    "response": ("From the end of the request until the head of the response.", "30s"),
    "idle": ("Without a byte in either direction; the only one that counts after an upgrade.", "1m"),
    "request": ("From the head of the request to the end of the response.", "5m"),
}

_timeouts = Object(
    name="timeouts",
    doc="Time-outs towards backends: 1 ms to 24 h.",
    fields=tuple(
        Field(key=key, type=Duration(), doc=doc, example=example) for key, (doc, example) in TIMEOUT_DOCS.items()
    ),
    model=services.Timeouts,
    share=True,
)

LIMIT_BODY: Final = ("The longest body of a request; a longer one is answered 413.", "10MiB")

_limits = Object(
    name="limits",
    doc="Limits of a service.",
    fields=(
        Field(key="body", type=Size(), doc=LIMIT_BODY[0], example=LIMIT_BODY[1]),
        Field(
            key="connections",
            type=Integer(least=1, most=65536),
            doc="Connections to each backend at a time, in each worker.",
            example="100",
        ),
        Field(
            key="waiting",
            type=Integer(least=0, most=65536),
            doc="Requests that may wait for one of them, in each worker; more are answered 503.",
            example="50",
        ),
    ),
    model=services.ServiceLimits,
    share=True,
)


def _build_health(**values: Any) -> services.HealthCheck:
    kind = values.get("kind", services.HealthKind.HTTP)
    for key, (_, message) in services.NOT_OF_KIND[kind].items():
        if key in values:  # the model sees no key that repeats its default
            raise ModelError.at(key, message)
    return services.HealthCheck(**values)


_health = Object(
    name="health",
    doc="How the backends of a service are watched. One that fails gets no requests until it is well again; all count "
    "as healthy until a check says otherwise.",
    fields=(
        Field(
            key="kind",
            type=Choice(services.HealthKind),
            doc="`http`: a GET, whose status decides. `grpc`: gRPC's health service. `tcp`: a connection alone.",
            example="tcp",
        ),
        Field(key="path", type=PATH, doc="The path, and the query if any.", example="/healthz"),
        Field(
            key="host",
            type=Text("a host"),
            doc="The Host field.",
            example="users.example.com",
            absent="the backend's address",
        ),
        Field(
            key="statuses",
            type=ListOf(
                Statuses(),
                unique=True,
                empty="no answer would be good",
            ),
            doc="The statuses of a good answer, and ranges of them.",
            example="[200-299, 404]",
        ),
        Field(
            key="service",
            type=Text("the name of a gRPC service"),
            doc="With `grpc`: the service that the health service is asked for.",
            example="helloworld.Greeter",
            absent="the server as a whole",
        ),
        Field(
            key="tls",
            type=BACKEND_TLS,
            doc="TLS of the checks, for a service that listeners pass TLS through to. Others are checked as they are "
            "spoken to.",
            example="{ca: backends-ca.pem, name: db.example.com}",
            absent="plain TCP, or the tls of the service",
        ),
        Field(key="interval", type=Duration(), doc="Between two checks of a backend: 100ms to 24h.", example="2s"),
        Field(key="timeout", type=Duration(), doc="Of one check.", example="500ms"),
        Field(
            key="healthy",
            type=Integer(least=1, most=100),
            doc="Good checks in a row that bring a backend back.",
            example="1",
        ),
        Field(
            key="unhealthy",
            type=Integer(least=1, most=100),
            doc="Bad checks in a row that take a backend out.",
            example="2",
        ),
    ),
    model=services.HealthCheck,
    build=_build_health,
    hints={
        "status": "write statuses: [...]",
        "fall": "write unhealthy: NUMBER",
        "rise": "write healthy: NUMBER",
        "verify": "write tls: {verify: false}",
        "sni": "write tls: {name: NAME}",
        "port": "a check goes to the backend's own address",
    },
    share=True,
)

_HEALTH: Final = Either(
    Word("http", services.HealthCheck()),
    Word("tcp", services.HealthCheck(kind=services.HealthKind.TCP)),
    Word("grpc", services.HealthCheck(kind=services.HealthKind.GRPC)),
    _health,
)

# One object for the many services that leave a key out.
_DEFAULT_BALANCER: Final = services.BalancerSettings()
_DEFAULT_TIMEOUTS: Final = services.Timeouts()
_DEFAULT_LIMITS: Final = services.ServiceLimits()


def _build_service(**values: Any) -> services.Service:
    values.setdefault("balancer", _DEFAULT_BALANCER)
    values.setdefault("timeouts", _DEFAULT_TIMEOUTS)
    values.setdefault("limits", _DEFAULT_LIMITS)
    return services.Service(**values)


SERVICE: Final = Object(
    name="service",
    doc="A set of backends that serve the same thing.",
    fields=(
        Field(
            key="backends",
            type=ListOf(_backend, empty="a service needs at least one backend"),
            doc="The servers; at least one.",
            example='[{address: "10.0.2.2:80"}, {address: "10.0.3.2:80", weight: 2}]',
        ),
        Field(
            key="balancer",
            type=_balancer,
            doc="How requests are spread over the backends.",
            example="{name: maglev, key: address}",
        ),
        Field(key="timeouts", type=_timeouts, doc="Time-outs towards backends.", example="{connect: 2s}"),
        Field(key="limits", type=_limits, doc="Limits on bodies and connections.", example="{body: 10MiB}"),
        Field(
            key="health",
            type=_HEALTH,
            doc="Health checks of the backends. `http` is a GET of `/`, `grpc` a call of gRPC's health service, "
            "`tcp` a connection alone.",
            example="{path: /healthz, interval: 2s}",
            absent="none",
        ),
        Field(
            key="proxy_protocol",
            type=Choice(services.ProxyProtocol, meant=switched("v2")),
            doc="Tell backends the client's address by the PROXY protocol. Connections are then not shared by clients.",
            example="v2",
            absent="not used",
        ),
        Field(
            key="tls",
            type=BACKEND_TLS,
            doc="TLS towards the backends; `{}` verifies them by the CAs of the system.",
            example="{ca: backends-ca.pem}",
            absent="plain TCP",
        ),
        Field(
            key="protocol",
            type=Choice(services.BackendProtocol, meant=_PROTOCOLS, hints=_WITH_TLS),
            doc="What backends are spoken to in: `http1`; `http2`; `auto`, with TLS: HTTP/2 where the backend offers "
            "it. gRPC needs one of the last two.",
            example="http2",
        ),
    ),
    model=services.Service,
    build=_build_service,
    hints={
        "health_checks": "write health: {...}",
        "checks": "write health: {...}",
        "servers": "write backends: [...]",
        "h2": "write protocol: http2",
        "http2": "write protocol: http2",
        "grpc": "write protocol: http2",
        "filters": "filters belong to a route or a listener",
    },
)
