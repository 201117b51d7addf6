"""Failures of a start, each with the exit code that it ends in."""

from __future__ import annotations

from typing import Final

from rauta.routing.errors import RautaError

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1  # something went wrong while running
EXIT_CONFIGURATION: Final = 2  # the file, the command line or the machine does not allow a start


class StartError(RautaError):
    """The gateway cannot start. The text says what was seen, where, and what to do."""

    def __init__(self, message: str, *, code: int = EXIT_CONFIGURATION) -> None:
        super().__init__(message)
        self.code = code
