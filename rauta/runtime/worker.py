"""A worker: one event loop that serves the sockets of its slot. Started by the supervisor as

    python -m rauta.runtime.worker slot=0 control=7 passing=8 segment=9 listeners=4,5+6

with its end of the control connection (see `control`), the socket for further descriptors, the memory for counters and
its listening sockets (one or more for each listener, in the order of the listeners), as inherited descriptors. It reads
no configuration file; what it needs comes in its Setup, and in the Changes of reloads. When the supervisor is gone,
however it went, the connection ends: the worker then drains and exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.asgi.applications import ApplicationError
from rauta.proxy.dataplane import DataPlane
from rauta.proxy.metrics import WorkerMetrics
from rauta.routing.defaults import DRAIN_IDLE, DRAIN_TIMEOUT
from rauta.routing.errors import RautaError
from rauta.routing.table import Table
from rauta.runtime.backend_credentials import tls_to_backends_of
from rauta.runtime.changing import Changes, contexts_of
from rauta.runtime.control import (
    Apply,
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
    Setup,
    encode,
    receive_setup,
)
from rauta.runtime.errors import EXIT_CONFIGURATION, EXIT_OK
from rauta.runtime.log import EventLog, bridge, lose_what_has_no_room
from rauta.runtime.privileges import no_new_privileges
from rauta.runtime.segment import column
from rauta.runtime.tasks import Tasks
from rauta.runtime.terminal import ignore_terminal

if TYPE_CHECKING:
    from rauta.proxy.counters import Column
    from rauta.proxy.tls import ServerContexts
    from rauta.routing.settings import Listener
    from rauta.runtime.backend_tls import TlsToBackends

BUILD_LIMIT: Final = 90  # seconds to build everything, if nobody is left to say stop; the supervisor does after 60
LOG_TIMEOUT: Final = 3.0  # for the last lines, to a reader that may be slow; below the supervisor's KILL_GRACE
LOG_TIMEOUT_IN_HURRY: Final = 0.5  # below its HURRY_GRACE
LOG_CHECK_INTERVAL: Final = 10.0  # a log that cannot be written is told once, within that time


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A listener with its socket and, for TLS, its contexts."""

    listener: Listener
    sock: socket.socket
    contexts: ServerContexts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker serves with, built before its loop runs."""

    table: Table
    endpoints: tuple[Endpoint, ...]
    access_log: AccessLogWriter | None
    tls_to_backends: TlsToBackends | None = None


def build(setup: Setup, fds: Sequence[Sequence[int]]) -> Parts:
    """Build everything that can fail, on the sockets `fds`. Raises RautaError (a plugin, a certificate)."""
    configuration = setup.configuration
    endpoints = []
    for listener, share in zip(configuration.listeners, fds, strict=True):
        contexts = contexts_of(listener, setup.credentials)
        for fd in share:
            os.set_inheritable(fd, False)  # not for what a plugin may start
            endpoints.append(Endpoint(listener=listener, sock=socket.socket(fileno=fd), contexts=contexts))
    writer = None
    if setup.access_log is not None:
        writer = AccessLogWriter(setup.access_log, configuration.access_log.format)
    clients = tls_to_backends_of(configuration, setup.backend_credentials, None)
    return Parts(table=Table(configuration), endpoints=tuple(endpoints), access_log=writer, tls_to_backends=clients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What joins a worker to the supervisor, besides its sockets."""

    control: socket.socket
    passing: socket.socket
    counters: Column | None = None


