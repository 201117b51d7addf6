"""Durations, sizes and the other values without parts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.config.compose import Composer
from rauta.config.errors import Problems
from rauta.config.reader import INVALID, Reader
from rauta.config.scalars import Boolean, Choice, Duration, Integer, Number, Size, Text, quoted
from rauta.config.schema import Type
from rauta.config.source import Allowance


def decode(kind: Type, text: str) -> Any:
    """The value; the message if it was refused."""
    node = Composer("f", Allowance()).compose(text)
    assert node is not None
    problems = Problems()
    value = kind.decode(node, Reader("f", Path(), problems, {}))
    assert (value is INVALID) == bool(problems)
    return problems.first[0].message if problems else value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2s", 2), ("150ms", 0.15), ("1m30s", 90), ("1h", 3600), ("1.5s", 1.5), ("1h1m1s1ms", 3661.001), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert decode(Duration(), text) == seconds


@pytest.mark.parametrize(
    "text", ["s", "2 s", "-2s", "2S", "2d", "30s1m", "2s2s", "1e3s", "2sec", "''", "9999999999999s"]
)
def test_wrong_durations_say_which_units_exist(text: str) -> None:
    assert decode(Duration(), text).endswith(
        "is not a duration: write a number and a unit (ms, s, m or h), for example 150ms, 2s or 1m30s"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("1MB", 1_000_000),
        ("5B", 5),
        ("1MiB", 1 << 20),
        ("2GiB", 2 << 30),
        ("3kB", 3000),
        ("1GB", 10**9),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert decode(Size(), text) == size


@pytest.mark.parametrize("text", ["64k", "64K", "64Kb", "1.5MB", "-1B", "64 KiB", "1TiB", "KiB"])
def test_wrong_sizes_say_which_units_exist(text: str) -> None:
    assert "is not a size: write a number and a unit (B, kB, MB, GB, KiB, MiB or GiB)" in decode(Size(), text)


@pytest.mark.parametrize("kind", [Duration(), Size()])
@pytest.mark.parametrize("text", ["5", "0.5", "0x10"])
def test_a_bare_number_has_no_unit(kind: Type, text: str) -> None:
    assert decode(kind, text).startswith(f"{text} has no unit: write a number and a unit")


@given(st.integers(1, 10**9))
def test_durations_are_shown_as_they_are_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert Duration().parse(Duration().show(seconds)) == seconds


@given(st.integers(0, 10**10 - 1))
def test_sizes_are_shown_as_they_are_read(size: int) -> None:
    assert Size().parse(Size().show(size)) == size


@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"))))
def test_text_is_shown_as_it_is_read(text: str) -> None:
    assert decode(Text(), quoted(text)) == text


@pytest.mark.parametrize("text", ["on", "yes", "1", "'true'", "True1"])
def test_only_true_and_false_are_boolean(text: str) -> None:
    assert decode(Boolean(), text).startswith("expected true or false, not ")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Integer(), "1.0", "expected an integer, not the number 1.0"),
        (Integer(), "'1'", "expected an integer, not the text '1'"),
        (Integer(), "true", "expected an integer, not the boolean true"),
        (Number(), "true", "expected a number, not the boolean true"),
        (Number(), ".inf", ".inf is not a finite number"),
        (Text(), "1", 'expected text, not the integer 1: write "1" in quotes if text is meant'),
        (Text(), "~", "expected text, not nothing (null)"),
        (Text(), "[a]", "expected text, not a list"),
        (Choice(("auto", "none")), "nune", "'nune' is not one of auto, none; did you mean 'none'?"),
        (Choice(("auto", "none")), "1", "expected one of auto, none, not the integer 1"),
    ],
)
def test_another_kind_is_named(kind: Type, text: str, message: str) -> None:
    assert decode(kind, text) == message


def test_numbers_are_floats_and_members_need_no_text() -> None:
    class Level(Enum):
        LOW = 1
        HIGH = 2

    assert isinstance(decode(Number(), "3"), float)
    assert decode(Choice(Level), "high") is Level.HIGH
