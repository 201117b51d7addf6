"""Text for a person."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

BOLD, DIM, GREEN, RED = "\033[1m", "\033[2m", "\033[32m", "\033[31m"
_PLAIN = "\033[0m"


class Screen:
    """Lines and tables; colours only where they are wanted (a terminal, and no NO_COLOR)."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def table(self, headings: Sequence[str], lines: Sequence[Sequence[str]], wrong: Sequence[Sequence[str]]) -> None:
        """One line per row, the last column to the right, with what was wrong below it."""
        widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
        self.say("  " + self.paint(_aligned(headings, widths), BOLD))
        for cells, complaints in zip(lines, wrong, strict=True):
            self.verdict(_aligned(cells, widths), complaints)

    def verdict(self, text: str, complaints: Sequence[str]) -> None:
        """A line that ends in `ok`, or in `WRONG` with the complaints below it."""
        mark = self.paint("WRONG", RED) if complaints else self.paint("ok", GREEN)
        self.say(f"  {text}  {mark}")
        for complaint in complaints:
            self.say("      " + self.paint(complaint, RED))

    def summary(self, wrong: int, rows: int) -> None:
        """How many rows are right."""
        self.say()
        if wrong:
            self.say("  " + self.paint(f"{wrong} of {rows} rows are not what they should be.", RED))
        else:
            self.say(f"  {rows} of {rows} rows are what they should be.")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
    return "  ".join([*padded, cells[-1].rjust(widths[-1])])
