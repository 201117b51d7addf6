"""The agent, as the supervisor sees it: started when there is work for it, replaced when it dies, told what changes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from rauta.routing.settings import Address
from rauta.runtime import segment, sockets
from rauta.runtime.control import (
    AgentSetup,
    Channel,
    Command,
    ControlError,
    Drain,
    Health,
    Look,
    Message,
    Names,
    Ready,
    Result,
    Status,
    encode_agent_setup,
)
from rauta.runtime.credentials import environment_without
from rauta.runtime.errors import StartError
from rauta.runtime.passed import bound_address
from rauta.runtime.privileges import Identity
from rauta.runtime.process import interpreter_flags
from rauta.runtime.tasks import Tasks
from rauta.runtime.terminal import blocked_signals

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.routing.settings import AdminSettings
    from rauta.runtime.log import EventLog
    from rauta.runtime.passed import PassedSocket

MOST_COMMANDS: Final = 16  # at work at a time; people send one
BACKLOG_LIMIT: Final = 1024 * 1024  # bytes that it has not taken; a Reading has less than 100 a row
STOP_TIMEOUT: Final = 3.0  # from being told to end to SIGKILL


def is_needed(configuration: Configuration) -> bool:
    """Whether the agent has anything to do."""
    return configuration.admin is not None or any(
        service.health is not None or any(backend.address.is_name for backend in service.backends)
        for service in configuration.services
    )


class AgentProcess:
    """A child that was exec'ed, and its control connection. Building one starts it; `watch` must run as a task."""

    def __init__(
        self,
        memory: Sequence[int],
        admin: Mapping[str, socket.socket],
        on_message: Callable[[Message], None],
        identity: Identity | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._ours, theirs = socket.socketpair()
        columns: list[int] = []
        try:
            columns.extend(map(segment.read_only, memory))
            fds = {"control": theirs.fileno(), **{name: sock.fileno() for name, sock in admin.items()}}
            with blocked_signals():
                self._child = subprocess.Popen(  # noqa: S603 - this interpreter and our own module
                    [
                        sys.executable,
                        *interpreter_flags(),
                        "-m",
                        "rauta.runtime.agent",
                        *(f"{name}={fd}" for name, fd in fds.items()),
                        f"columns={','.join(map(str, columns))}",
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(*fds.values(), *columns),
                    env=environment,
                    **({} if identity is None else identity.for_popen()),
                )
        except BaseException:
            self._ours.close()
            raise
        finally:
            segment.close(columns)
            theirs.close()
        self._ours.setblocking(False)
        self.pid = self._child.pid
        self.gone = asyncio.Event()
        self.told = False  # to end
        self._channel = Channel(on_message, self._on_gone)

    async def open(self) -> None:
        """Open the control connection."""
        await self._channel.open(asyncio.get_running_loop(), self._ours)

    def setup(self, setup: AgentSetup) -> None:
        """What it works for from now on."""
        self._channel.send_frame(encode_agent_setup(setup))

    def send(self, message: Message) -> None:
        """Tell it."""
        self._channel.send(message)

    def show(self, frame: bytes) -> None:
        """Send it a Reading."""
        self._channel.send_frame(frame)

    @property
    def keeps_up(self) -> bool:
        """Whether it takes what it is sent."""
        return self._channel.backlog < BACKLOG_LIMIT

    def end(self) -> None:
        """Tell it to end."""
        self.told = True
        self._channel.send(Drain(0.0, 0.0))

    def kill(self) -> None:
        """SIGKILL."""
        if not self.gone.is_set():
            self._child.kill()

    async def watch(self) -> None:
        """Wait for its end and reap it."""
        ended = asyncio.Event()
        pidfd = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._child.wait()
        self._channel.close()
        self.gone.set()

    def _on_gone(self, error: ControlError | None) -> None:
        if error is not None:
            self._child.kill()


class Agents:
    """Keeps the one agent. `on_news` gets what it finds out about backends, `on_command` what somebody wants done;
    `on_look` is called when it wants to be shown a Reading."""

    def __init__(
        self,
        memory: Sequence[int],
        events: EventLog,
        *,
        identity: Identity | None = None,
        on_news: Callable[[Health | Names], None],
        on_command: Callable[[Command], None],
        on_look: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._events = events
        self._identity = identity
        self._on_news = on_news
        self._on_command = on_command
        self._on_look = on_look
        self._admin: dict[str, socket.socket] = {}
        self._settings: AdminSettings | None = None
        self._setup: AgentSetup | None = None
        self._status: dict[str, Any] = {}
        self._process: AgentProcess | None = None
        self._checked: set[str] = set()
        self._hosts: set[str] = set()
        self._commands = 0  # that are at work
        self._health: dict[str, Health] = {}
        self._names: dict[str, Names] = {}
        self._wake = asyncio.Event()
        self._ending = False
        self._tasks = Tasks(asyncio.get_running_loop())

    @property
    def news(self) -> list[Health | Names]:
        """All that is known of backends, for a worker that has just started."""
        return [*self._names.values(), *self._health.values()]

    @property
    def admin(self) -> Mapping[str, socket.socket]:
        """The sockets of the admin interface."""
        return self._admin

    def bind(
        self, settings: AdminSettings | None, *, passed: Mapping[str, PassedSocket] | None = None
    ) -> dict[str, socket.socket] | None:
        """The sockets for these settings, open ones among them where they can stay; None if all can. `passed` are those
        of the gateway before this one. Raises StartError; then nothing has changed."""
        old = self._settings
        if settings is None:
            return None if old is None else {}
        kept: dict[str, socket.socket] = {}
        if old is None and passed:
            places = {"socket": Address.unix(settings.socket), "address": settings.address}
            kept = {name: sock for name, sock in passed.items() if bound_address(sock) == places[name]}
        elif old is not None:
            same = {"socket": old.socket == settings.socket, "address": old.address == settings.address}
            kept = {name: sock for name, sock in self._admin.items() if same[name]}
            if all(same.values()):
                return None
        return sockets.bind_admin(settings.socket, settings.address, kept=kept)

    def unbind(self, admin: Mapping[str, socket.socket] | None) -> None:
        """What `bind` gave is not wanted: close those that are new."""
        self._close_unless(admin or {}, self._admin)

    @staticmethod
    def _close_unless(these: Mapping[str, socket.socket], kept: Mapping[str, socket.socket]) -> None:
        sockets.close_admin({name: sock for name, sock in these.items() if kept.get(name) is not sock})

    def configure(self, setup: AgentSetup, admin: dict[str, socket.socket] | None) -> None:
        """Work for another configuration; `admin` are other sockets than before (None: the same)."""
        configuration = setup.configuration
        self._settings = configuration.admin
        self._setup = setup if is_needed(configuration) else None
        if admin is not None:
            self._close_unless(self._admin, admin)
            self._admin = admin
        self._checked = {service.name for service in configuration.services if service.health is not None}
        for name in [name for name in self._health if name not in self._checked]:
            self._on_news(Health(name, []))
            del self._health[name]
        addresses = [backend.address for service in configuration.services for backend in service.backends]
        self._hosts = {address.host for address in addresses if address.is_name}
        for host in [host for host in self._names if host not in self._hosts]:
            del self._names[host]
        process = self._process
        if process is not None and self._setup is not None and admin is None:
            process.setup(setup)
        elif process is not None:
            process.end()  # it has other sockets, or nothing to do: its successor takes over
        self._wake.set()

    def tell(self, status: dict[str, Any]) -> None:
        """The state of the processes has changed."""
        self._status = status
        if self._process is not None:
            self._process.send(Status(status))

    def answer(self, result: Result) -> None:
        """A command has ended."""
        self._commands -= 1
        if self._process is not None:
            self._process.send(result)

    def show(self, frame: bytes) -> None:
        """A Reading that it asked for."""
        if self._process is not None:
            self._process.show(frame)

    async def keep(self) -> None:
        """Run an agent whenever there is work for one. To be run as a task."""
        delay = 0.0
        while True:
            while self._setup is None:
                await self._wake.wait()
                self._wake.clear()
            started = asyncio.get_running_loop().time()
            told = await self._run(self._setup)
            if self._ending:
                return
            lived = asyncio.get_running_loop().time() - started
            if told or self._setup is None:
                delay = 0.0
                continue
            delay = 0.0 if lived > 10 else min(max(2 * delay, 0.25), 5.0)
            self._events.error("agent_died", "the agent died; its successor starts (health checks, names, admin)")
            await asyncio.sleep(delay)

    async def stop(self, *, files: bool = True) -> None:
        """End it, at the very end of the gateway. `files=False`: the admin interface is another process's now."""
        self._ending = True
        process = self._process
        if process is not None:
            process.end()
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.gone.wait()
            except TimeoutError:
                process.kill()
                await process.gone.wait()
        sockets.close_admin(self._admin, files=files)
        self._admin = {}

    async def _run(self, setup: AgentSetup) -> bool:
        """One agent from start to end; whether it was told to end."""
        try:
            environment = environment_without(setup.configuration)
            process = AgentProcess(self._memory, self._admin, self._on_message, self._identity, environment)
        except OSError as error:
            self._events.error("agent_not_started", f"the agent cannot start: {error}")
            return False
        watch = self._tasks.start(process.watch(), name=f"watcher of the agent {process.pid}")
        self._process = process
        try:
            await process.open()
            process.send(Status(self._status))
            process.setup(setup)
            await asyncio.shield(watch)
        finally:
            self._process = None
            if not process.gone.is_set():
                process.kill()
                await watch
        return process.told

    def _on_message(self, message: Message) -> None:
        # It parses what strangers send. Should it be taken over, it must not fill this process's memory.
        if isinstance(message, Health):
            if message.service in self._checked:
                self._health[message.service] = message
                self._on_news(message)
        elif isinstance(message, Names):
            if message.host in self._hosts:
                self._names[message.host] = message
                self._on_news(message)
        elif isinstance(message, Command):
            if self._commands < MOST_COMMANDS:
                self._commands += 1
                self._on_command(message)
            elif self._process is not None:
                self._process.send(Result(message.number, False, f"{MOST_COMMANDS} commands are at work: try again"))
        elif isinstance(message, Look):
            if self._process is not None and self._process.keeps_up:
                self._on_look()
        elif not isinstance(message, Ready) and self._process is not None:
            self._process.kill()  # it says what no agent says


def token_of(configuration: Configuration) -> str | None:
    """The token of the admin interface, which the agent may have no right to read. Raises StartError."""
    admin = configuration.admin
    if admin is None or admin.token is None:
        return None
    from rauta.config.secrets import SecretError
    from rauta.config.secrets import token_of as read

    try:
        return read(admin.token)
    except SecretError as error:
        raise StartError(f"admin.token: {error.message}") from error
