"""ASGI hosts: one in memory whose every step a test decides, and real ones as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rauta.api import AccessLog, Address, ClientTimeouts, Configuration, Listener, LogFormat
from support.http import forward, service
from support.process import PATIENCE, ROOT, free_port

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


def scope(path: str = "/", *headers: tuple[bytes, bytes], method: str = "GET", **more: Any) -> dict[str, Any]:
    """A scope of HTTP."""
    raw, _, query = path.encode().partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw.decode(),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("192.0.2.7", 4000),
        "server": ("192.0.2.1", 80),
        **more,
    }


class Call:
    """One call of an application. The test says what `receive` gives, and when `send` returns."""

    def __init__(self, app: App, scope: dict[str, Any], *messages: Message) -> None:
        self.sent: list[Message] = []
        self.taking = asyncio.Event()  # the client takes what is sent
        self.taking.set()
        self.asked = 0  # calls of `receive`
        self.failure: Exception | None = None  # what `send` raises
        self._came = asyncio.Condition()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self._messages.put_nowait(message)
        self.task = asyncio.get_running_loop().create_task(app(scope, self._receive, self._send))

    def give(self, message: Message) -> None:
        """What `receive` gives next."""
        self._messages.put_nowait(message)

    async def _receive(self) -> Message:
        self.asked += 1
        return await self._messages.get()

    async def _send(self, message: Message) -> None:
        if self.failure is not None:
            raise self.failure
        await self.taking.wait()
        async with self._came:
            self.sent.append(message)
            self._came.notify_all()

    async def until(self, count: int) -> list[Message]:
        """Wait until so much was sent."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: len(self.sent) >= count)
        return self.sent

    async def end(self) -> None:
        """Wait until the application returns. Raises what it raises."""
        async with asyncio.timeout(10):
            await self.task

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def body(data: bytes = b"", *, more: bool = False) -> Message:
    """A piece of a request's body."""
    return {"type": "http.request", "body": data, "more_body": more}


async def ask(app: App, scope: dict[str, Any], *messages: Message) -> Call:
    """A whole call, of a request without a body unless there are messages."""
    call = Call(app, scope, *(messages or (body(),)))
    await call.end()
    return call


def configuration(
    *ports: int,
    routes: Any = None,
    services: Any = None,
    log: str = "off",
    patience: ClientTimeouts | None = None,
    **more: Any,
) -> Configuration:
    """One listener that nobody binds, and everything to the backends on `ports`."""
    timeouts = patience or ClientTimeouts()
    return Configuration(
        listeners=(Listener(name="web", address=Address("127.0.0.1", 1), timeouts=timeouts, **more),),
        services=services if services is not None else (service(*ports),) if ports else (),
        routes=routes if routes is not None else (forward(),),
        access_log=AccessLog(to=log, format=LogFormat.JSON),
    )


HOSTS = {
    "hypercorn": ("-m", "hypercorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "2", "{app}"),
    "uvicorn": (
        *("-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--timeout-graceful-shutdown", "2", "{app}"),
    ),
}


class Host:
    """A host's process."""

    def __init__(self, command: Sequence[str], port: int, log: Path, folder: Path) -> None:
        self.port = port
        self.log = log
        # The folder of the application first; the tree under test is where the tests have it.
        paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # hypercorn serves in a child of its own
            )

    def wait_until_it_listens(self) -> None:
        """Fails with what it said instead."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.05)
        raise TimeoutError(f"the host does not listen; it said:\n{self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def host(kind: str, app: str, folder: Path) -> Iterator[Host]:
    """A host that serves an application of a module in the folder, or in the tree."""
    port = free_port()
    command = [word.format(port=port, app=app) for word in HOSTS[kind]]
    running = Host(command, port, folder / f"{kind}.log", folder)
    try:
        running.wait_until_it_listens()
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait()
