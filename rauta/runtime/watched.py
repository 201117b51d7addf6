"""What a configuration was read from: its files, those that `include` could find, certificates and keys; what state
they are in, and in which folders a change of them is seen."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rauta.config import Loaded
    from rauta.routing.model import Configuration

TICK: Final = 20_000_000  # ns; the times of files may be behind the clock by one tick of the kernel, 10 ms at most
MOST_LINKS: Final = 40  # on the way to a file; the kernel's own limit

Snapshot = dict[str, object]
"""Each file and each entry of `include` with something that changes when it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Files, and entries of `include` with the folder where they start."""

    files: tuple[Path, ...]
    includes: tuple[tuple[Path, str], ...] = ()

    @classmethod
    def of(cls, loaded: Loaded) -> Watched:
        """All that a configuration depends on."""
        return cls(files=(*loaded.files, *_secrets(loaded.configuration)), includes=loaded.includes)

    def and_files(self, files: Iterable[str]) -> Watched:
        """These too: a file with a problem is worth a look when it changes, also if it was never part of the whole."""
        more = [path for path in dict.fromkeys(map(Path, files)) if path not in self.files]
        return replace(self, files=(*self.files, *more)) if more else self

    def snapshot(self) -> Snapshot:
        """The state of all. Blocks."""
        from rauta.config.includes import matches

        found: Snapshot = {str(file): _state(file) for file in self.files}
        for folder, pattern in self.includes:
            try:
                # With their states: one that is new is known like this before it is first read.
                found[f"{folder}/{pattern}"] = {file: _state(file) for file in matches(pattern, folder)}
            except (ValueError, OSError) as error:
                found[f"{folder}/{pattern}"] = str(error)
        return found

    def folders(self) -> set[Path]:
        """Those in which something happens when the snapshot changes; for one that is not there, the nearest that is.
        Blocks."""
        found: set[Path] = set()
        files = [*self.files]
        for folder, pattern in self.includes:
            files += (part / "any" for part in _folders_of(folder, pattern))
        for file in files:
            with contextlib.suppress(OSError):  # no right to look there: the other folders are watched all the same
                found.update(_on_the_way(file))
        return found


def _secrets(configuration: Configuration) -> Iterator[Path]:
    for listener in configuration.listeners:
        for certificate in () if listener.tls is None else listener.tls.certificates:
            yield Path(certificate.cert)
            if certificate.key.file is not None:
                yield Path(certificate.key.file)
        if listener.tls is not None and listener.tls.clients is not None:
            yield from (Path(file) for file in (listener.tls.clients.ca, listener.tls.clients.crl) if file)
    for service in configuration.services:
        for _, tls in service.tls_settings():
            ours = tls.certificate
            files = (tls.ca, tls.crl, ours and ours.cert, ours and ours.key.file)
            yield from (Path(file) for file in files if file)
    admin = configuration.admin
    if admin is not None and admin.token is not None and admin.token.file is not None:
        yield Path(admin.token.file)


def _state(file: Path) -> object:
    try:
        found = file.stat()
    except OSError as error:
        return error.errno
    return found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def changed_since(state: object, moment: int) -> bool:
    """Whether what is in this state may have changed since then (ns of time.time_ns). True if it is not there."""
    if isinstance(state, dict):
        return any(changed_since(each, moment) for each in state.values())
    return not isinstance(state, tuple) or state[0] >= moment - TICK


def _on_the_way(file: Path) -> Iterator[Path]:
    """The folder of a file, and of each symbolic link that leads to it: a ConfigMap swaps one in the middle."""
    path = Path(os.path.abspath(file))  # noqa: PTH100 - resolve() would follow the links
    for _ in range(MOST_LINKS):
        here = Path(path.anchor)
        for at, part in enumerate(path.parts[1:], 1):
            if not here.is_dir():
                break
            if (here / part).is_symlink():
                yield here
                target = here / (here / part).readlink()
                path = Path(os.path.normpath(target.joinpath(*path.parts[at + 1 :])))
                break
            here /= part
        else:
            yield path.parent
            return
        if not here.is_dir():
            yield next(folder for folder in here.parents if folder.is_dir())
            return


def _folders_of(folder: Path, pattern: str) -> Iterator[Path]:
    """The folders in which an entry of `include` looks; with wildcards among them, those above as well."""
    import glob

    *parts, _ = Path(pattern).parts
    for count in range(len(parts) + 1):
        prefix = Path(*parts[:count])
        if glob.has_magic(str(prefix)):
            names = glob.glob(str(prefix), root_dir=folder)  # noqa: PTH207 - as `include` itself looks for them
            yield from (folder / name for name in names)
        else:
            yield folder / prefix
