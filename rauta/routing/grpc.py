"""gRPC's statuses, and which of them stands for an answer of the gateway's own. "gRPC over HTTP2" and "HTTP to gRPC
Status Code Mapping" of the gRPC project are the specification."""

from __future__ import annotations

import re
from typing import Final

NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number."""

UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

# Where a reason says more than its status, that.
_OF_STATUS: Final = {400: INTERNAL, 401: 16, 403: 7, 404: UNIMPLEMENTED, 502: UNAVAILABLE, 503: UNAVAILABLE,
                     504: UNAVAILABLE}  # fmt: skip
_OF_REASON: Final = {
    "request_timeout": DEADLINE_EXCEEDED,
    "client_timeout": UNAVAILABLE,
    "body_too_large": RESOURCE_EXHAUSTED,
    "upstream_malformed": INTERNAL,
    "internal_error": INTERNAL,
    "plugin_error": INTERNAL,
    "rewrite_failed": INTERNAL,
}

_CONTENT_TYPE: Final = re.compile(r"application/grpc(?:$|[+; \t])", re.IGNORECASE)


def is_content_type(value: str) -> bool:
    """Whether a request with this Content-Type is one of gRPC."""
    return _CONTENT_TYPE.match(value) is not None


def status_of(reason: str, status: int) -> int:
    """The gRPC status of an error of our own, by its reason and its status of HTTP."""
    return _OF_REASON.get(reason, _OF_STATUS.get(status, UNKNOWN))
