"""All of this runs with each library of frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rauta.proxy.http2 import frames
from support.compiled import COMPILED

# The library is not compiled, and both see the same calls: of the compiled data plane one is enough.
USED = frames.LIBRARIES[:1] if COMPILED else frames.LIBRARIES


@pytest.fixture(autouse=True, params=USED)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The library in use."""
    monkeypatch.setenv("RAUTA_HTTP2", request.param)
    frames.library.cache_clear()
    yield request.param
    frames.library.cache_clear()
