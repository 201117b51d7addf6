"""Plugins that the tests install: well-behaved ones and others."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass(frozen=True, kw_only=True)
class Nested:
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class BalancerSettings:
    """What the sample balancer takes."""

    cookie: str = field(metadata={"doc": "The cookie's name."})
    ratio: float = 1.0
    nested: Nested = field(default_factory=Nested)
    tags: tuple[str, ...] = ()
    mode: Mode = Mode.FAST
    optional: int | None = 7
    on: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio {self.ratio} is out of range: 0 to 1")


class _Plugin:
    Settings: ClassVar[type | None] = None

    def __init__(self, settings: object) -> None:
        self.settings = settings

    def match(self, request: object) -> bool:
        return True

    def close(self) -> None:
        pass


class SampleBalancer(_Plugin):
    Settings = BalancerSettings


@dataclass(frozen=True)
class MatcherSettings:
    level: int = 3


class SampleMatcher(_Plugin):
    Settings = MatcherSettings


class Plain(_Plugin):
    pass


@dataclass(frozen=True)
class Unreadable:
    callback: dict[str, int] | list[int]


class UnreadableSettings(_Plugin):
    Settings = Unreadable


@dataclass(frozen=True)
class Endless:
    inner: Endless | None = None


class EndlessSettings(_Plugin):
    Settings = Endless


@dataclass(frozen=True)
class Raising:
    value: int = 0

    def __post_init__(self) -> None:
        raise RuntimeError("out of order")


class RaisingSettings(_Plugin):
    Settings = Raising
