"""SIGUSR2: start the command that started this gateway once more, with `--takeover`.

The child is in the service's cgroup, has its streams, environment and rights; what is installed now is what it runs.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rauta.runtime.log import EventLog

TAKEOVER: Final = "--takeover"


def command(argv: Sequence[str] | None = None, original: Sequence[str] | None = None) -> list[str]:
    """The command line of a successor. An installed script is run by its path, so that its first line says which Python
    is its; a module (`-m rauta.proxy`) by the Python of today."""
    argv = sys.argv if argv is None else argv
    original = sys.orig_argv if original is None else original
    script = Path(argv[0])
    words = [*argv] if script.is_file() and os.access(script, os.X_OK) else [sys.executable, *original[1:]]
    return words if TAKEOVER in words else [*words, TAKEOVER]


class Upgrade:
    """Starts a successor, one at a time. That it takes over is seen at the door (`takeover.Successors`)."""

    def __init__(self, events: EventLog, environment: Mapping[str, str]) -> None:
        self._events = events
        self._environment = {**os.environ, **environment}
        self._running = False

    async def run(self) -> None:
        """Start one, and wait for its end: either it fails, or this process ends before it does."""
        if self._running:
            self._events.warning("upgrade_failed", "a successor is starting already")
            return
        self._running = True
        try:
            status = await self._end_of(self._start())
        except OSError as error:
            self._events.error("upgrade_failed", f"no successor can be started: {error}")
        else:
            text = f"the successor ended with status {status}; this gateway goes on"
            self._events.error("upgrade_failed", text, status=status)
        finally:
            self._running = False

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command(), stdin=subprocess.DEVNULL, env=self._environment)  # noqa: S603 - ourselves
        self._events.info("upgrade_began", f"a successor starts (pid {child.pid})", successor=child.pid)
        return child

    async def _end_of(self, child: subprocess.Popen[bytes]) -> int:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        pidfd = os.pidfd_open(child.pid)
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        return child.wait()
