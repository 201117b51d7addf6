"""What setup.py compiles, and that a copy of a request has all of it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import setuptools

from rauta.proxy.messages import RequestHead


def test_compiled_modules_are_there(checkout: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.delenv("RAUTA_COMPILE", raising=False)
    found = runpy.run_path(str(checkout / "setup.py"))
    for folder, names in found["COMPILED"].items():
        for name in names.split():
            assert (checkout / folder / f"{name}.py").is_file(), f"{folder}/{name}.py"


def test_without_the_variable_nothing_is_compiled(checkout: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAUTA_COMPILE"}
    command = [sys.executable, "setup.py", "--quiet", "--name"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["rauta"]), done.stderr


def test_a_copy_of_a_request_has_all_of_it() -> None:
    head = RequestHead("GET", "/a", "q", "h", "H", "1.0", 7)
    head.fields = [("a", "b")]
    head.received = lambda: [("c", "d")]
    head.claims = lambda: [("e", "f")]
    head.keep_alive, head.expects, head.upgrade, head.named = False, True, "websocket", frozenset({"x"})
    head.scheme, head.insists = "http", True
    plain = RequestHead("PUT", "/", None, "", None, "1.1", 0)
    twin = head.copy()
    for name in sorted({*RequestHead.__slots__} - {"_values"}):
        assert getattr(twin, name) == getattr(head, name) != getattr(plain, name), name
    assert twin.fields is not head.fields
