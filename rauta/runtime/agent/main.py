"""The life of the agent. Started by the supervisor as

    python -m rauta.runtime.agent control=7 columns=8,9 socket=10 address=11

with its end of the control connection, the memory that workers count in, and the listening sockets of the admin
interface, if there are any. When the supervisor is gone, so is the agent.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from rauta.config.inventory import Contents, ends_of_certificates, ends_of_lists, inventory
from rauta.routing.model import Configuration
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.agent.kernel import Kernel
from rauta.runtime.agent.names import Names
from rauta.runtime.backend_credentials import tls_to_backends_of
from rauta.runtime.control import (
    AgentSetup,
    Channel,
    Command,
    ControlError,
    Drain,
    Health,
    Look,
    Message,
    Reading,
    Ready,
    Result,
    Status,
    for_the_agent,
)
from rauta.runtime.control import Names as NamesMessage
from rauta.runtime.errors import EXIT_CONFIGURATION, EXIT_OK
from rauta.runtime.log import EventLog, bridge, lose_what_has_no_room
from rauta.runtime.privileges import no_new_privileges
from rauta.runtime.terminal import ignore_terminal

if TYPE_CHECKING:
    from rauta.runtime.agent.admin import Admin
    from rauta.runtime.agent.metrics import Metrics
    from rauta.runtime.backend_tls import TlsToBackends

COMMAND_TIMEOUT = 120.0  # a reload may build for a minute


class Agent:
    """Wires health checks, names and the admin interface to the supervisor. Implements `admin.Views`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, events: EventLog, columns: Sequence[int]) -> None:
        self._loop = loop
        self._columns = columns
        self._channel = Channel(self._on_message, self._on_gone, self._on_pickle)
        self._health = HealthChecks(loop, self._tell_health, events)
        self._names = Names(loop, self._tell_names, events)
        self._kernel = Kernel(lambda: self._channel.send(Look()))
        self._end = loop.create_future()
        self._configured = loop.create_future()
        self._configuration: Configuration | None = None
        self._token: str | None = None
        self._tls_to_backends: TlsToBackends | None = None
        self._contents = Contents()
        self._status: dict[str, Any] = {}
        self._answers: dict[int, asyncio.Future[Result]] = {}
        self._numbers = 0
        self._admin: Admin | None = None
        self._metrics: Metrics | None = None

    async def run(self, control: socket.socket, admin: Mapping[str, socket.socket]) -> int:
        """Work until the supervisor says so, or is gone; the exit status."""
        await self._channel.open(self._loop, control)
        await asyncio.wait({self._configured, self._end}, return_when=asyncio.FIRST_COMPLETED)
        if not self._end.done():
            if admin:
                await self._serve(admin)
            self._channel.send(Ready())
            await self._end
        await self._health.close()
        await self._names.close()
        if self._admin is not None:
            await self._admin.close()
        self._channel.close()
        return EXIT_OK

    async def _serve(self, admin: Mapping[str, socket.socket]) -> None:
        from rauta.runtime.agent.admin import Admin  # aiohttp: only where it is asked for
        from rauta.runtime.agent.metrics import Metrics

        self._metrics = Metrics(self._columns, self._kernel)
        self._metrics.health = self._health
        self._admin = Admin(self)
        self._configure()
        for kind, sock in admin.items():
            settings = None if self._configuration is None else self._configuration.admin
            address = None if kind == "socket" or settings is None else str(settings.address)
            await self._admin.serve(sock, address=address)

    # --- from the supervisor ---

    def _on_pickle(self, payload: bytes) -> None:
        found = for_the_agent(payload)
        if isinstance(found, Reading):
            self._kernel.tell(found)
        else:
            self._on_setup(found)

    def _on_setup(self, setup: AgentSetup) -> None:
        self._configuration, self._token = setup.configuration, setup.token
        ours = setup.backend_credentials
        self._contents = Contents(
            served=setup.certificates,
            for_clients=setup.revocation_lists,
            shown={tls: one.facts for tls, one in ours.items() if one.facts is not None},
            for_backends={tls: one.revocations.lists for tls, one in ours.items() if one.revocations is not None},
        )
        self._tls_to_backends = tls_to_backends_of(
            self._configuration, setup.backend_credentials, self._tls_to_backends
        )
        self._health.update(
            self._configuration, None if self._tls_to_backends is None else self._tls_to_backends.contexts
        )
        self._names.update(self._configuration)
        self._configure()
        if not self._configured.done():
            self._configured.set_result(None)

    def _configure(self) -> None:
        configuration = self._configuration
        if configuration is None:
            return
        if self._metrics is not None:
            self._metrics.services = [service.name for service in configuration.services]
            self._metrics.status = self._status
            document = self.certificates()
            self._metrics.certificates = ends_of_certificates(document)
            self._metrics.revocation_lists = ends_of_lists(document)
        if self._admin is not None:
            self._admin.token = self._token

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Status):
            self._status = message.status
            self._kernel.is_now(message.status["offload"])
            if self._metrics is not None:
                self._metrics.status = self._status
        elif isinstance(message, Result):
            answer = self._answers.pop(message.number, None)
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif isinstance(message, Drain) and not self._end.done():
            self._end.set_result(None)

    def _on_gone(self, error: ControlError | None) -> None:
        if not self._end.done():
            self._end.set_result(None)

    # --- to the supervisor ---

    def _tell_health(self, service: str, down: frozenset[str]) -> None:
        self._channel.send(Health(service, sorted(down)))

    def _tell_names(self, host: str, addresses: tuple[str, ...]) -> None:
        self._channel.send(NamesMessage(host, list(addresses)))

    # --- admin.Views ---

    def status(self) -> Mapping[str, Any]:
        """See Views."""
        return self._status

    def services(self) -> list[dict[str, Any]]:
        """See Views."""
        services = () if self._configuration is None else self._configuration.services
        found = []
        for service in services:
            states = self._health.states(service.name)
            backends = []
            for backend in service.backends:
                address = str(backend.address)
                row: dict[str, Any] = {"address": address, "weight": backend.weight}
                state = states.get(address)
                if state is None:
                    row["health"] = "unchecked"
                else:
                    row["health"] = "unknown" if state.checked is None else "healthy" if state.healthy else "unhealthy"
                    row |= {"since": state.since, "checked": state.checked, "failure": state.failure}
                if backend.address.is_name:
                    row["addresses"] = list(self._names.known.get(backend.address.host, ()))
                    row["name_failure"] = self._names.failing.get(backend.address.host)
                backends.append(row)
            found.append({"name": service.name, "backends": backends})
        return found

    def certificates(self) -> Mapping[str, Any]:
        """See Views."""
        listeners = () if self._configuration is None else self._configuration.listeners
        services = () if self._configuration is None else self._configuration.services
        return inventory(listeners, services, self._contents, time())

    def stats(self) -> Mapping[str, Any]:
        """See Views."""
        if self._metrics is None:
            return {}
        from rauta.runtime.agent.metrics import summary

        reading = self._kernel.reading
        taken = {"time": time(), "kernel_time": None if reading is None else reading.time}
        return {**taken, **summary(self._metrics.totals(reading))}

    async def refresh(self) -> None:
        """See Views."""
        await self._kernel.refresh()

    def offload(self) -> Mapping[str, Any]:
        """See Views."""
        return self._kernel.shown()

    def config(self) -> Mapping[str, Any]:
        """See Views."""
        from rauta.config.dump import dump

        return {} if self._configuration is None else dump(self._configuration)

    def metrics(self) -> bytes:
        """See Views."""
        return b"" if self._metrics is None else self._metrics.text()

    async def command(self, name: str) -> Result:
        """See Views."""
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._answers[number] = answer
        self._channel.send(Command(number, name))
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                return await answer
        except TimeoutError:
            return Result(number, False, f"no answer within {COMMAND_TIMEOUT:g} s; the log tells how it ended")
        finally:
            self._answers.pop(number, None)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the module."""
    ignore_terminal()
    no_new_privileges()
    lose_what_has_no_room()
    events = EventLog()
    bridge(events)
    arguments = dict(argument.partition("=")[::2] for argument in (sys.argv[1:] if argv is None else argv))
    if not {"control", "columns"} <= arguments.keys():
        events.text("rauta: the agent is started by the gateway: use `python -m rauta.proxy`")
        return EXIT_CONFIGURATION
    columns = [int(number) for number in arguments.pop("columns").split(",")]
    fds = {name: int(number) for name, number in arguments.items()}
    for fd in (*columns, *fds.values()):
        os.set_inheritable(fd, False)
    admin: dict[str, socket.socket] = {}
    for name in ("socket", "address"):
        if name in fds:
            admin[name] = socket.socket(fileno=fds[name])
    control = socket.socket(fileno=fds["control"])
    control.setblocking(False)
    with asyncio.Runner() as runner:
        return runner.run(Agent(runner.get_loop(), events, columns).run(control, admin))
