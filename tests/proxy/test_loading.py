"""Imports of ASGI applications: what a person reads when one fails."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.proxy.asgi.loading import LoadError, load
from support import applications as apps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where modules are found; those that were are forgotten again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(name: str) -> LoadError:
    with pytest.raises(LoadError) as raised:
        load(name)
    assert str(raised.value).startswith(f"asgi {name!r}")
    return raised.value


def test_an_attribute_of_an_attribute() -> None:
    assert load("support.applications:go.wait") == apps.go.wait


def test_a_module_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    seen = failure("shop_of_tests.web:app")
    assert f"there is no module 'shop_of_tests'; Python has looked in the working directory {folder}, " in str(seen)
    assert str(seen).endswith(": set PYTHONPATH to the folder that has it")
    assert not seen.raised


def test_a_working_directory_that_is_not_looked_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = folder / "here"
    here.mkdir()
    (here / "shop_of_tests.py").write_text("app = print\n")
    monkeypatch.chdir(here)
    seen = str(failure("shop_of_tests:app"))
    assert f"Python has looked in {folder}, " in seen
    assert sys.prefix not in seen
    assert seen.endswith(f"start rauta by `python -m rauta.proxy`, which looks in the working directory ({here}) too")


def test_a_module_that_its_package_does_not_have(folder: Path) -> None:
    (folder / "shop_of_tests").mkdir()
    seen = str(failure("shop_of_tests.web:app"))
    assert seen.endswith(f"there is no module 'shop_of_tests.web' in package 'shop_of_tests' ({folder}/shop_of_tests)")


def test_a_module_that_raises(folder: Path) -> None:
    file = folder / "raising_of_tests.py"
    file.write_text("def connect():\n    raise ValueError('no database')\n\n\nconnect()\n")
    seen = failure("raising_of_tests:app")
    assert seen.raised
    assert str(seen).endswith(f"its module failed: ValueError: no database ({file}:2 in connect)")
    frames = traceback.extract_tb(seen.__cause__.__traceback__)  # type: ignore[union-attr]
    assert [(frame.filename, frame.lineno) for frame in frames] == [(str(file), 5), (str(file), 2)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import nothing_of_tests\n", "ModuleNotFoundError: No module named 'nothing_of_tests' ({}:1 in <module>)"),
        ("from support.applications import shop\n", "ImportError: cannot import name 'shop' from "),
        ("raise SystemExit\n", "SystemExit ({}:1 in <module>)"),
        ("app = 1\ndef app(:\n", "SyntaxError: invalid syntax (failing_of_tests.py, line 2) ({}:2)"),
    ],
)
def test_modules_that_fail(folder: Path, text: str, what: str) -> None:
    file = folder / "failing_of_tests.py"
    file.write_text(text)
    seen = failure("failing_of_tests:app")
    assert seen.raised
    assert f"the import of its module failed: {what.format(file)}" in str(seen)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("async def apps():\n    pass\n", "; did you mean 'apps'?"),
        ("from io import StringIO\ncreate, run, _x = print, print, print\n", "; it has create, run"),
        ("number = 1\n", "; it has nothing that can be called"),
    ],
)
def test_attributes_that_are_not_there(folder: Path, text: str, what: str) -> None:
    file = folder / "other_of_tests.py"
    file.write_text(text)
    assert str(failure("other_of_tests:app")).endswith(f"there is no 'app' in module 'other_of_tests' ({file}){what}")


def test_what_is_no_application() -> None:
    assert str(failure("support.applications:events")).endswith("is no application: list cannot be called")
