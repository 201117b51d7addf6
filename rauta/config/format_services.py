"""The file format: services, their backends, balancers and time-outs."""

from __future__ import annotations

from typing import Any, Final

from rauta.config.composite import ListOf
from rauta.config.format_common import WEIGHT
from rauta.config.plugins import PluginType, plugin_fields
from rauta.config.scalars import Choice, Duration, Parsed
from rauta.config.schema import Field, Object
from rauta.routing import services, settings
from rauta.routing.balancers import BUILT_IN
from rauta.routing.plugins import BALANCERS

_ADDRESS: Final = r"^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$"


def _url_instead_of_address(text: str) -> str | None:
    scheme, found, rest = text.partition("://")
    if not found:
        return None
    authority = rest.partition("/")[0]
    if scheme.lower() != "http":
        return f"{text!r} is a URL, and backends are reached by plain HTTP only: write host:port"
    has_port = authority.rpartition(":")[2].isdigit()
    return f"{text!r} is a URL: write {authority if has_port else authority + ':80'!r}"


_backend = Object(
    name="backend",
    doc="One server of a service.",
    fields=(
        Field(
            key="address",
            type=Parsed(
                "an address such as 10.0.2.2:80", settings.Address.parse, pattern=_ADDRESS, hint=_url_instead_of_address
            ),
            doc="`host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name.",
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
                absent="address and port of the connection; with HTTP/2 (later) least requests, per stream",
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
    "idle": ("Without a byte in either direction.", "1m"),
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

# One object for the many services that leave a key out.
_DEFAULT_BALANCER: Final = services.BalancerSettings()
_DEFAULT_TIMEOUTS: Final = services.Timeouts()


def _build_service(**values: Any) -> services.Service:
    values.setdefault("balancer", _DEFAULT_BALANCER)
    values.setdefault("timeouts", _DEFAULT_TIMEOUTS)
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
    ),
    model=services.Service,
    build=_build_service,
)
