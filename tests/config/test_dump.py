"""A dump, read again, is the configuration that it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rauta.config import load
from rauta.config.dump import dump

HERE = Path(__file__).parent
FILES = [HERE / "golden" / "v1.yaml", HERE.parents[1] / "examples" / "rauta.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_dump_says_the_same_as_the_file(path: Path, tmp_path: Path, plugins: None) -> None:
    configuration = load(path, check_files=False).configuration
    again = tmp_path / "dump.json"
    again.write_text(json.dumps(dump(configuration)))
    assert load(again, check_files=False).configuration == configuration


def test_defaults_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rauta.yaml"
    path.write_text('version: 1\nlisteners: {web: {address: ":8080"}}\nroutes: [{name: r, respond: {status: 404}}]\n')
    assert dump(load(path).configuration) == {
        "version": 1,
        "listeners": {"web": {"address": "0.0.0.0:8080"}},
        "services": {},
        "routes": [{"name": "r", "respond": {"status": 404}}],
    }
