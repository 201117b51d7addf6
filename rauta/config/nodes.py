"""What a YAML file says, with places: scalars, lists and mappings. They live only while a file is being read.

Scalars follow the core schema of YAML 1.2.2 (10.3.2): `off`, `no`, `12:30` and `1_000` are text.
"""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

MAX_DIGITS: Final = 40  # of an integer; more than any field takes, less than int() needs quadratic time for

Value = str | int | float | bool | None


class Mark(Protocol):
    """A place as the parser gives it: counted from 0. Kept as it is: few of a file's thousands are ever looked at."""

    @property
    def line(self) -> int:
        """The line, from 0."""

    @property
    def column(self) -> int:
        """The column, from 0."""


class _Placed:
    __slots__ = ("mark",)

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    @property
    def line(self) -> int:
        """The line, from 1."""
        return self.mark.line + 1

    @property
    def column(self) -> int:
        """The column, from 1."""
        return self.mark.column + 1


class Scalar(_Placed):
    """A value without parts. `text` is as written, `value` what it means."""

    __slots__ = ("text", "value")

    def __init__(self, mark: Mark, text: str, value: Value) -> None:
        self.mark = mark
        self.text = text
        self.value = value


class Sequence(_Placed):
    """A list. Where it is the value of a key, its place is the key's."""

    __slots__ = ("items",)

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.items: list[Node] = []


class Mapping(_Placed):
    """Keys, in order, with their values. `marks` are the places of the keys, in the same order."""

    __slots__ = ("items", "marks")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.items: dict[str, Node] = {}
        self.marks: list[Mark] = []

    def mark_of(self, key: str) -> tuple[int, int]:
        """The (line, column) of a key; linear in the number of keys."""
        mark = self.marks[list(self.items).index(key)]
        return mark.line + 1, mark.column + 1


Node = Scalar | Sequence | Mapping

_WORDS: Final[dict[str, Value]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMERIC: Final = frozenset("+-.0123456789")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


def resolve(text: str) -> Value:
    """What a plain scalar means (YAML 1.2.2 10.3.2). Raises ValueError for integers of more than MAX_DIGITS."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"the number has {len(text)} digits; {MAX_DIGITS} are allowed")
        return int(text[2:], 8 if text[1] == "o" else 16) if text[1:2] in ("o", "x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def plain(node: Node) -> Any:
    """The node as the values, lists and dicts that JSON has."""
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.items.items()}
    return [plain(item) for item in node.items] if isinstance(node, Sequence) else node.value


def describe(node: Node) -> str:
    """What was seen, for a message."""
    if isinstance(node, Mapping):
        return "an object"
    if isinstance(node, Sequence):
        return "a list"
    value = node.value
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return f"the boolean {node.text}"
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    return f"the {'integer' if isinstance(value, int) else 'number'} {shorten(node.text)[1:-1]}"


def shorten(text: str) -> str:
    """The text quoted, cut to what fits on a line."""
    return repr(text) if len(text) <= 80 else f"{text[:77]!r}..."
