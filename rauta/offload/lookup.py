"""What the kernel programs look up: which paths and hosts they know, in the form in which C decides it.

Everything here is a loop over bytes with a table, so that the C parser can follow line by line. Whatever is not
plain is passed to tier 3. What is plain is already normalised: `routing.paths.normalise_path` would not change it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

# Printable ASCII without what tier 3 refuses (" # < > \ { }), what it may rewrite (%) and what ends a path (?).
_PLAIN_PATH: Final = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('"#<>\\{}%?')
_DIGITS: Final = frozenset("0123456789")
_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")

PATH_BYTES: Final = frozenset(map(ord, _PLAIN_PATH))
"""The bytes of a plain path; of a host's name: HOST_BYTES."""
HOST_BYTES: Final = frozenset(map(ord, _HOST))

T = TypeVar("T")


def is_plain(path: str, limit: int) -> bool:
    """Whether the kernel looks the path up: at most `limit` bytes, starts with "/", plain bytes only, no "//" and
    no dot segment. `path` is the raw path component, without the query."""
    if not 0 < len(path) <= limit or path[0] != "/":
        return False
    dots = 0  # length of the segment so far if it is all dots, else -1
    for char in path[1:] + "/":  # the slash closes the last segment
        if char == "/":
            if dots in (1, 2):
                return False
            dots = 0
        elif char not in _PLAIN_PATH:
            return False
        elif char == "." and dots >= 0:
            dots += 1
        else:
            dots = -1
    return "//" not in path


def may_begin(literal: str, limit: int) -> bool:
    """Whether a path that is looked up can start with the literal prefix of a regex. True when in doubt."""
    if not literal:
        return True
    return len(literal) <= limit and literal[0] == "/" and "//" not in literal and _PLAIN_PATH.issuperset(literal)


def plain_host(field: str, limit: int) -> str | None:
    """The name in a Host field's value (without white space around it), lower case, without port and final dot.

    None if the kernel does not look it up: an IPv6 literal, empty, longer than `limit`, or what tier 3 refuses.
    """
    name, colon, port = field.partition(":")
    if colon and port and not _is_port(port):
        return None
    if not set(name) <= _HOST:
        return None
    name = name.lower().removesuffix(".")
    if not 0 < len(name) <= limit:
        return None
    before = "."
    for char in name + ".":  # the dot closes the last label
        if "." in (before, char) and (before == char or "-" in (before, char)):
            return None  # a label is empty, or starts or ends with a hyphen
        before = char
    return name


def _is_port(port: str) -> bool:
    return len(port) <= 5 and set(port) <= _DIGITS and 0 < int(port) < 65536


def longest(entries: Mapping[str, T], text: str) -> T | None:
    """The value of the longest key that `text` starts with: what a trie of the kernel (LPM) answers."""
    for end in range(len(text), -1, -1):
        found = entries.get(text[:end])
        if found is not None:
            return found
    return None
