"""The program that embeds this gateway (`rauta.embed.processes`), as the supervisor sees it.

    program                                   supervisor
    Wanted 1, before anything else      ->
                                        <-    a Status that says ready; or Failed, and the end
    Wanted n                            ->
    Withdrawn n, if nobody waits        ->    (nothing, if it has begun)
                                        <-    Result n
                                        <-    Status, Health and, with a kernel offload, Counted each second
    Drain                               ->
                                        <-    Drained, and the end

When the program is gone, the gateway drains. Its pidfd tells that, whichever of its threads has started this process;
the end of the stream tells it, too, but not while a child that the program has forked holds a copy of its end. Nobody
reads the events then: they are read here and lost, so that whoever prints while he drains is neither held up nor fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from rauta.offload import NullOffload
from rauta.routing.settings import Address
from rauta.runtime.control import (
    Channel,
    ControlError,
    Counted,
    Drain,
    Drained,
    Message,
    Result,
    Status,
    Wanted,
    Withdrawn,
    unpack,
    wanted_of,
)
from rauta.runtime.errors import StartError
from rauta.runtime.passed import PassedSocket
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    import socket

    from rauta.offload import Counters
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Listener
    from rauta.runtime.revision import Reloaded

PROGRAM: Final = "program"
"""The cause of its reloads and of its end."""
COUNT_INTERVAL: Final = 1.0  # seconds; as the gauges of workers
_LOST: Final = 64 * 1024  # bytes at a time
_MOST_COUNTS: Final = 1000  # in a message, of which each has three names of 128 characters and some numbers


class Controlled(Protocol):
    """The supervisor, as far as a program controls it."""

    async def reload(self, cause: str, load: Callable[[], Configuration] | None = None) -> Reloaded:
        """See Supervisor."""

    def drain(self, cause: str, timeout: float | None = None) -> None:
        """See Supervisor."""

    async def counters(self) -> Counters | None:
        """See Supervisor."""


class Program:
    """The connection to it. `pid` is the program's, `memory` what it has made for workers to count in, `events` its end
    of the pipe that is descriptor 2 here."""

    def __init__(
        self, control: socket.socket, pid: int, wanted: Wanted, memory: Sequence[int], events: int | None = None
    ) -> None:
        self.memory = memory
        self._events = events
        self._control = control
        self._pid = pid
        self._sockets = wanted.sockets
        self._waited_for: set[int] = set()  # numbers of what it wants, and has not withdrawn
        self._channel = Channel(self._on_message, self._on_gone, self._on_pickle)
        self._offloads = False  # whether there are kernel tiers that count
        self._counts: dict[str, int] = {}  # that it knows
        self._pidfd: int | None = None

    def lent(self, listeners: Sequence[Listener]) -> dict[Address, list[PassedSocket]]:
        """The sockets that it lends, by the address of their listener. To be called once. Raises StartError."""
        try:
            return {
                listener.address: [PassedSocket(fd, lent=True, name=listener.name) for fd in fds]
                for listener in listeners
                if (fds := self._sockets.get(listener.name))
            }
        except OSError as error:
            raise StartError(f"a socket of the program cannot be used: {error.strerror}") from error

    def load(self) -> Configuration:
        """For reloads that somebody else wants. Raises StartError."""
        raise StartError("this gateway is embedded: the program that it belongs to says what it serves (`apply`)")

    async def open(self, gateway: Controlled) -> None:
        """Listen to it. Raises OSError."""
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(self._loop)
        await self._channel.open(self._loop, self._control)
        with contextlib.suppress(OSError):  # it is gone already, or the kernel does not let us: the stream tells
            self._pidfd = os.pidfd_open(self._pid)
            self._loop.add_reader(self._pidfd, self._on_end)
        if os.getppid() != self._pid:
            self._on_end()  # the number may be another process's by now
        self._tasks.start(self._count(), name="counts for the program")

    async def close(self) -> None:
        """At the very end."""
        if self._events is not None:
            self._loop.remove_reader(self._events)
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        await self._tasks.cancel()
        self._channel.close()

    # --- to the program ---

    def tell(self, message: Message) -> None:
        """What has changed."""
        if isinstance(message, Status):
            offload = message.status["offload"]
            self._offloads = offload is not None and offload["name"] != NullOffload.name
        self._channel.send(message)

    async def drained(self, *, complete: bool) -> None:
        """All workers are gone."""
        await self._tell_counts()
        self._channel.send(Drained(complete))

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_INTERVAL)
            if not self._channel.backlog:
                await self._tell_counts()

    async def _tell_counts(self) -> None:
        """Those that have changed."""
        counters = await self._gateway.counters() if self._offloads else None
        if counters is None:
            return
        counts: Counter[str] = Counter()
        for key, traffic in counters.requests.items():
            counts[f"{key.listener} {key.route} {key.service} {key.code} {key.tier}"] += traffic.requests
        news = [(name, count) for name, count in counts.items() if self._counts.get(name) != count]
        self._counts = dict(counts)
        for at in range(0, len(news), _MOST_COUNTS):
            self._channel.send(Counted(dict(news[at : at + _MOST_COUNTS])))

    # --- from the program ---

    def _on_pickle(self, payload: bytes) -> None:
        wanted = wanted_of(payload)
        self._waited_for.add(wanted.number)
        self._tasks.start(self._serve(wanted), name="reload for the program")

    async def _serve(self, wanted: Wanted) -> None:
        def load() -> Configuration:  # in a thread, once it is its turn
            if wanted.number not in self._waited_for:
                raise StartError("the program has withdrawn it")
            try:
                return unpack(wanted.configuration)
            except ControlError as error:
                raise StartError(str(error)) from None

        reloaded = await self._gateway.reload(PROGRAM, load)
        self._waited_for.discard(wanted.number)
        self._channel.send(Result(wanted.number, reloaded.ok, reloaded.text))

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Drain):
            self._gateway.drain(PROGRAM, message.timeout)
        elif isinstance(message, Withdrawn):
            self._waited_for.discard(message.number)

    def _on_gone(self, error: ControlError | None) -> None:
        self._gateway.drain(PROGRAM)

    def _on_end(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
        if self._events is not None:
            self._loop.add_reader(self._events, os.read, self._events, _LOST)
        self._gateway.drain(PROGRAM)
