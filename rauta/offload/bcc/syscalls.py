"""bpf(2), as far as it is needed: programs, maps, links and pins by descriptor. Raises OSError throughout.

Not a library's: bcc keeps LLVM in the process (120 MB), and the supervisor, which holds the maps, must stay small.
Attributes are laid out as in include/uapi/linux/bpf.h, `union bpf_attr`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

MAP_CREATE: Final = 0
MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD, OBJ_PIN, OBJ_GET = 1, 2, 3, 4, 5, 6, 7
PROG_TEST_RUN, INFO_BY_FD, MAP_LOOKUP_BATCH, LINK_CREATE = 10, 15, 24, 28
SCHED_CLS: Final = 3
XDP: Final = 6
TCX_INGRESS: Final = 46
XDP_ATTACH: Final = 37
_XDP_NATIVE: Final = 4  # XDP_FLAGS_DRV_MODE
NOEXIST: Final = 1

_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_BATCH: Final = 4096  # entries that are read at once; more than a bucket holds
_ATTR: Final = 160  # bytes; more than any command here reads. Zeros beyond what a kernel knows are allowed.


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes) -> int:
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no number of bpf(2) is known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attr, _ATTR)
    result = int(_libc().syscall(number, command, buffer, _ATTR))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


# --- programs -----------------------------------------------------------------------------------------------


def load_program(code: bytes, name: str, kind: int = SCHED_CLS) -> int:
    """A program for TC or XDP (`kind`), verified; its descriptor. The OSError of a refusal tells the verifier's last
    lines."""
    try:
        return _load(code, name, kind, 0)
    except OSError:
        return _load(code, name, kind, 1 << 24)  # once more with a log, which makes it three times as slow


def _load(code: bytes, name: str, kind: int, log_size: int) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    license_ = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(max(log_size, 1))
    attr = struct.pack(
        "=IIQQIIQII16s",
        kind,
        len(code) // 8,
        _address(instructions),
        _address(license_),
        1 if log_size else 0,
        log_size,
        _address(log) if log_size else 0,
        0,
        0,
        name.encode()[:15],
    )
    try:
        return _bpf(PROG_LOAD, attr)
    except OSError as error:
        told = log.value.decode(errors="replace").strip().splitlines()[-3:]
        raise OSError(error.errno, "; ".join([error.strerror or "", *told])) from None


def run(program: int, packet: bytes, *, repeat: int = 1) -> tuple[int, bytes, int]:
    """Run a program on a packet that no network sees: what it returns, the packet behind it, ns per run."""
    data = ctypes.create_string_buffer(packet, len(packet))
    out = ctypes.create_string_buffer(len(packet) + 256)
    attr = ctypes.create_string_buffer(
        struct.pack("=IIIIQQII", program, 0, len(packet), len(out), _address(data), _address(out), repeat, 0), _ATTR
    )
    number = _NUMBERS[platform.machine()]
    if int(_libc().syscall(number, PROG_TEST_RUN, attr, _ATTR)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    _, result, _, size, _, _, _, duration = struct.unpack_from("=IIIIQQII", attr)
    return result, out.raw[:size], duration


def attach(program: int, interface: int) -> int:
    """A tcx link at the interface's ingress; its descriptor. The program stays attached as long as the link lives."""
    return _bpf(LINK_CREATE, struct.pack("=IIII", program, interface, TCX_INGRESS, 0))


def attach_xdp(program: int, interface: int) -> int:
    """A link at the interface's driver (native XDP); its descriptor. EBUSY: another program is there, and stays."""
    return _bpf(LINK_CREATE, struct.pack("=IIII", program, interface, XDP_ATTACH, _XDP_NATIVE))


def pin(fd: int, path: Path) -> None:
    """Keep what the descriptor stands for, under a name in a BPF file system."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(OBJ_PIN, struct.pack("=QII", _address(name), fd, 0))


def pinned(path: Path) -> int:
    """A descriptor of what is pinned there."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(OBJ_GET, struct.pack("=QII", _address(name), 0, 0))


# --- maps ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MapInfo:
    """What a map is: its type (enum bpf_map_type), bytes of a key and a value, how many it has room for, flags."""

    kind: int
    key: int
    value: int
    entries: int
    flags: int

    def fields(self) -> tuple[int, ...]:
        """What it is made of again."""
        return self.kind, self.key, self.value, self.entries, self.flags


