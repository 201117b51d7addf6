"""Counters in shared memory, with processes that die while they write."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.counters import BUCKETS, CELLS, HEADER, HISTOGRAM, SIZE, Column, Kind, Series, heartbeat, read
from rauta.runtime import segment

ROOT = Path(__file__).resolve().parents[2]


def memory() -> memoryview:
    return memoryview(mmap.mmap(-1, SIZE))


def test_a_successor_goes_on_with_the_counters_and_not_with_the_gauges() -> None:
    shared = memory()
    first = Column(shared)
    first.cells[first.cell(Kind.COUNTER, "c", "a")] += 3
    first.cells[first.cell(Kind.GAUGE, "g", "a")] = 5
    first.observe(first.cell(Kind.HISTOGRAM, "h", "a"), 0.002)
    second = Column(shared)
    second.cells[second.cell(Kind.COUNTER, "c", "a")] += 1
    second.cells[second.cell(Kind.COUNTER, "c", "b")] += 1
    found = dict(read(shared))
    assert found[Series(Kind.COUNTER, "c", ("a",))] == [4]
    assert found[Series(Kind.COUNTER, "c", ("b",))] == [1]
    assert found[Series(Kind.GAUGE, "g", ("a",))] == [0]
    histogram = found[Series(Kind.HISTOGRAM, "h", ("a",))]
    assert len(histogram) == HISTOGRAM
    assert sum(histogram[:-1]) == 1
    assert histogram[-1] == 2000


@given(st.floats(0, 100))
def test_a_duration_is_counted_below_its_bound(seconds: float) -> None:
    shared = memory()
    column = Column(shared)
    column.observe(column.cell(Kind.HISTOGRAM, "h"), seconds)
    ((_, cells),) = read(shared)
    place = cells.index(1)
    assert place == len(BUCKETS) or seconds <= BUCKETS[place]
    assert place == 0 or seconds > BUCKETS[place - 1]


def test_a_full_column_counts_the_rest_together() -> None:
    shared = memory()
    column = Column(shared)
    for number in range(CELLS // HISTOGRAM + 10):
        column.cells[column.cell(Kind.HISTOGRAM, "h", str(number))] += 1
    found = dict(read(shared))
    assert found[Series(Kind.HISTOGRAM, "h", ("other",))][0] > 1
    assert sum(cells[0] for cells in found.values()) == CELLS // HISTOGRAM + 10


def test_memory_that_nobody_wrote_has_nothing() -> None:
    shared = memory()
    assert list(read(shared)) == []
    assert heartbeat(shared) == 0


@pytest.mark.parametrize(
    "record",
    [
        struct.pack("=IHH", 8, 1, 5) + b"[1,2]",
        struct.pack("=IHH", 8, 1, 2) + b'""',
        struct.pack("=IHH", 8, 1, 0xFFFF) + b"{" * 40,
        struct.pack("=IHH", 8, 1, 12) + b'["c",["x"]] ',
        struct.pack("=IHH", 2**32 - 1, 9, 9) + b'["c","x"]',
        bytes(16),
    ],
)
def test_a_column_of_a_worker_gone_wild_stops_no_reader_and_no_successor(record: bytes) -> None:
    shared = memory()
    column = Column(shared)
    column.cells[column.cell(Kind.COUNTER, "good")] += 5
    end = column.cells[3]
    names = shared[8 * (HEADER + CELLS) :]
    names[end : end + len(record)] = record
    column.cells[3] = 2**63
    good = Series(Kind.COUNTER, "good", ())
    assert dict(read(shared)) == {good: [5]}
    successor = Column(shared)
    successor.cells[successor.cell(Kind.COUNTER, "other")] += 1
    assert dict(read(shared)) == {good: [5], Series(Kind.COUNTER, "other", ()): [1]}


def test_nobody_can_cut_the_memory_short() -> None:
    """Who reads mapped memory that is not there any more is killed."""
    (fd,) = segment.create(1)
    reader = segment.read_only(fd)
    try:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            segment.column(reader)
        assert os.fstat(fd).st_mode & 0o777 == 0o600
    finally:
        segment.close([fd, reader])


WRITER = """
import sys
from rauta.proxy.counters import Kind
from rauta.runtime.segment import column
mine = column(int(sys.argv[1]))
total = mine.cell(Kind.COUNTER, "total")
most = mine.cells[total] + 1000  # each is a series more to read, which takes the longer the more there are
while True:
    if mine.cells[total] == most:
        continue
    mine.cells[mine.cell(Kind.COUNTER, "series", str(mine.cells[total]))] += 1
    mine.cells[total] += 1
"""


def test_a_writer_that_is_killed_leaves_whole_records() -> None:
    """Killed at any moment: what a reader sees is complete, nothing goes down, and a successor goes on."""
    fds = segment.create(2)
    try:
        columns = segment.columns(fds)
        before = 0
        for _ in range(8):
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(fds[1])], pass_fds=fds[1:], cwd=ROOT)
            deadline = time.monotonic() + 20
            while True:
                found = dict(read(columns[1]))
                total = found.get(Series(Kind.COUNTER, "total", ()), [0])[0]
                assert total >= before
                if total > before + 100:
                    break
                assert time.monotonic() < deadline
            process.send_signal(signal.SIGKILL)
            process.wait()
            found = dict(read(columns[1]))
            before = found[Series(Kind.COUNTER, "total", ())][0]
            counted = sum(cells[0] for series, cells in found.items() if series.name == "series")
            assert (
                before <= counted <= before + 8
            )  # at each kill one may have been counted that the total does not have
        assert list(read(columns[0])) == []
    finally:
        segment.close(fds)
