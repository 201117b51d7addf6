"""A gateway takes the listening sockets of the one that runs, which then finishes what is in flight and ends.

    successor                                          predecessor
    connects to the door                               looks at its credentials (SO_PEERCRED)
    {"takeover": 1, "version": ...}              ->
                                                 <-    {"sockets": [...]}, with the descriptors, any number of times
                                                 <-    {"given": number, "version": ..., "pid": ...}
    starts its workers, on these sockets               serves, as if nothing had been
    {"ready": true}                              ->
                                                 <-    {"done": true}, drains and ends
or, at any time, either side closes: nothing happens    <-    or {"refused": why}

The door is a unix socket (SOCK_SEQPACKET: a message is a message) beside the admin interface's, for the same user and
root. It is handed over like the other sockets, so a second successor waits in its queue for the first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import rauta
from rauta.routing.errors import ModelError, RautaError
from rauta.routing.settings import Address
from rauta.runtime import sockets
from rauta.runtime.errors import EXIT_FAILURE, StartError
from rauta.runtime.passed import PassedSocket, bound_address

if TYPE_CHECKING:
    from rauta.routing.settings import AdminSettings
    from rauta.runtime.gate import Gate
    from rauta.runtime.log import EventLog
    from rauta.runtime.tasks import Tasks

PROTOCOL: Final = 1
DOOR_SUFFIX: Final = ".takeover"  # behind the path of the admin socket
MOST_AT_ONCE: Final = 100  # descriptors in a message; the kernel takes 253, and their paths must fit, too
MESSAGE_SIZE: Final = 64 * 1024
LONGEST_PATH: Final = 107  # bytes, of a unix socket
HELLO_TIMEOUT: Final = 5.0  # seconds for the first message of who has connected
ANSWER_TIMEOUT: Final = 75.0  # for the sockets: the predecessor may have a reload to finish, which takes 60 at most
READY_TIMEOUT: Final = 120.0  # for the successor's workers, which give up by themselves after 60
DONE_TIMEOUT: Final = 10.0
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid

LISTENER: Final = "listener"
ADMIN: Final = {"socket": "admin socket", "address": "admin address"}  # as `sockets.bind_admin` calls them
DOOR: Final = "door"


class TakeoverError(RautaError):
    """The other side is gone, or said what is no message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gift:
    """A socket to hand over: what it is for, its address in the file (of listeners), and itself."""

    use: str
    sock: socket.socket
    address: str = ""

    @property
    def lent(self) -> bool:
        """Whether its file is a service manager's."""
        return isinstance(self.sock, PassedSocket) and self.sock.lent


def gifts_of(slots: Sequence[sockets.SlotSockets], admin: Mapping[str, socket.socket]) -> list[Gift]:
    """All sockets of a gateway but the door, each once: slots may share one."""
    found: dict[int, Gift] = {}
    for group in slots:
        for address, share in group.items():
            for sock in share:
                gift = Gift(use=LISTENER, address=str(address), sock=sock)
                found.setdefault(os.fstat(sock.fileno()).st_ino, gift)
    return [*found.values(), *(Gift(use=ADMIN[name], sock=sock) for name, sock in admin.items())]


def door_of(admin_socket: str) -> str:
    """The path of the door, from that of the admin socket."""
    return admin_socket + DOOR_SUFFIX


# --- the successor ------------------------------------------------------------------------------------------


