"""rauta: an HTTP gateway whose plain routes the Linux kernel is to serve. The public surface is `rauta.api`."""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    # Looked up when asked for: importlib.metadata costs 15 ms, and every worker imports this package.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rauta")
    except PackageNotFoundError:
        return "0+checkout"  # run from a source tree that was not installed: there is no metadata to read
