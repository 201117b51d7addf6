"""The programs as one text for bcc, which compiles one text and rewrites map operations in its main file alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import rauta
from rauta.offload.bcc.events import as_enum

_INCLUDE: Final = re.compile(r'#include "(\w+\.h)"\n')


def _folder() -> Path:
    """Where the sources are: in the installed package, or beside it in a checkout."""
    package = Path(rauta.__file__).parent
    installed = package / "bpf"
    return installed if installed.is_dir() else package.parent / "bpf"


def fingerprint(defines: Mapping[str, int]) -> str:
    """Tells programs and layouts apart: what was pinned under another one cannot be gone on with."""
    return digest(program(defines) + program(defines, "xdp.c"))


def digest(text: str) -> str:
    """Short, and another one for another text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def program(defines: Mapping[str, int], name: str = "tc.c") -> str:
    """A file with all that it includes, each once; `defines` are sizes: FLOWS, HOSTS, PATHS, ROUTES, SERVICES, TABLES,
    REQUESTS, CPUS, SLOTS."""
    seen: set[str] = set()

    def flat(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = (_folder() / name).read_text(encoding="utf-8")
        return _INCLUDE.sub(lambda found: flat(found[1]), text)

    head = "".join(f"#define {name} {value}\n" for name, value in sorted(defines.items()))
    return head + as_enum() + flat(name)
