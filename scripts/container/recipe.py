"""A Dockerfile, as far as ours needs it. What is not known here is an error, so that nothing is passed over."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


class RecipeError(Exception):
    """An instruction that cannot be followed here."""


@dataclass(slots=True)
class Stage:
    """One `FROM` and what follows: steps to carry out (COPY, RUN), and how the result is run."""

    base: str
    name: str
    steps: list[tuple[str, list[str]]] = field(default_factory=list)
    folder: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    port: int = 0
    command: dict[str, list[str]] = field(default_factory=dict)  # ENTRYPOINT, CMD, HEALTHCHECK


def read(path: Path) -> list[Stage]:
    """The stages of a Dockerfile. Raises RecipeError."""
    stages: list[Stage] = []
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        else:
            _take(stages[-1], word, rest)
    return stages


def _take(stage: Stage, word: str, rest: str) -> None:
    match word:
        case "COPY":
            stage.steps.append((word, shlex.split(rest)))
        case "RUN":
            stage.steps.append((word, ["sh", "-c", rest]))
        case "WORKDIR":
            if stage.steps:
                raise RecipeError("WORKDIR behind COPY or RUN: one folder for all of a stage is followed here")
            stage.folder = rest
        case "ENV":
            name, _, value = rest.partition("=")
            stage.environment[name] = value
        case "USER":
            stage.user = rest
        case "EXPOSE":
            stage.port = int(rest)
        case "ENTRYPOINT" | "CMD":
            stage.command[word] = json.loads(rest)
        case "HEALTHCHECK":
            stage.command[word] = json.loads(rest.partition("CMD ")[2])
        case _:
            raise RecipeError(f"{word}: this instruction is not known here")
