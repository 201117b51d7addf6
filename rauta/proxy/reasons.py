"""Why the gateway itself answered or gave up: one table from a reason to its status and text.

The name stands in the access log, in the body of the answer and in metrics; it is public and stable.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """A reason's name, the status that it is answered with, and what it means for the reader of the answer."""

    name: str
    status: int
    text: str


def _table(*rows: tuple[str, int, str]) -> dict[str, Reason]:
    return {name: Reason(name, status, text) for name, status, text in rows}


REASONS: Final = _table(
    # The request cannot be taken. It was never forwarded, and the connection is closed.
    ("bad_request_line", 400, "the request line is malformed"),
    ("bad_target", 400, "the request target is malformed"),
    ("bad_path", 400, "the path is malformed"),
    ("bad_query", 400, "the query is malformed"),
    ("encoded_slash", 400, "the path contains an encoded slash"),
    ("bad_host", 400, "the host is missing, repeated or malformed"),
    ("bad_field", 400, "a header field is malformed"),
    ("bad_line_end", 400, "a line does not end in CR LF"),
    ("bad_framing", 400, "the length of the body is not clear"),
    ("bad_chunk", 400, "the chunked body is malformed"),
    ("tls_on_plain", 400, "received TLS on a plain HTTP port"),
    ("plain_on_tls", 400, "received plain HTTP on a TLS port"),
    ("client_certificate", 400, "the client's certificate is missing or not accepted"),
    ("bad_proxy_header", 400, "the PROXY header is missing, malformed or not wanted"),
    ("bad_client_hello", 400, "the TLS handshake does not begin as it should"),
    ("method_not_allowed", 405, "this method is not served"),
    ("head_timeout", 408, "the request head did not arrive in time"),
    ("client_timeout", 408, "the client sent or took nothing for too long"),
    ("body_too_large", 413, "the body is longer than this route allows"),
    ("target_too_long", 414, "the request target is too long"),
    ("bad_expectation", 417, "only the expectation 100-continue can be met"),
    ("head_too_large", 431, "the request head is too large or has too many fields"),
    ("unsupported_coding", 501, "the only transfer coding that is understood is chunked"),
    ("no_tunnel", 501, "this protocol cannot be switched to here"),
    ("bad_version", 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
    ("bad_frame", 400, "the HTTP/2 connection is broken"),
    ("flood", 400, "too many HTTP/2 frames that ask for nothing"),
    # The request was understood, and routing has no backend for it.
    ("misdirected", 421, "this request is not for this connection"),
    ("unknown_host", 404, "no route has this host"),
    ("no_route", 404, "no route matches this request"),
    ("regex_timeout", 503, "a route's pattern could not be decided in time"),
    ("plugin_error", 500, "a plugin failed"),
    ("rewrite_failed", 500, "the route's rewrite makes no valid path of this one"),
    ("too_many_connections", 503, "the listener has as many connections as it may have"),
    ("no_backend", 503, "the service has no backend that may be used"),
    ("internal_error", 500, "the gateway failed"),
    ("application_failed", 500, "the application failed"),
    # The backend failed.
    ("upstream_dns", 502, "the backend's name could not be resolved"),
    ("upstream_refused", 502, "the backend refused the connection"),
    ("upstream_unreachable", 502, "the backend could not be reached"),
    ("upstream_tls", 502, "no TLS connection to the backend could be made"),
    ("upstream_connect_timeout", 504, "the backend did not accept the connection in time"),
    ("upstream_reset", 502, "the backend closed the connection before its response was complete"),
    ("upstream_malformed", 502, "the backend's response is malformed"),
    ("upstream_timeout", 504, "the backend did not respond in time"),
    ("upstream_overloaded", 503, "all connections to the backend are in use"),
    ("request_timeout", 504, "the request took too long"),
    ("tunnel_idle", 101, "nothing came through the tunnel for too long"),
    # Nobody is left to be answered; the status is for the log alone (499 as in nginx).
    ("client_gone", 499, "the client closed the connection before the response was complete"),
    ("draining", 503, "the gateway was stopped before the response was complete"),
)

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def phrase_of(status: int) -> str:
    """The reason phrase of a status; empty for one without a name."""
    return _PHRASES.get(status, "")


BODIES: Final = {
    reason.name: f"{reason.status} {phrase_of(reason.status)}\n{reason.name}: {reason.text}\n".encode()
    for reason in REASONS.values()
}
"""The body of the answer for each reason, as text/plain."""
