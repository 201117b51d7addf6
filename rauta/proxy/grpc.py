"""What a gateway has to know of gRPC: its messages are bodies like others, but its errors are no HTTP statuses, and its
requests say how long they may take. "gRPC over HTTP2" of the gRPC project is the specification."""

from __future__ import annotations

import re
from typing import Final

from rauta.proxy.messages import Field, RequestHead
from rauta.proxy.reasons import REASONS
from rauta.routing import grpc

STATUSES: Final = frozenset(map(str, range(len(grpc.NAMES))))

# "Timeout → "grpc-timeout" TimeoutValue TimeoutUnit", at most 8 digits.
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def is_grpc(head: RequestHead) -> bool:
    """Whether a request is one of gRPC."""
    return any(name.lower() == "content-type" and grpc.is_content_type(value) for name, value in head.fields)


def timeout_of(head: RequestHead) -> float | None:
    """The seconds that the client gives the request; None: it does not say, or not in a way that can be understood."""
    for name, value in head.fields:
        if name.lower() == "grpc-timeout":
            found = _TIMEOUT.fullmatch(value)
            return None if found is None else int(found[1]) * _UNITS[found[2]]
    return None


def status_of(reason: str) -> int:
    """The gRPC status of an error of our own."""
    return grpc.status_of(reason, REASONS[reason].status)


def failure(reason: str) -> list[Field]:
    """The fields of a response that says so: it has no message, its status stands in its head ("Trailers-Only")."""
    return [("Content-Type", "application/grpc"), *trailers(reason)]


def trailers(reason: str) -> list[Field]:
    """The end of a response that says so."""
    text = f"{reason}: {REASONS[reason].text}"  # ASCII without `%`, as "Percent-Encoded" asks for
    return [("grpc-status", str(status_of(reason))), ("grpc-message", text)]


def told_in(fields: list[Field]) -> str | None:
    """The status among trailers, or in a head that has them in it."""
    for name, value in fields:
        if name.lower() == "grpc-status":
            return value[:3]
    return None
