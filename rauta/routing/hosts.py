"""Hosts: how a request's host is normalised, and the patterns that claim it.

* A host is lower-cased; its port and one trailing dot are dropped (RFC 9110 7.2, RFC 3986 3.2.2).
* Exact > longest wildcard > any. `*.example.com` matches any depth below the apex and not the apex
  (Gateway API). The one-label kind (Ingress) matches exactly one label; on equal suffixes it goes first.
* The most specific host that has a route on the listener owns the request: there is no fall-through.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from rauta.routing.defaults import MAX_HOST_LENGTH
from rauta.routing.errors import ModelError, RequestError

# Registered names as they occur in DNS, plus "_" (seen in practice). RFC 3986 would allow more (sub-delims,
# percent-encoding); nothing resolves such a name, and parsers disagree about it.
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{0,5}))?")


class HostError(RequestError):
    """The request's host is not one that can be routed; answered 400."""


def _name_of(host: str) -> str | None:
    """The canonical form of a host without port, or None if it is none."""
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    host = host.lower().removesuffix(".")
    return host if len(host) <= MAX_HOST_LENGTH and _NAME.fullmatch(host) else None


def normalise_host(value: str) -> str:
    """The host of an authority or Host field: lower case, without port and trailing dot.

    An empty value is the empty host, which only the "any" pattern matches (RFC 9110 7.2).
    Raises HostError (400) for anything that is not `name`, `IPv4` or `[IPv6]` with an optional port.
    """
    if len(value) > MAX_HOST_LENGTH + len(".:65535"):  # also: what is remembered below stays small
        raise HostError("bad_host", f"the host has {len(value)} characters; {MAX_HOST_LENGTH} are allowed")
    return _normalise(value)


@lru_cache(maxsize=4096)  # one entry per name in use; normalising anew costs 1.5 us a request
def _normalise(value: str) -> str:
    if not value:
        return ""
    found = _AUTHORITY.fullmatch(value)
    if found is None:
        if "@" in value:  # not quoted: this text is logged
            raise HostError("bad_host", "the host has a user name, which HTTP does not allow (RFC 9110 4.2.4)")
        raise HostError("bad_host", f"invalid host {value[:80]!r}")
    port = found["port"]
    if port and not 0 < int(port) < 65536:
        raise HostError("bad_host", f"invalid port in host {value[:80]!r}")
    host = _name_of(found["host"])
    if host is None:
        raise HostError("bad_host", f"invalid host {value[:80]!r}")
    return host


def is_address(host: str) -> bool:
    """Whether a normalised host is a literal IP address."""
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class HostKind(Enum):
    """How a host pattern claims hosts, in order of precedence."""

    EXACT = "exact"
    ONE_LABEL = "one_label"
    WILDCARD = "wildcard"


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host that a route claims. `name` is normalised and, for wildcards, without the leading `*.`."""

    name: str
    kind: HostKind = HostKind.EXACT

    def __post_init__(self) -> None:
        name = _name_of(self.name)
        if name is None or (name.startswith("[") and self.kind is not HostKind.EXACT):
            raise ModelError.at((), self._complaint())
        object.__setattr__(self, "name", name)

    def _complaint(self) -> str:
        text = str(self)
        if re.fullmatch(r"[^/\[]+:[0-9]+|\[[^\]]+\]:[0-9]+", text):
            return f"host {text!r} must not have a port: ports belong to listeners"
        if not text.isascii():
            try:
                return f"host {text!r} must be written in its ASCII form: {text.encode('idna').decode()!r}"
            except UnicodeError:
                pass  # it has no ASCII form, so the general complaint below is the true one
        return f"host {text!r} is not a host name, an address or '*.' and a name"

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """`api.example.com`, `[::1]` or `*.example.com` (any depth). Raises ModelError."""
        if text.startswith("*."):
            return cls(text[2:], HostKind.WILDCARD)
        return cls(text)

    def matches(self, host: str) -> bool:
        """Whether this pattern claims a normalised host."""
        if self.kind is HostKind.EXACT:
            return host == self.name
        head, dot, rest = host.partition(".")
        if self.kind is HostKind.ONE_LABEL:
            return bool(head) and dot == "." and rest == self.name
        return len(host) > len(self.name) + 1 and host.endswith("." + self.name)

    def __str__(self) -> str:
        return self.name if self.kind is HostKind.EXACT else f"*.{self.name}"
