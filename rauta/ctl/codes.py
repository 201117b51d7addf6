"""The codes in rautactl's JSON, with what they mean: stable, and the tables of `docs/rautactl.md`.

`why_no_lower` mixes what keeps a route out of the plan (the planner's reasons, as in metrics) with what the kernel
passes a single request up for. Several of those share a word ("path": of the route, or of the request), so the codes of
the latter start with `request_`.
"""

from __future__ import annotations

from typing import Final

from rauta.offload import Passed, Reason

BEYOND_TIER_1: Final = "beyond_tier_1"

ROUTE_CODES: Final = {
    Reason.OFFLOAD_OFF: "the file has no `offload` section, or its mode is `none`",
    Reason.ACCESS_LOG: "`access_log.require` asks for a log line of each request",
    Reason.TLS: "the listener terminates TLS",
    Reason.IPV6: "the listener or a backend has an IPv6 address, and the kernel tiers here have none",
    Reason.LISTENER_ADDRESS: "the listener's address is loopback",
    Reason.CLIENT_TIMEOUTS: "the listener has other time-outs than the defaults",
    Reason.CLIENT_LIMITS: "the listener has other limits than the defaults",
    Reason.TRUSTED_PROXIES: "the listener believes what proxies say of their clients",
    Reason.PASSTHROUGH: "the listener passes TLS through to a service",
    Reason.UNIX: "the listener or a backend is a unix socket",
    Reason.FORWARDED: "forwarded fields are added",
    Reason.ACTION: "rauta answers by itself: `redirect`, `respond`, `asgi`",
    Reason.TIMEOUTS: "the service or route has other time-outs than the defaults",
    Reason.LIMITS: "the service or route has other limits than the defaults",
    Reason.FILTERS: "the listener or route has filters",
    Reason.UPGRADES: "the route has other upgrades than `websocket`",
    Reason.PROXY_PROTOCOL: "the service's backends get a PROXY header, or the listener takes them",
    Reason.BACKEND_TLS: "the service's backends are spoken to by TLS",
    Reason.BACKEND_PROTOCOL: "the service's backends are spoken to in HTTP/2",
    Reason.BALANCER: "the balancer is not `maglev`",
    Reason.BACKEND_NAME: "a backend is a DNS name",
    Reason.BACKEND_ADDRESS: "a backend's address is loopback, multicast or a listener's own",
    Reason.BACKEND_UNREACHABLE: "this machine's kernel tiers do not reach a backend",
    Reason.BACKENDS: "the service has more backends than fit",
    Reason.NO_BACKEND: "all weights are 0",
    Reason.SERVICES: "the route has more services than fit",
    Reason.REGEX: "the path is a regular expression",
    Reason.HEADERS: "the match has conditions on header fields",
    Reason.QUERY: "the match has conditions on query parameters",
    Reason.PLUGIN: "the match has conditions of plugins",
    Reason.METHOD: "the match names a method that the kernel tiers do not know",
    Reason.PATH: "the route's path has an escape or `//`: requests for it always go to tier 3",
    Reason.HOST: "the route's host is an IPv6 literal, too long, or a wildcard that is not supported",
    Reason.SHADOWED: "a rule that only tier 3 can evaluate may claim the requests first",
    Reason.UNREACHED: "another rule always claims the requests first",
    Reason.FULL: "it does not fit into the maps",
    Reason.SETTING: "any other setting that the kernel tiers do not honour",
}

REQUEST_CODES: Final = {
    Passed.LISTENER: "none of the listener's routes is in the plan",
    Passed.METHOD: "the kernel tiers do not know this method",
    Passed.PATH: "requests with '%', '//' or dot segments in their path, or a very long one, always go to tier 3",
    Passed.HOST: "requests for an IPv6 literal, without a host or with a very long one always go to tier 3",
    Passed.UNKNOWN_HOST: "no route has this host",
    Passed.ROUTE: "the plan leaves these requests to tier 3",
}

WHY: Final[dict[str, str]] = {
    BEYOND_TIER_1: "tier 1 answers GET and HEAD of exact paths only",
    **{f"request_{passed.value}": text for passed, text in REQUEST_CODES.items()},
    **{reason.value: text for reason, text in ROUTE_CODES.items()},
}
"""All that a `code` of `why_no_lower` can be."""

ANSWERS: Final[dict[str, tuple[int, str]]] = {
    "options": (200, "`OPTIONS *` asks about the gateway, which answers by itself; the access log has no reason"),
    "plain_on_tls": (400, "the URL is http, and its port is one for TLS"),
    "tls_on_plain": (400, "the URL is https, and its port is one for plain HTTP"),
    "bad_target": (400, "the request target is malformed"),
    "bad_path": (400, "the path is malformed"),
    "bad_query": (400, "the query is malformed"),
    "encoded_slash": (400, "the path has an encoded slash, and the listener rejects those"),
    "bad_host": (400, "the host is missing, repeated or malformed"),
    "misdirected": (421, "the host is not for a connection that was made for another name"),
    "method_not_allowed": (405, "CONNECT and TRACE are not served"),
    "unknown_host": (404, "no route has this host, or nothing is passed through for this name"),
    "no_route": (404, "no route of the host claims the request"),
    "regex_timeout": (503, "a route's pattern could not be decided in time"),
    "plugin_error": (500, "a plugin failed"),
    "no_backend": (503, "the service has no backend that may be used"),
}
"""All that the `reason` of an answer of `explain` can be, with its status. But for `options`, the access log and the
bodies of answers use the same names."""


def of_request(passed: Passed) -> str:
    """The code of what one request is passed up for."""
    return f"request_{passed.value}"
