"""Where the offload keeps what outlives it. One BPF file system, with a folder for each network namespace; beside it,
files with the numbers of names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path("/run/rauta/bpf")


def here() -> int:
    """The number of this network namespace. Raises OSError."""
    return Path("/proc/self/ns/net").stat().st_ino


def folder_of(namespace: int) -> Path:
    """Where programs, maps and links are pinned."""
    return ROOT / str(namespace)


def names_of(namespace: int) -> Path:
    """The file with the numbers of names."""
    return ROOT.parent / f"offload-{namespace}.json"
