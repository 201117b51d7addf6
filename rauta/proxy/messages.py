"""Heads of requests and responses as both sides of an exchange see them, whatever the protocol.

Texts are Latin-1 decoded (RFC 9110 5.5): every byte of the wire is one character and goes back as the same byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

# What follows a head, where it is not a number of bytes.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2  # responses only
NO_BODY: Final = -3

Field = tuple[str, str]

NONE_NAMED: Final[frozenset[str]] = frozenset()


class Glimpse(NamedTuple):
    """What could be read of a request that was refused, for the log; None where it could not."""

    method: str | None = None
    path: str | None = None
    query: str | None = None
    version: str | None = None
    host: str | None = None


class RequestHead:
    """A request, parsed and normalised; it can be routed and sent on as it is.

    `fields` are the end-to-end fields in order and as spelled, without Host and Content-Length; `received` gives all
    that routes may look at. `authority` is what the backend gets as Host, None if the client named none (HTTP/1.0).
    `host` is its normalised form. `length` is the body's: bytes, CHUNKED or NO_BODY. `query` is None without `?`.
    `named` are the fields that the sender has declared to be for this connection alone, in lower case. `upgrade` is
    the protocol that the client offers to switch to, in lower case (RFC 9110 7.8); if it `insists`, nothing else will
    do (RFC 8441). `scheme` is that of a target in absolute form, in lower case; None in the other forms. `claims` gives
    the fields that say
    who the client is (X-Forwarded-For and its kin): nobody but a trusted proxy is believed.
    """

    __slots__ = (
        "_values",
        "authority",
        "claims",
        "expects",
        "fields",
        "has_body",
        "host",
        "insists",
        "keep_alive",
        "length",
        "method",
        "named",
        "path",
        "query",
        "received",
        "scheme",
        "upgrade",
        "version",
    )

    def __init__(
        self, method: str, path: str, query: str | None, host: str, authority: str | None, version: str, length: int
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.host = host
        self.authority = authority
        self.version = version
        self.length = length
        self.has_body = length not in (NO_BODY, 0)
        self.fields: list[Field] = []
        self.received: Callable[[], list[Field]] = list
        self.claims: Callable[[], list[Field]] = list
        self.keep_alive = True
        self.expects = False
        self.named = NONE_NAMED
        self.upgrade: str | None = None
        self.insists = False
        self.scheme: str | None = None
        self._values: dict[str, str] | None = None

    def copy(self) -> RequestHead:
        """A request that may be changed without changing this one."""
        twin = RequestHead(self.method, self.path, self.query, self.host, self.authority, self.version, self.length)
        twin.fields = self.fields.copy()
        twin.received = self.received
        twin.claims = self.claims
        twin.keep_alive = self.keep_alive
        twin.expects = self.expects
        twin.named = self.named
        twin.upgrade = self.upgrade
        twin.insists = self.insists
        twin.scheme = self.scheme
        return twin

    def get(self, name: str, /) -> str | None:
        """A field by lower-case name, for routes and plugins (routing's `Headers`). Nothing is built unless asked, and
        then once: fifty routes with header conditions would else read 200 fields fifty times (34 ms)."""
        if self._values is None:
            self._values = by_name(self.received())
        return self._values.get(name)


def by_name(fields: list[Field]) -> dict[str, str]:
    """Values by lower-case name, several of one name joined as routing's `Headers` has it."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    return {name: ("; " if name == "cookie" else ", ").join(found) for name, found in values.items()}


class ResponseHead:
    """A response's head. `length` is the body that follows on the wire: bytes, CHUNKED, UNTIL_CLOSE or NO_BODY.

    `declared` is the Content-Length of a response that has no body but tells the size of one (to HEAD, or 304).
    `dated`: a Date is among the fields. `named` as in RequestHead. `upgrade` is the protocol that a 101 switches to.
    `kept_for`: seconds for which the sender keeps the connection when it is idle, None if it has not said so.
    """

    __slots__ = (
        "dated",
        "declared",
        "fields",
        "keep_alive",
        "kept_for",
        "length",
        "named",
        "phrase",
        "status",
        "upgrade",
    )

    def __init__(
        self,
        status: int,
        phrase: str,
        fields: list[Field],
        length: int,
        declared: int | None = None,
        keep_alive: bool = True,
        dated: bool = False,
    ) -> None:
        self.status = status
        self.phrase = phrase
        self.fields = fields
        self.length = length
        self.declared = declared
        self.keep_alive = keep_alive
        self.dated = dated
        self.named = NONE_NAMED
        self.upgrade: str | None = None
        self.kept_for: float | None = None
