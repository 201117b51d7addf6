"""When a worker is started anew."""

from __future__ import annotations

from typing import Final

# A worker that dies after a while is replaced at once. One that dies young, again and again, has a cause that
# a restart does not remove; the delay doubles, so that it costs little, and stays short, because connections
# queue at its socket all the while.
YOUNG: Final = 10.0
FIRST_DELAY: Final = 0.25
LONGEST_DELAY: Final = 5.0


class Backoff:
    """How long to wait before the next start of a slot's worker, in seconds."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, lifetime: float) -> float:
        """The delay after a worker that lived for `lifetime` seconds."""
        if lifetime >= YOUNG:
            self._next = 0.0
        delay = self._next
        self._next = min(max(2 * delay, FIRST_DELAY), LONGEST_DELAY)
        return delay
