"""Telling the service manager how the gateway is: sd_notify(3), the protocol of Type=notify and notify-reload.

A datagram of `NAME=value` lines to the unix socket that NOTIFY_SOCKET names; nothing if there is none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Where to tell it. Takes the variable out of the environment: children must not speak for the gateway."""

    __slots__ = ("_address",)

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        name = os.environ.pop("NOTIFY_SOCKET", "") if environ is None else environ.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of an abstract socket.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name

    def ready(self, status: str) -> None:
        """The start, or a reload, is done; `status` is a line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload has begun. Its time is wanted, so that an earlier READY is not taken for its end."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """The gateway ends."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def main_process(self, pid: int) -> None:
        """Another process is the gateway from now on. To be told by the one that still is: a manager that listens to
        the main process alone (NotifyAccess=main) hears nobody else."""
        self._tell(f"MAINPID={pid}")

    @property
    def environment(self) -> dict[str, str]:
        """For a child that is to speak to the manager itself: a gateway that takes over."""
        if not self._address:
            return {}
        name = self._address
        return {"NOTIFY_SOCKET": f"@{name[1:]}" if name.startswith("\0") else name}

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(message, self._address)
            except OSError:
                return  # a manager that does not listen is not worth a request
