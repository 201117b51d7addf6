"""Where in its files a configuration says something. Asked only when something is wrong, so nothing is kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rauta.config import nodes
from rauta.config.compose import Composer
from rauta.config.errors import ConfigError
from rauta.config.nodes import Node
from rauta.config.source import Allowance, read_text

Keys = tuple[str | int, ...]
"""The way to a value: keys of objects and, of lists, positions from 0 or what an item has for its `name`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; the file alone (None) where it no longer says what it said when it was loaded."""

    file: str
    line: int | None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


def places_of(files: Sequence[Path], wanted: Sequence[Keys]) -> list[Place]:
    """Where the values are that the keys lead to, in the first file that has them. Reads every file once at most, which
    takes as long as loading it does: up to seconds."""
    found: dict[Keys, Place] = {}
    for file in files:
        missing = [keys for keys in wanted if keys not in found]
        if not missing:
            break
        allowance = Allowance()
        try:
            root = Composer(str(file), allowance).compose(read_text(file, allowance))
        except ConfigError:
            continue  # it was good when it was loaded, and has been changed since
        for keys in missing:
            line = _line(root, keys)
            if line is not None:
                found[keys] = Place(str(file), line)
    nowhere = Place(str(files[0]), None)
    return [found.get(keys, nowhere) for keys in wanted]


def _line(node: Node | None, keys: Keys) -> int | None:
    """None: the keys lead to nothing."""
    if node is None:
        return None  # the file is empty by now
    line = node.line
    for key in keys:
        if isinstance(node, nodes.Mapping) and isinstance(key, str) and key in node.items:
            line, _ = node.mark_of(key)
            node = node.items[key]
        elif isinstance(node, nodes.Sequence) and (item := _item(node, key)) is not None:
            node = item
            line = node.line
        else:
            return None
    return line


def _item(node: nodes.Sequence, key: str | int) -> Node | None:
    """That of a list at a position, or with a name."""
    if isinstance(key, int):
        return node.items[key] if key < len(node.items) else None
    named = (item for item in node.items if isinstance(item, nodes.Mapping) and _name(item) == key)
    return next(named, None)


def _name(item: nodes.Mapping) -> str | None:
    name = item.items.get("name")
    return name.text if isinstance(name, nodes.Scalar) else None
