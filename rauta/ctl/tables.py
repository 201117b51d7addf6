"""Aligned plain text for a terminal: tables that wrap their cells, or turn into records where it is too narrow.

Widths are columns of a terminal: East Asian wide characters take two, combining ones none. Control characters
are shown escaped, so that no value from a file or a request can drive the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final
from unicodedata import category, combining, east_asian_width

GAP: Final = "  "
MIN_COLUMN: Final = 8  # narrower cells are read letter by letter; then records are better


class Style(Enum):
    """What a text means; the value is its SGR code (ECMA-48 8.3.117), empty for plain text."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    BAD = "31"
    WARN = "33"


@dataclass(frozen=True, slots=True)
class Cell:
    """A text of a table, with what it means."""

    text: str
    style: Style = Style.PLAIN


Row = Sequence[Cell | str]
Paint = Callable[[str, Style], str]


def plain(text: str, style: Style) -> str:
    """The Paint of everything that is not a terminal."""
    del style
    return text


def printable(text: str) -> str:
    """The text with control, format and lone surrogate characters escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(ascii(char)[1:-1] if category(char) in _UNSAFE else char for char in text)


_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def width_of(text: str) -> int:
    """Columns that a printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns (but of at least one character): broken at spaces, and within a word only
    where it does not fit by itself."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width_of(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _pieces(word, width)
        lines.extend(full)
    return [*lines, line]


def _pieces(word: str, width: int) -> list[str]:
    pieces: list[str] = []
    piece, taken = "", 0
    for char in word:
        needed = width_of(char)
        if piece and taken + needed > width:
            pieces.append(piece)
            piece, taken = "", 0
        piece += char
        taken += needed
    return [*pieces, piece]


def widths_for(natural: Sequence[int], minimal: Sequence[int], width: int) -> list[int] | None:
    """Column widths that fit into `width` together with their gaps; None if not even the minimal ones do.

    Narrow columns keep what they need; the wide ones share what is left evenly.
    """
    room = width - len(GAP) * (len(natural) - 1)
    if sum(natural) <= room:
        return list(natural)
    if sum(minimal) > room:
        return None
    widths = list(minimal)
    spare = room - sum(widths)
    while spare > 0:  # sum(natural) > room >= sum(widths), so some column always grows
        growing = [i for i, wish in enumerate(natural) if widths[i] < wish]
        smallest = min(widths[i] for i in growing)
        i = next(i for i in growing if widths[i] == smallest)
        widths[i] += 1
        spare -= 1
    return widths


def table(
    header: Sequence[str], rows: Sequence[Row], *, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """The lines of a table. `width` is the terminal's, None for no limit. Columns without any text are left out, and
    so is the header where there is nothing below it."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    used = [i for i in range(len(header)) if any(row[i].text for row in cells)]
    if not used:
        return
    header = [header[i] for i in used]
    cells = [[row[i] for i in used] for row in cells]
    natural = [max(map(width_of, (title, *(row[i].text for row in cells)))) for i, title in enumerate(header)]
    minimal = [min(n, max(len(title), MIN_COLUMN)) for n, title in zip(natural, header, strict=True)]
    widths = natural if width is None else widths_for(natural, minimal, width)
    if widths is None:
        yield from records(header, cells, width=width, paint=paint)
        return
    yield from _lines([Cell(title.upper(), Style.STRONG) for title in header], widths, paint)
    for row in cells:
        yield from _lines(row, widths, paint)


def facts(pairs: Sequence[tuple[str, Cell | str]], *, width: int | None = None, paint: Paint = plain) -> Iterator[str]:
    """Names and values below each other, the values aligned and wrapped. A name may be empty: the value goes on."""
    names = max((width_of(name) for name, _ in pairs), default=0)
    rest = None if width is None else max(MIN_COLUMN, width - names - len(GAP))
    for name, value in pairs:
        cell = _cell(value)
        lines = [cell.text] if rest is None else wrap(cell.text, rest)
        for number, line in enumerate(lines):
            left = (name if number == 0 else "").ljust(names)
            yield f"{paint(left, Style.STRONG)}{GAP}{paint(line, cell.style)}".rstrip()


def _cell(value: Cell | str) -> Cell:
    cell = Cell(value) if isinstance(value, str) else value
    text = printable(cell.text)
    return cell if text == cell.text else Cell(text, cell.style)


def _lines(row: Sequence[Cell], widths: Sequence[int], paint: Paint) -> Iterator[str]:
    columns = [
        wrap(cell.text, width) if width_of(cell.text) > width else [cell.text]
        for cell, width in zip(row, widths, strict=True)
    ]
    for number in range(max(map(len, columns))):
        line = ""
        for column, cell, width in zip(columns, row, widths, strict=True):
            text = column[number] if number < len(column) else ""
            line += paint(text, cell.style) + " " * (width - width_of(text)) + GAP
        yield line.rstrip()


def records(
    header: Sequence[str], rows: Sequence[Row], *, width: int | None = None, paint: Paint = plain
) -> Iterator[str]:
    """Each row as a block of lines, without those that would be empty; an empty line between blocks."""
    for number, row in enumerate(rows):
        if number:
            yield ""
        pairs = [(title, cell) for title, cell in zip(header, map(_cell, row), strict=True) if cell.text]
        yield from facts(pairs, width=width, paint=paint)
