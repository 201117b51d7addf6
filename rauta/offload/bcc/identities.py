"""Numbers for names: maps know listeners, routes and services by numbers that outlive generations, and this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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
    """All kinds of identities, and the file that keeps them for a successor."""

    __slots__ = ("_file", "_saved", "listeners", "routes", "services")

    def __init__(self, file: Path | None, saved: Mapping[str, Mapping[str, int]] | None = None) -> None:
        found = saved or {}
        self._file = file
        self._saved = -1
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
        """Keep them: before a plan that names them goes live. Raises OSError."""
        found = {kind: {name: number for number, name in getattr(self, kind).names().items()} for kind in KINDS}
        count = sum(map(len, found.values()))  # numbers are only ever added
        if self._file is None or count == self._saved:
            return
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(found), encoding="utf-8")
        new.chmod(0o600)
        new.rename(self._file)
        self._saved = count
