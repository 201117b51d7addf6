"""The gateway's events as records of the standard library's logging: whose program it is decides where they go."""

from __future__ import annotations

import logging
from typing import Final

from rauta.runtime.log import EventLog, Level

LOGGER: Final = logging.getLogger("rauta")
_LEVELS: Final = {Level.INFO: logging.INFO, Level.WARNING: logging.WARNING, Level.ERROR: logging.ERROR}


class LoggedEvents(EventLog):
    """Events for the logger `rauta`; a record has the event's name as `event`, and its fields as `fields`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(terminal=False)

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        LOGGER.log(_LEVELS[level], "%s", message, extra={"event": event, "fields": fields})

    def text(self, text: str) -> None:
        LOGGER.info("%s", text)
