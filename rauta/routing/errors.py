"""Errors of the routing layer: what was seen, in which field, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# What Python puts around the words of OpenSSL: "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)".
_AROUND: Final = re.compile(r"^\[[A-Z0-9]+(?:: \w+)?\] | \(_ssl\.c:\d+\)$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a value.

    `where` leads from the object that was being built to the field, as keys and list positions:
    `("routes", 3, "service")`. It is empty when the object as a whole is meant.
    """

    where: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        place = ""
        for step in self.where:
            place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else step
        return f"{place}: {self.message}" if place else self.message

    def under(self, *prefix: str | int) -> Problem:
        """The same problem, seen from an enclosing object."""
        return Problem((*prefix, *self.where), self.message)


class RautaError(Exception):
    """Base of every error that rauta raises on purpose."""


class ModelError(RautaError, ValueError):
    """A model object was given values that it cannot hold. Carries one or more problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type[ModelError], tuple[Problem, ...]]:
        return (type(self), self.problems)

    @classmethod
    def at(cls, where: str | int | Iterable[str | int], message: str) -> ModelError:
        """One problem at one field: a key, or the path to it."""
        path = (where,) if isinstance(where, str | int) else tuple(where)
        return cls(Problem(path, message))


class RequestError(RautaError, ValueError):
    """A request that must not be routed. `status` is the answer, `reason` its name in log and metrics."""

    status = 400

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[RequestError], tuple[str, str]]:
        return (type(self), (self.reason, str(self)))


def words_of(error: BaseException) -> str:
    """What an exception says, for people: never nothing, and without what Python puts around the words of OpenSSL."""
    return _AROUND.sub("", str(error)) or type(error).__name__
