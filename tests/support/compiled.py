"""Whether the data plane under test is compiled (docs/compiled.md)."""

from __future__ import annotations

import pytest

from rauta.runtime.about import compiled

COMPILED = compiled()

plain_only = pytest.mark.skipif(
    COMPILED, reason="replaces parts or looks into them, which compiled ones do not allow; it runs against plain Python"
)
