"""Quantities are shown as the file format reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.config.scalars import Duration, Size
from rauta.routing import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.001, "1ms"), (0.15, "150ms"), (1, "1s"), (1.5, "1.5s"), (75, "75s"), (3600, "1h"), (5400, "5400s"),
     (86400, "24h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1536B"), (10 << 20, "10MiB"), (1 << 40, "1024GiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert units.size(count) == text


@given(st.integers(min_value=0, max_value=86_400_000))
def test_a_shown_duration_is_read_as_the_same(milliseconds: int) -> None:
    assert Duration().parse(units.duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(min_value=0, max_value=1 << 40) | st.integers(0, 1 << 20).map(lambda n: n << 10))
def test_a_shown_size_is_read_as_the_same(count: int) -> None:
    assert Size().parse(units.size(count)) == count
