"""Memory of this process."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give what is free back to the kernel, where the C library can (glibc; `malloc_trim`). It keeps what a thread has
    freed for threads like it, and each reload may build in another one. Takes 5 to 20 ms; best in a thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
