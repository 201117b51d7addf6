"""From C to an image, by bcc: LLVM (120 MB) must be in no process that lives."""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from rauta.offload.bcc import syscalls
from rauta.offload.bcc.images import Image

# Debian's python3-bpfcc is no package of PyPI; virtual environments do not see where it is.
BCC_PATHS: Final = ("/usr/lib/python3/dist-packages",)
HEADERS: Final = Path("/usr/include/linux")  # of linux-libc-dev: the UAPI is enough

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
_FLAGS: Final = ("-w", "-g0", "-I/usr/include")
_FORMAT: Final = "1"  # of images: another number for another meaning
_MAP_FD: Final = 1  # BPF_PSEUDO_MAP_FD
_LOAD: Final = 0x18  # of 64 bits, in two instructions


def _kernel_source(folder: Path) -> None:
    """What bcc takes for the kernel's sources: three small files over the UAPI headers."""
    include = folder / "include"
    for name in ("linux", "uapi", "asm"):
        (include / name).mkdir(parents=True)
    (include / "linux" / "kconfig.h").write_text(_TYPES)
    (include / "linux" / "log2.h").write_text("")
    (include / "asm" / "page.h").write_text("#define PAGE_SIZE 4096\n")
    (include / "uapi" / "linux").symlink_to(HEADERS)


def identity() -> str:
    """What images depend on besides their text: this module's ways, and which bcc is installed."""
    libraries = sorted(Path("/usr/lib").glob("*/libbcc.so.0"))
    return "\n".join([_FORMAT, _TYPES, *_FLAGS, os.uname().machine, *(str(library.resolve()) for library in libraries)])


def _built(text: str) -> Any:
    sys.path += BCC_PATHS
    with tempfile.TemporaryDirectory(prefix="rauta-kernel-") as folder:
        _kernel_source(Path(folder))
        os.environ["BCC_KERNEL_SOURCE"] = folder
        from bcc import BPF  # type: ignore[import-not-found]

        return BPF(text=text, cflags=[*_FLAGS, f"-I/usr/include/{os.uname().machine}-linux-gnu"])


def build(text: str, programs: Collection[str], maps: Collection[str]) -> Image:
    """Compile. Raises OSError, or what bcc raises."""
    built = _built(text)
    descriptors = {name: built[name].map_fd for name in maps}
    places = {descriptor: place for place, descriptor in enumerate(descriptors.values())}
    return Image(
        {name: syscalls.map_info(descriptor) for name, descriptor in descriptors.items()},
        {name: use_maps(built.dump_func(name.encode()), places) for name in programs},
    )


def use_maps(code: bytes, maps: dict[int, int]) -> bytes:
    """Replace what stands for maps (keys) by something else."""
    patched = bytearray(code)
    at = 0
    while at < len(patched):
        operation, registers, offset, number = struct.unpack_from("=BBhI", patched, at)
        if operation == _LOAD and registers >> 4 == _MAP_FD:
            struct.pack_into("=BBhI", patched, at, operation, registers, offset, maps[number])
        at += 16 if operation == _LOAD else 8
    return bytes(patched)
