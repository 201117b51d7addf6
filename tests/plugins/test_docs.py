"""docs/plugins.md quotes the example as it is, and what it says happens."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "examples" / "plugins"
PAGE = (CHECKOUT / "docs" / "plugins.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted(SOURCE.rglob("*")) if path.suffix in {".py", ".cfg", ".yaml"})
QUOTES = [block for block in re.findall(r"```(?:python|ini|yaml)\n(.*?)```", PAGE, re.DOTALL) if "print(" not in block]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("quote", QUOTES, ids=[quote.strip().splitlines()[0] for quote in QUOTES])
def test_what_is_quoted_is_there(quote: str) -> None:
    assert quote in SOURCES


def test_the_program_of_the_page_runs(python: Run, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text((SOURCE / "example.yaml").read_text())
    (program,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "print(" in block)
    ended = python("-c", program, cwd=tmp_path)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "admin-denied\n")


def test_the_error_of_the_page_is_the_one_told(python: Run, tmp_path: Path) -> None:
    text = (SOURCE / "example.yaml").read_text().replace("10.0.0.0/8", "10.0.0.1/8")
    (tmp_path / "example.yaml").write_text(text)
    ended = python("-m", "rauta.ctl.cli", "check", "example.yaml", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr in PAGE
