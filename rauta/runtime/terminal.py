"""Signals that a terminal sends to the whole foreground group: for the supervisor, not for what it started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TERMINAL_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGHUP})


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Start children in here: over the exec these stay blocked, until the child ignores them. Else Ctrl-C would kill
    one that is starting."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
    """In a child, before anything else."""
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # for the supervisor; the default would be death
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINAL_SIGNALS)
