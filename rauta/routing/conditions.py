"""Conditions of a rule beyond its place in an index, compiled: each says whether it holds and what it asks for."""

from __future__ import annotations

import re
from typing import Protocol
from urllib.parse import unquote_plus

from rauta.routing.errors import RautaError
from rauta.routing.model import (
    Match,
    PathKind,
    ValueKind,
    ValueMatch,
)
from rauta.routing.plugins import Matcher
from rauta.routing.regexes import Budget, Pattern, pattern_of
from rauta.routing.request import RequestView


class Condition(Protocol):
    """Something that must hold of a request."""

    def holds(self, request: RequestView, budget: Budget) -> bool:
        """Raises RegexTimeoutError or PluginFailedError where it cannot be known."""

    def wanted(self) -> str:
        """What was asked for, for a person, as in "needs ...": `method GET or HEAD`."""


class PluginFailedError(RautaError):
    """A plugin raised, or answered what it may not. `__cause__` is what it raised, if it did."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(f"plugin {plugin!r} {message}")
        self.plugin = plugin


class MethodIs:
    """The method is one of a set; methods are case-sensitive (RFC 9110 9.1)."""

    __slots__ = ("_methods",)

    def __init__(self, methods: frozenset[str]) -> None:
        self._methods = methods

    def holds(self, request: RequestView, budget: Budget) -> bool:
        return request.method in self._methods

    def wanted(self) -> str:
        return "method " + " or ".join(sorted(self._methods))


class PathFits:
    """The path matches a regex in full."""

    __slots__ = ("_pattern",)

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern_of(pattern)

    def holds(self, request: RequestView, budget: Budget) -> bool:
        return self._pattern.matches(request.path, budget)

    def wanted(self) -> str:
        return f"a path that matches {self._pattern.text}"


class _ValueFits:
    """What header and query conditions share: comparing one value, or none."""

    __slots__ = ("_condition", "_pattern")
    what = ""

    def __init__(self, condition: ValueMatch) -> None:
        self._condition = condition
        self._pattern: Pattern | None = pattern_of(condition.value) if condition.kind is ValueKind.REGEX else None

    def _fits(self, value: str | None, budget: Budget) -> bool:
        kind = self._condition.kind
        if value is None or kind is ValueKind.ABSENT:
            return value is None and kind is ValueKind.ABSENT
        if kind is ValueKind.EXACT:
            return value == self._condition.value
        if kind is ValueKind.PREFIX:
            return value.startswith(self._condition.value)
        return self._pattern is None or self._pattern.matches(value, budget)

    def wanted(self) -> str:
        return f"{self.what} {self._condition}"


class HeaderFits(_ValueFits):
    """A header field, several of one name as one list (RFC 9110 5.3)."""

    __slots__ = ()
    what = "header"

    def holds(self, request: RequestView, budget: Budget) -> bool:
        return self._fits(request.headers.get(self._condition.name), budget)


def _finder(name: str) -> re.Pattern[str]:
    """Finds the first parameter of that name in a raw query, however its characters are encoded.

    One linear search: decoding a hostile query of 60 KiB as a whole takes 120 ms.
    """
    parts: list[str] = []
    for byte in name.encode():
        char, encoded = chr(byte), f"(?i:%{byte:02x})"
        if char == " ":
            parts.append(rf"(?:\+|{encoded})")
        elif byte >= 0x80 or char in "&=%+":
            parts.append(encoded)
        else:
            parts.append(f"(?:{re.escape(char)}|{encoded})")
    return re.compile(rf"(?:\A|&){''.join(parts)}(?:=([^&]*))?(?=&|\Z)")


class ParameterFits(_ValueFits):
    """A query parameter, name and value percent- and plus-decoded; the first of a name counts, as in Envoy."""

    __slots__ = ("_find",)
    what = "query"

    def __init__(self, condition: ValueMatch) -> None:
        super().__init__(condition)
        self._find = _finder(condition.name).search

    def holds(self, request: RequestView, budget: Budget) -> bool:
        found = self._find(request.query) if request.query else None
        return self._fits(unquote_plus(found[1] or "") if found else None, budget)


class PluginAccepts:
    """A matcher plugin says so."""

    __slots__ = ("_matcher", "_name")

    def __init__(self, name: str, matcher: Matcher) -> None:
        self._name = name
        self._matcher = matcher

    def holds(self, request: RequestView, budget: Budget) -> bool:
        try:
            answer = self._matcher.match(request)
        except Exception as error:  # foreign code: whatever it raises must not be taken for "no match"
            raise PluginFailedError(self._name, f"raised {error!r}") from error
        if answer is not True and answer is not False:
            raise PluginFailedError(self._name, f"answered {answer!r} instead of True or False")
        return answer

    def wanted(self) -> str:
        return f"plugin {self._name} to accept"


def conditions_of(match: Match, matchers: tuple[tuple[str, Matcher], ...]) -> tuple[Condition, ...]:
    """The conditions of a match that its index entry does not settle, the cheapest first."""
    conditions: list[Condition] = []
    if match.methods:
        conditions.append(MethodIs(match.methods))
    conditions.extend(map(HeaderFits, match.headers))
    conditions.extend(map(ParameterFits, match.query))
    if match.path.kind is PathKind.REGEX:
        conditions.append(PathFits(match.path.value))
    conditions.extend(PluginAccepts(name, matcher) for name, matcher in matchers)
    return tuple(conditions)
