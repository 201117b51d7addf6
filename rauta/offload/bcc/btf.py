"""The kernel's functions that programs may call (kfuncs), by their BTF ids: /sys/kernel/btf/vmlinux."""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_FUNC: Final = 12
# What follows the 12 bytes of a type, by kind: so many bytes, and bytes per member (Documentation/bpf/btf.rst).
_FIXED: Final = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def function_ids(names: Collection[str], source: Path = VMLINUX) -> dict[str, int]:
    """The ids of those that this kernel has. Raises OSError (no BTF) or ValueError (not understood)."""
    return dict(_found(tuple(names), source))


@functools.lru_cache(maxsize=8)  # a tenth of a second, which a reload need not wait for: a kernel does not change
def _found(names: tuple[str, ...], source: Path) -> dict[str, int]:
    data = source.read_bytes()
    magic, version, _, header, types, size, strings, _ = struct.unpack_from("=HBBIIIII", data)
    if (magic, version) != (0xEB9F, 1):
        raise ValueError(f"{source} is not BTF of version 1")
    wanted = {name.encode(): name for name in names}
    at, end, number = header + types, header + types + size, 1
    found: dict[str, int] = {}
    while at < end and len(found) < len(wanted):
        name, info, _ = struct.unpack_from("=III", data, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _FUNC:
            start = header + strings + name
            text = data[start : data.index(b"\0", start)]
            if text in wanted:
                found[wanted[text]] = number
        at += 12 + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * members
        number += 1
    return found