class Predecessor:
    """The gateway that runs, and what it has handed over. Nothing changes for it before `finish`; `close` without that
    leaves it as it was."""

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn
        self.pid = _peer(conn)[0]
        self.version = ""
        self.listeners: dict[Address, list[PassedSocket]] = {}  # by their address in its file
        self.admin: dict[str, PassedSocket] = {}
        self.door: PassedSocket | None = None

    @classmethod
    def find(cls, path: str) -> Predecessor | None:
        """Connect to the door at `path` and get the sockets; None if nobody is there. Blocks. Raises StartError."""
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            conn.settimeout(ANSWER_TIMEOUT)
            conn.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            conn.close()
            return None
        except OSError as error:
            conn.close()
            text = f"--takeover: cannot connect to {path}: {error.strerror or error}"
            raise StartError(f"{text}; only the user of the gateway that runs, and root, may take over") from error
        found = cls(conn)
        try:
            _say(conn, {"takeover": PROTOCOL, "version": rauta.__version__})
            found._receive()
        except (OSError, TakeoverError) as error:
            found.close()
            raise StartError(f"--takeover: the gateway that runs (pid {found.pid}): {error}") from error
        return found

    def _receive(self) -> None:
        count = 0
        while True:
            data, fds, _, _ = socket.recv_fds(self._conn, MESSAGE_SIZE, MOST_AT_ONCE)
            message = _decoded(data)
            if "refused" in message:
                raise TakeoverError(str(message["refused"]))
            if "given" in message:
                break
            for fd, about in zip(fds, message["sockets"], strict=True):
                self._take(PassedSocket(fd, lent=about["lent"]), about["use"], about["address"])
                count += 1
        self.version = str(message["version"])
        self.pid = int(message.get("pid", self.pid))
        if count != message["given"]:
            raise TakeoverError(f"it gave {message['given']} sockets, and {count} arrived: too many open files?")

    def _take(self, sock: PassedSocket, use: str, address: str) -> None:
        if use == DOOR:
            self.door = sock
        elif use == LISTENER:
            try:
                self.listeners.setdefault(Address.parse(address), []).append(sock)
            except ModelError as error:
                raise TakeoverError(f"it has a listener at {address!r}: {error}") from None
        else:
            self.admin.update({name: sock for name, known in ADMIN.items() if known == use})

    async def finish(self) -> bool:
        """All workers serve: let it go. False if it had gone already. Raises StartError: it goes on."""
        self._conn.setblocking(False)
        with contextlib.suppress(OSError):  # it may have refused and closed; that can still be read
            _say(self._conn, {"ready": True})
        try:
            answer = await self._last_word()
        except TakeoverError:
            return False
        if "done" not in answer:
            text = f"--takeover: the gateway that runs (pid {self.pid}) goes on: {answer.get('refused', 'no answer')}"
            raise StartError(text, code=EXIT_FAILURE)
        return True

    async def _last_word(self) -> dict[str, Any]:
        """Raises TakeoverError: it is gone without one."""
        for _ in range(2):
            try:
                return await _hear(self._conn, DONE_TIMEOUT)
            except TimeoutError:
                return {}
            except OSError:
                continue  # a reset, because it had not read `ready`, is told before the message that lies behind it
        raise TakeoverError("it is gone")

    def settle(self, wanted: Sequence[Address], admin: Mapping[str, socket.socket]) -> None:
        """What was taken over is this process's now; close what it has no use for."""
        self._conn.close()
        kept = {id(sock) for sock in admin.values()}
        listening = [(address in wanted, sock) for address, share in self.listeners.items() for sock in share]
        others = [(id(sock) in kept, sock) for sock in self.admin.values()]
        for keep, sock in [*listening, *others]:
            sock.settled = True
            if not keep:
                sockets.close_one(sock)
        if self.door is not None:
            self.door.settled = True

    def close(self) -> None:
        """Give up: the predecessor goes on."""
        self._conn.close()


# --- the predecessor ----------------------------------------------------------------------------------------


