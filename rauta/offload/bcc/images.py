"""Compiled programs, and where they are kept: the compiler takes seconds, and needs to run once for each version.

An image is a JSON file in a folder that only its owner can write to. What the kernel gets from it is verified as ever.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rauta.offload.bcc.syscalls import MapInfo

_KEPT: Final = 8  # images; of other versions, sizes and kernels


@dataclass(frozen=True, slots=True)
class Image:
    """What one compilation makes. In a program's code, a map's descriptor is its position among `maps`."""

    maps: dict[str, MapInfo]
    programs: dict[str, bytes]


def folder() -> Path:
    """Where images are kept: as systemd says (CacheDirectory=), or /var/cache/rauta."""
    return Path(os.environ.get("CACHE_DIRECTORY", "/var/cache/rauta").split(":")[0]) / "kernel"


def _is_ours(descriptor: int) -> bool:
    """Whether nobody else can have written there."""
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


@contextmanager
def _opened() -> Iterator[int | None]:
    """The folder, as a descriptor: who owns a folder above it must not exchange it between two steps.

    None: there is none, or not one of ours alone."""
    try:
        descriptor = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield descriptor if _is_ours(descriptor) else None
    finally:
        os.close(descriptor)


def _read(name: str) -> bytes | None:
    with _opened() as where:
        if where is None:
            return None
        try:
            file = os.open(f"{name}.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=where)
        except OSError:
            return None
        with os.fdopen(file, "rb") as stream:
            return stream.read() if _is_ours(file) and stat.S_ISREG(os.fstat(file).st_mode) else None


def saved(name: str) -> Image | None:
    """The image of that name; None: there is none, or none that can be trusted and read."""
    text = _read(name)
    if text is None:
        return None
    try:
        found = json.loads(text)
        return Image(
            {key: MapInfo(*shape) for key, shape in found["maps"].items()},
            {key: base64.b64decode(code, validate=True) for key, code in found["programs"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def save(name: str, image: Image) -> None:
    """Keep it for the next start, if that is possible. The oldest ones go."""
    text = json.dumps(
        {
            "maps": {key: shape.fields() for key, shape in image.maps.items()},
            "programs": {key: base64.b64encode(code).decode() for key, code in image.programs.items()},
        }
    )
    with contextlib.suppress(OSError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        with _opened() as where:
            if where is not None:
                _write(where, f"{name}.json", text)
                _prune(where)


def drop(name: str) -> None:
    """It is of no use."""
    with contextlib.suppress(OSError), _opened() as where:
        if where is not None:
            os.unlink(f"{name}.json", dir_fd=where)


def _write(where: int, name: str, text: str) -> None:
    draft = f"{name}.{os.getpid()}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=where)
    try:
        with os.fdopen(file, "w") as stream:
            stream.write(text)
        os.rename(draft, name, src_dir_fd=where, dst_dir_fd=where)
    except OSError:
        os.unlink(draft, dir_fd=where)
        raise


def _prune(where: int) -> None:
    names = [name for name in os.listdir(where) if name.endswith(".json")]
    for name in sorted(names, key=lambda name: os.stat(name, dir_fd=where, follow_symlinks=False).st_mtime)[:-_KEPT]:
        os.unlink(name, dir_fd=where)
