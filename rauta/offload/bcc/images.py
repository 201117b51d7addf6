"""Compiled programs, and where they are kept: the compiler takes seconds, and needs to run once for each version.

An image is a JSON file in a folder that only its owner can write to. What the kernel gets from it is verified as ever.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import tempfile
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


def _is_safe(place: Path) -> bool:
    """Whether nobody else can have written there."""
    try:
        found = place.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)


def saved(name: str) -> Image | None:
    """The image of that name; None: there is none, or none that can be trusted and read."""
    place = folder() / f"{name}.json"
    if not (_is_safe(place.parent) and _is_safe(place)):
        return None
    try:
        found = json.loads(place.read_bytes())
        return Image(
            {key: MapInfo(*shape) for key, shape in found["maps"].items()},
            {key: base64.b64decode(code, validate=True) for key, code in found["programs"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(name: str, image: Image) -> None:
    """Keep it for the next start, if that is possible. The oldest ones go."""
    where = folder()
    text = json.dumps(
        {
            "maps": {key: shape.fields() for key, shape in image.maps.items()},
            "programs": {key: base64.b64encode(code).decode() for key, code in image.programs.items()},
        }
    )
    with contextlib.suppress(OSError):
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_safe(where):
            return
        descriptor, draft = tempfile.mkstemp(dir=where)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(draft).replace(where / f"{name}.json")
        for old in sorted(where.iterdir(), key=lambda place: place.lstat().st_mtime)[:-_KEPT]:
            old.unlink()
