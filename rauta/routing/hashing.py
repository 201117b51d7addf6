"""The client's hash: one function for tier 3 and for the kernel programs.

It is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) over the client's address and port. Only
64-bit xor, shift and multiply, so that BPF computes the same. IPv4-mapped IPv6 addresses count as IPv4.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

_MASK: Final = (1 << 64) - 1

# Independent seeds: the choice among a route's weighted services must not correlate with the choice of backend.
BACKEND_SEED: Final = 0x9E3779B97F4A7C15
SERVICE_SEED: Final = 0xD1B54A32D192ED03


def mix(value: int) -> int:
    """SplitMix64's finaliser: 64 bits in, 64 well-mixed bits out."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@lru_cache(maxsize=1024)  # clients keep their address for many connections; parsing one costs 2 us
def address_bits(host: str) -> tuple[int, int]:
    """The address as (high, low) 64-bit words; IPv4 is (0, address). Anything else (unix peers) is (0, 0)."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return (0, 0)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return (int(address) >> 64, int(address) & _MASK)
        address = address.ipv4_mapped
    return (0, int(address))


@lru_cache(maxsize=16384)  # asked once a request, new once a connection; computing it costs 0.8 us
def client_hash(host: str, port: int, seed: int = BACKEND_SEED) -> int:
    """64-bit hash of a client; `port` 0 gives affinity by address alone.

    IPv4: `mix(((address << 16) | port) ^ seed)`; IPv6: `mix(mix(high ^ seed) ^ low)` takes the place of the address
    and its result is mixed with the port once more.
    """
    high, low = address_bits(host)
    if high:
        return mix(mix(mix(high ^ seed) ^ low) ^ port)
    return mix((((low << 16) | port) & _MASK) ^ seed)  # 64 bits in C, also for ::ffff:0:192.0.2.1
