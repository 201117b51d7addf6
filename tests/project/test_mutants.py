"""The mutants of ./scripts/mutants.sh, which takes minutes: that each still has its place is known in no time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def mutants() -> list[Any]:
    spec = importlib.util.spec_from_file_location("laws", ROOT / "tests" / "mutants" / "laws.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.MUTANTS)


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.law)
def test_it_has_its_place_and_its_test(mutant: Any) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.sound) == 1
    file, _, name = mutant.test.partition("::")
    assert f"def {name.partition('[')[0]}" in (ROOT / file).read_text()
