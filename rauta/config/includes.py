"""Which files an entry of `include` means.

Only the main file includes others, so there are no chains of inclusion. A file that several entries match, or that
is the main file itself, is read once, where it comes first.
"""

from __future__ import annotations

import glob
import stat
from itertools import islice
from pathlib import Path
from typing import Final

from rauta.config.source import MAX_FILES

_MAGIC: Final = frozenset("*?[")


def matches(pattern: str, directory: Path) -> list[Path]:
    """The files that an entry means, sorted by name; relative entries start at `directory`.

    A glob may match nothing; a path without wildcards must exist. Raises ValueError that says what is wrong.
    """
    if not pattern or "\0" in pattern:
        raise ValueError("an empty entry includes nothing" if not pattern else "a path cannot contain NUL")
    if "**" in pattern:
        raise ValueError(f"{pattern!r}: '**' is not supported; name each directory, as in conf.d/*.yaml")
    if not _MAGIC.intersection(pattern):
        return [_literal(directory / pattern)]
    # root_dir, so that wildcards in the directory's own name mean nothing; bounded, as there may be any number.
    found = islice(glob.iglob(pattern, root_dir=directory), 10 * MAX_FILES)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(path for path in (directory / name for name in found) if path.is_file())


def _literal(path: Path) -> Path:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"there is no file {str(path)!r}") from None
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{str(path)!r} is a directory: write {str(path / '*.yaml')!r}")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{str(path)!r} is not a regular file")
    return path
