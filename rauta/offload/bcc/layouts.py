"""The structures of `bpf/maps.h` as bytes. Sizes are compared with those of the maps when they are opened."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Final

from rauta.offload.capabilities import METHODS
from rauta.offload.lookup import HOST_BYTES, PATH_BYTES
from rauta.routing.settings import Address

PATH_MAX: Final = 248
HOST_MAX: Final = 128
MAX_SHARES: Final = 16
MAX_BACKENDS: Final = 32

_CLASS_PATH, _CLASS_QUERY, _CLASS_HOST = 1, 2, 4
# As the path's, and what a path has other rules for.
_QUERY: Final = PATH_BYTES | frozenset(b"?%/")

INDEX: Final = struct.Struct("=I")


def byte_classes() -> bytes:
    """`config.class`: what each byte may be."""
    return bytes(
        (_CLASS_PATH if byte in PATH_BYTES else 0)
        | (_CLASS_QUERY if byte in _QUERY else 0)
        | (_CLASS_HOST if byte in HOST_BYTES else 0)
        for byte in range(256)
    )


def config(parity: int, nat_first: int, nat_count: int) -> bytes:
    """struct config."""
    return struct.pack("=IHH256s", parity, nat_first, nat_count, byte_classes())


def _packed(address: str) -> bytes:
    return socket.inet_aton(address)


def listener_key(address: Address, parity: int) -> bytes:
    """struct listener_key."""
    return _packed(address.host) + struct.pack("!H", address.port) + struct.pack("=H", parity)


def listener(number: int, other: int, identity: int, mss: int) -> bytes:
    """struct listener."""
    return struct.pack("=IIIHH", number, other, identity, mss, 0)


def host_key(listener_number: int, name: str) -> bytes:
    """struct host_key."""
    return struct.pack(f"=I{HOST_MAX}s", listener_number, name.encode())


def suffix_key(listener_number: int, suffix: str) -> bytes:
    """struct suffix_key: "example.com" is the key "moc.elpmaxe."."""
    reversed_ = suffix[::-1].encode() + b"."
    return struct.pack(f"=II{HOST_MAX}s", 32 + 8 * len(reversed_), listener_number, reversed_)


def suffix_owner(one_label: int, deeper: int, suffix: str) -> bytes:
    """struct suffix_owner."""
    return struct.pack("=III", one_label, deeper, len(suffix) + 1)


def path_key(owner: int, path: str) -> bytes:
    """struct path_key."""
    return struct.pack(f"=I{PATH_MAX}s", owner, path.encode())


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
    "suffixes": (8 + HOST_MAX, 12),
    "paths": (4 + PATH_MAX, 16),
    "prefixes": (8 + PATH_MAX, 16),
    "routes": (4, 16 + 8 * MAX_SHARES),
    "services": (4, 20 + 8 * MAX_BACKENDS),
    "maglevs": (4, 4100),
}
