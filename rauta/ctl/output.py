"""Where a command writes: text for a person, or one JSON document for a program."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

from rauta.ctl import tables
from rauta.ctl.tables import Cell, Row, Style

FORMAT: Final = 1  # of the JSON documents; keys may be added to it, anything else is another number


class Output:
    """Standard output as a command sees it. Colours and the limit of width are for terminals only."""

    __slots__ = ("_colours", "_stream", "_width", "height", "json")

    def __init__(self, stream: TextIO, environ: Mapping[str, str], *, json: bool = False) -> None:
        self._stream = stream
        self.json = json
        terminal = stream.isatty()
        # https://no-color.org: set and not empty, whatever the value.
        self._colours = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._width = _width_of(stream, environ) if terminal else None
        # Lines of a terminal that takes control sequences; None: it is none.
        self.height = _height_of(stream, environ) if terminal and environ.get("TERM") != "dumb" else None

    def paint(self, text: str, style: Style) -> str:
        """The text in its style, where there are colours."""
        if not self._colours or not text or style is Style.PLAIN:
            return text
        return f"\x1b[{style.value}m{text}\x1b[0m"

    def line(self, text: str = "", style: Style = Style.PLAIN) -> None:
        """One line; never wrapped, so that messages stay searchable."""
        self._write(self.paint(tables.printable(text), style))

    def table(self, header: Sequence[str], rows: Sequence[Row]) -> None:
        """See tables.table."""
        for line in tables.table(header, rows, width=self._width, paint=self.paint):
            self._write(line)

    def records(self, header: Sequence[str], rows: Sequence[Row]) -> None:
        """What is too much for a line of a terminal: there each row is a block of lines, elsewhere one of a table."""
        if self._width is None:
            self.table(header, rows)
            return
        for line in tables.records(header, rows, width=self._width, paint=self.paint):
            self._write(line)

    def facts(self, pairs: Sequence[tuple[str, Cell | str]]) -> None:
        """See tables.facts."""
        for line in tables.facts(pairs, width=self._width, paint=self.paint):
            self._write(line)

    def screen(self) -> None:
        """What follows is written over what is there; where that cannot be done, below it."""
        self._stream.write("\n" if self.height is None else "\x1b[H\x1b[J")

    def flush(self) -> None:
        """Show what has been written."""
        self._stream.flush()

    def document(self, content: Mapping[str, Any]) -> None:
        """The JSON document of a command that was asked for one. It opens with the version of its format."""
        self.raw_json({"version": FORMAT, **content})

    def raw_json(self, content: Mapping[str, Any]) -> None:
        """JSON that has a format of its own, and a version in it."""
        self._write(json.dumps(content, indent=2))

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")


def _height_of(stream: TextIO, environ: Mapping[str, str]) -> int:
    """Lines of the terminal, as `_width_of` its columns."""
    lines = environ.get("LINES", "")
    if lines.isdecimal() and int(lines) > 0:
        return int(lines)
    try:
        return os.get_terminal_size(stream.fileno()).lines or 24
    except OSError:
        return 24


def _width_of(stream: TextIO, environ: Mapping[str, str]) -> int | None:
    """Columns of the terminal; COLUMNS goes before what the terminal says, as everywhere."""
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except OSError:
        return 80  # a terminal that does not tell its size
