"""Which library knows frames, HPACK and windows for us; a module of its own, since processes tell it that load none."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Final

LIBRARIES: Final = ("ngh2", "h2")  # the first that is there is used
VARIABLE: Final = "RAUTA_HTTP2"


@cache
def library() -> str:
    """The library in use: `ngh2` if it is installed (`pip install rauta[http2-fast]`), else `h2`; the environment's
    RAUTA_HTTP2 names another. Raises ValueError if that will not do."""
    wanted = os.environ.get(VARIABLE, "")
    if not wanted:
        return next((name for name in LIBRARIES if find_spec(name) is not None), "h2")
    if wanted not in LIBRARIES:
        raise ValueError(f"{VARIABLE} is {wanted[:80]!r}: write {' or '.join(LIBRARIES)}, or leave it out")
    if find_spec(wanted) is None:
        raise ValueError(f"{VARIABLE} is {wanted!r}, which is not installed: pip install rauta[http2-fast]")
    return wanted
