"""The access log's descriptor. The supervisor opens it and hands it on, so that workers need no right to its file."""

from __future__ import annotations

import os
from typing import Final

from rauta.routing.settings import AccessLog

_STANDARD: Final = {"stdout": 1, "stderr": 2}


def stderr_is(fd: int) -> None:
    """What `stderr` means in this process: where descriptor 2 is for events alone, somebody else's."""
    _STANDARD["stderr"] = fd


class LogFile:
    """An open access log; `fd` is None if there is none. Standard streams stay open when it is closed."""

    __slots__ = ("_path", "fd")

    def __init__(self, fd: int | None, path: str | None = None) -> None:
        self.fd = fd
        self._path = path

    @classmethod
    def of(cls, settings: AccessLog) -> LogFile:
        """Open what the settings name. Raises OSError."""
        if settings.to == "off":
            return cls(None)
        if settings.to in _STANDARD:
            return cls(_STANDARD[settings.to])
        return cls(_open(settings.to), settings.to)

    def reopened(self) -> int | None:
        """Open the file anew, after somebody has renamed the old one; None: it is no file. Raises OSError."""
        if self._path is None:
            return None
        fd = _open(self._path)
        self.close()
        self.fd = fd
        return fd

    def take(self, other: LogFile) -> None:
        """Become the other one."""
        self.close()
        self.fd, self._path = other.fd, other._path
        other.fd = other._path = None

    def close(self) -> None:
        """Close a file."""
        if self._path is not None and self.fd is not None:
            os.close(self.fd)
        self.fd = None


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