class Worker:
    """From Prepared to Drained, on the loop."""

    __slots__ = (
        "_changes",
        "_channel",
        "_commit",
        "_endpoints",
        "_events",
        "_hurry",
        "_leave",
        "_log_failure_told",
        "_loop",
        "_plane",
        "_table",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, parts: Parts, events: EventLog, connections: Connections
    ) -> None:
        self._events = events
        self._log_failure_told = False
        self._loop = loop
        self._endpoints = parts.endpoints
        self._table = parts.table
        metrics = None if connections.counters is None else WorkerMetrics(connections.counters)
        contexts = None if parts.tls_to_backends is None else parts.tls_to_backends.contexts
        self._plane = DataPlane(
            parts.table, loop=loop, access_log=parts.access_log, metrics=metrics, backend_contexts=contexts
        )
        self._channel = Channel(self._on_message, self._on_gone, self._on_change)
        self._changes = Changes(
            loop, self._plane, self._channel, connections.passing, parts.access_log, parts.tls_to_backends
        )
        self._commit: asyncio.Future[bool] = loop.create_future()
        self._leave: asyncio.Future[Drain] = loop.create_future()
        self._hurry: asyncio.Future[None] = loop.create_future()

    async def run(self, control: socket.socket) -> int:
        """Serve until told to leave; the exit status."""
        await self._channel.open(self._loop, control)
        self._loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        try:
            await self._plane.prepare(self._table)
        except ApplicationError as error:
            self._channel.send(Failed("", error.routes))
            await self._plane.drain(0)  # the lifespans of those that have started end
            self._channel.close()
            await asyncio.sleep(0)
            return EXIT_CONFIGURATION
        self._channel.send(Prepared())
        if await self._commit:
            for endpoint in self._endpoints:
                await self._plane.serve(endpoint.listener, endpoint.sock, contexts=endpoint.contexts)
            self._endpoints = ()
            self._channel.send(Ready())
            self._watch_access_log()
        leave = await self._leave
        await self._changes.end()
        complete = await self._drain(leave)
        self._plane.close()
        log = self._changes.log
        if log is not None:
            log.close(LOG_TIMEOUT if not self._hurry.done() else LOG_TIMEOUT_IN_HURRY)
            self._check_access_log(log)
        self._channel.send(Drained(complete))
        self._channel.close()
        await asyncio.sleep(0)  # the transport writes at once; a full buffer is not waited for
        return EXIT_OK

    async def _drain(self, leave: Drain) -> bool:
        tasks = Tasks(self._loop)
        drained: asyncio.Future[bool] = self._loop.create_future()

        async def drain() -> None:
            drained.set_result(await self._plane.drain(leave.timeout, idle=leave.idle))

        tasks.start(drain(), name="drain")
        first: list[asyncio.Future[Any]] = [drained, self._hurry, tasks.crashed]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if tasks.crashed.done():
            tasks.crashed.result()
        await tasks.cancel()
        return drained.done() and drained.result()

    def _watch_access_log(self) -> None:
        writer = self._changes.log
        if writer is None or not self._check_access_log(writer):
            self._loop.call_later(LOG_CHECK_INTERVAL, self._watch_access_log)

    def _check_access_log(self, writer: AccessLogWriter) -> bool:
        """Whether writing has failed; requests go on then, and the operator learns it here."""
        if writer.failure is not None and not self._log_failure_told:
            self._log_failure_told = True
            self._events.error("access_log_failed", f"access log: lines are lost: {writer.failure.strerror}")
        return self._log_failure_told

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Commit):
            if not self._commit.done():
                self._commit.set_result(True)
        elif isinstance(message, Drain):
            if message.timeout <= 0 and not self._hurry.done():
                self._hurry.set_result(None)
            self._go(message)
        elif isinstance(message, Apply):
            self._changes.apply(message)
        elif isinstance(message, Drop):
            self._changes.drop(message)
        elif isinstance(message, Reopen):
            self._changes.reopen()
        elif isinstance(message, Health):
            self._plane.set_down(message.service, frozenset(message.down))
        elif isinstance(message, Names):
            self._plane.set_names(message.host, tuple(message.addresses))

    def _on_change(self, payload: bytes) -> None:
        self._changes.change(payload)

    def _on_gone(self, error: ControlError | None) -> None:
        self._go(Drain(DRAIN_TIMEOUT, DRAIN_IDLE))

    def _on_sigterm(self) -> None:
        # Somebody retires this one worker (or signals the whole group, as systemd does). Its successor takes the new
        # connections, so idle ones may be kept to the end.
        self._channel.send(Draining())
        self._go(Drain(DRAIN_TIMEOUT, DRAIN_TIMEOUT))

    def _go(self, leave: Drain) -> None:
        if not self._commit.done():
            self._commit.set_result(False)
        if not self._leave.done():
            self._leave.set_result(leave)


def _raise_descriptor_limit() -> None:
    # The soft limit is 1024 on most systems, for the sake of select(2), which nothing here uses; each proxied
    # request holds two descriptors.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some containers refuse: then the limit stays what it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _settle_memory() -> None:
    # The model and the table live as long as the generation. Frozen, they are left out of every later
    # collection, which otherwise would walk them (45 ms for 10,000 routes) in the middle of traffic.
    gc.collect()
    gc.freeze()
    gc.enable()


def serve(connections: Connections, fds: Sequence[Sequence[int]], events: EventLog) -> int:
    """The whole life of a worker, from its connections to the supervisor and its sockets; the exit status."""
    control = connections.control
    setup = None
    gc.disable()  # building 10,000 routes makes no garbage, and three collections that take 150 ms
    try:
        setup = receive_setup(control)
        if setup is None:
            return EXIT_OK
        # The loop that would see the supervisor's end does not run yet, and a plugin may hang while it is built: the
        # kernel ends this process then. Beyond the supervisor's own time limit, so that it is the one to tell.
        signal.alarm(BUILD_LIMIT)
        parts = build(setup, fds)
        signal.alarm(0)
    except RautaError as error:
        with contextlib.suppress(OSError):  # the supervisor may be gone: then nobody waits for the reason
            control.sendall(encode(Failed(str(error))))
        return EXIT_CONFIGURATION
    del setup
    _settle_memory()
    control.setblocking(False)

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        worker = Worker(runner.get_loop(), parts, events, connections)
        del parts  # the data plane has it, and lets go of it with the first reload
        return runner.run(worker.run(control))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the module."""
    ignore_terminal()
    no_new_privileges()
    lose_what_has_no_room()
    events = EventLog()
    bridge(events)
    arguments = dict(argument.partition("=")[::2] for argument in (sys.argv[1:] if argv is None else argv))
    if arguments.keys() != {"slot", "control", "passing", "segment", "listeners"}:
        events.text("rauta: workers are started by the gateway: use `python -m rauta.proxy`")
        return EXIT_CONFIGURATION
    control, passing, segment = (int(arguments[name]) for name in ("control", "passing", "segment"))
    for fd in (control, passing):
        os.set_inheritable(fd, False)
    _raise_descriptor_limit()
    connections = Connections(
        control=socket.socket(fileno=control),
        passing=socket.socket(fileno=passing),
        counters=column(segment),
    )
    os.close(segment)  # the mapping stays
    fds = [[int(number) for number in share.split("+")] for share in arguments["listeners"].split(",")]
    return serve(connections, fds, events)


if __name__ == "__main__":
    sys.exit(main())
