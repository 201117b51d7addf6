"""ASGI applications in the worker's own loop: loaded, started and stopped by their lifespan (one in each worker)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Collection, Mapping
from typing import Any, Final

from rauta.proxy.asgi.loading import LoadError, load
from rauta.proxy.asgi.protocol import LIFESPAN_SPEC, VERSION, Application, Message
from rauta.proxy.tasks import Tasks
from rauta.routing.errors import RautaError

LOGGER: Final = logging.getLogger("rauta.asgi")
# Seconds for the imports and lifespans of all; the supervisor waits 60 for a worker, and can then say less about why.
START_TIMEOUT: Final = 30.0
STOP_TIMEOUT: Final = 5.0


class ApplicationError(RautaError):
    """Applications cannot be imported, or did not start. `routes` has what is wrong by the name of a route."""

    def __init__(self, routes: Mapping[str, str]) -> None:
        super().__init__("\n".join(f"route {name!r}: {text}" for name, text in routes.items()))
        self.routes = dict(routes)


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

    async def start(self, tasks: Tasks, deadline: float) -> str:
        """Begin its lifespan. Why it has not started; empty if it has. `deadline` is a time of the loop."""
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = tasks.start(self._live(), name=f"lifespan of {self.name}")
        try:
            async with asyncio.timeout_at(deadline):
                failure = await asyncio.shield(self._started)
        except TimeoutError:
            failure = f"no lifespan.startup.complete within {START_TIMEOUT:g} s, its import included"
        if failure:
            self._task.cancel()
        return failure

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

    __slots__ = ("_apps", "_importing", "_imports", "_starting", "_stopping", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._apps: dict[str, App] = {}
        self._starting: dict[str, asyncio.Future[str]] = {}  # why it has not; empty if it has
        # One after another: of modules that import each other, two threads would see halves.
        self._imports = asyncio.Lock()
        self._importing = ""
        self._stopping = False

    def __len__(self) -> int:
        return len(self._apps)

    def has_others(self, names: Collection[str]) -> bool:
        """Whether one runs that is not among these, and is not being stopped."""
        return not self._stopping and any(name not in names for name in self._apps)

    def of(self, name: str) -> App:
        """One that has been started. Raises LookupError."""
        return self._apps[name]

    async def start(self, wanted: Mapping[str, str]) -> None:
        """Load and start those that do not run yet, all at the same time; `wanted` has for each the first route that
        names it. Raises ApplicationError with every one that fails; the others run then."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT
        for name in wanted:
            if name not in self._apps and name not in self._starting:
                self._starting[name] = asyncio.get_running_loop().create_future()
                self._tasks.start(self._start(name, deadline), name=f"start of {name}")
        starting = {name: self._starting[name] for name in wanted if name in self._starting}
        failures = {wanted[name]: why for name, started in starting.items() if (why := await asyncio.shield(started))}
        if failures:
            raise ApplicationError(failures)

    async def _start(self, name: str, deadline: float) -> None:
        """Tells its future, however it ends."""
        failure = f"asgi {name!r}: its start was given up"
        try:
            app = App(name, await self._load(name, deadline))
            failure = await app.start(self._tasks, deadline)
            if failure:
                failure = f"asgi {name!r} did not start: {failure}"
            else:
                self._apps[name] = app
        except LoadError as error:
            failure = str(error)
            if error.raised:
                LOGGER.error("asgi %r: the import of its module failed", name, exc_info=error.__cause__)  # noqa: TRY400
        finally:
            self._starting.pop(name).set_result(failure)

    async def _load(self, name: str, deadline: float) -> Application:
        """Raises LoadError."""
        try:
            async with asyncio.timeout_at(deadline):
                async with self._imports:
                    self._importing = name
                    return await _in_thread(name)
        except TimeoutError:
            what = "its import" if self._importing == name else f"the import of {self._importing!r}, before it,"
            raise LoadError(f"asgi {name!r}: {what} did not end within {START_TIMEOUT:g} s") from None

    async def keep(self, names: Collection[str]) -> None:
        """Stop all others."""
        others = [name for name in self._apps if name not in names]
        if others and not self._stopping:
            self._stopping = True
            try:
                await asyncio.gather(*(self._apps.pop(name).stop() for name in others))
            finally:
                self._stopping = False


async def _in_thread(name: str) -> Application:
    """`load` in a thread that nobody waits for at the end: an import may hang for ever. Raises LoadError."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[Application] = loop.create_future()

    def tell(application: Application | None, error: BaseException | None) -> None:
        if loaded.done():
            return  # given up
        if application is None:
            loaded.set_exception(error or LoadError(f"asgi {name!r} cannot be imported"))
        else:
            loaded.set_result(application)

    def run() -> None:
        try:
            found, failure = load(name), None
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            found, failure = None, error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, found, failure)

    threading.Thread(target=run, name=f"import of {name}", daemon=True).start()
    return await loaded
