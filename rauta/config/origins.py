"""Where each object of a configuration came from, for what is found out only about the whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rauta.config.errors import ConfigProblem, key_text
from rauta.config.nodes import Mapping
from rauta.config.reader import Step, locate
from rauta.routing.errors import Problem

# The model speaks of a route's services where the file may have the short form.
_RENAME: Final = {"services": "service"}


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """A place in a file: the steps from the file's top to an object."""

    file: str
    root: Mapping
    path: tuple[Step, ...] = ()

    def problem(self, message: str, where: tuple[Step, ...] = ()) -> ConfigProblem:
        """A problem there, or deeper."""
        node, steps = locate(self.root, (*self.path, *where), _RENAME)
        return ConfigProblem(self.file, node.line, node.column, key_text(steps), message)

    def has(self, *where: Step) -> bool:
        """Whether the file has that key there, which the model may not tell."""
        _, steps = locate(self.root, (*self.path, *where), _RENAME)
        return steps[-1:] == [*where[-1:]]


@dataclass(slots=True)
class Origins:
    """The origins of a configuration's objects: routes by position, listeners and services by section and name."""

    main: Origin
    routes: list[Origin] = field(default_factory=list)
    named: dict[tuple[str, str], Origin] = field(default_factory=dict)

    def place(self, problem: Problem) -> ConfigProblem:
        """A problem of the configuration as a problem of a file."""
        match problem.where:
            case ("routes", int() as position, *rest) if position < len(self.routes):
                return self.routes[position].problem(problem.message, tuple(rest))
            case (str() as section, str() as name, *rest) if (section, name) in self.named:
                return self.named[section, name].problem(problem.message, tuple(rest))
            case where:
                return self.main.problem(problem.message, where)
