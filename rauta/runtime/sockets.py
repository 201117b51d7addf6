"""Listening sockets: per address one for each worker slot, all of one SO_REUSEPORT group; of a unix socket, which has
no such groups, the same for all.

They belong to the supervisor and live as long as it does. The kernel spreads connections over the group, and
closing a member resets those queued at it; so a dead worker's socket stays, and its successor takes it.

Sockets that were passed to this process are not bound. Where there are more of them than slots, slots serve several;
where there are fewer, slots share them, or the group gets more members.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rauta.routing.settings import Address
from rauta.runtime.errors import StartError
from rauta.runtime.passed import PassedSocket

if TYPE_CHECKING:
    from rauta.routing.settings import Listener

# Connections that wait for a worker, per socket; the kernel caps it at net.core.somaxconn, 4096 by default.
# While a worker is replaced (0.3 s) nobody accepts: at 10,000 new connections a second this just holds.
BACKLOG: Final = 4096
DOOR_BACKLOG: Final = 8  # successors that wait for each other: more than one is a mistake already

_HINTS: Final = {
    errno.EADDRINUSE: "is in use: stop what listens there (`ss -ltnp` tells), or choose another port",
    errno.EADDRNOTAVAIL: "is not an address of this machine (`ip address` lists them); 0.0.0.0 stands for all of them",
    errno.ENOENT: "cannot be made: its folder does not exist",
    errno.EAFNOSUPPORT: "cannot be used: this machine has no IPv6",
}

SlotSockets = dict[Address, tuple[socket.socket, ...]]
"""The sockets of one worker slot by the listener's address: one each, or those that were passed."""


def bind(
    listeners: Sequence[Listener],
    slots: int,
    *,
    place: Callable[[Listener], str] | None = None,
    held: Collection[Address] = (),
    passed: Mapping[Address, Sequence[PassedSocket]] | None = None,
) -> list[SlotSockets]:
    """Bind every listener once per slot; nothing listens yet. `place` gives what a message
    about a listener starts with: where it is configured. `held` are the addresses that this gateway serves already.
    `passed` are sockets that listen already, by the address of the listener that they are for.

    Raises StartError that names the listener and what is wrong with its address.
    """
    opened: list[socket.socket] = []
    passed = passed or {}
    listener = None
    try:
        # Where the gateway itself has the port (0.0.0.0 becomes 127.0.0.1 by a reload) the probe would find just that.
        ours = {address.port for address in held}
        for listener in listeners:
            address = listener.address
            if address.path is None and address.port not in ours and address not in passed:
                _probe(address)
        groups: list[SlotSockets] = [{} for _ in range(slots)]
        for listener in listeners:
            address = listener.address
            given = passed.get(address)
            shares = _spread(address, given, slots) if given else _bound_for_all(address, slots)
            for group, share in zip(groups, shares, strict=True):
                group[address] = share
                opened += share
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
    for address, sock in ((address, sock) for group in groups for address, share in group.items() for sock in share):
        try:
            sock.listen(BACKLOG)
        except OSError as error:
            raise StartError(f"{address}: cannot listen: {error.strerror}") from error


def close(groups: Sequence[SlotSockets], *, files: bool = True) -> None:
    """Close the supervisor's copies, and remove the files of unix sockets. `files=False`: another process has them
    now."""
    for sock in (sock for group in groups for share in group.values() for sock in share):
        close_one(sock, file=files)


def close_one(sock: socket.socket, *, file: bool = True) -> None:
    """Close a listening socket, and remove its file if it has one that is ours."""
    keeps = isinstance(sock, PassedSocket) and sock.keeps_file
    if file and not keeps and sock.family == socket.AF_UNIX and sock.fileno() >= 0:
        name = sock.getsockname()
        if name:
            _remove(name)
    sock.close()


def _spread(address: Address, passed: Sequence[PassedSocket], slots: int) -> list[tuple[socket.socket, ...]]:
    """Sockets that were passed, for the slots. None is left without somebody who accepts at it: the kernel goes on
    giving each its part of the connections."""
    shares: list[list[socket.socket]] = [[] for _ in range(slots)]
    places: dict[object, list[PassedSocket]] = {}
    for sock in passed:
        places.setdefault(sock.getsockname(), []).append(sock)
    for members in places.values():  # of a listener with two addresses (a name stands for both) each slot serves both
        for index in range(max(slots, len(members))):
            more = index >= len(members)
            shares[index % slots].append(_one_more(address, members[index % len(members)]) if more else members[index])
    return [tuple(share) for share in shares]


def _one_more(address: Address, member: PassedSocket) -> socket.socket:
    """For one slot more than there are sockets: a new member of the group, or the same queue once more."""
    if not member.lent and address.path is None and member.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        with contextlib.suppress(OSError):  # the group is another user's
            return _bound(address, shared=True)
    return member.another()


def _bound_for_all(address: Address, slots: int) -> list[tuple[socket.socket, ...]]:
    """One socket for each slot. Raises OSError; then none is open."""
    if address.path is not None:
        first = _bound_unix(address.path)
        return [(first,), *((first.dup(),) for _ in range(slots - 1))]
    found: list[socket.socket] = []
    try:
        for _ in range(slots):
            found.append(_bound(address, shared=True))  # noqa: PERF401 - those before one that fails are closed
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return [(sock,) for sock in found]


def bind_door(path: str) -> socket.socket:
    """The socket where a successor of this gateway asks for its sockets, for its owner alone. Raises StartError."""
    try:
        door = _bound_unix(path, mode=0o600, kind=socket.SOCK_SEQPACKET)
        door.listen(DOOR_BACKLOG)
    except OSError as error:
        hint = _HINTS.get(error.errno or 0) or error.strerror or error
        raise StartError(f"admin: unix:{path} (for --takeover) {hint}") from error
    return door


def _bound_unix(path: str, *, mode: int = 0o666, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A socket file. By default everyone may connect to it, as to a port; who should not gets no right to its folder.

    One that a dead process left is replaced. Raises OSError (EADDRINUSE: another one listens).
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(False)
        if _is_dead(path, kind):
            Path(path).unlink()
        before = os.umask(0o777 & ~mode)  # from the first moment on
        try:
            sock.bind(path)
        finally:
            os.umask(before)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_dead(path: str, kind: socket.SocketKind) -> bool:
    """Whether there is a socket file that nobody listens at."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False  # bind() will tell; it is not ours to remove
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, kind) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # gone already, or no right: nothing depends on it
        Path(path).unlink()


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


def bind_admin(
    path: str, address: Address | None, *, kept: Mapping[str, socket.socket] | None = None
) -> dict[str, socket.socket]:
    """The sockets of the admin interface, listening: `socket` for its owner alone, and `address`. Those in `kept` are
    there already.

    Raises StartError; then none but these is open.
    """
    found: dict[str, socket.socket] = {}
    kept = kept or {}
    what = f"unix:{path}"
    try:
        if "socket" not in kept:
            Path(path).parent.mkdir(mode=0o755, exist_ok=True)
            found["socket"] = _bound_unix(path, mode=0o600)
        if address is not None and "address" not in kept:
            what = str(address)
            found["address"] = _bound(address, shared=False)
        for sock in found.values():
            sock.listen(128)
    except OSError as error:
        close_admin(found)
        hint = _HINTS.get(error.errno or 0) or error.strerror
        raise StartError(f"admin: {what} {hint}") from error
    return {**kept, **found}


def close_admin(found: Mapping[str, socket.socket], *, files: bool = True) -> None:
    """Close them, and remove the file of the unix socket. `files=False`: another process has it now."""
    for sock in found.values():
        close_one(sock, file=files)
