"""Types of values without parts: text, numbers, choices, durations, sizes, and text that the model parses."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final

from rauta.config.nodes import Node, Scalar, shorten
from rauta.config.reader import INVALID, Reader
from rauta.config.schema import Json, Type, hint_for
from rauta.routing import units
from rauta.routing.errors import ModelError

_PLAIN: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_RESERVED: Final = frozenset({"null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE"})


def quoted(text: str) -> str:
    """Text as it is written in a file, quoted where it has to be."""
    if _PLAIN.fullmatch(text) and text not in _RESERVED:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


class _ScalarType(Type):
    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar)


class Text(_ScalarType):
    """Text. A number or `true` in its place must be quoted: what a person meant is not guessed."""

    _any_text = True

    def __init__(self, label: str = "text", *, pattern: str | None = None) -> None:
        self.label = label
        self._pattern = pattern

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and isinstance(node.value, str)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar):
            value = node.value
            if value.__class__ is str:
                return reader.memo.setdefault(value, value)  # not sys.intern: its table would grow with every path
            if value is not None:
                hint = f'write "{node.text}" in quotes if text is meant' if self._any_text else None
                reader.wrong_kind(node, self.label, hint)
                return INVALID
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "string", "pattern": self._pattern} if self._pattern else {"type": "string"}

    def show(self, value: Any) -> str:
        return quoted(value)


class Parsed(Text):
    """Text that a function of the model parses. Equal text is parsed once and shared."""

    _any_text = False

    def __init__(
        self,
        label: str,
        parse: Callable[[str], Any],
        *,
        pattern: str | None = None,
        hint: Callable[[str], str | None] | None = None,
    ) -> None:
        super().__init__(label, pattern=pattern)
        self._parse = parse
        self._hint = hint

    def decode(self, node: Node, reader: Reader) -> Any:
        text = super().decode(node, reader)
        if text is INVALID:
            return INVALID
        key = (self._parse, text)
        found = reader.memo.get(key)
        if found is not None:
            return found
        if self._hint is not None and (hint := self._hint(text)) is not None:
            reader.problem(node, hint)
            return INVALID
        try:
            found = reader.memo[key] = self._parse(text)
        except ModelError as error:
            reader.model_error(node, error)
            return INVALID
        return found

    def show(self, value: Any) -> str:
        return quoted(str(value))


class Word(_ScalarType):
    """One fixed word that stands for a value."""

    def __init__(self, word: str, value: Any) -> None:
        self.label = quoted(word)
        self._word = word
        self._value = value

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and node.value == self._word

    def decode(self, node: Node, reader: Reader) -> Any:
        return self._value

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"const": self._word}

    def show(self, value: Any) -> str:
        return self._word


class Integer(_ScalarType):
    """A whole number. The bounds are the schema's; the model checks them."""

    def __init__(
        self,
        label: str = "an integer",
        *,
        least: int | None = None,
        most: int | None = None,
        only: tuple[int, ...] | None = None,
    ) -> None:
        self.label = label
        self._only = only
        self._least = least
        self._most = most

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and isinstance(node.value, int) and not isinstance(node.value, bool)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar) and node.value.__class__ is int:
            return node.value
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        if self._only is not None:
            return {"enum": list(self._only)}
        bounds = {"minimum": self._least, "maximum": self._most}
        return {"type": "integer", **{key: value for key, value in bounds.items() if value is not None}}


class Number(_ScalarType):
    """A finite number, whole or not; the value is a float."""

    label = "a number"

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and node.value.__class__ in (int, float)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar):
            value = node.value
            if isinstance(value, int | float) and not isinstance(value, bool):
                if math.isfinite(value):
                    return float(value)
                reader.problem(node, f"{node.text} is not a finite number")
                return INVALID
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "number"}


class Boolean(_ScalarType):
    """`true` or `false`; `on`, `yes` and the like are text in YAML 1.2, and a mistake here."""

    label = "true or false"

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and isinstance(node.value, bool)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "boolean"}

    def show(self, value: Any) -> str:
        return "true" if value else "false"


