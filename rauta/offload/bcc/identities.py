"""Numbers for names: maps know listeners, routes and services by numbers that outlive generations, and this process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

KINDS: Final = ("listeners", "routes", "services")


class Identities:
    """Numbers for names, from 1."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Mapping[str, int] | None = None) -> None:
        self._numbers = dict(numbers or {})

    def of(self, name: str) -> int:
        """The name's number."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def names(self) -> Mapping[int, str]:
        """Names by number."""
        return {number: name for name, number in self._numbers.items()}


class Known:
    """All kinds of identities, and the file that keeps them for a successor.

    `owner` is the process whose plan is live, the one that removes the programs when it ends. A successor becomes it
    with its first commit: before that it may still fail, and what it found goes on; behind that the predecessor leaves
    everything alone.
    """

    __slots__ = ("_file", "_saved", "listeners", "owner", "routes", "services")

    def __init__(self, file: Path | None, saved: Mapping[str, Any] | None = None) -> None:
        found = saved or {}
        self._file = file
        self._saved = ""
        self.owner = str(found.get("owner", "")) or this_process()
        self.listeners, self.routes, self.services = (Identities(found.get(kind)) for kind in KINDS)

    @classmethod
    def load(cls, file: Path) -> Known:
        """What a predecessor kept. Raises OSError or ValueError: it is not there, or not understood."""
        saved = json.loads(file.read_text(encoding="utf-8"))
        for kind in KINDS:
            numbers = saved[kind].values() if isinstance(saved, dict) and isinstance(saved.get(kind), dict) else None
            if numbers is None or sorted(numbers) != list(range(1, len(numbers) + 1)):
                raise ValueError(f"{file}: {kind!r} is not what was written there")
        return cls(file, saved)

    def save(self) -> None:
        """Keep them, before a plan of this process that names them goes live. Raises OSError."""
        self.owner = this_process()
        found = {kind: {name: number for number, name in getattr(self, kind).names().items()} for kind in KINDS}
        text = json.dumps({"owner": self.owner, **found})
        if self._file is None or text == self._saved:
            return
        new = self._file.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.chmod(0o600)
        new.rename(self._file)
        self._saved = text


def this_process() -> str:
    """This process, told apart from a later one with its number."""
    return f"{os.getpid()} {_started(os.getpid())}"


def is_elsewhere(file: Path) -> bool:
    """Whether another process that lives owns what is pinned."""
    try:
        owner = Known.load(file).owner
    except (OSError, ValueError):
        return False
    pid, _, started = owner.partition(" ")
    return owner != this_process() and pid.isdigit() and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started (proc_pid_stat(5), field 22); "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""
