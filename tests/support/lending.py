"""Listening sockets for a gateway from its parent, as a service manager passes them (sd_listen_fds(3))."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence

# In the child: the descriptors become 3, 4, ... and the variables name this very process, which then is the gateway.
_SCRIPT = """
import json, os, sys
fds, names, command = json.loads(sys.argv[1])
high = [os.dup2(fd, 900 + at) for at, fd in enumerate(fds)]
for fd in fds:
    os.close(fd)
for at, fd in enumerate(high):
    os.dup2(fd, 3 + at)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
if names:
    os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.execv(command[0], command + sys.argv[3:])
"""


def listening(family: int, address: object, *, shared: bool = False) -> socket.socket:
    """A socket as a service manager has it: blocking, listening."""
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)  # type: ignore[arg-type]
    sock.listen(64)
    return sock


def lending(fds: Sequence[int], names: Sequence[str] = ()) -> list[str]:
    """The command of a gateway that is lent these descriptors, which its process must inherit (`pass_fds`)."""
    command = [sys.executable, "-m", "rauta.proxy"]
    return [sys.executable, "-c", _SCRIPT, json.dumps([list(fds), list(names), command]), "--"]


def inode(sock: socket.socket) -> int:
    """What tells one socket from another, whoever has it."""
    return os.fstat(sock.fileno()).st_ino
