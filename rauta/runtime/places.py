"""Where in its files a configuration says something. Asked only when a start fails, so nothing is kept for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rauta.config.compose import Composer
from rauta.config.errors import ConfigError
from rauta.config.nodes import Mapping
from rauta.config.source import Allowance, read_text


def place_of(files: Sequence[Path], *keys: str) -> str:
    """`file:line` of the value that the keys lead to; the first file alone where they lead to none."""
    for file in files:
        allowance = Allowance()
        try:
            node = Composer(str(file), allowance).compose(read_text(file, allowance))
        except ConfigError:
            continue  # it was good when it was loaded, and has been changed since
        line = None
        for key in keys:
            if not isinstance(node, Mapping) or key not in node.items:
                break
            line, _ = node.mark_of(key)
            node = node.items[key]
        else:
            return f"{file}:{line}"
    return str(files[0])