class Choice(_ScalarType):
    """One of a few words, each with its value: the members of an Enum, or names. `meant`: what is likely written
    instead, in lower case, and what it means; empty: nothing, without the key. `hints`: what to do instead of words
    that mean no other choice."""

    def __init__(
        self,
        choices: type[Enum] | Iterable[str],
        *,
        meant: Mapping[str, str] | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(choices, type):
            self.values: dict[str, Any] = {_word_of(member): member for member in choices}
        else:
            self.values = {word: word for word in choices}
        self.label = f"one of {', '.join(self.values)}"
        self._meant = dict(meant or {})
        self._hints = dict(hints or {})

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and isinstance(node.value, str)

    def decode(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            reader.wrong_kind(
                node, self.label, hint_for(node, self._meant, reader) if isinstance(node, Scalar) else None
            )
            return INVALID
        if node.value not in self.values:
            word = node.value.lower()
            guess = (
                word
                if word in self.values
                else self._meant.get(word) or reader.problems.nearest(node.value, self.values)
            )
            hint = f"; did you mean {guess!r}?" if guess else ""
            hint = f"; {self._hints[word]}" if word in self._hints else hint
            reader.problem(node, f"{shorten(node.value)} is not {self.label}{hint}")
            return INVALID
        return self.values[node.value]

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"enum": list(self.values)}

    def show(self, value: Any) -> str:
        return quoted(_word_of(value) if isinstance(value, Enum) else str(value))


def _word_of(member: Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name.lower()


class _Quantity(_ScalarType):
    """A number with a unit."""

    pattern: str
    wanted: str

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar)

    @abstractmethod
    def parse(self, text: str) -> float | int | None:
        """The value, or None if the text is none."""

    def decode(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Scalar) or node.value is None or isinstance(node.value, bool):
            reader.wrong_kind(node, f"{self.label} ({self.wanted})")
            return INVALID
        if isinstance(node.value, int | float):
            reader.problem(node, f"{shorten(node.text)[1:-1]} has no unit: write {self.wanted}")
            return INVALID
        value = self.parse(node.value)
        if value is None:
            reader.problem(node, f"{shorten(node.value)} is not {self.label}: write {self.wanted}")
            return INVALID
        return value

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


# Ten digits are 300 years of seconds; without a bound, a long number would become infinite.
_DIGITS: Final = r"[0-9]{1,10}(?:\.[0-9]{1,6})?"


class Duration(_Quantity):
    """A duration; the value is seconds."""

    label = "a duration"
    wanted = "a number and a unit (ms, s, m or h), for example 150ms, 2s or 1m30s"
    pattern = rf"(?=.)(?:{_DIGITS}h)?(?:{_DIGITS}m)?(?:{_DIGITS}s)?(?:{_DIGITS}ms)?"
    _form: Final = re.compile(rf"(?=.)(?:({_DIGITS})h)?(?:({_DIGITS})m)?(?:({_DIGITS})s)?(?:({_DIGITS})ms)?")
    _units: Final = (3600.0, 60.0, 1.0, 0.001)

    def parse(self, text: str) -> float | None:
        found = self._form.fullmatch(text)
        if found is None:
            return None
        # Rounded to microseconds, or 150 * 0.001 would not be 0.15.
        return round(sum(float(n) * unit for n, unit in zip(found.groups(), self._units, strict=True) if n), 6)

    def show(self, value: Any) -> str:
        return units.duration(value)


class Size(_Quantity):
    """A number of bytes; the value is an integer."""

    label = "a size"
    wanted = "a number and a unit (B, kB, MB, GB, KiB, MiB or GiB), for example 64KiB"
    _units: Final = {
        "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30
    }  # fmt: skip
    pattern = r"[0-9]{1,13}(?:B|kB|KB|MB|GB|KiB|MiB|GiB)"
    _form: Final = re.compile(r"([0-9]{1,13})([A-Za-z]{1,3})")  # 1 TiB in bytes has 13 digits

    def parse(self, text: str) -> int | None:
        found = self._form.fullmatch(text)
        if found is None or found[2] not in self._units:
            return None
        return int(found[1]) * self._units[found[2]]

    def show(self, value: Any) -> str:
        return units.size(value)


class Statuses(_ScalarType):
    """A status, or a range of them such as `200-299`; the value is the lowest and the highest."""

    label = "a status or a range such as 200-299"
    plural = "statuses and ranges such as 200-299"
    _form: Final = re.compile(r"([1-9][0-9]{2})-([1-9][0-9]{2})")

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar)

    def decode(self, node: Node, reader: Reader) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value, value
        found = self._form.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            reader.wrong_kind(node, self.label)
            return INVALID
        return int(found[1]), int(found[2])

    def schema(self, defs: dict[str, Json]) -> Json:
        one = {"type": "integer", "minimum": 200, "maximum": 599}
        return {"anyOf": [one, {"type": "string", "pattern": "^[2-5][0-9]{2}-[2-5][0-9]{2}$"}]}

    def show(self, value: Any) -> str:
        low, high = value
        return str(low) if low == high else f"{low}-{high}"
