"""One worker process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final

from rauta.routing.errors import RautaError
from rauta.routing.model import Route
from rauta.runtime.control import (
    Applied,
    Apply,
    Built,
    Channel,
    Commit,
    ControlError,
    Drain,
    Drained,
    Draining,
    Drop,
    Failed,
    Health,
    Message,
    Names,
    Prepared,
    Ready,
    Reopen,
)
from rauta.runtime.passing import send_descriptors
from rauta.runtime.privileges import Identity
from rauta.runtime.terminal import blocked_signals

# What a worker said right before its death is in the socket's buffer; reading it takes one turn of the loop.
# More than that is waited for only if a process that the worker started holds the other end open.
_LAST_WORDS: Final = 0.5


class WorkerError(RautaError):
    """A worker died or said that it cannot serve. `told`: the reason is its own, about what it was given; `routes` has
    what of it is about a route, by their names."""

    def __init__(self, message: str, *, told: bool, routes: Mapping[str, str] | None = None) -> None:
        self.routes = {} if routes is None else dict(routes)
        self.told = told
        self._rest = message
        super().__init__(self.located((), None))

    def located(self, routes: Iterable[Route], place: Callable[..., str] | None) -> str:
        """Its text with the places of routes, as `credentials.Place` tells them. Blocks: files are read."""
        known = (
            {} if place is None else {route.name: place(route, "asgi") for route in routes if route.name in self.routes}
        )
        lines = [f"{known.get(name, '')}route {name!r}: {text}" for name, text in self.routes.items()]
        return "\n".join([*lines, *([self._rest] if self._rest else [])])


class Stage(IntEnum):
    """How far a worker has come; it never goes back."""

    STARTING = 0
    PREPARED = 1
    READY = 2
    LEAVING = 3
    GONE = 4


_STAGE_OF: Final[dict[type[Message], Stage]] = {
    Prepared: Stage.PREPARED,
    Ready: Stage.READY,
    Draining: Stage.LEAVING,
    Drained: Stage.LEAVING,
}


class WorkerProcess:
    """A child that was exec'ed, its control connection and its stage.

    Building one starts the process, which inherits `sockets` (of each listener, in their order), the `segment` to count
    in, and `others`; it has this process's environment if it is given no other. `watch` must run as a task of the loop
    from then on. Raises OSError.
    """

    def __init__(
        self,
        slot: int,
        sockets: tuple[tuple[int, ...], ...],
        segment: int,
        others: tuple[int, ...],
        loop: asyncio.AbstractEventLoop,
        identity: Identity | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._ours, theirs = socket.socketpair()
        self._passing, their_passing = socket.socketpair(type=socket.SOCK_SEQPACKET)
        try:
            connections = (theirs.fileno(), their_passing.fileno(), segment)
            self._child = _execute(slot, connections, sockets, others, identity, environment)
        except BaseException:
            self._ours.close()
            self._passing.close()
            raise
        finally:
            theirs.close()
            their_passing.close()
        self._ours.setblocking(False)
        self._passing.setblocking(False)  # a worker that reads nothing must not hold the supervisor up
        self.slot = slot
        self.pid = self._child.pid
        self.stage = Stage.STARTING
        self.was_ready = False
        self.complete: bool | None = None  # whether its drain left nothing undone; None: it did not say
        self.generation = 0  # the last one that it has applied since it was ready; 0: the one that it started with
        self.built: Built | None = None  # its last answer to a change
        self.started_at = loop.time()
        self._failure: WorkerError | None = None
        self._loop = loop
        self._changed = asyncio.Event()
        self._closed = asyncio.Event()
        self._channel = Channel(self._on_message, self._on_gone)

    async def send_setup(self, setup: bytes) -> None:
        """Open the control connection and send the encoded Setup."""
        await self._channel.open(self._loop, self._ours)
        self._channel.send_frame(setup)

    async def watch(self) -> None:
        """Wait for the end of the process and reap it. To be run once, as a task of the owner."""
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._child.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._closed.wait()
        self._channel.close()
        self._passing.close()
        self._advance(Stage.GONE)

    async def reach(self, stage: Stage) -> None:
        """Wait for a stage. Raises WorkerError if the worker leaves before it was ready."""
        while self.stage < stage:
            await self._changed.wait()
        if stage <= Stage.READY < self.stage and not self.was_ready:
            await self.reach(Stage.GONE)
            died = f"worker {self.slot} died before it was ready: {self.ending}"
            raise self._failure or WorkerError(died, told=False)

    @property
    def ending(self) -> str:
        """How the process ended, for people."""
        status = self._child.returncode
        if status is None:
            return "it still runs"
        if status >= 0:
            return f"exit status {status}"
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"

    @property
    def failure(self) -> str | None:
        """Why it cannot serve, in its own words or for what it did; None if it just ended."""
        return None if self._failure is None else str(self._failure)

    def commit(self) -> None:
        """Tell the worker to serve."""
        self._channel.send(Commit())

    def drain(self, timeout: float, idle: float = 0.0) -> None:
        """Tell the worker to leave within `timeout` seconds; 0: at once. Idle connections are kept for `idle`."""
        self._channel.send(Drain(float(timeout), float(idle)))

    # --- reload ---

    async def build(self, generation: int, change: bytes, fds: Sequence[int]) -> None:
        """Let it build a generation: the encoded Change and the descriptors for it.

        Raises WorkerError: it cannot be built (`told`), or the worker is going.
        """
        self._pass(fds)
        self._channel.send_frame(change)
        while self.built is None or self.built.generation != generation:
            await self._while_ready()
        if self.built.problem or self.built.routes:
            raise WorkerError(self.built.problem, told=True, routes=self.built.routes)

    async def apply(self, generation: int) -> None:
        """Let it serve what it has built. Raises WorkerError: the worker is going."""
        self._channel.send(Apply(generation))
        while self.generation != generation:
            await self._while_ready()

    def drop(self, generation: int) -> None:
        """Let it forget what it may have built."""
        self._channel.send(Drop(generation))

    def tell(self, message: Health | Names) -> None:
        """What the agent has found out about backends."""
        self._channel.send(message)

    def reopen(self, fd: int) -> None:
        """Give it another descriptor for the access log. Raises WorkerError: it takes none."""
        self._pass([fd])
        self._channel.send(Reopen())

    def _pass(self, fds: Sequence[int]) -> None:
        try:
            send_descriptors(self._passing, fds)
        except OSError as error:
            raise WorkerError(f"worker {self.slot} takes no descriptors: {error.strerror}", told=False) from error

    async def _while_ready(self) -> None:
        """Wait for the next news. Raises WorkerError if the worker does not serve any more."""
        if self.stage is not Stage.READY:
            raise WorkerError(f"worker {self.slot} is going: {self._failure or self.ending}", told=False)
        await self._changed.wait()

    def kill(self) -> None:
        """SIGKILL. The child is not reaped before `watch` saw its end, so the number is its own."""
        if self.stage is not Stage.GONE:
            self._child.kill()

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Failed):
            self._failure = WorkerError(message.message, told=True, routes=message.routes)
            return
        if isinstance(message, Built | Applied):
            if isinstance(message, Built):
                self.built = message
            else:
                self.generation = message.generation
            self._news()
            return
        if isinstance(message, Drained):
            self.complete = message.complete
        stage = _STAGE_OF.get(type(message))
        if stage is None:
            self._distrust(f"it sent {type(message).__name__}, which only a supervisor sends")
        else:
            self._advance(stage)

    def _on_gone(self, error: ControlError | None) -> None:
        if error is not None:
            self._distrust(str(error))
        self._closed.set()

    def _distrust(self, reason: str) -> None:
        text = f"worker {self.slot} was killed, its control connection is not sane: {reason}"
        self._failure = WorkerError(text, told=False)
        self._child.kill()

    def _advance(self, stage: Stage) -> None:
        if stage > self.stage:
            self.stage = stage
            self.was_ready |= stage is Stage.READY
            self._news()

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _execute(
    slot: int,
    connections: tuple[int, int, int],
    sockets: tuple[tuple[int, ...], ...],
    others: tuple[int, ...],
    identity: Identity | None,
    environment: Mapping[str, str] | None,
) -> subprocess.Popen[bytes]:
    listeners = ",".join("+".join(map(str, share)) for share in sockets)
    named = zip(("control", "passing", "segment"), connections, strict=True)
    arguments = [f"slot={slot}", *(f"{name}={fd}" for name, fd in named), f"listeners={listeners}"]
    with blocked_signals():
        return subprocess.Popen(  # noqa: S603 - this interpreter and our own module
            [sys.executable, *interpreter_flags(), "-m", "rauta.runtime.worker", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=(*connections, *(fd for share in sockets for fd in share), *others),
            env=environment,
            **({} if identity is None else identity.for_popen()),
        )


def interpreter_flags() -> list[str]:
    """For `python -m`, of our own modules."""
    # `-m` puts the working directory first on the path, where a stray json.py would be imported. The worker
    # gets it only if this process has it too, that is, was itself started by `-m`.
    return [] if str(Path.cwd()) in sys.path or "" in sys.path else ["-P"]
