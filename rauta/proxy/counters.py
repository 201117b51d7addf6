"""Counters that several processes share: one column of memory for each worker, written by that worker alone.

A column is a stretch of shared memory:

    header   8 cells: magic, heartbeat (ms of the monotonic clock), cells in use, bytes of names in use, by how many us
             the loop was late when it last looked, 3 spare
    cells    CELLS numbers of 64 bits
    names    records: first cell (u32), cells (u16), length (u16), then that many bytes of JSON, [kind, name,
             labels...], padded to 8 bytes

A series gets its record when it is first counted. The record and its cells are written before "bytes of names in use"
is, and that is one aligned store, so readers see complete records only. Nothing is ever removed: a worker that takes
over the column of a dead one finds its series there and goes on counting; gauges start at 0 again.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

HEADER: Final = 8
CELLS: Final = 512 * 1024 - HEADER  # 4 MiB with the header: histograms of 10,000 routes, and more
NAMES: Final = 8 * 1024 * 1024  # bytes
SIZE: Final = 8 * (HEADER + CELLS) + NAMES
"""Bytes of a column; pages that are never written take no memory."""

_MAGIC: Final = 0x0172617574610001  # layout 1
_BEAT, _CELLS_USED, _NAMES_USED, _LATE = 1, 2, 3, 4
_RECORD: Final = struct.Struct("=IHH")

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram in seconds; one more is for what is longer. Behind the counts: the sum in us."""
HISTOGRAM: Final = 16


class Kind(Enum):
    """What the cells of a series are."""

    COUNTER = "c"
    GAUGE = "g"
    HISTOGRAM = "h"


@dataclass(frozen=True, slots=True)
class Series:
    """A series: its kind, metric and label values."""

    kind: Kind
    name: str
    labels: tuple[str, ...]


class Column:
    """The writer of a column."""

    __slots__ = ("_bytes", "_known", "cells")

    def __init__(self, memory: memoryview) -> None:
        """`memory` is SIZE bytes, all 0 at first."""
        whole = memory.cast("B")
        self.cells = whole[: 8 * (HEADER + CELLS)].cast("Q")
        self._bytes = whole[8 * (HEADER + CELLS) :]
        self._known: dict[Series, int] = {}
        if self.cells[0] != _MAGIC:
            self.cells[_CELLS_USED] = HEADER
            self.cells[_NAMES_USED] = 0
            self.cells[0] = _MAGIC
        used = 0
        for series, first, count, used in _records(self.cells, self._bytes):  # noqa: B007 - the last one is wanted
            self._known[series] = first
            if series.kind is Kind.GAUGE:
                for cell in range(first, first + count):
                    self.cells[cell] = 0
        self.cells[_NAMES_USED] = used

    def cell(self, kind: Kind, name: str, *labels: str) -> int:
        """The first cell of a series, new or known. When the column is full, that of one series for all the rest: its
        labels are `other`."""
        series = Series(kind, name, labels)
        found = self._known.get(series)
        if found is None:
            found = self._add(series)
        if found is None:
            rest = Series(kind, name, ("other",) * len(labels))
            found = self._known.get(rest) or self._add(rest, reserve=0)
        return HEADER - 1 if found is None else found  # a spare cell: counted, but nobody sees it

    def observe(self, first: int, seconds: float) -> None:
        """Count a duration in a histogram."""
        cells = self.cells
        cells[first + bisect_left(BUCKETS, seconds)] += 1
        cells[first + HISTOGRAM - 1] += int(seconds * 1e6)

    def beat(self, milliseconds: int) -> None:
        """The worker's loop turns: the monotonic clock."""
        self.cells[_BEAT] = milliseconds

    def late(self, microseconds: int) -> None:
        """By that the worker's loop was late."""
        self.cells[_LATE] = microseconds

    def _add(self, series: Series, *, reserve: int = 4096) -> int | None:
        """`reserve` bytes and cells stay free for the series that stand for the rest."""
        count = HISTOGRAM if series.kind is Kind.HISTOGRAM else 1
        text = json.dumps([series.kind.value, series.name, *series.labels], separators=(",", ":")).encode()
        first, start = self.cells[_CELLS_USED], self.cells[_NAMES_USED]
        size = (_RECORD.size + len(text) + 7) // 8 * 8
        if first + count + reserve > HEADER + CELLS or start + size + reserve > NAMES or len(text) > 0xFFFF:
            return None
        _RECORD.pack_into(self._bytes, start, first, count, len(text))
        self._bytes[start + _RECORD.size : start + _RECORD.size + len(text)] = text
        self.cells[_CELLS_USED] = first + count
        self.cells[_NAMES_USED] = start + size
        self._known[series] = first
        return int(first)


def heartbeat(memory: memoryview) -> int:
    """When the column's worker last said that it lives: ms of the monotonic clock; 0: never."""
    return _header(memory, _BEAT)


def lateness(memory: memoryview) -> int:
    """By how many us the loop of the column's worker was late when it last looked."""
    return _header(memory, _LATE)


def _header(memory: memoryview, cell: int) -> int:
    return int(memory.cast("B")[8 * cell : 8 * (cell + 1)].cast("Q")[0])


def read(memory: memoryview) -> Iterator[tuple[Series, list[int]]]:
    """All series of a column and their cells, as far as they can be read. The column may be written meanwhile, and its
    writer is not to be trusted."""
    whole = memory.cast("B")
    cells = whole[: 8 * (HEADER + CELLS)].cast("Q")
    if cells[0] != _MAGIC:
        return
    for series, first, count, _ in _records(cells, whole[8 * (HEADER + CELLS) :]):
        yield series, cells[first : first + count].tolist()


def _records(cells: memoryview, names: memoryview) -> Iterator[tuple[Series, int, int, int]]:
    """Series, first cell, number of cells, and where the next record begins. Ends before one that makes no sense: a
    worker that has been taken over stops neither the readers nor its successor."""
    at, end = 0, min(cells[_NAMES_USED], NAMES)
    while at + _RECORD.size <= end:
        first, count, length = _RECORD.unpack_from(names, at)
        try:
            kind, name, *labels = json.loads(bytes(names[at + _RECORD.size : at + _RECORD.size + length]))
            series = Series(Kind(kind), name, tuple(labels))
            hash(series)
        except (ValueError, TypeError):
            return
        if first < HEADER or first + count > HEADER + CELLS:
            return
        at += (_RECORD.size + length + 7) // 8 * 8
        yield series, first, count, at
