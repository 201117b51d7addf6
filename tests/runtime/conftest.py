"""No gateway of these tests finds the kernel offload: it would attach to the interfaces of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.offloads import hide_shipped


@pytest.fixture(scope="session")
def no_offload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hide_shipped(tmp_path_factory.mktemp("no-offload"))


@pytest.fixture(autouse=True)
def _without_the_shipped_offload(no_offload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(no_offload))
    monkeypatch.setenv("PYTHONPATH", str(no_offload), prepend=os.pathsep)
