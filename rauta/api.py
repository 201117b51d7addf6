"""The public Python surface. What is named here follows semantic versioning; everything else may change.

For example:

    from rauta.api import Gateway, RequestView, Table, load

    table = Table(load("rauta.yaml").configuration)
    outcome = table.match("web", RequestView(method="GET", host="api.example.com", path="/users/7"))

    async with Gateway("rauta.yaml") as gateway:    # docs/embedding.md
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rauta.routing.conditions import PluginFailedError
from rauta.routing.errors import ModelError, Problem, RautaError, RequestError
from rauta.routing.filters import Filter, HeaderChanges, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.hosts import HostKind, HostPattern, normalise_host
from rauta.routing.model import (
    Action,
    Asgi,
    Configuration,
    Forward,
    Match,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Route,
    ValueKind,
    ValueMatch,
    WeightedService,
    header_match,
)
from rauta.routing.outcome import Hit, Miss, Outcome, PluginFailed, RegexTimeout
from rauta.routing.paths import normalise_path
from rauta.routing.plugins import BALANCERS, MATCHERS, Balancer, Load, Matcher, PluginError
from rauta.routing.precedence import Rule
from rauta.routing.request import FieldList, Headers, RequestView, Target, host_of, parse_target
from rauta.routing.services import (
    Backend,
    BackendProtocol,
    BackendTls,
    BalancerKey,
    BalancerSettings,
    HealthCheck,
    HealthKind,
    LimitOverrides,
    Plugin,
    ProxyProtocol,
    Service,
    ServiceLimits,
    TimeoutOverrides,
    Timeouts,
)
from rauta.routing.settings import (
    AccessLog,
    Address,
    AdminSettings,
    Certificate,
    ClientCertificates,
    ClientLimits,
    ClientTimeouts,
    EncodedSlash,
    Forwarded,
    Hook,
    Listener,
    LogFormat,
    Network,
    OffloadMode,
    OffloadSettings,
    Passthrough,
    ProxySources,
    Requirement,
    Secret,
    Shutdown,
    Sysctls,
    TlsSettings,
)
from rauta.routing.table import Consideration, Explanation, Table

if TYPE_CHECKING:
    from rauta.config import ConfigError, ConfigProblem, Loaded, load
    from rauta.embed.errors import GatewayError
    from rauta.embed.gateway import Gateway
    from rauta.embed.stats import BackendStats, GatewayStats, RequestCount
    from rauta.proxy.asgi.server import ResponseCutError

# Imported when first used: a plugin that imports this module must bring neither YAML nor a data plane with it.
_LATER: Final = {
    "ConfigError": "rauta.config",
    "ConfigProblem": "rauta.config",
    "Loaded": "rauta.config",
    "load": "rauta.config",
    "Gateway": "rauta.embed.gateway",
    "GatewayError": "rauta.embed.errors",
    "GatewayStats": "rauta.embed.stats",
    "BackendStats": "rauta.embed.stats",
    "RequestCount": "rauta.embed.stats",
    "ResponseCutError": "rauta.proxy.asgi.server",
}


def __getattr__(name: str) -> Any:
    """PEP 562. Raises AttributeError for names that are not part of the surface."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    # a gateway within another program
    "Gateway",
    "GatewayStats",
    "RequestCount",
    "BackendStats",
    # the table, which is the specification of every tier
    "Table",
    "Outcome",
    "Hit",
    "Miss",
    "RegexTimeout",
    "PluginFailed",
    "Explanation",
    "Consideration",
    "Rule",
    # requests
    "RequestView",
    "Headers",
    "FieldList",
    "Target",
    "parse_target",
    "host_of",
    "normalise_host",
    "normalise_path",
    # the model
    "Configuration",
    "Route",
    "Match",
    "HostPattern",
    "HostKind",
    "PathMatch",
    "PathKind",
    "ValueMatch",
    "ValueKind",
    "header_match",
    "Action",
    "Forward",
    "WeightedService",
    "Redirect",
    "Respond",
    "Asgi",
    "Service",
    "Backend",
    "BalancerSettings",
    "BalancerKey",
    "Timeouts",
    "TimeoutOverrides",
    "ServiceLimits",
    "LimitOverrides",
    "HealthCheck",
    "HealthKind",
    "Passthrough",
    "ProxyProtocol",
    "ProxySources",
    "BackendTls",
    "BackendProtocol",
    # filters
    "Filter",
    "HeaderChanges",
    "RequestHeaders",
    "ResponseHeaders",
    "Rewrite",
    "RequestId",
    # settings
    "Listener",
    "Address",
    "Network",
    "TlsSettings",
    "Certificate",
    "ClientCertificates",
    "Requirement",
    "Secret",
    "Forwarded",
    "EncodedSlash",
    "ClientTimeouts",
    "ClientLimits",
    "OffloadSettings",
    "OffloadMode",
    "Hook",
    "Sysctls",
    "AccessLog",
    "LogFormat",
    "AdminSettings",
    "Shutdown",
    # configuration files
    "load",
    "Loaded",
    "ConfigProblem",
    # plugins
    "Plugin",
    "Matcher",
    "Balancer",
    "Load",
    "MATCHERS",
    "BALANCERS",
    # errors
    "RautaError",
    "ModelError",
    "Problem",
    "RequestError",
    "ConfigError",
    "GatewayError",
    "ResponseCutError",
    "PluginError",
    "PluginFailedError",
]
