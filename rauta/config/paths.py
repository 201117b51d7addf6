"""Types of file names: relative ones are relative to the file that names them, and become absolute."""

from __future__ import annotations

import os
from typing import Any

from rauta.config.nodes import Node, Scalar
from rauta.config.reader import INVALID, Reader
from rauta.config.scalars import Text
from rauta.config.schema import hint_for


class FilePath(Text):
    """The name of a file. `meant`: what is likely written instead, in lower case, and what it means."""

    def __init__(self, *, meant: dict[str, str] | None = None) -> None:
        super().__init__("the path of a file", pattern=".")
        self._meant = meant or {}

    def decode(self, node: Node, reader: Reader) -> Any:
        hint = hint_for(node, self._meant, reader)
        if hint is not None and isinstance(node, Scalar) and isinstance(node.value, bool):  # a file may be called so
            reader.wrong_kind(node, self.label, hint)
            return INVALID
        text = super().decode(node, reader)
        return INVALID if text is INVALID else absolute(text, node, reader)


def absolute(text: str, node: Node, reader: Reader) -> Any:
    """The path that a text means in the file that is being read; INVALID after reporting that it is none."""
    if not text or "\0" in text:
        reader.problem(node, "the path of a file is empty" if not text else "a path cannot contain NUL")
        return INVALID
    if text.startswith("~"):
        reader.problem(node, f"{text!r}: '~' is not expanded here; write the whole path")
        return INVALID
    return os.path.abspath(reader.directory / text)  # noqa: PTH100 - resolve() would follow links, and ConfigMaps swap them


class LogTarget(FilePath):
    """`stdout`, `stderr`, `off`, or a file."""

    def __init__(self) -> None:
        super().__init__()
        self.label = "stdout, stderr, off or the path of a file"

    def decode(self, node: Node, reader: Reader) -> Any:
        text = getattr(node, "value", None)
        return text if text in ("stdout", "stderr", "off") else super().decode(node, reader)
