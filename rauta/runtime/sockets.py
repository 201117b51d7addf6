"""Listening sockets: per listener one for each worker slot, all of one SO_REUSEPORT group.

They belong to the supervisor and live as long as it does. The kernel spreads connections over the group, and
closing a member resets those queued at it; so a dead worker's socket stays, and its successor takes it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.routing.settings import Address, Listener

# Connections that wait for a worker, per socket; the kernel caps it at net.core.somaxconn, 4096 by default.
# While a worker is replaced (0.3 s) nobody accepts: at 10,000 new connections a second this just holds.
BACKLOG: Final = 4096

_HINTS: Final = {
    errno.EADDRINUSE: "is in use: stop what listens there (`ss -ltnp` tells), or choose another port",
    errno.EADDRNOTAVAIL: "is not an address of this machine (`ip address` lists them); 0.0.0.0 stands for all of them",
    errno.EAFNOSUPPORT: "cannot be used: this machine has no IPv6",
}

SlotSockets = dict[str, socket.socket]
"""The sockets of one worker slot by the listener's name."""


def bind(
    listeners: Sequence[Listener], slots: int, *, place: Callable[[Listener], str] | None = None
) -> list[SlotSockets]:
    """Bind every listener once per slot; nothing listens yet. `place` gives what a message
    about a listener starts with: where it is configured.

    Raises StartError that names the listener and what is wrong with its address.
    """
    opened: list[socket.socket] = []
    listener = None
    try:
        for listener in listeners:
            _probe(listener.address)
        groups: list[SlotSockets] = [{} for _ in range(slots)]
        for listener in listeners:
            for group in groups:
                group[listener.name] = sock = _bound(listener.address, shared=True)
                opened.append(sock)
    except OSError as error:
        for sock in opened:
            sock.close()
        if listener is None:
            raise
        where = "" if place is None else place(listener)
        raise StartError(f"{where}listener {listener.name!r}: {_complaint(listener.address, error)}") from error
    return groups


def listen(groups: Sequence[SlotSockets]) -> None:
    """Let connections queue. Before, they are refused: a start that fails must not have taken any.

    Raises StartError (another process took the address in the meantime).
    """
    for group in groups:
        for name, sock in group.items():
            try:
                sock.listen(BACKLOG)
            except OSError as error:
                raise StartError(f"listener {name!r}: cannot listen: {error.strerror}") from error


def close(groups: Sequence[SlotSockets]) -> None:
    """Close the supervisor's copies."""
    for group in groups:
        for sock in group.values():
            sock.close()


def _probe(address: Address) -> None:
    # With SO_REUSEPORT a second gateway of the same user would silently join the group and take a share of
    # the connections. Without it, bind() tells. Done for all listeners before any is opened, so that a wildcard
    # and a specific address of one configuration may share a port.
    _bound(address, shared=False).close()


def _bound(address: Address, *, shared: bool) -> socket.socket:
    version = ipaddress.ip_address(address.host).version
    sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not hold the port
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if version == 6:
            # "[::]" is IPv6 alone, whatever net.ipv6.bindv6only says: IPv4 clients keep their plain addresses.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
    except BaseException:
        sock.close()
        raise
    return sock


def _complaint(address: Address, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{address} is not permitted: ports below 1024 need root, the capability CAP_NET_BIND_SERVICE or a lower "
            "net.ipv4.ip_unprivileged_port_start; or choose a higher port"
        )
    hint = _HINTS.get(error.errno or 0)
    return f"{address} {hint}" if hint else f"{address}: {os.strerror(error.errno or 0)}"
