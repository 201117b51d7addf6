from __future__ import annotations

import subprocess
import sys

import pytest

import rauta
from rauta import api


def test_every_public_name_exists_once() -> None:
    assert len(api.__all__) == len(set(api.__all__))
    for name in api.__all__:
        assert getattr(api, name) is not None


def test_nothing_else_of_rauta_is_reachable_by_accident() -> None:
    ours = {name for name, value in vars(api).items() if getattr(value, "__module__", "").startswith("rauta.")}
    assert ours - {"__getattr__"} <= set(api.__all__)


def test_the_version_is_looked_up_only_when_asked_for() -> None:
    script = "import sys, rauta; print('importlib.metadata' in sys.modules, rauta.__version__)"
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {rauta.__path__[0] + '/..'!r}); {script}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "False"
    assert said[1]


def test_other_attributes_are_missing_as_usual() -> None:
    with pytest.raises(AttributeError, match=r"module 'rauta' has no attribute 'nothing'"):
        _ = rauta.nothing
