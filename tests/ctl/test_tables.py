from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rauta.ctl.tables import GAP, MIN_COLUMN, Cell, Style, facts, printable, table, width_of, widths_for, wrap

TEXT = st.text(st.characters(codec="utf-8"), max_size=60).map(printable)


@pytest.mark.parametrize(("text", "width"), [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("é", 1), ("a日", 3)])
def test_width(text: str, width: int) -> None:
    assert width_of(text) == width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("é日", "é日"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("tab\tnul\0", r"tab\tnul\x00"),
        ("csi\x9b", r"csi\x9b"),
        ("right\u202eleft", r"right\u202eleft"),
        ("lone\udcff", r"lone\udcff"),
    ],
)
def test_nothing_can_drive_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(TEXT, st.integers(1, 30))
def test_wrapping_loses_nothing_and_fits(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(width_of(line) <= width or len(line) == 1 for line in lines)  # a wide character in one column


def test_wrapping_prefers_spaces() -> None:
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("a veryveryverylongword b", 8) == ["a", "veryvery", "verylong", "word b"]


@example([(10, 8), (10, 8)], 17)  # the gap counts, too
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), min_size=1, max_size=8), st.integers(1, 200))
def test_widths_fit_and_waste_nothing(columns: list[tuple[int, int]], width: int) -> None:
    natural = [n for n, _ in columns]
    minimal = [min(n, m) for n, m in columns]
    room = width - len(GAP) * (len(columns) - 1)
    widths = widths_for(natural, minimal, width)
    if widths is None:
        assert sum(minimal) > room
        return
    assert all(low <= got <= high for low, got, high in zip(minimal, widths, natural, strict=True))
    assert sum(widths) == min(sum(natural), room)


ROWS = [("users", "exact /api/users", "Cell"), ("a-long-name-of-a-route", "prefix /x", "y")]


def test_columns_are_aligned() -> None:
    lines = list(table(("route", "match", "what"), ROWS))
    assert lines == [
        "ROUTE                   MATCH             WHAT",
        "users                   exact /api/users  Cell",
        "a-long-name-of-a-route  prefix /x         y",
    ]


def test_a_table_keeps_to_the_terminal() -> None:
    lines = list(table(("route", "match", "what"), ROWS, width=36))
    assert max(map(width_of, lines)) <= 36
    assert lines[0].startswith("ROUTE")
    joined = "".join(lines).replace(" ", "")
    assert all(part in joined for part in ("users", "exact", "prefix/x"))


def test_where_a_table_is_too_narrow_it_becomes_records() -> None:
    lines = list(table(("route", "match", "what"), ROWS, width=2 * MIN_COLUMN))
    assert lines[0].split() == ["route", "users"]
    assert "" in lines
    assert max(map(width_of, lines)) <= 2 * MIN_COLUMN


def test_a_column_without_text_is_left_out() -> None:
    assert list(table(("a", "b"), [("1", ""), ("2", "")])) == ["A", "1", "2"]


def test_a_table_without_rows_is_nothing() -> None:
    assert "".join(table(("a", "b"), [])).strip() == ""


def test_wide_characters_keep_columns_straight() -> None:
    lines = list(table(("a", "b"), [("日本", "x"), ("abcd", "y")]))
    assert lines[1:] == ["日本  x", "abcd  y"]


def test_cells_are_painted_without_moving_columns() -> None:
    def paint(text: str, style: Style) -> str:
        return f"<{text}>" if style is Style.GOOD else text

    lines = list(table(("a", "b"), [(Cell("1", Style.GOOD), "x"), ("22", "y")], paint=paint))
    assert lines[1:] == ["<1>   x", "22  y"]


def test_facts_are_aligned_and_wrapped() -> None:
    assert list(facts([("a", "1"), ("long", "2")])) == ["a     1", "long  2"]
    assert list(facts([("a", "one two three")], width=11)) == ["a  one two", "   three"]
