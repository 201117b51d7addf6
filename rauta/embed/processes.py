"""A gateway of processes, as the program that embeds it sees it: its supervisor is a child of the program, and workers
and agent are children of that. See `rauta.runtime.program` for what the two say to each other.

    start --ready--> serves --apply--> serves --drain--> ended
                        \\--------- dies ------------------/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from rauta.embed.choices import Choices
from rauta.embed.errors import GatewayError
from rauta.embed.events import LOGGER
from rauta.embed.relay import Relay
from rauta.embed.stats import BackendStats, GatewayStats, requests_of
from rauta.proxy.counters import Kind, Series, lateness
from rauta.proxy.metrics import IN_FLIGHT, OPEN, POOL, REQUESTS
from rauta.runtime import segment
from rauta.runtime.control import (
    Channel,
    ControlError,
    Counted,
    Drain,
    Drained,
    Failed,
    Health,
    Message,
    Result,
    Status,
    Wanted,
    Withdrawn,
    encode_wanted,
    pack,
)
from rauta.runtime.errors import StartError
from rauta.runtime.process import interpreter_flags
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    from rauta.embed.parts import Sockets
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Address

START_LIMIT: Final = 180.0  # seconds; workers give up after 60, and the kernel's programs may be compiled before
APPLY_LIMIT: Final = 150.0  # as for a start, twice building at most
END_GRACE: Final = 20.0  # beyond a drain: workers that hang are killed, the agent and the kernel's programs end
HURRY: Final = 5.0  # for a word to end at once, then for SIGTERM, before SIGKILL
_LAST_WORDS: Final = 1.0  # for the log of a process that has ended
# Of a service manager, to the program alone.
_NOT_FOR_CHILDREN: Final = frozenset({"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"})


class Processes:
    """An open one: its child runs from the first moment on, and is to be closed whatever happens. Raises OSError."""

    def __init__(self, configuration: Configuration, choices: Choices, sockets: Sockets | None) -> None:
        self.configuration = configuration
        self._choices = choices
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks(self._loop)
        self._channel = Channel(self._on_message, self._on_gone)
        self._counted: dict[Series, list[int]] = {}  # by the kernel
        self._status: dict[str, Any] = {}
        self._down: dict[str, frozenset[str]] = {}
        self._numbers = 1
        self._applying: dict[int, tuple[Configuration, asyncio.Future[Result]]] = {}
        self._ready, self._gone, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure = ""  # why it could not start, in its own words
        self._complete = False
        self._told = False  # to end
        memory = segment.create(choices.workers)
        try:
            self._columns = segment.columns(memory)
            self._relay = Relay()
            ours, theirs = socket.socketpair()
            try:
                self._child = self._execute(theirs, memory, sockets or {})
            except BaseException:
                ours.close()
                raise
            finally:
                theirs.close()
                self._relay.started()
        finally:
            segment.close(memory)
        ours.setblocking(False)
        self._ours = ours

    @classmethod
    async def open(cls, configuration: Configuration, name: str, choices: Choices, sockets: Sockets | None) -> Self:
        """Start it; all workers serve when this returns. `name` says for people where the configuration is from. Raises
        GatewayError, and none of it is left then."""
        wanted = choices.applied_to(configuration)
        descriptors = {key: tuple(sock.fileno() for sock in socks) for key, socks in (sockets or {}).items()}
        try:
            first = Wanted(number=1, configuration=pack(wanted), name=name, sockets=descriptors)
            found = cls(configuration, choices, sockets)
        except (StartError, OSError) as error:
            raise GatewayError(f"the gateway's processes cannot be started: {error}") from error
        try:
            await found._start(first)
        except BaseException:
            await found.close()
            raise
        for sock in (sock for socks in (sockets or {}).values() for sock in socks):
            sock.close()  # the processes have their own descriptors of it
        return found

    async def apply(self, configuration: Configuration) -> None:
        """Serve this from now on. Raises GatewayError; then nothing has changed, unless they have not answered in time.
        Whatever ends the wait for their answer, what they have not begun is withdrawn."""
        self.check()
        for listener in configuration.listeners:
            self._check_socket(listener.name, listener.address)
        try:
            packed = pack(self._choices.applied_to(configuration))
        except StartError as error:
            raise GatewayError(str(error)) from error
        number = self._numbers = self._numbers + 1
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._applying[number] = configuration, answer
        self._channel.send_frame(encode_wanted(Wanted(number=number, configuration=packed, name="")))
        try:
            if not await self._first(_result(answer), seconds=APPLY_LIMIT):
                raise GatewayError(
                    f"the gateway's processes did not answer within {APPLY_LIMIT:g} s; what they have begun they may "
                    "still serve"
                )
        finally:
            if not answer.done():
                self._channel.send(Withdrawn(number))
        if not answer.done():
            raise self._ending()
        if not answer.result().ok:
            raise GatewayError(answer.result().text)

    def stats(self, *, draining: bool) -> GatewayStats:
        """What there is now, and what was counted. Raises GatewayError: it has ended, and was not told to."""
        from rauta.runtime.agent.metrics import totals

        if not self._told:
            self.check()
        sums = totals(self._columns)
        serving = not self._ended.is_set()
        gauges = {series: cells[0] for series, cells in sums.items() if series.kind is Kind.GAUGE} if serving else {}
        offload = self._status.get("offload") or {}
        return GatewayStats(
            connections=sum(value for series, value in gauges.items() if series.name == OPEN),
            in_flight=sum(value for series, value in gauges.items() if series.name == IN_FLIGHT),
            draining=draining,
            loop_lag=max(map(lateness, self._columns)) / 1e6 if serving else 0.0,
            requests=requests_of((sums | self._counted).items()),
            backends=self._backends(gauges),
            workers=tuple(
                worker["pid"] for worker in self._status.get("workers", ()) if serving and worker["stage"] == "ready"
            ),
            offload=str(offload.get("reason", "")),
        )

    def drain(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Have it end. What is returned waits for that: whether all that was in flight ended in that time."""
        self._told = True
        self._channel.send(Drain(float(seconds), 0.0))
        return self._drain(seconds)

    def cut(self) -> None:
        """End at once what is in flight, while it drains."""
        self._channel.send(Drain(0.0, 0.0))

    async def close(self) -> None:
        """Let go of everything, after it is drained or dead; should it not be, it is ended at once."""
        await self._stop_at_once()
        columns, self._columns = self._columns, []
        segment.unmap(columns)

    @property
    def alive(self) -> bool:
        """Whether it can be drained."""
        return not self._ended.is_set()

    def check(self) -> None:
        """Raises GatewayError: it has ended."""
        if self._ended.is_set():
            raise self._ending()

    async def _drain(self, seconds: float) -> bool:
        if not await self._first(seconds=seconds + END_GRACE):
            await self._stop_at_once()
        return self._complete

    # --- the child ---

    def _execute(self, theirs: socket.socket, memory: Sequence[int], sockets: Sockets) -> subprocess.Popen[bytes]:
        """In a session of its own: Ctrl-C is for the program, which then drains it. Raises OSError."""
        if not sys.executable:
            raise OSError("sys.executable does not say where Python is")
        events = self._relay.ours
        arguments = [f"control={theirs.fileno()}", f"program={os.getpid()}", f"columns={','.join(map(str, memory))}"]
        arguments.append(f"events={events}")
        passed = [theirs.fileno(), events, *memory, *(sock.fileno() for socks in sockets.values() for sock in socks)]
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_CHILDREN}
        # Applications and plugins are found where the program finds them.
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100
        with contextlib.ExitStack() as stack:
            if sys.__stderr__ is not None:
                stderr = os.dup(2)
                stack.callback(os.close, stderr)
                passed.append(stderr)
                arguments.append(f"stderr={stderr}")
            return subprocess.Popen(  # noqa: S603 - this interpreter and our own module
                [sys.executable, *interpreter_flags(), "-m", "rauta.runtime.embedded", *arguments],
                stdin=subprocess.DEVNULL,
                stderr=self._relay.theirs,
                pass_fds=passed,
                env=environment,
                start_new_session=True,
            )

    async def _start(self, first: Wanted) -> None:
        self._tasks.start(self._watch(), name="watcher of the gateway's processes")
        await self._channel.open(self._loop, self._ours)
        self._channel.send_frame(encode_wanted(first))
        if not await self._first(self._ready.wait(), seconds=START_LIMIT):
            raise GatewayError(f"the gateway's processes were not ready within {START_LIMIT:g} s")
        if not self._ready.is_set():
            raise GatewayError(self._failure) if self._failure else self._ending()

    async def _watch(self) -> None:
        """Wait for the end of the child and reap it."""
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self._child.pid)
        self._loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._child.wait()
        with contextlib.suppress(TimeoutError):  # what it said right before is in the socket's buffer
            async with asyncio.timeout(_LAST_WORDS):
                await self._gone.wait()
        await asyncio.to_thread(self._relay.join, _LAST_WORDS)
        self._ended.set()
        if self._ready.is_set() and not self._told:
            LOGGER.error("%s", self._ending(), extra={"event": "gateway_died", "fields": {"pid": self._child.pid}})

    async def _first(self, other: Coroutine[Any, Any, object] | None = None, *, seconds: float) -> bool:
        """Wait for that or the end of the child; False if neither comes in time."""
        tasks = Tasks(self._loop)
        waits = [tasks.start(what, name="wait") for what in (other, self._ended.wait()) if what is not None]
        try:
            done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await tasks.cancel()
        return bool(done)

    async def _stop_at_once(self) -> None:
        """Whatever state it is in: nothing of it is left."""
        self._told = True
        self._channel.send(Drain(0.0, 0.0))
        if not await self._first(seconds=HURRY):
            self._child.terminate()
            if not await self._first(seconds=HURRY):
                self._child.kill()
                await self._ended.wait()
        self._channel.close()
        await self._tasks.cancel()

    def _ending(self) -> GatewayError:
        status = self._child.returncode
        how = f"exit status {status}" if status is None or status >= 0 else f"killed by {_signal(-status)}"
        text = f"the gateway's processes have ended ({how}): make another Gateway"
        return GatewayError(f"{text}; the last that they said:\n{self._relay.last}" if self._relay.last else text)

    # --- what it says ---

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Status):
            self._status = message.status
            if message.status["ready"]:
                self._ready.set()
        elif isinstance(message, Counted):
            for labels, count in message.requests.items():
                self._counted[Series(Kind.COUNTER, REQUESTS, tuple(labels.split(" ")))] = [count]
        elif isinstance(message, Health):
            self._down[message.service] = frozenset(message.down)
        elif isinstance(message, Result):
            self._on_result(message)
        elif isinstance(message, Failed):
            self._failure = message.message
        elif isinstance(message, Drained):
            self._complete = message.complete

    def _on_result(self, result: Result) -> None:
        known = self._applying.pop(result.number, None)
        if known is None:
            return  # to nothing that was asked
        configuration, answer = known
        if result.ok:
            self.configuration = configuration
        if not answer.done():
            answer.set_result(result)

    def _on_gone(self, error: ControlError | None) -> None:
        if error is not None and self._child.returncode is None:
            self._child.kill()  # it says what no gateway says
        self._gone.set()

    def _backends(self, gauges: dict[Series, int]) -> tuple[BackendStats, ...]:
        def of(name: str, *labels: str) -> int:
            return gauges.get(Series(Kind.GAUGE, name, labels), 0)

        return tuple(
            BackendStats(
                service=service.name,
                address=address,
                up=address not in self._down.get(service.name, ()),
                in_flight=of(IN_FLIGHT, address),
                connections=of(POOL, address, "idle") + of(POOL, address, "busy"),
            )
            for service in self.configuration.services
            for address in (str(backend.address) for backend in service.backends)
        )

    def _check_socket(self, name: str, address: Address) -> None:
        listeners = self._choices.listeners
        if listeners is None or name not in listeners:
            return
        now = {listener.name: listener.address for listener in self.configuration.listeners}
        if now.get(name) != address:
            raise GatewayError(
                f"listener {name!r} is served on a socket of the program: it can neither move (to {address}) nor come "
                "back; make another Gateway"
            )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _result(answer: asyncio.Future[Result]) -> None:
    await asyncio.wait([answer])
