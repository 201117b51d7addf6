"""Loads and pins the programs, compiled now or before, and ends.

    python -c 'from rauta.offload.bcc import loader; ...' tc|xdp FOLDER NAME=VALUE...

FOLDER is in a BPF file system and empty; the values are the sizes that `source.program` takes. A failure is one line on
standard error and code 1.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TextIO

from rauta.offload.bcc import compiler, images, syscalls
from rauta.offload.bcc.btf import function_ids, member_bits
from rauta.offload.bcc.images import Image
from rauta.offload.bcc.source import digest, fingerprint, program

PROGRAMS: Final = (
    "rauta_tc",
    "on_syn",
    "on_request",
    "on_answer",
    "on_local",
    "on_move",
    "on_leave",
    "on_parked",
    "on_icmp",
    "on_proxied",
)
MAPS: Final = (
    "configs",
    "listeners",
    "hosts",
    "short_hosts",
    "suffixes",
    "paths",
    "short_paths",
    "prefixes",
    "routes",
    "services",
    "maglevs",
    "flows",
    "nats",
    "parked",
    "closed",
    "requests",
    "events",
    "stashes",
    "scratches",
    "turns",
    "fib_cache",
    "programs",
    "chunking",
)
KFUNCS: Final = {0x7F000001: "bpf_sk_assign_tcp_reqsk", 0x7F000002: "bpf_cast_to_kern_ctx"}


def call_kfuncs(code: bytes, ids: dict[int, int]) -> bytes:
    """Turn calls of helpers that do not exist (their numbers are keys of `ids`) into calls of kfuncs."""
    patched = bytearray(code)
    for at in range(0, len(patched), 8):
        operation, registers, _, number = struct.unpack_from("=BBhI", patched, at)
        if operation == 0x85 and not registers and number in ids:
            struct.pack_into("=BBhI", patched, at, operation, 2 << 4, 0, ids[number])  # BPF_PSEUDO_KFUNC_CALL
    return bytes(patched)


_OF_PACKETS: Final = ("ip_summed", "csum_start", "csum_offset", "head", "data")  # members of sk_buff that programs read


def _named(sizes: dict[str, int], source: str, programs: Collection[str]) -> tuple[str, str]:
    """The text to compile, and the name of its image: another one whenever anything that the image depends on is."""
    places = member_bits("sk_buff", _OF_PACKETS)
    defines = "".join(f"#define {name.upper()}_AT {bit}\n" for name, bit in places.items())
    text = defines + program(sizes, source)
    made_of = "\n".join((text, compiler.identity(), *programs, *MAPS))
    return text, f"{source.removesuffix('.c')}-{digest(made_of)}"


def image(sizes: dict[str, int], source: str, programs: Collection[str]) -> Image:
    """Those programs of a source file, compiled now, or before for the same text.

    Raises OSError, ValueError, or what bcc raises."""
    text, name = _named(sizes, source, programs)
    found = images.saved(name)
    if found is None:
        found = compiler.build(text, programs, MAPS)
        images.save(name, found)
    return found


def _loaded(found: Image, maps: dict[str, int], kind: int, anew: Callable[[], Image]) -> dict[str, int]:
    """Descriptors of the programs. What was kept and is refused is compiled anew, once."""
    try:
        return programs_of(found, maps, kind)
    except OSError:
        return programs_of(anew(), maps, kind)


def _anew(sizes: dict[str, int], source: str, programs: Collection[str]) -> Image:
    _, name = _named(sizes, source, programs)
    images.drop(name)
    return image(sizes, source, programs)


def mark(sizes: dict[str, int]) -> str:
    """The name of a pin that says: everything is here, and made of these sources."""
    return f"made-of-{fingerprint(sizes)}"


def programs_of(found: Image, maps: dict[str, int], kind: int) -> dict[str, int]:
    """Load all; `maps` are descriptors. Raises OSError."""
    known = function_ids(KFUNCS.values())
    ids = {number: known[name] for number, name in KFUNCS.items()}
    places = {place: maps[name] for place, name in enumerate(found.maps)}
    return {
        name: syscalls.load_program(call_kfuncs(compiler.use_maps(code, places), ids), name, kind)
        for name, code in found.programs.items()
    }


def load(folder: Path, sizes: dict[str, int]) -> None:
    """Raises OSError, or what bcc raises."""
    names = (*PROGRAMS, "decided") if sizes.get("TESTING") else PROGRAMS
    found = image(sizes, "tc.c", names)
    maps = {name: syscalls.create_map(info, name) for name, info in found.maps.items()}
    programs = _loaded(found, maps, syscalls.SCHED_CLS, lambda: _anew(sizes, "tc.c", names))
    table = syscalls.Map(maps["programs"])
    for number, name in enumerate(PROGRAMS[1:], start=1):
        table.set(struct.pack("=I", number), struct.pack("=I", programs[name]))
    for name, descriptor in maps.items():
        syscalls.pin(descriptor, folder / name)
    for name in ("rauta_tc", "decided"):
        if name in programs:
            syscalls.pin(programs[name], folder / name)
    syscalls.pin(table.fd, folder / mark(sizes))  # last: from now on all is there


def load_xdp(folder: Path, sizes: dict[str, int], others: TextIO) -> None:
    """The program at XDP, with the maps of those at TC, which are pinned when a line comes from `others`: half of the
    time is the compiler's. Raises OSError, or what bcc raises."""
    small = {**dict.fromkeys(sizes, 1), "CPUS": sizes["CPUS"], "SLOTS": sizes["SLOTS"]}  # its own maps are not used
    names = ("rauta_xdp",)
    found = image(small, "xdp.c", names)
    if not others.readline():
        return  # nobody waits any more
    maps = {name: syscalls.pinned(folder / name) for name in found.maps}
    programs = _loaded(found, maps, syscalls.XDP, lambda: _anew(small, "xdp.c", names))
    syscalls.pin(programs["rauta_xdp"], folder / "rauta_xdp")


def main(arguments: list[str]) -> int:
    """Entry point: `arguments` as in sys.argv."""
    _, hook, folder, *words = arguments
    sizes = {name: int(value) for name, _, value in (word.partition("=") for word in words)}
    try:
        if hook == "xdp":
            load_xdp(Path(folder), sizes, sys.stdin)
        else:
            load(Path(folder), sizes)
    except Exception as error:  # noqa: BLE001 - bcc raises plain exceptions; its parent tells this line to people
        sys.stderr.write(f"{' '.join(str(error).split()) or repr(error)}\n")
        return 1
    return 0
