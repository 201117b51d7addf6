"""Listening sockets that another process bound: a service manager (`activation`), or the gateway before this one
(`takeover`)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from rauta.routing.errors import ModelError
from rauta.routing.settings import Address, Listener


class PassedSocket(socket.socket):
    """One of them; `fd` is its own from now on. Raises OSError: that is no socket.

    `lent`: the one who bound it keeps it, and with it the file of a unix socket. `settled`: whoever passed it has let
    go of it, so that the file, if the socket is not lent, is this process's to remove.
    """

    def __init__(self, fd: int, *, lent: bool, name: str = "") -> None:
        super().__init__(fileno=fd)
        os.set_inheritable(fd, False)
        self.setblocking(False)
        self.lent = lent
        self.name = name
        self.settled = False

    @property
    def keeps_file(self) -> bool:
        """Whether the file of this unix socket must stay when the socket is closed."""
        return self.lent or not self.settled

    def another(self) -> PassedSocket:
        """A second descriptor of the same socket: the same queue."""
        found = PassedSocket(os.dup(self.fileno()), lent=self.lent, name=self.name)
        found.settled = self.settled
        return found


def bound_address(sock: socket.socket) -> Address | None:
    """Where it is bound; None: nowhere that a listener could be (an abstract unix socket, another family)."""
    name = sock.getsockname()
    try:
        if sock.family == socket.AF_UNIX:
            return Address.unix(name) if isinstance(name, str) and name else None
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            return Address(name[0], name[1])
    except ModelError:
        return None
    return None


def claimed(
    passed: Iterable[PassedSocket], listeners: Sequence[Listener]
) -> tuple[dict[Address, list[PassedSocket]], list[PassedSocket]]:
    """The sockets by the address of the listener that they are for: the one with their name, else the one that is bound
    there; and those that no listener wants."""
    names = {listener.name: listener.address for listener in listeners}
    places = {_place(listener.address): listener.address for listener in listeners}
    wanted: dict[Address, list[PassedSocket]] = {}
    unwanted: list[PassedSocket] = []
    for sock in passed:
        bound = bound_address(sock)
        address = names.get(sock.name) or (None if bound is None else places.get(_place(bound)))
        if address is None:
            unwanted.append(sock)
        else:
            wanted.setdefault(address, []).append(sock)
    return wanted, unwanted


def _place(address: Address) -> str:
    """One text for all ways to write an address: a unix socket may be named by several paths."""
    return str(address) if address.path is None else f"unix:{Path(address.path).resolve()}"
