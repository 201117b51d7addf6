"""Places and copies of the checkout, for tests of the project around the code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

# Not part of a clone: environments, caches, results of builds.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".venv-bench", "__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".hypothesis"
)


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def sources() -> list[Path]:
    """Every file that a clone has, text and other."""
    found = []
    folders = [CHECKOUT]
    while folders:
        folder = folders.pop()
        entries = list(folder.iterdir())
        left_out = _LEFT_OUT(str(folder), [entry.name for entry in entries])
        for entry in entries:
            if entry.name in left_out:
                continue
            if entry.is_dir():
                folders.append(entry)
            else:
                found.append(entry)
    return sorted(found)


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a copy of the checkout as a fresh clone would be, in a folder with a space in its name."""

    def copy() -> Path:
        return Path(shutil.copytree(CHECKOUT, tmp_path_factory.mktemp("copy") / "fresh clone", ignore=_LEFT_OUT))

    return copy
