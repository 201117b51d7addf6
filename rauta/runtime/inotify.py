"""inotify(7), as far as watching folders needs it: that something has happened, not what."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# linux/inotify.h
_ATTRIB: Final = 0x004
_CLOSE_WRITE: Final = 0x008  # and not IN_MODIFY: a file that is being written is not looked at before it is closed
_MOVED: Final = 0x040 | 0x080  # from, to
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_SELF: Final = 0x400 | 0x800  # the folder itself was deleted or moved
_ONLYDIR: Final = 0x01000000
_MASK: Final = _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _SELF | _ONLYDIR


class Inotify:
    """An inotify instance. Raises OSError: the user has too many (fs.inotify.max_user_instances)."""

    __slots__ = ("_library", "_watches", "fd")

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._watches: set[int] = set()
        self.fd: int = self._call(self._library.inotify_init1, os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, folders: Iterable[Path]) -> list[OSError]:
        """Watch these folders and no others; what could not be watched. One that was replaced by another of the same
        name is watched anew."""
        failures: list[OSError] = []
        found: set[int] = set()
        for folder in folders:
            try:
                found.add(self._call(self._library.inotify_add_watch, self.fd, os.fsencode(folder), _MASK))
            except OSError as error:
                failures.append(OSError(error.errno, error.strerror, str(folder)))
        for watch in self._watches - found:
            self._library.inotify_rm_watch(self.fd, watch)  # fails if the folder is gone, and with it the watch
        self._watches = found
        return failures

    def drain(self) -> None:
        """Forget what has been told so far."""
        try:
            while os.read(self.fd, 64 * 1024):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """End it."""
        os.close(self.fd)

    @staticmethod
    def _call(function: ctypes._NamedFuncPointer, *arguments: int | bytes) -> int:
        result = int(function(*arguments))
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
