"""Durations and sizes as a person writes them, with units: the forms of the file format."""

from __future__ import annotations

from typing import Final

SIZES: Final = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}


def duration(seconds: float) -> str:
    """`150ms`, `2s`, `1.5s`, `24h`: whole hours as hours, as the longest defaults are; to the millisecond."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    hours = seconds / 3600
    if hours.is_integer():
        return f"{int(hours)}h"
    text = f"{seconds:.3f}"
    return text.rstrip("0").rstrip(".") + "s"


def size(count: int) -> str:
    """`64KiB`, `10MiB`, `1500B`: the largest unit that divides it."""
    for unit, one in SIZES.items():
        if count and count % one == 0:
            return f"{count // one}{unit}"
    return f"{count}B"
