"""`client-network`: a matcher by the client's address.

The client is whoever opened the connection, as rauta sees it: behind another proxy that is the proxy.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from rauta.api import RequestView

KNOWN_CLIENTS = 4096  # a keep-alive client asks many times; parsing its address costs 2 us, the cache 0.1 us

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """A set of networks. Asking costs by the number of different prefix lengths, not of networks."""

    __slots__ = ("_by_length",)

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._by_length: dict[tuple[int, int], set[int]] = {}  # (IP version, bits of the host part) -> networks
        for text in networks:
            network = ipaddress.ip_network(text)
            shift = network.max_prefixlen - network.prefixlen
            self._by_length.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    def __contains__(self, address: Address) -> bool:
        bits, version = int(address), address.version
        return any(
            version == of_version and bits >> shift in found for (of_version, shift), found in self._by_length.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Keys of `settings` in the file. rauta checks the types by these annotations and names file and line."""

    networks: tuple[str, ...] = field(metadata={"doc": "networks whose clients match, like 10.0.0.0/8"})
    exclude: tuple[str, ...] = field(default=(), metadata={"doc": "networks in those whose clients do not match"})

    def __post_init__(self) -> None:
        if not self.networks:
            raise _error(("networks",), "the list is empty: no client would match")
        for key in ("networks", "exclude"):
            for position, text in enumerate(getattr(self, key)):
                try:
                    ipaddress.ip_network(text)
                except ValueError as error:
                    raise _error((key, position), f"{text!r} is not a network: {error}") from None


def _error(where: tuple[str | int, ...], message: str) -> Exception:
    """An error at one value, so that its line is told. A plain ValueError would do; it names the line of the whole."""
    from rauta.api import ModelError  # here, since a worker that never sees a wrong value need not import it

    return ModelError.at(where, message)


class ClientNetwork:
    """Matches clients of some networks. An address that is none (a unix peer) is in no network."""

    Settings: ClassVar[type | None] = NetworkSettings
    __slots__ = ("_excluded", "_known", "_networks")

    def __init__(self, settings: NetworkSettings) -> None:
        self._networks = Networks(settings.networks)
        self._excluded = Networks(settings.exclude)
        self._known = lru_cache(maxsize=KNOWN_CLIENTS)(self._is_member)

    def match(self, request: RequestView) -> bool:
        """Whether the client that sent the request is a member."""
        return self._known(request.client[0])

    def _is_member(self, client: str) -> bool:
        try:
            address: Address = ipaddress.ip_address(client.partition("%")[0])  # fe80::1%eth0
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # an IPv4 client of an IPv6 socket
        return address in self._networks and address not in self._excluded

    def close(self) -> None:
        """The last request of the old table is done."""
        self._known.cache_clear()
