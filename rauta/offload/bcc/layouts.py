"""The structures of `bpf/maps.h` as bytes. Sizes are compared with those of the maps when they are opened."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

from rauta.offload.capabilities import METHODS
from rauta.routing.settings import Address

PATH_MAX: Final = 248
PATH_SHORT: Final = 60  # as the longest that is looked up by a short key
HOST_MAX: Final = 128
HOST_SHORT: Final = 28
MAX_SHARES: Final = 16
MAX_BACKENDS: Final = 32

INDEX: Final = struct.Struct("=I")


def config(generation: int, nat_first: int, nat_count: int) -> bytes:
    """struct config."""
    return struct.pack("=IHH", generation, nat_first, nat_count)


def _packed(address: str) -> bytes:
    return socket.inet_aton(address)


def listener_key(address: Address, parity: int) -> bytes:
    """struct listener_key."""
    return _packed(address.host) + struct.pack("!H", address.port) + struct.pack("=H", parity)


def listener(number: int, other: int, identity: int, mss: int, *, hosts: bool, suffixes: bool) -> bytes:
    """struct listener."""
    return struct.pack("=IIIHH", number, other, identity, mss, hosts | suffixes << 1)


def host_key(listener_number: int, name: str) -> tuple[str, bytes]:
    """The map, and struct short_host_key or host_key."""
    short = len(name) <= HOST_SHORT
    key = struct.pack(f"=I{HOST_SHORT if short else HOST_MAX}s", listener_number, name.encode())
    return "short_hosts" if short else "hosts", key


def suffix_key(listener_number: int, suffix: str) -> bytes:
    """struct suffix_key: "example.com" is the key "moc.elpmaxe."."""
    reversed_ = suffix[::-1].encode() + b"."
    return struct.pack(f"=II{HOST_MAX}s", 32 + 8 * len(reversed_), listener_number, reversed_)


def suffix_owner(one_label: int, deeper: int, suffix: str) -> bytes:
    """struct suffix_owner."""
    return struct.pack("=III", one_label, deeper, len(suffix) + 1)


def path_key(owner: int, path: str) -> tuple[str, bytes]:
    """The map, and struct short_path_key or path_key."""
    short = len(path) <= PATH_SHORT
    key = struct.pack(f"=I{PATH_SHORT if short else PATH_MAX}s", owner, path.encode())
    return "short_paths" if short else "paths", key


def prefix_key(owner: int, prefix: str) -> bytes:
    """struct prefix_key."""
    return struct.pack(f"=II{PATH_MAX}s", 32 + 8 * len(prefix), owner, prefix.encode())


def row(routes: Sequence[int]) -> bytes:
    """struct row: per method the route's number, 0 for tier 3."""
    return struct.pack(f"={len(METHODS) + 1}H", *routes, 0)


def route(identity: int, shares: Sequence[tuple[int, int]], *, by_address: bool) -> bytes:
    """struct route; shares are (cumulative weight, the service's number)."""
    flat = [number for share in shares for number in share]
    flat += [0] * (2 * MAX_SHARES - len(flat))
    total = shares[-1][0] if shares else 0
    return struct.pack(f"=IIII{2 * MAX_SHARES}I", identity, len(shares), by_address, total, *flat)


def service(
    identity: int, table: int, backends: Sequence[Address], *, by_address: bool, usable: int, proxied: bool
) -> bytes:
    """struct service; `usable` has a bit for each backend."""
    packed = b"".join(_packed(item.host) + struct.pack("!H", item.port) + bytes(2) for item in backends)
    return struct.pack(f"=IIIII{8 * MAX_BACKENDS}s", identity, table, by_address, usable, proxied, packed)


def maglev(slots: bytes) -> bytes:
    """struct maglev."""
    return slots + bytes(1)


def parity_of(name: str, key: bytes) -> int:
    """The generation's parity in a key of a map that holds plans."""
    if name == "listeners":
        return int(struct.unpack_from("=H", key, 6)[0])
    (number,) = struct.unpack_from("=I", key, 4 if name in ("suffixes", "prefixes") else 0)
    return int(number >> 24)


SIZES: Final = {  # key and value of each map
    "configs": (4, len(config(0, 0, 0))),
    "listeners": (8, 16),
    "hosts": (4 + HOST_MAX, 4),
    "short_hosts": (4 + HOST_SHORT, 4),
    "suffixes": (8 + HOST_MAX, 12),
    "paths": (4 + PATH_MAX, 16),
    "short_paths": (4 + PATH_SHORT, 16),
    "prefixes": (8 + PATH_MAX, 16),
    "routes": (4, 16 + 8 * MAX_SHARES),
    "services": (4, 20 + 8 * MAX_BACKENDS),
    "maglevs": (4, 4100),
}
