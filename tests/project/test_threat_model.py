"""Every line of docs/threat-model.md names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()


def test_the_tests_exist() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) == len(rows)
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text())
        assert not function or function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
            function
        )
