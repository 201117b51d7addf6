"""Types that several parts of the file format share."""

from __future__ import annotations

from typing import Final

from rauta.config.composite import ListOf
from rauta.config.scalars import Choice, Integer, Text
from rauta.routing import defaults, settings

PATH: Final = Text("a path", pattern="^/")
NAME: Final = Text("a name", pattern="^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")
WEIGHT: Final = Integer(least=0, most=defaults.MAX_WEIGHT)
FORWARDED: Final = ListOf(Choice(settings.Forwarded), collect=frozenset, unique=True, share=True)

TCHARS: Final = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"  # RFC 9110 5.6.2
PROTOCOL: Final = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?$"  # RFC 9110 7.8
REGEX: Final = "[regular expressions](routing.md#regular-expressions)"
