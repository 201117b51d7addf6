"""Sockets from a service manager: `LISTEN_FDS`, the protocol of sd_listen_fds(3).

* LISTEN_PID: for whom they are; nothing is taken that is for another process.
* LISTEN_FDS: how many; the first is descriptor 3.
* LISTEN_FDNAMES: their names, separated by colons (FileDescriptorName= of a socket unit); optional.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

from rauta.runtime.passed import PassedSocket, bound_address, claimed

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from rauta.routing.settings import Address, Listener
    from rauta.runtime.log import EventLog

FIRST: Final = 3  # SD_LISTEN_FDS_START
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def lent_sockets(
    listeners: Sequence[Listener], events: EventLog, environ: MutableMapping[str, str] | None = None
) -> dict[Address, list[PassedSocket]]:
    """The sockets for these listeners, by the address that the listener has in the file. What no listener wants is told
    and closed. The variables are taken out of the environment: they are not for children."""
    environ = os.environ if environ is None else environ
    pid, count, names, _ = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    labels = names.split(":") if names else []
    labels += [""] * (int(count) - len(labels))
    found = [_taken(FIRST + position, labels[position], events) for position in range(int(count))]
    wanted, unwanted = claimed([sock for sock in found if sock is not None], listeners)
    for sock in unwanted:
        _refuse(sock, f"is bound to {_place(sock)}, where no listener is: clients will wait there for nothing", events)
    for address, socks in wanted.items():
        for sock in socks:
            if bound_address(sock) != address and address.path is None:
                fd, name = sock.fileno(), sock.name
                text = f"{_label(fd, name)} is bound to {_place(sock)}; by its name it serves the listener of {address}"
                events.warning("passed_socket_elsewhere", text, fd=fd, name=name)
    return wanted


def _taken(fd: int, name: str, events: EventLog) -> PassedSocket | None:
    """The socket, if it is one that accepts connections."""
    try:
        sock = PassedSocket(fd, lent=True, name=name)
    except OSError as error:
        with contextlib.suppress(OSError):  # it was not even open
            os.close(fd)
        text = f"{_label(fd, name)} is not used: it is no socket ({error.strerror})"
        events.warning("passed_socket_unused", text, fd=fd, name=name)
        return None
    if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return sock
    _refuse(sock, "does not listen for streams: write ListenStream= and Accept=no in its unit", events)
    return None


def _refuse(sock: PassedSocket, reason: str, events: EventLog) -> None:
    fd = sock.fileno()
    sock.close()
    events.warning("passed_socket_unused", f"{_label(fd, sock.name)} is not used: it {reason}", fd=fd, name=sock.name)


def _label(fd: int, name: str) -> str:
    return f"the passed socket {fd}{f' ({name})' if name else ''}"


def _place(sock: PassedSocket) -> str:
    return str(bound_address(sock) or sock.getsockname())
