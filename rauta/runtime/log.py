"""The gateway's own log, on stderr: lines for people on a terminal, one JSON object per event elsewhere.

The access log is another stream (stdout by default); nothing here ever writes to it. Each event is one
write, so that the lines of several processes do not run into each other.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Level(Enum):
    """How much an event matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LEVELS: Final = {logging.WARNING: Level.WARNING, logging.INFO: Level.INFO, logging.DEBUG: Level.INFO}


class EventLog:
    """Writes events to a descriptor. `terminal` chooses the form."""

    __slots__ = ("_fd", "terminal")

    def __init__(self, fd: int = 2, *, terminal: bool | None = None) -> None:
        self._fd = fd
        self.terminal = os.isatty(fd) if terminal is None else terminal

    def info(self, event: str, message: str, **fields: object) -> None:
        """Something that belongs to normal work."""
        self.write(Level.INFO, event, message, **fields)

    def warning(self, event: str, message: str, **fields: object) -> None:
        """Something to look at; the gateway goes on."""
        self.write(Level.WARNING, event, message, **fields)

    def error(self, event: str, message: str, **fields: object) -> None:
        """Something failed."""
        self.write(Level.ERROR, event, message, **fields)

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        """One event. `event` is a stable name for machines; `fields` are told to machines only."""
        if self.terminal:
            prefix = "" if level is Level.INFO else f"{level.value}: "
            self._emit(f"rauta: {prefix}{message}")
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "level": level.value, "event": event, "message": message, "pid": os.getpid(), **fields}
        self._emit(json.dumps(line, default=str))

    def text(self, text: str) -> None:
        """Lines for a person, in any form of log: the failure of a start, whoever reads it."""
        self._emit(text)

    def _emit(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with suppress(OSError):  # stderr closed, full or gone: there is no other place to tell it
            while data:
                data = data[os.write(self._fd, data) :]


class _Bridge(logging.Handler):
    """Records of the standard library's logging (asyncio, plugins) as events."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        level = _LEVELS.get(record.levelno, Level.ERROR)
        try:
            message = self.format(record)  # with the traceback, if the record has one
        except Exception:  # noqa: BLE001 - the caller of a logging function must not fail of its arguments
            self.handleError(record)
            return
        self._events.write(level, "log", message, logger=record.name)


def bridge(events: EventLog) -> None:
    """Send what libraries log (warnings and errors) to `events`."""
    logging.basicConfig(handlers=[_Bridge(events)], level=logging.WARNING, format="%(message)s", force=True)


class _Lossy(io.RawIOBase):
    """Descriptor 2 for writers that must not fail."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: Buffer) -> int:
        view = memoryview(data)
        with suppress(OSError):
            os.write(2, view)
        return view.nbytes


def lose_what_has_no_room() -> None:
    """Where descriptor 2 does not block, as in processes that a program embeds, `sys.stderr` would raise once the pipe
    is full, or nobody reads it any more. No request is to fail because an application prints: lines are lost then."""
    with suppress(OSError):
        if not os.get_blocking(2):
            stderr: Any = _Lossy()
            sys.stderr = io.TextIOWrapper(stderr, "utf-8", "backslashreplace", write_through=True)
