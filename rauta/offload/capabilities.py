"""What an implementation of the offload can hold. The planner fits the configuration into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rauta.routing.defaults import KERNEL_MAX_BACKENDS

# Every other method is passed to tier 3. The order is that of the columns of a map value: C has the same.
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Limits of one implementation on one machine; lengths in bytes, counts in map entries.

    `unreachable` is what only the running machine knows: addresses of backends that the kernel path cannot serve
    (local to the host, behind an interface without a program), each with the reason as a clause for a person.
    """

    methods: frozenset[str] = frozenset(METHODS)
    ipv6: bool = False
    wildcard_hosts: bool = True
    host_length: int = 127  # a key holds one more, the dot of a wildcard; real names are below 80
    path_length: int = (
        247  # a key of a trie holds 256 bytes (LPM_DATA_SIZE_MAX), with sizes, ids and a slash at the end
    )
    listeners: int = 64
    hosts: int = 16_384  # 4 MB of keys and nodes
    exact: int = 65_536
    prefix: int = 65_536
    routes: int = 16_384
    services: int = 4_096  # one Maglev table of 4,099 bytes each
    backends: int = KERNEL_MAX_BACKENDS  # of one service
    shares: int = 16  # weighted services of one route: the program walks them
    unreachable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := self.methods.difference(METHODS):
            raise ValueError(f"no column for {', '.join(sorted(unknown))}: the methods are {', '.join(METHODS)}")
