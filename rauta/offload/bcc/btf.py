"""What programs have to know of the kernel that they run in, from its BTF (/sys/kernel/btf/vmlinux): the ids of
functions that they may call (kfuncs), and where members of its structures are."""

from __future__ import annotations

import functools
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_STRUCT: Final = 4
_UNION: Final = 5
_FUNC: Final = 12
# What follows the 12 bytes of a type, by kind: so many bytes, and bytes per member (Documentation/bpf/btf.rst).
_FIXED: Final = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def function_ids(names: Collection[str], source: Path = VMLINUX) -> dict[str, int]:
    """The ids of those that this kernel has. Raises OSError (no BTF) or ValueError (not understood)."""
    return dict(_found(tuple(names), source))


@functools.lru_cache(maxsize=8)  # a tenth of a second, which a reload need not wait for: a kernel does not change
def _found(names: tuple[str, ...], source: Path) -> dict[str, int]:
    data, types, strings = _read(source)
    wanted = {name.encode(): name for name in names}
    found: dict[str, int] = {}
    for number, (_, name, info) in enumerate(_types(data, types), start=1):
        if _kind(info) == _FUNC and (text := _text(data, strings + name)) in wanted:
            found[wanted[text]] = number
            if len(found) == len(wanted):
                break
    return found


def member_bits(structure: str, members: Collection[str], source: Path = VMLINUX) -> dict[str, int]:
    """Where members of a structure are, in bits; also those of what has no name in it.

    Raises OSError (no BTF) or ValueError (not understood, or there is none)."""
    data, types, strings = _read(source)
    places = [0]
    within = 0
    for at, name, info in _types(data, types):
        places.append(at)
        if _kind(info) == _STRUCT and _text(data, strings + name) == structure.encode():
            within = at

    found: dict[str, int] = {}

    def look(at: int, base: int) -> None:
        (info,) = struct.unpack_from("=I", data, at + 4)
        if _kind(info) not in (_STRUCT, _UNION):
            return
        for place in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("=III", data, at + 12 + 12 * place)
            bit = base + (offset & 0xFFFFFF if info >> 31 else offset)  # beside bit fields, their size is in it
            if name:
                found[_text(data, strings + name).decode()] = bit
            else:
                look(places[kind], bit)

    if within:
        look(within, 0)
    missing = [member for member in members if member not in found]
    if missing:
        raise ValueError(f"{source} has no {', '.join(missing)} in {structure}")
    return {member: found[member] for member in members}


def _read(source: Path) -> tuple[bytes, tuple[int, int], int]:
    """All of it; where types start and end; where strings start."""
    data = source.read_bytes()
    magic, version, _, header, types, size, strings, _ = struct.unpack_from("=HBBIIIII", data)
    if (magic, version) != (0xEB9F, 1):
        raise ValueError(f"{source} is not BTF of version 1")
    return data, (header + types, header + types + size), header + strings


def _types(data: bytes, where: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Of each type, from the one with the id 1 on: where it is, its name's place among the strings, its info."""
    at, end = where
    while at < end:
        name, info = struct.unpack_from("=II", data, at)
        yield at, name, info
        kind = _kind(info)
        at += 12 + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * (info & 0xFFFF)


def _kind(info: int) -> int:
    return info >> 24 & 0x1F


def _text(data: bytes, at: int) -> bytes:
    return data[at : data.index(b"\0", at)]
