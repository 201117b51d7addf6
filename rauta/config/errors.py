"""What is wrong with a file, and where: one problem is one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from rauta.routing import model
from rauta.routing.errors import RautaError

MAX_PROBLEMS: Final = 50  # about a screen; the rest is most often the consequence of the first ones
# Names compared in all guesses of one load, at 50 us: a file of 10,000 misspelt names must not take minutes.
MAX_COMPARISONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem. `line` and `column` count from 1; they are None where the file as a whole is meant.

    `key` leads to the value from the top of the file, as in `routes[3].service`; list positions count from 0.
    """

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(RautaError):
    """The configuration cannot be used. `problems` holds the first MAX_PROBLEMS, `more` counts the others."""

    def __init__(self, *problems: ConfigProblem, more: int = 0) -> None:
        lines = [str(problem) for problem in problems]
        if more:
            lines.append(f"and {more} more")
        super().__init__("\n".join(lines))
        self.problems = problems
        self.more = more

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.problems, self.more))


def _rebuild(problems: tuple[ConfigProblem, ...], more: int) -> ConfigError:
    return ConfigError(*problems, more=more)


class Problems:
    """What was found while one configuration is loaded: the first MAX_PROBLEMS, and how many more."""

    __slots__ = ("_comparisons", "first", "more")

    def __init__(self) -> None:
        self.first: list[ConfigProblem] = []
        self.more = 0
        self._comparisons = MAX_COMPARISONS

    def __bool__(self) -> bool:
        return bool(self.first)

    @property
    def full(self) -> bool:
        """Whether further problems are only counted: then their places need not be looked up."""
        return len(self.first) >= MAX_PROBLEMS

    def add(self, problem: ConfigProblem) -> None:
        """Keep or count a problem."""
        if self.full:
            self.more += 1
        else:
            self.first.append(problem)

    def extend(self, problems: Iterable[ConfigProblem]) -> None:
        """Keep or count several problems."""
        for problem in problems:
            self.add(problem)

    def nearest(self, name: str, known: Collection[str]) -> str | None:
        """The known name that was most likely meant; None too when the problem would not be shown anyway."""
        self._comparisons -= len(known)
        if self._comparisons < 0 or self.full or len(name) > 200:
            return None
        return model.nearest(name, known)

    def error(self, files: Iterable[str] = ()) -> ConfigError:
        """All of them as an error, in the order of the files and their lines."""
        order = {file: position for position, file in enumerate(files)}
        first = sorted(self.first, key=lambda problem: (order.get(problem.file, len(order)), problem.line or 0))
        return ConfigError(*first, more=self.more)


def key_text(path: tuple[str | int, ...] | list[str | int]) -> str:
    """A path as it is shown: `routes[3].service`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
