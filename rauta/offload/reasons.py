"""Why a route, or some of its requests, stays in tier 3. The names are public: metrics, admin API, `explain`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """What keeps a route, a match or a host out of the plan."""

    OFFLOAD_OFF = "offload_off"  # no offload section, or mode none
    ACCESS_LOG = "access_log_required"
    TLS = "tls"
    IPV6 = "ipv6"
    LISTENER_ADDRESS = "listener_address"  # loopback: its clients are processes of this host
    CLIENT_TIMEOUTS = "client_timeouts"
    CLIENT_LIMITS = "client_limits"
    TRUSTED_PROXIES = "trusted_proxies"
    PASSTHROUGH = "passthrough"
    UNIX = "unix"  # a unix socket, of a listener or a backend
    FORWARDED = "forwarded"
    ACTION = "action"  # redirect, respond, asgi: answered by rauta itself
    TIMEOUTS = "timeouts"
    LIMITS = "limits"
    FILTERS = "filters"
    UPGRADES = "upgrades"
    PROXY_PROTOCOL = "proxy_protocol"
    BACKEND_TLS = "backend_tls"
    BACKEND_PROTOCOL = "backend_protocol"  # HTTP/2
    BALANCER = "balancer"
    BACKEND_NAME = "backend_name"  # a DNS name: only tier 3 resolves
    BACKEND_ADDRESS = "backend_address"  # loopback, multicast, a listener of ours
    BACKEND_UNREACHABLE = "backend_unreachable"  # the implementation says so
    BACKENDS = "too_many_backends"
    NO_BACKEND = "no_backend"  # all weights are 0
    SERVICES = "too_many_services"
    REGEX = "regex"
    HEADERS = "headers"
    QUERY = "query"
    PLUGIN = "plugin"
    METHOD = "method"
    PATH = "path"  # with percent-encoding or "//": requests for it always go to tier 3
    HOST = "host"  # an IPv6 literal, too long, or wildcards are not supported
    SHADOWED = "shadowed"  # a rule that only tier 3 can evaluate may claim the requests first
    UNREACHED = "unreached"  # another rule always claims the requests first
    FULL = "full"  # does not fit into the capabilities
    SETTING = "setting"  # any other setting that is not on the allow-list


class Passed(Enum):
    """Why the kernel leaves one request to tier 3, as far as listener, method, path and host decide it."""

    LISTENER = "listener"  # none of the listener's routes is in the plan
    METHOD = "method"
    PATH = "path"  # not plain: see `lookup.is_plain`
    HOST = "host"  # not plain: see `lookup.plain_host`
    UNKNOWN_HOST = "unknown_host"
    ROUTE = "route"  # the entry says so, or there is none: no route, or one that stays in tier 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a route is not, or not wholly, in the plan. None stands for all listeners, matches or hosts.

    `match` is the position among the route's matches, `host` a pattern as written.
    """

    route: str
    reason: Reason
    message: str
    listener: str | None = None
    match: int | None = None
    host: str | None = None

    def __str__(self) -> str:
        return f"route {self.route!r}: {self.message}"
