"""A gateway within another program.

    async with Gateway("rauta.yaml") as gateway:                the listeners of the file, served on the running loop
        await gateway.apply("next.yaml")

    async with Gateway("rauta.yaml", workers=2) as gateway:     the same, served by processes of its own
        ...

    app = Gateway("rauta.yaml")                                 the same table as an ASGI 3 application, whose host has
                                                                the listeners

The first and the last are one worker's data plane, with what the agent does for workers (`inloop`); the second is what
the program `rauta` is (`processes`).

    NEW --open--> OPEN --drain, close--> DRAINING --close, once all has ended--> CLOSED
     ^--fails--'  | ^--apply--'                                                    ^
                  '-- its processes die by themselves: nothing but close is left --'
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum, auto
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from rauta.embed.choices import Choices, OffloadChoice
from rauta.embed.errors import GatewayError
from rauta.embed.inloop import InLoop
from rauta.embed.parts import Sockets, Source, configuration_of, located, read
from rauta.embed.stats import GatewayStats
from rauta.proxy.asgi.applications import ApplicationError
from rauta.routing.model import Configuration
from rauta.routing.table import Table
from rauta.runtime.tasks import Tasks

if TYPE_CHECKING:
    from rauta.embed.processes import Processes
    from rauta.proxy.asgi.protocol import Receive, Scope, Send
    from rauta.proxy.dispatch import Dispatcher

_ONCE: Final = "a gateway is opened once: make another one"
_CLOSED: Final = "the gateway is closed: make another one"
_DRAINED: Final = "the gateway drains, or is drained: it serves no other configuration; make another one"
_NOT_OPEN: Final = "the gateway is not open: use `async with`, or an ASGI host with lifespan"


class _State(Enum):
    """See above. Whether processes have died is what they say themselves."""

    NEW = auto()
    OPEN = auto()
    DRAINING = auto()  # or drained, which its future says
    CLOSED = auto()


class Gateway:
    """One table, served on the running loop (`workers=0`), by processes, or for an ASGI host.

    `config` is the path of a file, a Configuration or a Table (which the gateway closes in the end). With `workers` a
    supervisor, that many worker processes and an agent serve it, and end when the program does; the loop only controls
    them, and carries no traffic. `offload` says which kernel tiers these have: `None` none, "file" those of the file's
    `offload` section, a mode ("auto", "require") that one with what else the section says, OffloadSettings these in its
    place. `listener` names the listener whose routes, filters and limits hold for an ASGI host's requests; without it,
    the only one. `sockets` are bound ones by the name of their listener, which the gateway closes; a listener that is
    not among them is not bound, and without `sockets` all are, at their addresses.

    Raises ConfigError and GatewayError.
    """

    def __init__(
        self,
        config: Source,
        *,
        offload: OffloadChoice | None = None,
        workers: int = 0,
        listener: str | None = None,
        sockets: Sockets | None = None,
    ) -> None:
        self._choices = Choices(workers, offload, None if sockets is None else frozenset(sockets))
        if workers and listener is not None:
            raise GatewayError(
                f"listener={listener!r} is for an ASGI host's requests, and workers={workers} serve none"
            )
        if workers and sockets is not None and not any(sockets.values()):
            raise GatewayError(f"sockets={sockets!r}: workers={workers} would serve nothing")
        self._from = os.fspath(config) if isinstance(config, str | os.PathLike) else "a program's configuration"
        self._given = config
        self._source = read(config)
        self._table: Table | None = None  # of processes, which have their own
        self._workers = workers
        self._listener = listener
        self._sockets = sockets
        self._running: InLoop | Processes | None = None
        self._state = _State.NEW
        self._changing = asyncio.Lock()
        self._applying: asyncio.Timeout | None = None  # what a drain ends it by
        self._drained: asyncio.Task[bool] | None = None
        configuration = configuration_of(self._source)
        names = {known.name for known in configuration.listeners}
        for name in (*(() if listener is None else (listener,)), *(sockets or ())):
            if name not in names:
                raise GatewayError(f"there is no listener {name!r}; known: {', '.join(sorted(names))}")

    # --- the native data plane ---

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            raise GatewayError(_ONCE)
        await self._open(self._sockets)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def apply(self, config: Source) -> None:
        """Serve this from now on. Every request obeys the old or the new table, and none is lost; listeners that are
        gone end their connections as when draining. Raises RautaError; then nothing has changed. Should the gateway be
        drained meanwhile, it is given up (GatewayError). One that is cancelled may still come to be served."""
        async with self._changing:
            running = self._open_one()
            if self._state is not _State.OPEN:
                raise GatewayError(_DRAINED)
            try:
                async with asyncio.timeout(None) as self._applying:
                    await self._apply(running, config)
            except TimeoutError:
                if self._state is _State.OPEN:
                    raise
                raise GatewayError(_DRAINED) from None
            finally:
                self._applying = None

    def stats(self) -> GatewayStats:
        """What there is now, and what was counted. Raises GatewayError if it is not open, or its processes have ended
        by themselves."""
        return self._open_one().stats(draining=self._state is _State.DRAINING)

    async def drain(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - what is left is cut, not cancelled
        """Take no more connections and requests; let what is in flight end for up to `timeout` seconds (None: the
        configuration's), then cut it. Whether all ended in time. The gateway serves nothing afterwards; processes have
        ended. A drain goes on though its caller is cancelled; another call waits for the same one, and with a
        `timeout` no longer than that. Raises GatewayError as `stats`."""
        running = self._open_one()
        if self._drained is None:
            self._drained = self._start_to_drain(running, timeout)
        elif timeout is not None:
            await asyncio.wait({self._drained}, timeout=max(timeout, 0))
            if not self._drained.done():
                running.cut()
        return await asyncio.shield(self._drained)

    async def close(self) -> None:
        """Drain, or wait for the end of that, and let go of everything. Twice is the same as once."""
        running = self._running
        if running is None:
            return
        try:
            if self._drained is not None or running.alive:
                await self.drain()
        except asyncio.CancelledError:
            running.cut()
            if self._workers:  # whoever is in such a hurry must not leave processes behind
                await running.close()
            raise
        if self._running is None:
            return  # another one was first
        self._state, self._running = _State.CLOSED, None
        await running.close()
        self._take(None)

    def _start_to_drain(self, running: InLoop | Processes, seconds: float | None) -> asyncio.Task[bool]:
        running.check()
        self._state = _State.DRAINING
        if self._applying is not None:
            self._applying.reschedule(0)  # that is, now
        drained = running.drain(running.configuration.shutdown.timeout if seconds is None else max(seconds, 0))
        return Tasks(asyncio.get_running_loop()).start(drained, name="drain of an embedded gateway")

    # --- an ASGI application ---

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3. A host that sends no lifespan (or whose application has mounted this one) opens the gateway with its
        first request; whoever wants it drained then calls `close`."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._running is None or self._workers:
            async with self._changing:
                await self._open_for_host()
        call: Any
        if kind == "http":
            from rauta.proxy.asgi.server import Call as call  # noqa: N813 - only where there is a host
        elif kind == "websocket":
            call = _socket()
        else:
            raise GatewayError(f"ASGI scope {kind!r}: only http, websocket and lifespan are known")
        await call(self._dispatcher(), scope, receive, send).run(draining=self._state is not _State.OPEN)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        ours = self._running is None  # else it is open already, and somebody else closes it
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._open_for_host()
                    self._name()
                except Exception as error:  # noqa: BLE001 - the host is told, whatever it is, and ends
                    if ours:
                        await self.close()
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if ours:
                    await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _dispatcher(self) -> Dispatcher:
        running = self._open_one()
        if not isinstance(running, InLoop):
            raise GatewayError(_NOT_OPEN)
        return running.dispatcher_of(self._name())

    def _name(self) -> str:
        """The listener of a host's requests."""
        if self._listener is not None:
            return self._listener
        listeners = self._open_one().configuration.listeners
        if len(listeners) != 1:
            names = ", ".join(known.name for known in listeners)
            raise GatewayError(
                f"listener=NAME must say which of the listeners an ASGI host's requests are for: {names}"
            )
        return listeners[0].name

    # --- opening and changing ---

    def _open_one(self) -> InLoop | Processes:
        if self._running is None:
            raise GatewayError(_CLOSED if self._state is _State.CLOSED else _NOT_OPEN)
        return self._running

    async def _open_for_host(self) -> None:
        """Nothing, if it is open."""
        if self._workers:
            raise GatewayError(
                f"workers={self._workers}: as an ASGI application a gateway serves in the processes of its host, which "
                "can have several; use workers=0"
            )
        if self._running is None:
            await self._open(self._sockets or {})

    async def _open(self, sockets: Sockets | None) -> None:
        """Raises RautaError; then it may be tried again."""
        if self._state is not _State.NEW:
            raise GatewayError(_CLOSED)
        if self._workers:
            from rauta.embed.processes import Processes  # and what reads their counters

            configuration = configuration_of(self._source)
            self._running = await Processes.open(configuration, self._from, self._choices, sockets)
            self._take(self._source if isinstance(self._source, Table) else None)
        else:
            try:
                self._running = await InLoop.open(self._source, sockets)
            except ApplicationError as error:
                raise GatewayError(await asyncio.to_thread(located, error, self._given)) from error
        self._state = _State.OPEN

    async def _apply(self, running: InLoop | Processes, config: Source) -> None:
        source = await asyncio.to_thread(read, config)
        self._check_change(configuration_of(source))
        if isinstance(running, InLoop):
            try:
                await running.apply(source)
            except ApplicationError as error:
                raise GatewayError(await asyncio.to_thread(located, error, config)) from error
            return
        table = source if isinstance(source, Table) else None
        try:
            await running.apply(configuration_of(source))
        except BaseException:
            if table is not None:
                table.close()
            raise
        self._take(table)

    def _check_change(self, after: Configuration) -> None:
        names = {listener.name for listener in after.listeners}
        if self._listener is not None and self._listener not in names:
            raise GatewayError(f"the new configuration has no listener {self._listener!r}")

    def _take(self, table: Table | None) -> None:
        """Keep this for the program as long as processes serve its configuration; let go of the one before."""
        if self._table is not None and self._table is not table:
            self._table.close()
        self._table = table


def _socket() -> Any:
    try:
        from rauta.proxy.asgi.sockets import Socket
    except ImportError:
        raise GatewayError("WebSocket needs the package `websockets`: pip install 'rauta[asgi]'") from None
    return Socket
