"""Where a value of a loaded configuration is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from rauta.runtime import places
from rauta.runtime.places import Keys, Place, places_of

TEXT = """\
services:
  users:
    backends:
      - {address: "127.0.0.1:1"}
      - weight: 2
        address: "b.test:2"
routes:
  - {name: all, service: users}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    first, second = tmp_path / "rauta.yaml", tmp_path / "services.yaml"
    first.write_text("version: 1\ninclude: [services.yaml]\n")
    second.write_text(TEXT)
    return first, second


@pytest.mark.parametrize(
    ("keys", "file", "line"),
    [
        (("version",), 0, 1),
        (("services",), 1, 1),
        (("services", "users", "backends"), 1, 3),
        (("services", "users", "backends", 0, "address"), 1, 4),
        (("services", "users", "backends", 1), 1, 5),
        (("routes", "all", "service"), 1, 8),
        (("routes", "none", "service"), 0, None),
        (("services", "users", "backends", "b.test", "address"), 0, None),
        (("services", "users", "backends", 1, "address"), 1, 6),
        (("services", "users", "backends", 2), 0, None),
        (("services", "users", "backends", "address"), 0, None),
        (("services", 0), 0, None),
        (("version", "more"), 0, None),
    ],
)
def test_keys_lead_to_a_line(files: tuple[Path, ...], keys: Keys, file: int, line: int | None) -> None:
    (place,) = places_of(files, [keys])
    assert place == Place(str(files[file]), line)
    assert str(place) == (f"{files[file]}:{line}" if line else str(files[file]))


def test_each_file_is_read_once_for_all(files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = places.read_text
    monkeypatch.setattr(places, "read_text", lambda path, allowance: read.append(path) or original(path, allowance))
    wanted: list[Keys] = [("services", "users", "backends", number, "address") for number in (0, 1)]
    assert [place.line for place in places_of(files, wanted)] == [4, 6]
    assert read == [*files]
    (place,) = places_of(files[::-1], wanted[:1])
    assert (place.line, read[2:]) == (4, [files[1]]), "what is found is looked for no further"


def test_the_first_file_that_has_it_counts(files: tuple[Path, ...]) -> None:
    files[0].write_text("routes: []\nservices: {users: {}}\n")
    wanted: list[Keys] = [("services", "users"), ("services", "users", "backends")]
    assert [str(place) for place in places_of(files, wanted)] == [f"{files[0]}:2", f"{files[1]}:3"]


def test_a_file_that_has_changed_since_is_named_alone(files: tuple[Path, ...]) -> None:
    for text in ("services: [", ""):
        files[1].write_text(text)
        (place,) = places_of(files, [("services", "users")])
        assert str(place) == str(files[0])