class Successors:
    """Waits at the door. `give` tells the sockets; `on_taken` gets the pid of the gateway that serves them from now on,
    before that gateway is told so."""

    def __init__(
        self, events: EventLog, gate: Gate, *, give: Callable[[], list[Gift]], on_taken: Callable[[int], None]
    ) -> None:
        self._events = events
        self._gate = gate
        self._give = give
        self._on_taken = on_taken
        self._door: socket.socket | None = None
        self._path: str | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self, admin: AdminSettings | None, before: Predecessor | None = None) -> None:
        """Have a door beside the admin socket (None: no door), or the one that the gateway before has handed over.
        Nobody is answered until `open`. Raises StartError; then the door is where it was."""
        path = None if admin is None else door_of(admin.socket)
        passed = None if before is None else before.door
        if path == self._path:
            return
        if path is not None and len(os.fsencode(path)) > LONGEST_PATH:
            text = f"nobody can take over from this gateway: {path} is too long for a socket; shorten admin.socket"
            self._events.warning("takeover_unavailable", text)
            path = None
        door: socket.socket | None = None
        if passed is not None and path is not None and bound_address(passed) == Address.unix(path):
            door = passed
        elif path is not None:
            door = sockets.bind_door(path)
        self._shut(file=True)
        self._door, self._path = door, path

    def open(self, tasks: Tasks) -> None:
        """Let successors in."""
        if self._door is not None:
            self._door.listen(sockets.DOOR_BACKLOG)  # once more: it is this process now that they see behind it
            self._task = tasks.start(self._wait(self._door), name="door")

    async def move(self, admin: AdminSettings | None, tasks: Tasks) -> None:
        """After a reload: the door is beside the admin socket again. It is no part of the reload: a failure is told."""
        if (None if admin is None else door_of(admin.socket)) == self._path:
            return
        await self.close()
        try:
            self.bind(admin)
        except StartError as error:
            self._events.warning("takeover_unavailable", f"nobody can take over from this gateway: {error}")
        self.open(tasks)

    async def close(self, *, file: bool = True) -> None:
        """Let nobody in any more; who is there already is refused. `file=False`: the door is a successor's now."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._shut(file=file)
        self._path = None

    def _shut(self, *, file: bool) -> None:
        if self._door is not None:
            sockets.close_one(self._door, file=file)
            self._door = None

    async def _wait(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            conn, _ = await loop.sock_accept(door)
            with conn:
                conn.setblocking(False)
                try:
                    await self._meet(conn)
                except (OSError, TakeoverError, TimeoutError) as error:
                    reason = str(error) or "nothing was heard of it in time"
                    _refuse(conn, reason)
                    self._events.warning("takeover_failed", f"takeover: this gateway goes on: {reason}", reason=reason)
                except asyncio.CancelledError:
                    _refuse(conn, "it is being stopped, or its admin socket moves")
                    raise

    async def _meet(self, conn: socket.socket) -> None:
        pid, uid = _peer(conn)
        if uid not in (0, os.geteuid()):
            raise TakeoverError(f"user {uid} (pid {pid}) must not take the sockets")
        hello = await _hear(conn, HELLO_TIMEOUT)
        if hello.get("takeover") != PROTOCOL:
            said = f"version {PROTOCOL} of the protocol is spoken here, not {hello.get('takeover')!r}"
            raise TakeoverError(f"{said}: this is rauta {rauta.__version__}; restart it instead")
        # As for the start of a worker: nothing is reloaded meanwhile, so that what was given stays what is served.
        async with self._gate.restart():
            text = f"takeover: pid {pid} gets the sockets (rauta {hello.get('version')})"
            self._events.info("takeover_began", text, successor=pid)
            await self._hand_over(conn)
            answer = await _hear(conn, READY_TIMEOUT)
            if "ready" not in answer:
                raise TakeoverError(f"pid {pid} said {answer!r}")
            self._on_taken(pid)
            _say(conn, {"done": True})
            await asyncio.Event().wait()  # for `close`; a reload that waits at the gate has nothing to change any more

    async def _hand_over(self, conn: socket.socket) -> None:
        gifts = self._give()
        if self._door is not None:
            gifts.append(Gift(use=DOOR, sock=self._door))
        for at in range(0, len(gifts), MOST_AT_ONCE):
            some = gifts[at : at + MOST_AT_ONCE]
            about = [{"use": gift.use, "address": gift.address, "lent": gift.lent} for gift in some]
            await _send(conn, {"sockets": about}, [gift.sock.fileno() for gift in some])
        # Who connected while a predecessor of this process still stood at the door, has its number.
        await _send(conn, {"given": len(gifts), "version": rauta.__version__, "pid": os.getpid()}, [])


# --- messages -----------------------------------------------------------------------------------------------


def _peer(conn: socket.socket) -> tuple[int, int]:
    """The process at the other end: pid, uid."""
    found = conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def _refuse(conn: socket.socket, reason: str) -> None:
    with contextlib.suppress(OSError):
        _say(conn, {"refused": reason})


def _say(conn: socket.socket, message: dict[str, Any]) -> None:
    conn.sendall(json.dumps(message).encode())


async def _send(conn: socket.socket, message: dict[str, Any], fds: Sequence[int]) -> None:
    """A message with descriptors, as soon as the other side has room for it. Raises OSError, TimeoutError."""
    loop = asyncio.get_running_loop()
    data = json.dumps(message).encode()
    async with asyncio.timeout(HELLO_TIMEOUT):
        while True:
            try:
                socket.send_fds(conn, [data], list(fds))
            except BlockingIOError:
                room = asyncio.Event()
                loop.add_writer(conn, room.set)
                try:
                    await room.wait()
                finally:
                    loop.remove_writer(conn)
            else:
                return


async def _hear(conn: socket.socket, seconds: float) -> dict[str, Any]:
    """The next message. Raises OSError, TakeoverError, TimeoutError."""
    async with asyncio.timeout(seconds):
        return _decoded(await asyncio.get_running_loop().sock_recv(conn, MESSAGE_SIZE))


def _decoded(data: bytes) -> dict[str, Any]:
    if not data:
        raise TakeoverError("it is gone")
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise TakeoverError(f"no message: {data[:80]!r}")
    return message
