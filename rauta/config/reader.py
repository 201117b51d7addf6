"""The state of decoding one file, and the way from a problem of the model to its place in the file."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any, Final

from rauta.config.errors import ConfigProblem, Problems, key_text
from rauta.config.nodes import Mapping, Node, Sequence, describe
from rauta.routing.errors import ModelError


class _Invalid(Enum):
    INVALID = "invalid"


INVALID: Final = _Invalid.INVALID

Step = str | int


class Reader:
    """The state of decoding one file: where we are, what was wrong, what equal values are shared."""

    __slots__ = ("directory", "file", "memo", "path", "problems")

    def __init__(self, file: str, directory: Path, problems: Problems, memo: dict[Any, Any]) -> None:
        self.file = file
        self.directory = directory
        self.path: list[Step] = []
        self.problems = problems
        # Equal sub-objects (hosts, addresses, time-outs) are one object: thousands of routes repeat few values.
        self.memo = memo

    def problem(self, node: Node, message: str, *, mark: tuple[int, int] | None = None, key: str | None = None) -> None:
        """Report a problem of the value that is being decoded; `mark` and `key` say where, if not at the node."""
        if self.problems.full:
            self.problems.more += 1
            return
        line, column = (node.line, node.column) if mark is None else mark
        path = self.path if key is None else [*self.path, key]
        self.problems.add(ConfigProblem(self.file, line, column, key_text(path), message))

    def wrong_kind(self, node: Node, expected: str, hint: str | None = None) -> None:
        """Report that a value of another kind was expected."""
        self.problem(node, f"expected {expected}, not {describe(node)}" + (f": {hint}" if hint else ""))

    def model_error(self, node: Node, error: ModelError) -> None:
        """Report what the model said of the object at `node`."""
        for problem in error.problems:
            place, steps = locate(node, problem.where)
            key = key_text([*self.path, *steps])
            self.problems.add(ConfigProblem(self.file, place.line, place.column, key, problem.message))


def locate(node: Node, where: Iterable[Step], rename: dict[str, str] | None = None) -> tuple[Node, list[Step]]:
    """Follow `where` from a node as far as the file goes; the node where it ends and the steps taken.

    Steps that the file does not have are left out: the name of a service is its key, a default is not written.
    """
    path: list[Step] = []
    for step in where:
        if isinstance(node, Mapping) and isinstance(step, str):
            if step not in node.items:
                step = (rename or {}).get(step, step)  # noqa: PLW2901
            if step not in node.items:
                break
            node = node.items[step]
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        elif isinstance(step, int) and not isinstance(node, Sequence):
            continue  # one object in place of a list of one
        else:
            break
        path.append(step)
    return node, path
