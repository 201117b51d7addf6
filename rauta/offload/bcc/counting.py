"""What the programs have counted, and what their maps hold."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from rauta.offload.bcc import layouts, syscalls
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.syscalls import Map
from rauta.offload.bcc.tables import possible_cpus
from rauta.offload.capabilities import METHODS
from rauta.offload.protocol import MapUse, RequestKey, Traffic

_KEY: Final = struct.Struct("=IIIHBB")  # struct request_key
_CELL: Final = struct.Struct("=QQQ")  # struct traffic
_PROTOCOL: Final = "HTTP/1.1"
_HOOKS: Final = ("tc", "xdp")
FLOWS: Final = ("flows", "nats", "parked", "closed")


def read_events(folder: Path, names: tuple[str, ...]) -> dict[str, int]:
    """The programs' counters, summed over the CPUs."""
    cells = Map(syscalls.pinned(folder / "events"), cpus=possible_cpus())
    try:
        return {name: _sum(cells.get(layouts.INDEX.pack(number)) or b"") for number, name in enumerate(names)}
    finally:
        cells.close()


def _sum(value: bytes) -> int:
    return sum(number for (number,) in struct.iter_unpack("=Q", value))


def read_requests(folder: Path, known: Known) -> dict[RequestKey, Traffic]:
    """What was served, by names. A response that nobody understood has the status 0."""
    names = (known.listeners.names(), known.routes.names(), known.services.names())
    sums: dict[RequestKey, list[int]] = defaultdict(lambda: [0, 0, 0])
    cells = Map(syscalls.pinned(folder / "requests"), cpus=possible_cpus())
    try:
        for key, value in cells.items():
            *ids, code, method, tier = _KEY.unpack(key)
            listener, route, service = (found.get(number, "") for found, number in zip(names, ids, strict=True))
            if not tier:
                continue
            labels = RequestKey(
                listener=listener,
                route=route,
                service=service,
                code=code,
                method=METHODS[method],
                protocol=_PROTOCOL,
                tier=tier & 15,
                hook=_HOOKS[tier >> 4],
            )
            for cell in _CELL.iter_unpack(value):
                for place, number in enumerate(cell):
                    sums[labels][place] += number
    finally:
        cells.close()
    return {key: Traffic(requests=found[0], packets=found[1], bytes=found[2]) for key, found in sums.items()}


def map_use(folder: Path, counts: Mapping[str, int], names: Iterable[str]) -> dict[str, MapUse]:
    """Entries in use: `counts` where they are known, else counted now."""
    found: dict[str, MapUse] = {}
    for name in names:
        cells = Map(syscalls.pinned(folder / name))
        try:
            used: Callable[[], int] = cells.count
            found[name] = MapUse(counts[name] if name in counts else used(), cells.info.entries)
        finally:
            cells.close()
    return found
