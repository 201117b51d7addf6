"""Which offload is used, and the line that says why; with installed packages, found by entry point as real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rauta.offload import NullOffload, OffloadError, available, fall_back, select
from rauta.routing.settings import OffloadMode, OffloadSettings
from support.offloads import hide_shipped

AUTO = OffloadSettings()
REQUIRE = OffloadSettings(mode=OffloadMode.REQUIRE)

CODE = """
from rauta.offload import NullOffload as _Null

class Works:
    name = "works"
    def missing(self, settings): return None
    def start(self, settings): raise NotImplementedError
    capabilities = _Null().capabilities
    def prepare(self, plan, settings, generation): raise NotImplementedError
    def commit(self, prepared): raise NotImplementedError
    def abort(self, prepared): raise NotImplementedError
    def usable(self, service, addresses): raise NotImplementedError
    def counters(self): raise NotImplementedError
    def stop(self, *, detach): pass

class Old(Works):
    name = "old"
    def missing(self, settings): return "the kernel is 6.1, 6.9 is needed"

class Confused(Works):
    name = "confused"
    def missing(self, settings): raise LookupError("no such\\nfile")

class Timid(Works):
    @property
    def capabilities(self): raise RuntimeError("ask later")

class Broken:
    def __init__(self): raise RuntimeError("no LLVM")

class Half:
    name = "half"
"""

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def _without_the_shipped_offload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(hide_shipped(tmp_path / "hidden")))


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Install offloads: names of classes in CODE, each as an entry point of its own."""

    def installed(*classes: str) -> None:
        (tmp_path / "offload_test_kernels.py").write_text(CODE)
        about = tmp_path / "offload_test_kernels-1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offload-test-kernels\nVersion: 1\n")
        points = "".join(f"{name.lower()} = offload_test_kernels:{name}\n" for name in classes)
        (about / "entry_points.txt").write_text(f"[rauta.offloads]\n{points}")
        sys.path.insert(0, str(tmp_path))

    yield installed
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))
    sys.modules.pop("offload_test_kernels", None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (None, "no kernel offload: the configuration has no offload section"),
        (OffloadSettings(mode=OffloadMode.NONE), "no kernel offload: offload.mode is none"),
        (AUTO, "no kernel offload: no offload is installed"),
    ],
)
def test_why_there_is_none(settings: OffloadSettings | None, reason: str) -> None:
    offload, told = select(settings)
    assert isinstance(offload, NullOffload)
    assert told == reason
    assert offload.missing(AUTO) == reason.removeprefix("no kernel offload: ")


def test_require_fails_with_what_is_missing() -> None:
    expected = "offload.mode is require, but no offload is installed; mode: auto starts without it"
    with pytest.raises(OffloadError) as caught:
        select(REQUIRE)
    assert str(caught.value) == expected


@pytest.mark.parametrize("settings", [AUTO, REQUIRE])
def test_the_first_that_lacks_nothing_is_used(install: Install, settings: OffloadSettings) -> None:
    install("Broken", "Old", "Works")
    assert set(available()) == {"broken", "old", "works"}
    offload, reason = select(settings)
    assert offload.name == "works"
    assert reason == "kernel offload 'works'"


def test_one_that_is_not_asked_for_is_not_imported(install: Install) -> None:
    install("Broken")
    select(OffloadSettings(mode=OffloadMode.NONE))
    assert "offload_test_kernels" not in sys.modules


def test_everything_that_is_missing_is_told(install: Install) -> None:
    install("Broken", "Confused", "Half", "Old", "Timid")
    offload, reason = select(AUTO)
    assert isinstance(offload, NullOffload)
    assert reason == (
        "no kernel offload: broken (offload_test_kernels:Broken) cannot be loaded: RuntimeError('no LLVM'); "
        "confused: missing failed: LookupError('no such\\nfile'); "
        "half (offload_test_kernels:Half) is not an offload: it lacks a part of the protocol; "
        "old: the kernel is 6.1, 6.9 is needed; "
        "timid (offload_test_kernels:Timid) cannot be loaded: RuntimeError('ask later')"
    )
    with pytest.raises(OffloadError, match=r"6\.9 is needed; .*; mode: auto"):
        select(REQUIRE)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OffloadError("eth0 has a\n  foreign program"), "eth0 has a foreign program"),
        (PermissionError(1, "Operation not permitted"), "PermissionError(1, 'Operation not permitted')"),
    ],
)
def test_one_that_fails_is_replaced_or_fatal(install: Install, error: Exception, told: str) -> None:
    install("Works")
    failed, _ = select(AUTO)
    offload, reason = fall_back(AUTO, failed, "start", error)
    assert isinstance(offload, NullOffload)
    assert reason == f"no kernel offload: works: start failed: {told}"
    with pytest.raises(OffloadError) as caught:
        fall_back(REQUIRE, failed, "start", error)
    expected = f"offload.mode is require, but works: start failed: {told}; mode: auto starts without it"
    assert str(caught.value) == expected
