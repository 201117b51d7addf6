"""The fields that tell a backend who the client is (RFC 7239 and its predecessors).

What a client sends of them never gets through (`http1.fields`); here only what rauta itself knows is written. The
exception are trusted proxies: what they say of the client before them is believed, and passed on with them added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from rauta.proxy.messages import RequestHead, by_name
from rauta.routing.hosts import HostError, normalise_host
from rauta.routing.settings import X_FORWARDED, Forwarded, Network

Builder = Callable[[str, str, str, str, str], str]
"""(chain of clients, scheme, authority or "", version as in "1.1", the value of Client-Cert or "") -> complete field
lines. The chain is what X-Forwarded-For holds: the peer's address, behind those that trusted proxies have told."""

# Proxies in a row that are believed. Beyond, the chain is somebody's attack or loop: it counts as the last of these.
MAX_CHAIN: Final = 32
# RFC 7239 4 allows obfuscated nodes and `unknown`; a chain that has them is passed on, and ends the search.
_NODE: Final = re.compile(r"[0-9A-Za-z._:\[\]-]{1,64}")

_NAMES: Final = {  # field -> its name, and which of a builder's arguments is its value
    Forwarded.X_FORWARDED_FOR: ("X-Forwarded-For", 0),
    Forwarded.X_FORWARDED_PROTO: ("X-Forwarded-Proto", 1),
    Forwarded.X_FORWARDED_HOST: ("X-Forwarded-Host", 2),
}


def _node(address: str) -> str:
    # RFC 7239 6: an IPv6 address is in brackets, and then quoted; what has no address (unix peers) is "unknown".
    return f'"[{address}]"' if ":" in address else address or "unknown"


def _rfc7239(chain: str, scheme: str, authority: str) -> str:
    first, *others = chain.split(", ")
    host = f';host="{authority}"' if authority else ""
    rest = "".join([f", for={_node(address)}" for address in others])
    return f"Forwarded: for={_node(first)}{host};proto={scheme}{rest}\r\n"


def _x_forwarded(address: str, scheme: str, authority: str, _version: str, _certificate: str) -> str:
    return (
        f"X-Forwarded-For: {address or 'unknown'}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: {authority}\r\n"
    )


def builder_of(wanted: Set[Forwarded]) -> Builder | None:
    """The function that writes the wanted fields, chosen once per route; None if there are none."""
    if not wanted:
        return None
    if wanted == X_FORWARDED:
        return _x_forwarded  # the default, in one string
    rows = [_NAMES[field] for field in Forwarded if field in wanted and field in _NAMES]

    def build(address: str, scheme: str, authority: str, version: str, certificate: str) -> str:
        values = (address or "unknown", scheme, authority)
        lines = "".join([f"{name}: {values[place]}\r\n" for name, place in rows])
        if Forwarded.FORWARDED in wanted:
            lines += _rfc7239(address, scheme, authority)
        if Forwarded.VIA in wanted:
            # RFC 9110 7.6.3; those that the client sent stay before it: several fields are one list.
            lines += f"Via: {version} rauta\r\n"
        if certificate and Forwarded.CLIENT_CERT in wanted:
            lines += f"Client-Cert: {certificate}\r\n"
        return lines

    return build


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """What a trusted proxy told: the client (its port is not known: 0), the scheme and host that it used (None: not
    told, or not believable), and the chain for X-Forwarded-For, with the proxy itself."""

    client: tuple[str, int]
    scheme: str | None
    host: str | None
    chain: str


class TrustedProxies:
    """The networks whose hosts are believed."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self._known: dict[str, bool] = {}  # of peers, since the same few connect again and again

    def believe(self, peer: tuple[str, int], head: RequestHead) -> Believed | None:
        """What the peer tells of its client; None if it is not trusted. `peer` is ("", 0) for a unix socket, whose file
        mode says who may connect: it is trusted if there are trusted proxies at all."""
        if peer[0] and not self._trusts_peer(peer[0]):
            return None
        claims = by_name(head.claims())
        chain = _chain_of(claims.get("x-forwarded-for"))
        host = claims.get("x-forwarded-host")
        return Believed(
            client=self._client(chain, peer),
            scheme=_scheme_of(claims.get("x-forwarded-proto")),
            host=None if host is None or not _is_host(host) else host,
            chain=", ".join([*chain, peer[0] or "unknown"]),
        )

    def _client(self, chain: list[str], peer: tuple[str, int]) -> tuple[str, int]:
        """From the right, the first that is not one of the trusted; the leftmost if all are. What is no address was
        said by the last one that is trusted, so it is as good as that one's word: the search ends before it."""
        client = peer
        for text in reversed(chain):
            address = _address_of(text)
            if address is None:
                return client
            client = (address, 0)
            if not self._trusts(address):
                return client
        return client

    def _trusts_peer(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            known = self._known[address] = self._trusts(address)
        return known

    def _trusts(self, text: str) -> bool:
        address = ip_address(text.partition("%")[0])
        # Of another family than the network's it is in none: `in` says so.
        return any(address in network for network in self._networks)


def _chain_of(value: str | None) -> list[str]:
    """The last elements of X-Forwarded-For; what no node can be cuts off all before it."""
    if not value:
        return []
    chain: list[str] = []
    for part in reversed(value.rsplit(",", MAX_CHAIN)[-MAX_CHAIN:]):
        text = part.strip(" \t")
        if not _NODE.fullmatch(text):
            break
        chain.append(text)
    return chain[::-1]


def _address_of(node: str) -> str | None:
    """The literal address of a node, which may have a port: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    if node.startswith("["):
        node = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        node = node.partition(":")[0]
    try:
        return str(ip_address(node))
    except ValueError:
        return None


def _scheme_of(value: str | None) -> str | None:
    scheme = (value or "").rpartition(",")[2].strip(" \t").lower()
    return scheme if scheme in ("http", "https") else None


def _is_host(value: str) -> bool:
    try:
        normalise_host(value)
    except HostError:
        return False
    return True
