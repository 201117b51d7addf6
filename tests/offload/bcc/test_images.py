"""Compiled programs are kept, and taken again only if nobody else can have written them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rauta.offload.bcc import images, loader
from rauta.offload.bcc.images import Image
from rauta.offload.bcc.syscalls import MapInfo

IMAGE = Image(
    {"flows": MapInfo(9, 12, 8, 64, 0), "paths": MapInfo(1, 64, 16, 32, 1)}, {"one": bytes(16), "two": b"\x95" * 8}
)


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of images, which nobody has made yet."""
    monkeypatch.setenv("CACHE_DIRECTORY", f"{tmp_path / 'cache'}:/elsewhere")
    return tmp_path / "cache" / "kernel"


def test_what_is_saved_is_found(where: Path) -> None:
    assert images.saved("tc-1") is None
    images.save("tc-1", IMAGE)
    assert images.saved("tc-1") == IMAGE
    assert images.saved("tc-2") is None
    assert where.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"maps": {}}', b'{"maps": {"a": [1]}, "programs": {}}', b"\xff"])
def test_what_cannot_be_read_is_not_there(where: Path, text: bytes) -> None:
    images.save("tc-1", IMAGE)
    (where / "tc-1.json").write_bytes(text)
    assert images.saved("tc-1") is None


def test_what_others_can_write_is_not_trusted(where: Path) -> None:
    images.save("tc-1", IMAGE)
    (where / "tc-1.json").chmod(0o660)
    assert images.saved("tc-1") is None
    (where / "tc-1.json").chmod(0o600)
    assert images.saved("tc-1") == IMAGE
    where.chmod(0o777)
    assert images.saved("tc-1") is None
    images.save("tc-2", IMAGE)
    assert not (where / "tc-2.json").exists()


def test_a_link_is_not_followed(where: Path, tmp_path: Path) -> None:
    images.save("tc-1", IMAGE)
    (where / "tc-1.json").rename(tmp_path / "elsewhere.json")
    (where / "tc-1.json").symlink_to(tmp_path / "elsewhere.json")
    assert images.saved("tc-1") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="root can give files to others")
def test_what_belongs_to_others_is_not_trusted(where: Path) -> None:
    images.save("tc-1", IMAGE)
    os.chown(where / "tc-1.json", 65534, 65534)
    assert images.saved("tc-1") is None


def test_where_nothing_can_be_written_nothing_happens(where: Path) -> None:
    where.parent.write_text("a file")
    images.save("tc-1", IMAGE)
    assert images.saved("tc-1") is None


def test_the_oldest_go(where: Path) -> None:
    for number in range(12):
        images.save(f"tc-{number}", IMAGE)
        os.utime(where / f"tc-{number}.json", (number, number))
    images.save("tc-12", IMAGE)
    assert sorted(place.name for place in where.iterdir()) == sorted(f"tc-{number}.json" for number in range(5, 13))


def test_a_text_that_was_compiled_before_is_not_compiled_again(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def build(text: str, *_: object) -> Image:
        asked.append(text)
        return IMAGE

    monkeypatch.setattr("rauta.offload.bcc.loader.compiler.build", build)
    monkeypatch.setattr("rauta.offload.bcc.loader.member_bits", lambda *_: {"ip_summed": 1029})
    sizes = {"FLOWS": 1}
    assert [loader.image(sizes, "tc.c", ()) for _ in range(2)] == [IMAGE, IMAGE]
    assert len(asked) == 1
    loader.image({"FLOWS": 2}, "tc.c", ())
    monkeypatch.setattr("rauta.offload.bcc.loader.member_bits", lambda *_: {"ip_summed": 1030})
    loader.image(sizes, "tc.c", ())
    assert len(set(asked)) == 3
    loader.image(sizes, "tc.c", ("one",))
    monkeypatch.setattr("rauta.offload.bcc.loader.compiler.identity", lambda: "another bcc")
    loader.image(sizes, "tc.c", ("one",))
    assert len(asked) == 5


def test_what_is_kept_and_refused_is_compiled_anew(where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Image] = []

    def programs_of(found: Image, *_: object) -> dict[str, int]:
        loaded.append(found)
        if found != IMAGE:
            raise OSError(22, "refused")
        return {}

    monkeypatch.setattr("rauta.offload.bcc.loader.compiler.build", lambda *_: IMAGE)
    monkeypatch.setattr("rauta.offload.bcc.loader.member_bits", lambda *_: {})
    monkeypatch.setattr("rauta.offload.bcc.loader.programs_of", programs_of)
    sizes = {"FLOWS": 1}
    images.save(loader._named(sizes, "tc.c", ())[1], Image(IMAGE.maps, {"one": b"\x00" * 8}))
    loader._loaded(loader.image(sizes, "tc.c", ()), {}, 3, lambda: loader._anew(sizes, "tc.c", ()))
    assert loaded[1:] == [IMAGE]
    assert loader.image(sizes, "tc.c", ()) == IMAGE
