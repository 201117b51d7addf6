"""ASGI applications in the worker's own loop: loaded, started and stopped by their lifespan (one in each worker)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import reduce
from importlib import import_module
from typing import Any, Final

from rauta.proxy.asgi.protocol import LIFESPAN_SPEC, VERSION, Application, Message
from rauta.proxy.tasks import Tasks
from rauta.routing.errors import RautaError

LOGGER: Final = logging.getLogger("rauta.asgi")
START_TIMEOUT: Final = 30.0  # seconds; the supervisor waits 60 for a worker, and can then say less about why
STOP_TIMEOUT: Final = 5.0


class ApplicationError(RautaError):
    """An application cannot be imported, or did not start. Says which and why."""


def load(name: str) -> Application:
    """What `module:attribute` names. Imports the module; blocks. Raises ApplicationError."""
    module, _, attribute = name.partition(":")
    try:
        found = reduce(getattr, attribute.split("."), import_module(module))
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its failure, told as such
        raise ApplicationError(f"asgi {name!r} cannot be imported: {error!r}") from error
    if not callable(found):
        raise ApplicationError(f"asgi {name!r} is no application: {type(found).__name__} cannot be called")
    application: Application = found
    return application


class App:
    """One application. `state` is what its lifespan leaves for requests."""

    __slots__ = ("_asked", "_events", "_started", "_stopped", "_task", "call", "name", "state")

    def __init__(self, name: str, call: Application) -> None:
        self.name = name
        self.call = call
        self.state: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._started: asyncio.Future[str] = loop.create_future()  # why it has not; empty if it has
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._asked = False  # for its lifespan
        self._task: asyncio.Task[None] | None = None

    async def start(self, tasks: Tasks) -> None:
        """Begin its lifespan. Raises ApplicationError."""
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = tasks.start(self._live(), name=f"lifespan of {self.name}")
        try:
            failure = await asyncio.wait_for(asyncio.shield(self._started), START_TIMEOUT)
        except TimeoutError:
            failure = f"no lifespan.startup.complete within {START_TIMEOUT:g} s"
        if failure:
            self._task.cancel()
            raise ApplicationError(f"asgi {self.name!r} did not start: {failure}")

    async def stop(self) -> None:
        """End its lifespan."""
        if self._task is not None and not self._task.done():
            self._events.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait([self._stopped], timeout=STOP_TIMEOUT)
            self._task.cancel()

    async def _live(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": VERSION, "spec_version": LIFESPAN_SPEC},
            "state": self.state,
        }
        try:
            await self.call(scope, self._receive, self._send)
        except Exception as error:
            if self._started.done():
                LOGGER.exception("asgi %r: its lifespan failed", self.name)
            elif self._asked:
                # ASGI: "If an exception is raised when calling the application callable with a lifespan.startup
                # message or a scope of type lifespan, the server must continue but not send any lifespan events."
                LOGGER.warning("asgi %r: its lifespan failed, and it is served without: %r", self.name, error)
        finally:
            if not self._started.done():
                self._started.set_result("")
            if not self._stopped.done():
                self._stopped.set_result(None)

    async def _receive(self) -> Message:
        self._asked = True
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind.startswith("lifespan.startup.") and not self._started.done():
            failed = kind == "lifespan.startup.failed"
            self._started.set_result((message.get("message") or "it gives no reason") if failed else "")
        elif kind.startswith("lifespan.shutdown.") and not self._stopped.done():
            if kind == "lifespan.shutdown.failed":
                LOGGER.error("asgi %r: its shutdown failed: %s", self.name, message.get("message", ""))
            self._stopped.set_result(None)


class Applications:
    """Those of one worker."""

    __slots__ = ("_apps", "_stopping", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._apps: dict[str, App] = {}
        self._stopping = False

    def __len__(self) -> int:
        return len(self._apps)

    def has_others(self, names: Collection[str]) -> bool:
        """Whether one runs that is not among these, and is not being stopped."""
        return not self._stopping and any(name not in names for name in self._apps)

    def of(self, name: str) -> App:
        """One that has been started. Raises LookupError."""
        return self._apps[name]

    async def start(self, names: Iterable[str]) -> None:
        """Load and start those that do not run yet. Raises ApplicationError; those before it run then."""
        for name in names:
            if name not in self._apps:
                app = App(name, await asyncio.to_thread(load, name))
                await app.start(self._tasks)
                self._apps[name] = app

    async def keep(self, names: Collection[str]) -> None:
        """Stop all others."""
        others = [name for name in self._apps if name not in names]
        if others and not self._stopping:
            self._stopping = True
            try:
                await asyncio.gather(*(self._apps.pop(name).stop() for name in others))
            finally:
                self._stopping = False
