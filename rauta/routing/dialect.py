"""The dialect of regular expressions in configuration files: what both engines read alike, and nothing else.

A pattern that uses up its budget moves from `regex` to google-re2 (see `regexes`). If the two read it differently, a
client could change what a route means by sending one slow path. So the file format allows what both agree upon:

* literal ASCII characters; `\\` before punctuation; `\\xHH` below 80; `\\t`
* `.`, `\\d`, `\\D`, `\\w`, `\\W`, and outside of classes `\\b`, `\\B`
* classes `[a-z_]`, `[^/]` of characters, ranges and the escapes above
* groups `(...)`, `(?:...)`, `(?P<name>...)`, alternatives `|`
* quantifiers `*`, `+`, `?`, `{n}`, `{n,}`, `{n,m}` up to 1000, and their lazy forms
* `^` as the first and `$` as the last character (a match is a full match anyway)
* look-around `(?=`, `(?!`, `(?<=`, `(?<!` and back-references `\\1` to `\\9`, `(?P=name)`: only `regex` has them, so a
  pattern with one never moves, and a time-out is answered 503

Flags, comments, Unicode properties, `\\s` (the engines differ on VT), possessive quantifiers and the extensions of
`regex` (fuzzy, recursive, branch reset) are refused.
"""

from __future__ import annotations

import re
from typing import Final

_CHARACTER: Final = r"\\(?:t|[!-/:-@\[-`{-~]|x[0-7][0-9A-Fa-f])"
_TOKEN: Final = re.compile(
    rf"""
      (?P<quantifier> (?: [*+?] | \{{ (?P<least>[0-9]{{1,4}}) (?: (?P<comma>,) (?P<most>[0-9]{{1,4}})? )? \}} ) \?? )
    | (?P<alternative> \| )
    | (?P<class> \[ )
    | (?P<atom> {_CHARACTER} | [A-Za-z0-9\ !"\#%&',/:;<=>@_`~.-] | \\[dDwW]
              | \\[1-9](?![0-9]) | \(\?P=[A-Za-z_][A-Za-z0-9_]*\) )
    | (?P<open> \( (?: \? (?: [:=!] | <[=!] | P<[A-Za-z_][A-Za-z0-9_]*> ) | (?!\?) ) )
    | (?P<close> \) )
    | (?P<boundary> \\[bB] )
    """,
    re.VERBOSE,
)
_CLASS_ESCAPE: Final = re.compile(r"\\[dDwW]")
_CLASS_CHAR: Final = re.compile(rf"{_CHARACTER}|[ -,.-Z^-~]")
MAX_REPEAT: Final = 1000  # re2's own limit
MAX_SIZE: Final = 10_000  # (?:a{1000}){1000} takes 282 MB to compile
MAX_DEPTH: Final = 50  # of groups; both compilers recurse

_HINTS: Final = (
    ("(?#", "comments are not allowed"),
    ("(?P>", "recursion is not allowed"),
    ("(?", "flags and extensions like (?i) are not allowed; patterns are case-sensitive"),
    ("\\s", "write a space or [ \\t] instead of \\s"),
    ("\\S", "write [^ \\t] instead of \\S"),
    ("\\p", "Unicode properties are not allowed: paths are ASCII"),
    ("\\P", "Unicode properties are not allowed: paths are ASCII"),
    ("\\", "this escape is not allowed"),
    ("{", "write \\{ for a brace"),
    ("}", "write \\} for a brace"),
    ("^", "only allowed as the first character: a match is a full match"),
    ("$", "only allowed as the last character: a match is a full match"),
    (")", "there is no group to close"),
    ("]", "write \\] for a bracket"),
)


