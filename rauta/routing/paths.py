"""Paths: what was matched is what is sent.

The rules (RFC 3986 6.2.2, in a form that changes no resource):

* A path that normalisation does not change goes on byte for byte; one that it changes goes on normalised.
* Percent-encoded unreserved characters are decoded, other escapes keep their meaning and get upper-case
  digits, dot segments are removed. `//` is kept. `%2F` and `%5C` stay encoded and opaque.
* Refused with 400: NUL and `%00`, control bytes, space, raw non-ASCII, backslash, `#`, the delimiters
  `<>"{}` (RFC 3986 appendix C: never part of a URI), a bad escape, `..` above the root, `..%2F` and the like.
* Normalising is idempotent, and its result is always accepted.

A *prefix* is element-wise: `/foo` matches `/foo` and `/foo/bar`, never `/foobar`; `/foo/` equals `/foo`.
"""

from __future__ import annotations

import re
from typing import Final

from rauta.routing.errors import RequestError

_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# One C call decides for nearly every request that nothing has to change.
_CLEAN = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[!$&-.0-;=@-\[\]-z|~]*)+")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\#?<>\"{}]")
_FORBIDDEN_QUERY = re.compile(r"[\x00-\x20\x7f-\U0010ffff#<>\"{}]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_ENCODED_SLASH = re.compile(r"%(?:2F|5C)")
# No honest path has these, and a server that decodes them leaves the prefix that was matched.
_HIDDEN_DOTS = re.compile(r"(?:/|%2F|%5C)\.{1,2}%(?:2F|5C)|%(?:2F|5C)\.{1,2}(?:/|%2F|%5C|\Z)")


class PathError(RequestError):
    """The request's target cannot be routed safely; answered 400."""


def _escape(found: re.Match[str]) -> str:
    digits = found[1]
    if digits is None:
        raise PathError("bad_path", "a '%' in the path is not followed by two hexadecimal digits")
    char = chr(int(digits, 16))
    if char == "\0":
        raise PathError("bad_path", "the path contains an encoded NUL (%00)")
    return char if char in _UNRESERVED else f"%{digits.upper()}"


def _remove_dot_segments(path: str) -> str:
    """RFC 3986 5.2.4, but `..` above the root is an error instead of being ignored."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept:
                raise PathError("bad_path", "the path leads above the root ('..')")
            kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def normalise_path(path: str, *, reject_encoded_slash: bool = False) -> str:
    """The path as it is matched and sent on.

    `path` is the path component of a request target (no query), decoded as Latin-1; it starts with `/`.
    With `reject_encoded_slash`, `%2F` and `%5C` are errors too. Raises PathError (400).
    """
    if _CLEAN.fullmatch(path):
        return path
    if not path.startswith("/"):
        raise PathError("bad_path", "the path does not start with '/'")
    if (bad := _FORBIDDEN.search(path)) is not None:
        raise PathError("bad_path", f"the path contains {bad[0]!r}")
    if "%" in path:
        path = _ESCAPE.sub(_escape, path)
        if _ENCODED_SLASH.search(path):
            if reject_encoded_slash:
                raise PathError("encoded_slash", "the path contains an encoded slash or backslash")
            if _HIDDEN_DOTS.search(path):
                raise PathError("bad_path", "the path has a dot segment beside an encoded slash or backslash")
    if "/." in path:
        path = _remove_dot_segments(path)
    return path


def check_query(query: str) -> None:
    """Refuse bytes that no query may hold (RFC 3986 3.4). Raises PathError (400)."""
    if (bad := _FORBIDDEN_QUERY.search(query)) is not None:
        raise PathError("bad_query", f"the query contains {bad[0]!r}")


def prefix_matches(prefix: str, path: str) -> bool:
    """Whether `path` lies under `prefix`, element by element. The prefix has no trailing slash; "" is the root."""
    return path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/")
