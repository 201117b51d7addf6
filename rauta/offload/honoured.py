"""The allow-list: every setting that the kernel tiers honour, and how. What is not here must have its default.

`Honoured` takes any value, or any that passes its check. "Judged apart" means that the planner calls `findings`
for those objects by themselves, since a refusal of one of them concerns only what uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any, Final

from rauta.offload.allow import AllowList, Check, Finding, Honoured, Scope, Wording, Wordings
from rauta.offload.capabilities import METHODS
from rauta.offload.lookup import is_plain
from rauta.offload.reasons import Reason
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import (
    Asgi,
    Configuration,
    Forward,
    Match,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Route,
    WeightedService,
)
from rauta.routing.services import (
    Backend,
    BalancerKey,
    BalancerSettings,
    HealthCheck,
    HealthKind,
    ProxyProtocol,
    Service,
)
from rauta.routing.settings import (
    AccessLog,
    Address,
    AdminSettings,
    EncodedSlash,
    Listener,
    OffloadMode,
    OffloadSettings,
    Shutdown,
)

# --- checks ---------------------------------------------------------------------------------------------


def _one_of(*known: Any) -> Check:
    """A value that is added to an enumeration later is not honoured until it is named here."""

    def check(value: Any, scope: Scope) -> Iterator[Finding]:
        if value not in known:
            yield scope.finding(Reason.SETTING, f"{value.value}: the kernel tiers do not know this setting")

    return check


def _offload_is_on(settings: OffloadSettings | None, scope: Scope) -> Iterator[Finding]:
    if settings is None:
        yield scope.finding(Reason.OFFLOAD_OFF, "the configuration has no offload section")
    elif settings.mode is OffloadMode.NONE:
        yield scope.finding(Reason.OFFLOAD_OFF, "offload.mode is none")


def _log_is_not_required(required: bool, scope: Scope) -> Iterator[Finding]:
    if required:
        yield scope.finding(Reason.ACCESS_LOG, "access_log.require is set, and the kernel tiers write no log lines")


def _listener_address(address: Address, scope: Scope) -> Iterator[Finding]:
    ip = address.ip  # None: a unix socket, which is refused as such
    if isinstance(ip, IPv6Address) and not scope.capabilities.ipv6:
        yield scope.finding(Reason.IPV6, f"{address} is an IPv6 address, and the kernel tiers have IPv4 only")
    if ip is not None and ip.is_loopback:
        message = f"{address} is a loopback address: its clients are processes of this host"
        yield scope.finding(Reason.LISTENER_ADDRESS, message)


def _backends(backends: tuple[Backend, ...], scope: Scope) -> Iterator[Finding]:
    used = sum(1 for backend in backends if backend.weight)
    most = scope.capabilities.backends
    if used > most:
        yield scope.finding(Reason.BACKENDS, f"{used} backends, and a table of the kernel holds {most}")
    if not used:
        yield scope.finding(Reason.NO_BACKEND, "all backends have weight 0")


def _backend_address(address: Address, scope: Scope) -> Iterator[Finding]:
    ip = address.ip
    if address.path is not None:
        return  # refused as such
    if ip is None:
        yield scope.finding(Reason.BACKEND_NAME, f"backend {address} is a name, which only tier 3 resolves")
    elif isinstance(ip, IPv6Address) and not scope.capabilities.ipv6:
        message = f"backend {address} is an IPv6 address, and the kernel tiers have IPv4 only"
        yield scope.finding(Reason.IPV6, message)
    elif ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_reserved:
        yield scope.finding(Reason.BACKEND_ADDRESS, f"backend {address} cannot be reached through an interface")
    elif any(address.host == listener.address.host for listener in scope.configuration.listeners):
        yield scope.finding(Reason.BACKEND_ADDRESS, f"backend {address} is on this host: a listener has its address")
    elif (why := scope.capabilities.unreachable.get(address.host)) is not None:
        yield scope.finding(Reason.BACKEND_UNREACHABLE, f"backend {address}: {why}")


def _proxy_protocol(version: ProxyProtocol | None, scope: Scope) -> Iterator[Finding]:
    if version not in (None, ProxyProtocol.V2):
        yield scope.finding(Reason.PROXY_PROTOCOL, "a PROXY header of version 1 is written by tier 3")


def _shares(services: tuple[WeightedService, ...], scope: Scope) -> Iterator[Finding]:
    used = sum(1 for share in services if share.weight)
    most = scope.capabilities.shares
    if used > most:
        message = f"{used} weighted services, and a route of the kernel tiers has at most {most}"
        yield scope.finding(Reason.SERVICES, message)


def _methods(methods: frozenset[str], scope: Scope) -> Iterator[Finding]:
    beyond = methods - scope.capabilities.methods
    if beyond:
        known = ", ".join(method for method in METHODS if method in scope.capabilities.methods)
        message = f"{', '.join(sorted(beyond))}: the kernel tiers know {known}"
        yield scope.finding(Reason.METHOD, message, blocking=beyond == methods)


def _path(path: PathMatch, scope: Scope) -> Iterator[Finding]:
    limit = scope.capabilities.path_length
    if path.kind is PathKind.REGEX:
        yield scope.finding(Reason.REGEX, f"path {path}: regular expressions are matched by tier 3")
    elif len(path.value) > limit:
        yield scope.finding(Reason.PATH, f"path {path}: longer than the {limit} bytes that the kernel tiers look up")
    elif path.value and not is_plain(path.value, limit):
        yield scope.finding(Reason.PATH, f"path {path}: requests with '%' or '//' in their path go to tier 3")


# --- the list -------------------------------------------------------------------------------------------

HONOURED: Final[AllowList] = {
    Configuration: {
        "listeners": Honoured("judged apart"),
        "services": Honoured("judged apart, those that a route uses"),
        "routes": Honoured("judged apart"),
        "offload": Honoured("see OffloadSettings; without it nothing is offloaded", _offload_is_on, inside=True),
        "access_log": Honoured("see AccessLog", inside=True),
        "workers": Honoured("concerns tier 3 only"),
        "admin": Honoured("see AdminSettings", inside=True),
        "shutdown": Honoured("see Shutdown", inside=True),
    },
    AdminSettings: {
        "socket": Honoured("concerns no request of a listener"),
        "address": Honoured("the kernel looks at packets to listeners only: it passes those to other ports"),
        "token": Honoured("concerns no request of a listener"),
    },
    Shutdown: {
        "delay": Honoured("concerns the processes; until the offload is stopped its answers stay those of the plan"),
        "timeout": Honoured("concerns the processes"),
    },
    OffloadSettings: {
        "mode": Honoured("none: nothing is offloaded (checked above); auto and require differ at start only"),
        "interfaces": Honoured("goes to Offload.start"),
        "hook": Honoured("goes to Offload.start"),
        "sysctls": Honoured("goes to Offload.start"),
    },
    AccessLog: {
        "to": Honoured("concerns tier 3 only: the kernel tiers write no lines, and the banner says so"),
        "format": Honoured("concerns tier 3 only"),
        "require": Honoured("must be off", _log_is_not_required),
    },
    Listener: {
        "name": Honoured("key of the plan"),
        "address": Honoured("key of the listener map; a wildcard is expanded", _listener_address, inside=True),
        "forwarded": Honoured("judged for listener and route together: the effective set must be empty"),
        "encoded_slash": Honoured(
            "every path with '%' is passed to tier 3, which honours it", _one_of(EncodedSlash.KEEP, EncodedSlash.REJECT)
        ),
    },
    Address: {
        "host": Honoured("IPv4 address (checked by what has the address)"),
        "port": Honoured("as it is"),
    },
    Service: {
        "name": Honoured("label of counters"),
        "backends": Honoured("Maglev table of those with weight", _backends, inside=True),
        "balancer": Honoured("see BalancerSettings", inside=True),
        "proxy_protocol": Honoured("the kernel writes version 2", _proxy_protocol),
        "health": Honoured("the backends that may get requests are told to the offload (`usable`)", inside=True),
    },
    HealthCheck: {
        "kind": Honoured("checks run outside of the kernel", _one_of(HealthKind.HTTP, HealthKind.GRPC, HealthKind.TCP)),
        **dict.fromkeys(
            ("path", "host", "statuses", "service", "tls", "interval", "timeout", "healthy", "unhealthy"),
            Honoured("checks run outside of the kernel"),
        ),
    },
    Backend: {
        "address": Honoured("destination", _backend_address, inside=True),
        "weight": Honoured("share of the slots of the Maglev table; none for 0"),
    },
    BalancerSettings: {
        "key": Honoured(
            # None: the kernel tiers serve HTTP/1.1 only, for which it is address and port.
            "for `address` the port counts as 0 in the hash",
            _one_of(None, BalancerKey.ADDRESS, BalancerKey.ADDRESS_PORT),
        ),
    },
    Route: {
        "name": Honoured("label of counters"),
        "action": Honoured("see Forward; other actions are not on the list", inside=True),
        "matches": Honoured("judged apart"),
        "listeners": Honoured("the plan has entries per listener"),
        "priority": Honoured("worked into the entries when the plan is made"),
        "forwarded": Honoured("judged for listener and route together: the effective set must be empty"),
    },
    Forward: {
        "services": Honoured("chosen by hash; the services themselves are judged apart", _shares, inside=True),
    },
    WeightedService: {
        "name": Honoured("reference to the service"),
        "weight": Honoured("cumulative weights of the route"),
    },
    Match: {
        "hosts": Honoured("keys of the host maps; the planner refuses those that cannot be keys", inside=True),
        "path": Honoured("keys of the path maps", _path, inside=True),
        "methods": Honoured("columns of the entries", _methods),
    },
    HostPattern: {
        "name": Honoured("key of the hash of hosts or of the trie of suffixes"),
        "kind": Honoured("selects the map", _one_of(HostKind.EXACT, HostKind.ONE_LABEL, HostKind.WILDCARD)),
    },
    PathMatch: {
        "kind": Honoured("selects the map", _one_of(PathKind.EXACT, PathKind.PREFIX, PathKind.REGEX)),
        "value": Honoured("key (checked by what has the path)"),
    },
}

_OWN_TIMEOUTS: Final = "time-outs of the kernel tiers are the backend's own"
_OWN_LIMITS: Final = "limits of the kernel tiers are the backend's own"
_FILTERS: Final = "the kernel tiers change no request and no response"

WORDINGS: Final[Wordings] = {
    (Listener, "tls"): Wording(Reason.TLS, "TLS is terminated by tier 3"),
    (Listener, "timeouts"): Wording(Reason.CLIENT_TIMEOUTS, _OWN_TIMEOUTS),
    (Listener, "limits"): Wording(Reason.CLIENT_LIMITS, _OWN_LIMITS),
    (Listener, "trusted_proxies"): Wording(Reason.TRUSTED_PROXIES, "what proxies say of clients is read by tier 3"),
    (Listener, "filters"): Wording(Reason.FILTERS, _FILTERS),
    (Listener, "proxy_protocol"): Wording(Reason.PROXY_PROTOCOL, "PROXY headers of clients are read by tier 3"),
    (Listener, "passthrough"): Wording(Reason.PASSTHROUGH, "TLS is passed through by tier 3"),
    (Address, "path"): Wording(Reason.UNIX, "no packets go through a unix socket", key="unix"),
    (Service, "timeouts"): Wording(Reason.TIMEOUTS, _OWN_TIMEOUTS),
    (Service, "limits"): Wording(Reason.LIMITS, _OWN_LIMITS),
    (Service, "tls"): Wording(Reason.BACKEND_TLS, "TLS towards backends is made by tier 3"),
    (Service, "protocol"): Wording(Reason.BACKEND_PROTOCOL, "the kernel tiers pass on what clients send, HTTP/1.1"),
    (BalancerSettings, "kind"): Wording(Reason.BALANCER, "the kernel tiers have Maglev only", key="balancer"),
    (Route, "timeouts"): Wording(Reason.TIMEOUTS, _OWN_TIMEOUTS),
    (Route, "limits"): Wording(Reason.LIMITS, _OWN_LIMITS),
    (Route, "filters"): Wording(Reason.FILTERS, _FILTERS),
    # Requests with Upgrade go to tier 3 in any case; what else the route's other protocols mean is left to it, too.
    (Route, "upgrades"): Wording(Reason.UPGRADES, "protocols other than websocket are switched by tier 3"),
    (Match, "headers"): Wording(Reason.HEADERS, "header fields are matched by tier 3"),
    (Match, "query"): Wording(Reason.QUERY, "queries are matched by tier 3"),
    (Match, "plugins"): Wording(Reason.PLUGIN, "plugins run in tier 3"),
    (Redirect, ""): Wording(Reason.ACTION, "redirects are answered by tier 3"),
    (Respond, ""): Wording(Reason.ACTION, "fixed responses are answered by tier 3"),
    (Asgi, ""): Wording(Reason.ACTION, "applications run in tier 3"),
}
