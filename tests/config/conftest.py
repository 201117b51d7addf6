"""Fixtures: configuration files in a temporary directory, and installed plugins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rauta.config import ConfigError, Loaded, load

HERE = Path(__file__).parent

_ENTRY_POINTS = """\
[rauta.balancers]
sample = sample_plugins:SampleBalancer
absent = no_such_module_anywhere:Class

[rauta.matchers]
sample = sample_plugins:SampleMatcher
plain = sample_plugins:Plain
unreadable = sample_plugins:UnreadableSettings
endless = sample_plugins:EndlessSettings
raising = sample_plugins:RaisingSettings
"""

Write = Callable[..., Path]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample plugins, installed as a package manager does it."""
    site = tmp_path / "site"
    info = site / "sample_plugins-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sample-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(HERE / "plugins"))
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file (`rauta.yaml`) and get its path."""

    def write(content: str | bytes, name: str = "rauta.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def good(write: Write) -> Callable[[str], Loaded]:
    """Load a text that is right; certificates are not read."""
    return lambda text: load(write(text), check_files=False)


@pytest.fixture
def bad(write: Write, tmp_path: Path) -> Callable[[str | bytes], list[str]]:
    """Load a text that is wrong: the problems, one a line, without the directory."""

    def bad(content: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(write(content), check_files=False)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return bad
