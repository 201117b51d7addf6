"""Regular expressions with a budget, so that a hostile request cannot hold the worker.

* `regex` matches first: 0.5 us a path, every construct, and it can be stopped after a given time.
* When the budget of a request is used up, google-re2 (linear time) decides the same request, and the
  pattern stays on it from then on, also after a reload.
* A pattern that re2 cannot take (look-around, back-references) raises RegexTimeoutError instead. For a second
  after that it gets a small budget, so that a flood of hostile requests costs others little.

Patterns match in full, case-sensitive, ASCII. They are written in a dialect that both engines read alike: or a
client could change what a route means by sending one slow path.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

import re2
import regex

from rauta.routing import dialect
from rauta.routing.defaults import REGEX_BUDGET
from rauta.routing.errors import ModelError

MAX_PATTERN_LENGTH: Final = 4096  # longer ones were written by a machine; compiling 4 KiB takes about 10 ms
SUSPECT_BUDGET: Final = 0.00025  # 100 times what an honest path of 100 bytes takes
SUSPECT_TIME: Final = 1.0

_FLAGS: Final = regex.ASCII | regex.VERSION0
_SPECIAL: Final = frozenset(".^$*+?{}[]\\|()")
_OPTIONAL: Final = frozenset("*?{")


class RegexTimeoutError(Exception):
    """The budget is used up and no linear-time engine can decide; answered 503, never "no match"."""


class _Engine(Protocol):
    """The part of a compiled pattern that both engines have."""

    def fullmatch(self, string: str, /) -> Any | None: ...


def _re2_of(pattern: str) -> _Engine | None:
    """The pattern compiled by google-re2, or None if that engine does not have the construct."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20  # the DFA's cache; when it is full re2 continues as an NFA, still linear
    try:
        engine: _Engine = re2.compile(pattern, options)
    except re2.error:
        return None
    return engine


def is_linear(pattern: str) -> bool:
    """Whether the linear-time engine can take over the pattern when it runs out of its budget."""
    return _re2_of(pattern) is not None


def check_pattern(pattern: str, *, where: str) -> None:
    """Raises ModelError if the pattern is too long, not in the dialect (see `dialect`), or does not compile."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ModelError.at(where, f"the pattern has {len(pattern)} characters; {MAX_PATTERN_LENGTH} are allowed")
    if not pattern.isascii():
        raise ModelError.at(where, f"pattern {pattern[:80]!r} is not ASCII: paths are matched percent-encoded")
    try:
        dialect.check(pattern)
        regex.compile(pattern, _FLAGS)
    except (dialect.DialectError, regex.error) as error:  # both say what and where
        raise ModelError.at(where, f"pattern {pattern[:80]!r}: {error}") from None


def literal_prefix(pattern: str) -> str:
    """A text that every full match of a pattern in the dialect starts with; "" when in doubt."""
    if "|" in pattern:
        return ""
    literal: list[str] = []
    position = 1 if pattern.startswith("^") else 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
            char = pattern[position : position + 1]
            if not char or char.isalnum() or char == "_":
                break  # a class, a group reference or a control character
        elif char in _SPECIAL:
            break
        position += 1
        if position < len(pattern) and pattern[position] in _OPTIONAL:
            break  # this very character may be missing
        literal.append(char)
        if position < len(pattern) and pattern[position] == "+":
            break
    return "".join(literal)


class Budget:
    """The time that one request may spend in regexes, in seconds. Time of other work in between counts not."""

    __slots__ = ("left",)

    def __init__(self, seconds: float = REGEX_BUDGET) -> None:
        self.left = seconds


class Pattern:
    """A compiled pattern. `linear` says whether it has moved to the linear-time engine."""

    __slots__ = ("__weakref__", "_compiled", "_linear", "_suspect_until", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled = regex.compile(text, _FLAGS)
        self._linear: _Engine | None = None
        self._suspect_until = 0.0

    @property
    def linear(self) -> bool:
        """Whether the pattern ran out of a budget once and stays on google-re2."""
        return self._linear is not None

    def matches(self, value: str, budget: Budget) -> bool:
        """Whether `value` matches in full. Raises RegexTimeoutError."""
        if self._linear is not None:
            return self._linear.fullmatch(value) is not None
        started = perf_counter()
        allowed = budget.left if started >= self._suspect_until else min(budget.left, SUSPECT_BUDGET)
        if allowed <= 0:
            return self._decide_linearly(value)
        try:
            return self._compiled.fullmatch(value, timeout=allowed) is not None
        except TimeoutError:
            return self._decide_linearly(value)
        finally:
            budget.left -= perf_counter() - started

    def _decide_linearly(self, value: str) -> bool:
        engine = _re2_of(self.text)
        if engine is None:
            self._suspect_until = perf_counter() + SUSPECT_TIME
            raise RegexTimeoutError(self.text)
        self._linear = engine
        return engine.fullmatch(value) is not None


_patterns: WeakValueDictionary[str, Pattern] = WeakValueDictionary()


def pattern_of(text: str) -> Pattern:
    """The pattern of that text. All tables of the process share it, so what it learned survives a reload."""
    found = _patterns.get(text)
    if found is None:
        found = _patterns[text] = Pattern(text)
    return found


class Rewriter:
    """A full match and what takes its place. Always by google-re2, so its time is linear in the path."""

    __slots__ = ("_engine", "_substitution")

    def __init__(self, pattern: str, substitution: str) -> None:
        engine = _re2_of(pattern)
        if engine is None:
            raise ModelError.at("regex", f"pattern {pattern[:80]!r}: a rewrite takes no look-around or back-reference")
        self._engine = engine
        self._substitution = substitution

    def rewrite(self, path: str) -> str | None:
        """The new text; None if the pattern does not match."""
        found = self._engine.fullmatch(path)
        # A group that took no part in the match is empty.
        return None if found is None else _REFERENCE.sub(lambda place: found[int(place[1])] or "", self._substitution)


_REFERENCE: Final = regex.compile(r"\\([0-9])")


def check_substitution(pattern: str, substitution: str) -> None:
    """Raises ModelError if the pattern cannot be rewritten with that text: see Rewriter, or it names no such group."""
    check_pattern(pattern, where="regex")
    Rewriter(pattern, substitution)
    groups = regex.compile(pattern, _FLAGS).groups
    if not substitution.startswith(("/", "\\")):
        raise ModelError.at("substitution", f"{substitution!r} does not start with '/': the result must be a path")
    rest = _REFERENCE.sub("", substitution)
    if "\\" in rest:
        raise ModelError.at("substitution", f"{substitution!r}: a backslash stands only before the digit of a group")
    if not rest.isascii() or any(char <= " " or char in "?#\x7f" for char in rest):
        raise ModelError.at("substitution", f"{substitution!r} has a character that no path can have")
    for digit in _REFERENCE.findall(substitution):
        if int(digit) > groups:
            raise ModelError.at("substitution", f"{substitution!r} names group {digit}; the pattern has {groups}")