class DialectError(ValueError):
    """What is not part of the dialect, and at which character (counted from 1)."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"{message} (character {position + 1})")


class _Size:
    """What the pattern would be written out, in characters and classes: compilers take memory in proportion to it."""

    def __init__(self) -> None:
        self._groups = [0]
        self._last = 0  # the size of the element that a quantifier would repeat

    def count(self, kind: str | None) -> None:
        if kind == "open":
            self._groups.append(0)
            return
        self._last = max(1, self._groups.pop()) if kind == "close" else 1
        self._groups[-1] += self._last

    def repeat(self, times: int, position: int) -> None:
        self._groups[-1] += self._last * max(0, times - 1)
        if self._groups[-1] > MAX_SIZE:
            raise DialectError(position, f"with this repetition the pattern stands for more than {MAX_SIZE} characters")


def check(pattern: str) -> None:
    """Raises DialectError if the pattern has anything that is not in the dialect. Takes linear time."""
    open_groups: list[int] = []
    position = 1 if pattern.startswith("^") else 0
    end = len(pattern) - 1 if _ends_in_anchor(pattern) else len(pattern)
    repeatable = False  # whether a quantifier may come next
    size = _Size()
    while position < end:
        token = _TOKEN.match(pattern, position, end)
        kind = None if token is None else token.lastgroup
        if token is None or (kind == "close" and not open_groups):
            raise _refusal(pattern, position)
        if kind == "quantifier":
            size.repeat(_repetitions(token, repeatable), position)
        else:
            size.count(kind)
        if kind == "open":
            open_groups.append(position)
            if len(open_groups) > MAX_DEPTH:
                raise DialectError(position, f"more than {MAX_DEPTH} groups inside each other")
        elif kind == "close":
            open_groups.pop()
        repeatable = kind in ("atom", "class", "close")
        position = _class(pattern, position, end) if kind == "class" else token.end()
    if open_groups:
        raise DialectError(open_groups[-1], "the group is not closed: missing )")


def _ends_in_anchor(pattern: str) -> bool:
    if not pattern.endswith("$"):
        return False
    backslashes = len(pattern) - 1 - len(pattern[:-1].rstrip("\\"))
    return backslashes % 2 == 0


def _repetitions(token: re.Match[str], repeatable: bool) -> int:
    """How often a quantifier writes its element out at the most; 1 for those without numbers."""
    if not repeatable:
        raise DialectError(token.start(), f"{token[0]!r} has nothing to repeat, or repeats twice")
    least, most = int(token["least"] or 0), int(token["most"] or 0)
    if max(least, most) > MAX_REPEAT:
        raise DialectError(token.start(), f"{token[0]!r} repeats more than {MAX_REPEAT} times")
    if token["most"] and least > most:
        raise DialectError(token.start(), f"{token[0]!r} is at least more than at most")
    return max(least, most, 1)


def _class(pattern: str, start: int, end: int) -> int:
    """The position behind the class that begins at `start`."""
    position = start + 1
    if pattern[position : position + 1] == "^":
        position += 1
    first = position
    while position < end and pattern[position] != "]":
        if found := _CLASS_ESCAPE.match(pattern, position, end):
            position = found.end()
            if pattern[position : position + 1] == "-" and pattern[position + 1 : position + 2] != "]":
                raise DialectError(position, "a range cannot begin with a class; put '-' first or last")
            continue
        if pattern[position] == "-" and (position == first or pattern[position + 1 : position + 2] == "]"):
            position += 1
            continue
        position = _member(pattern, position, end)
    if position >= end:
        raise DialectError(start, "the class is not closed: missing ]")
    if position == first:
        raise DialectError(start, "the class is empty; write \\] for a bracket")
    return position + 1


def _member(pattern: str, position: int, end: int) -> int:
    """The position behind a character or a range of characters in a class."""
    low = _CLASS_CHAR.match(pattern, position, end)
    if low is None:
        raise _refusal(pattern, position) if pattern[position] == "\\" else _bad_member(pattern, position)
    position = low.end()
    if pattern[position : position + 1] != "-" or pattern[position + 1 : position + 2] == "]":
        return position
    high = _CLASS_CHAR.match(pattern, position + 1, end)
    if high is None:
        raise _bad_member(pattern, position + 1)
    if _code(low[0]) > _code(high[0]):
        raise DialectError(low.start(), f"the range {low[0]}-{high[0]} is upside down")
    return high.end()


def _bad_member(pattern: str, position: int) -> DialectError:
    char = pattern[position : position + 1]
    return DialectError(position, f"write \\{char} in a class, or '-' first or last" if char else "missing ]")


def _code(member: str) -> int:
    if member.startswith("\\x"):
        return int(member[2:], 16)
    return 9 if member == "\\t" else ord(member[-1])


def _refusal(pattern: str, position: int) -> DialectError:
    for start, hint in _HINTS:
        if pattern.startswith(start, position):
            return DialectError(position, hint)
    return DialectError(position, f"{pattern[position]!r} is not allowed")
