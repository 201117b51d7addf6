"""How rautactl ends: its exit codes, and the failures that a person is told of in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rauta.routing.errors import RautaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rauta.config import ConfigProblem

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1  # at run time: the output cannot be written
EXIT_USAGE: Final = 2  # a bad configuration or command line; `check --strict`: a warning
EXIT_UNCLAIMED: Final = 3  # explain: no route claims the request, and its connection does not go through
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE: Final = 141  # 128 + SIGPIPE: the reader went away, as with `| head`


class ControlError(RautaError):
    """What was asked for cannot be done. The text says what was seen and what to do.

    `problems` are those of a configuration file, where it was one; `more` counts the ones that are not listed.
    """

    def __init__(
        self, message: str, *, code: int = EXIT_USAGE, problems: Sequence[ConfigProblem] = (), more: int = 0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.problems = tuple(problems)
        self.more = more
