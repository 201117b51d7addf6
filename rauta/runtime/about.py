"""What this installation is."""

from __future__ import annotations


def compiled() -> bool:
    """Whether the data plane is compiled (docs/compiled.md); found without loading it."""
    from importlib.util import find_spec

    spec = find_spec("rauta.proxy.exchange")
    return spec is not None and spec.origin is not None and not spec.origin.endswith(".py")
