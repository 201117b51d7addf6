"""The memory that workers count in: a column for each slot (see `rauta.proxy.counters`), each a memfd of its own.

The supervisor makes them and keeps them, so counts outlive workers. A worker gets its own column and no other, the
agent all of them for reading. Both meet strangers: should one be taken over, it can neither count for others nor cut
the memory short, which would kill whoever reads it (SIGBUS).
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence

from rauta.proxy.counters import SIZE, Column, heartbeat

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(slots: int) -> list[int]:
    """Descriptors of memory for that many workers. Pages that nobody writes take no room. Raises OSError."""
    found: list[int] = []
    try:
        for _ in range(slots):
            found.append(_sealed())  # noqa: PERF401 - those before one that fails are closed
    except BaseException:
        close(found)
        raise
    return found


def _sealed() -> int:
    fd = os.memfd_create("rauta-counters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    os.fchmod(fd, 0o600)  # 0777 by default: who holds it for reading could open it anew for writing
    return fd


def column(fd: int) -> Column:
    """A column, for its one writer. Raises OSError."""
    return Column(memoryview(mmap.mmap(fd, SIZE)))


def columns(fds: Sequence[int]) -> list[memoryview]:
    """Columns, for reading. Raises OSError."""
    return [memoryview(mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)) for fd in fds]


def unmap(views: Sequence[memoryview]) -> None:
    """Let go of columns, each of which holds a descriptor; nothing reads them any more."""
    for view in views:
        mapped = view.obj
        view.release()
        if isinstance(mapped, mmap.mmap):
            mapped.close()


def read_only(fd: int) -> int:
    """Another descriptor of the same memory, for reading alone. Raises OSError."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def close(fds: Sequence[int]) -> None:
    """Close the descriptors; mappings stay."""
    for fd in fds:
        os.close(fd)


__all__ = ["close", "column", "columns", "create", "heartbeat", "read_only", "unmap"]
