"""The memory that workers count in: a column for each slot (see `rauta.proxy.counters`), in one memfd.

The supervisor makes it and keeps it, so counts outlive workers. A worker maps its own column only.
"""

from __future__ import annotations

import mmap
import os

from rauta.proxy.counters import SIZE, Column, heartbeat

# Columns begin at page boundaries, as mmap wants it.
_STEP = -(-SIZE // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY


def create(slots: int) -> int:
    """A descriptor of memory for that many workers. Pages that nobody writes take no room. Raises OSError."""
    fd = os.memfd_create("rauta-counters", os.MFD_CLOEXEC)
    os.ftruncate(fd, slots * _STEP)
    return fd


def column(fd: int, slot: int) -> Column:
    """The column of a slot, for its one writer. Raises OSError."""
    return Column(memoryview(mmap.mmap(fd, SIZE, offset=slot * _STEP)))


def columns(fd: int) -> list[memoryview]:
    """All columns, for reading. Raises OSError."""
    slots = os.fstat(fd).st_size // _STEP
    whole = memoryview(mmap.mmap(fd, slots * _STEP, prot=mmap.PROT_READ))
    return [whole[slot * _STEP : slot * _STEP + SIZE] for slot in range(slots)]


__all__ = ["column", "columns", "create", "heartbeat"]
