"""The public Python surface. What is named here follows semantic versioning; everything else may change.

For example:

    from rauta.api import RequestView, Table, load

    table = Table(load("rauta.yaml").configuration)
    outcome = table.match("web", RequestView(method="GET", host="api.example.com", path="/users/7"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rauta.routing.conditions import PluginFailedError
from rauta.routing.errors import ModelError, Problem, RautaError, RequestError
from rauta.routing.filters import Filter, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.hosts import HostKind, HostPattern, normalise_host
from rauta.routing.model import (
    Action,
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
    Secret,
    Shutdown,
    Sysctls,
    TlsSettings,
)
from rauta.routing.table import Consideration, Explanation, Table

if TYPE_CHECKING:
    from rauta.config import ConfigError, ConfigProblem, Loaded, load

# Imported when first used: a plugin that imports this module must not bring YAML into the workers.
_FROM_CONFIG: Final = frozenset({"ConfigError", "ConfigProblem", "Loaded", "load"})


def __getattr__(name: str) -> Any:
    """PEP 562. Raises AttributeError for names that are not part of the surface."""
    if name in _FROM_CONFIG:
        import rauta.config

        return getattr(rauta.config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
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
    "ProxyProtocol",
    # filters
    "Filter",
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
    "PluginError",
    "PluginFailedError",
]
