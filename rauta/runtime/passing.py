"""Descriptors for a process that runs: SCM_RIGHTS (unix(7)) over a socket pair of their own.

Not over the control connection: event loops read that, and would drop them.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Final

MOST_DESCRIPTORS: Final = 253  # in one message: SCM_MAX_FD of the kernel


def send_descriptors(passing: socket.socket, fds: Sequence[int]) -> None:
    """What `receive_descriptors` expects. Raises OSError."""
    for at in range(0, len(fds), MOST_DESCRIPTORS):
        socket.send_fds(passing, [b"d"], list(fds[at : at + MOST_DESCRIPTORS]))


def receive_descriptors(passing: socket.socket, count: int) -> list[int]:
    """That many descriptors, which have been sent already. Raises OSError."""
    found: list[int] = []
    while len(found) < count:
        message, fds, _, _ = socket.recv_fds(passing, 1, min(count - len(found), MOST_DESCRIPTORS))
        if not message:
            raise ConnectionResetError("the supervisor is gone")
        found += fds
    for fd in found:
        os.set_inheritable(fd, False)  # not for what a plugin may start
    return found