def map_info(fd: int) -> MapInfo:
    """Ask the kernel."""
    info = ctypes.create_string_buffer(88)
    _bpf(INFO_BY_FD, struct.pack("=IIQ", fd, len(info), _address(info)))
    kind, _, key, value, entries, flags = struct.unpack_from("=IIIIII", info)
    return MapInfo(kind, key, value, entries, flags)


def create_map(info: MapInfo, name: str) -> int:
    """A new map; its descriptor."""
    attr = struct.pack(
        "=IIIIIII16s", info.kind, info.key, info.value, info.entries, info.flags, 0, 0, name.encode()[:15]
    )
    return _bpf(MAP_CREATE, attr)


class Map:
    """A map by its descriptor, which it owns."""

    __slots__ = ("_value_size", "fd", "info")

    def __init__(self, fd: int, *, cpus: int = 1) -> None:
        self.fd = fd
        self.info = map_info(fd)
        # A per-CPU map gives the values of all CPUs, each rounded up to eight bytes.
        self._value_size = self.info.value if cpus == 1 else -(-self.info.value // 8) * 8 * cpus

    def _element(self, key: bytes, value: int, flags: int = 0) -> tuple[bytes, ctypes.Array[ctypes.c_char]]:
        held = ctypes.create_string_buffer(key, len(key))
        return struct.pack("=IIQQQ", self.fd, 0, _address(held), value, flags), held

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        value = ctypes.create_string_buffer(self._value_size)
        attr, _held = self._element(key, _address(value))
        try:
            _bpf(MAP_LOOKUP, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def set(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Store a value."""
        if len(key) != self.info.key or len(value) != self.info.value:
            raise ValueError(f"a key of {len(key)} and a value of {len(value)} bytes; the map has {self.info}")
        held = ctypes.create_string_buffer(value, len(value))
        attr, _key = self._element(key, _address(held), flags)
        _bpf(MAP_UPDATE, attr)

    def delete(self, key: bytes) -> bool:
        """Remove an entry; False: there is none."""
        attr, _held = self._element(key, 0)
        try:
            _bpf(MAP_DELETE, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a hash, by the thousand; as far as they stay while they are read."""
        keys = ctypes.create_string_buffer(self.info.key * _BATCH)
        values = ctypes.create_string_buffer(self._value_size * _BATCH)
        position = ctypes.create_string_buffer(max(self.info.key, 8))
        start, more = 0, True
        while more:
            attr = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ", start, _address(position), _address(keys), _address(values), _BATCH, self.fd, 0, 0
                ),
                _ATTR,
            )
            number = _NUMBERS[platform.machine()]
            if int(_libc().syscall(number, MAP_LOOKUP_BATCH, attr, _ATTR)) < 0:
                code = ctypes.get_errno()
                if code != errno.ENOENT:  # which means: these are the last
                    raise OSError(code, os.strerror(code))
                more = False
            (count,) = struct.unpack_from("=I", attr, 32)
            found, held = memoryview(keys), memoryview(values)
            for at in range(count):
                key = found[at * self.info.key : (at + 1) * self.info.key].tobytes()
                yield key, held[at * self._value_size : (at + 1) * self._value_size].tobytes()
            start = _address(position)

    def keys(self) -> Iterator[bytes]:
        """The keys of a hash, in the same way."""
        return (key for key, _ in self.items())

    def count(self) -> int:
        """How many entries a hash has now."""
        return sum(1 for _ in self.items())

    def close(self) -> None:
        """The map lives on as long as it is pinned or a program uses it."""
        os.close(self.fd)


def mount_bpffs(folder: Path) -> None:
    """A BPF file system of our own at a folder, unless there is one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_mount():
        return
    if _libc().mount(b"bpf", os.fsencode(folder), b"bpf", 0, b"mode=0700") < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount a BPF file system at {folder}: {os.strerror(code)}")


def remove(folder: Path) -> None:
    """Take away a folder of a BPF file system with all that is pinned there; what something else holds lives on."""
    if not folder.is_dir():
        return
    for found in folder.iterdir():
        found.unlink()
    folder.rmdir()


def unmount_if_empty(folder: Path) -> None:
    """Take the file system itself away, unless something is in it."""
    if not folder.is_mount():
        return
    if any(not found.name.endswith(".debug") for found in folder.iterdir()):  # those are the kernel's own
        return
    if _libc().umount2(os.fsencode(folder), 2) < 0:  # MNT_DETACH
        code = ctypes.get_errno()
        raise OSError(code, f"cannot unmount {folder}: {os.strerror(code)}")
