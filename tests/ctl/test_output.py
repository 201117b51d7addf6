from __future__ import annotations

import io
import json

import pytest

from rauta.ctl.output import FORMAT, Output
from rauta.ctl.tables import Style


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(stream: io.StringIO, environ: dict[str, str]) -> str:
    Output(stream, environ).line("text", Style.BAD)
    return stream.getvalue()


def test_colours_on_a_terminal() -> None:
    assert written(Terminal(), {"TERM": "xterm"}) == "\x1b[31mtext\x1b[0m\n"


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"NO_COLOR": "0"}, {"TERM": "dumb"}])
def test_no_colours_where_they_are_not_wanted(environ: dict[str, str]) -> None:
    assert written(Terminal(), environ) == "text\n"


def test_an_empty_no_color_is_none() -> None:
    assert "\x1b" in written(Terminal(), {"NO_COLOR": ""})


def test_no_colours_elsewhere() -> None:
    assert written(io.StringIO(), {"TERM": "xterm"}) == "text\n"


def test_a_terminal_limits_the_width() -> None:
    row = ("one two three four", "five six seven eight")
    wide, narrow = io.StringIO(), Terminal()
    Output(wide, {"COLUMNS": "24"}).table(("a", "b"), [row])
    Output(narrow, {"COLUMNS": "24", "NO_COLOR": "1"}).table(("a", "b"), [row])
    assert len(wide.getvalue().splitlines()) == 2  # a pipe has no width: one row, one line
    lines = narrow.getvalue().splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 24


def test_documents_have_a_version_first() -> None:
    stream = io.StringIO()
    Output(stream, {}, json=True).document({"a": "é\x1b"})
    assert list(json.loads(stream.getvalue()).items()) == [("version", FORMAT), ("a", "é\x1b")]
    assert stream.getvalue().isascii()
