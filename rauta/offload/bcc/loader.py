"""Compiles, verifies and pins the programs, and ends: LLVM (120 MB) stays in no process that lives.

    python -c 'from rauta.offload.bcc import loader; ...' tc|xdp FOLDER NAME=VALUE...

FOLDER is in a BPF file system and empty; the values are the sizes that `source.program` takes. A failure is one line on
standard error and code 1.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, TextIO

from rauta.offload.bcc import syscalls
from rauta.offload.bcc.btf import function_ids, member_bit
from rauta.offload.bcc.source import fingerprint, program

# Debian's python3-bpfcc is no package of PyPI; virtual environments do not see where it is.
BCC_PATHS: Final = ("/usr/lib/python3/dist-packages",)
HEADERS: Final = Path("/usr/include/linux")  # of linux-libc-dev: the UAPI is enough
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
    "leads",
    "chunking",
)
KFUNCS: Final = {0x7F000001: "bpf_sk_assign_tcp_reqsk", 0x7F000002: "bpf_cast_to_kern_ctx"}

_TYPES: Final = """#pragma once
#define CONFIG_BPF_SYSCALL 1
#define __LINUX_BPF_H__
#include <linux/types.h>
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef _Bool bool;
typedef __SIZE_TYPE__ size_t; typedef __UINTPTR_TYPE__ uintptr_t;
#define true 1
#define false 0
"""


def kernel_source(folder: Path) -> None:
    """What bcc takes for the kernel's sources: three small files over the UAPI headers."""
    include = folder / "include"
    for name in ("linux", "uapi", "asm"):
        (include / name).mkdir(parents=True)
    (include / "linux" / "kconfig.h").write_text(_TYPES)
    (include / "linux" / "log2.h").write_text("")
    (include / "asm" / "page.h").write_text("#define PAGE_SIZE 4096\n")
    (include / "uapi" / "linux").symlink_to(HEADERS)


def call_kfuncs(code: bytes, ids: dict[int, int]) -> bytes:
    """Turn calls of helpers that do not exist (their numbers are keys of `ids`) into calls of kfuncs."""
    patched = bytearray(code)
    for at in range(0, len(patched), 8):
        operation, registers, _, number = struct.unpack_from("=BBhI", patched, at)
        if operation == 0x85 and not registers and number in ids:
            struct.pack_into("=BBhI", patched, at, operation, 2 << 4, 0, ids[number])  # BPF_PSEUDO_KFUNC_CALL
    return bytes(patched)


def compiled(sizes: dict[str, int], name: str = "tc.c") -> Any:
    """The BPF object of bcc. Raises OSError, ValueError, or what bcc raises."""
    text = f"#define SUMMED_AT {member_bit('sk_buff', 'ip_summed')}\n{program(sizes, name)}"
    sys.path += BCC_PATHS
    with tempfile.TemporaryDirectory(prefix="rauta-kernel-") as folder:
        kernel_source(Path(folder))
        os.environ["BCC_KERNEL_SOURCE"] = folder
        from bcc import BPF  # type: ignore[import-not-found]

        machine = f"/usr/include/{os.uname().machine}-linux-gnu"
        return BPF(text=text, cflags=["-w", "-g0", "-I/usr/include", f"-I{machine}"])


def mark(sizes: dict[str, int]) -> str:
    """The name of a pin that says: everything is here, and made of these sources."""
    return f"made-of-{fingerprint(sizes)}"


def load(folder: Path, sizes: dict[str, int]) -> None:
    """Raises OSError, or what bcc raises."""
    found = function_ids(KFUNCS.values())
    ids = {number: found[name] for number, name in KFUNCS.items()}
    made = compiled(sizes)
    names = (*PROGRAMS, "decided") if sizes.get("TESTING") else PROGRAMS
    programs = {
        name: syscalls.load_program(call_kfuncs(made.dump_func(name.encode()), ids), name) for name in names
    }
    table = syscalls.Map(made["programs"].map_fd)
    for number, name in enumerate(PROGRAMS[1:], start=1):
        table.set(struct.pack("=I", number), struct.pack("=I", programs[name]))
    for name in MAPS:
        syscalls.pin(made[name].map_fd, folder / name)
    syscalls.pin(made["programs"].map_fd, folder / "programs")
    for name in ("rauta_tc", "decided"):
        if name in programs:
            syscalls.pin(programs[name], folder / name)
    syscalls.pin(table.fd, folder / mark(sizes))  # last: from now on all is there


def use_maps(code: bytes, maps: dict[int, int]) -> bytes:
    """Replace descriptors of maps (keys) by others."""
    patched = bytearray(code)
    for at in range(0, len(patched), 8):
        operation, registers, offset, number = struct.unpack_from("=BBhI", patched, at)
        if operation == 0x18 and registers >> 4 == 1:  # BPF_PSEUDO_MAP_FD
            struct.pack_into("=BBhI", patched, at, operation, registers, offset, maps[number])
    return bytes(patched)


def load_xdp(folder: Path, sizes: dict[str, int], others: TextIO) -> None:
    """The program at XDP, with the maps of those at TC, which are pinned when a line comes from `others`: half of the
    time is the compiler's. Raises OSError, or what bcc raises."""
    small = {**dict.fromkeys(sizes, 1), "CPUS": sizes["CPUS"], "SLOTS": sizes["SLOTS"]}  # its own maps are not used
    made = compiled(small, "xdp.c")
    if not others.readline():
        return  # nobody waits any more
    maps = {made[name].map_fd: syscalls.pinned(folder / name) for name in MAPS}
    code = use_maps(made.dump_func(b"rauta_xdp"), maps)
    syscalls.pin(syscalls.load_program(code, "rauta_xdp", syscalls.XDP), folder / "rauta_xdp")


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
