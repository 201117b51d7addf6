"""What the processes of an embedded gateway say on their standard error: events for the logger `rauta`, the rest (the
traceback of an interpreter that crashes) for the program's own standard error.

A thread reads it, so that a program whose event loop stands still holds no process up; should even the thread be late,
the pipe does not block: lines are lost then.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections import deque
from typing import Any, Final

from rauta.embed.events import LoggedEvents
from rauta.runtime.log import Level

LAST_LINES: Final = 5  # that are told when the processes have ended
_LONGEST: Final = 500  # characters of one of them
_MOST: Final = 64 * 1024  # bytes of a line that are held at once; a longer one is no event of ours
_ENVELOPE: Final = frozenset({"time", "level", "event", "message"})
_LEVELS: Final = {level.value: level for level in Level}


class Relay:
    """A pipe, and the thread that reads it until all who hold `theirs` are gone. `last` are the last lines. `ours` is
    the thread's; another process may hold it, too, so that writing does not fail when this one dies."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.pipe()
        os.set_blocking(self.theirs, False)
        self._events = LoggedEvents()
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._thread = threading.Thread(target=self._read, name="rauta-events", daemon=True)
        self._thread.start()

    @property
    def last(self) -> str:
        """The last lines, for people."""
        return "\n".join(self._last)

    def started(self) -> None:
        """The processes hold their end: let go of it here."""
        os.close(self.theirs)

    def join(self, seconds: float) -> None:
        """Wait for what is still to be read. Blocks."""
        self._thread.join(seconds)

    def _read(self) -> None:
        with os.fdopen(self.ours, "rb") as stream:
            while line := stream.readline(_MOST):
                try:
                    logged = self._log(line)
                except Exception:  # noqa: BLE001 - whatever an application prints, and the program's logging does with it
                    logged = False
                if not logged:
                    self._pass_on(line)

    def _log(self, line: bytes) -> bool:
        """Whether it was an event. Raises whatever a filter or handler of the program does."""
        event = _event_of(line)
        if event is None:
            return False
        message = str(event["message"])
        fields = {name: value for name, value in event.items() if name not in _ENVELOPE}
        self._events.write(_LEVELS[event["level"]], str(event["event"]), message, **fields)
        self._last.append(message[:_LONGEST])
        return True

    def _pass_on(self, line: bytes) -> None:
        self._last.append(line.decode(errors="replace").rstrip()[:_LONGEST])
        if sys.__stderr__ is not None:  # else descriptor 2 is who knows what
            with contextlib.suppress(OSError):
                os.write(2, line)


def _event_of(line: bytes) -> dict[str, Any] | None:
    """None: it is none. Raises what says the same of a line that only looks like one."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not found.keys() >= _ENVELOPE or found["level"] not in _LEVELS:
        return None
    return found
