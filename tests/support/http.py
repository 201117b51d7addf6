"""A data plane in the test's own process, scripted backends, and raw clients."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from rauta.proxy.accesslog import AccessLogWriter
from rauta.proxy.dataplane import DataPlane
from rauta.proxy.tls import ServerContexts
from rauta.routing.model import (
    Configuration,
    Forward,
    Route,
    WeightedService,
)
from rauta.routing.services import Backend, Service, Timeouts
from rauta.routing.settings import AccessLog, Address, ClientTimeouts, Listener, LogFormat
from rauta.routing.table import Table

WAIT = 10.0  # seconds; nothing in these tests takes that long unless it hangs


def run(main: Coroutine[Any, Any, None], seconds: float = 30.0) -> None:
    """Run one test's coroutine on a uvloop loop, as a worker does."""

    async def bounded() -> None:
        failures: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with asyncio.timeout(seconds):
            await main
        assert not failures, failures

    uvloop.run(bounded())


def free_port() -> int:
    """A port on which nobody listens (and nobody will soon: the kernel goes round)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the gateway ----------------------------------------------------------------------------------------


def service(*ports: int, name: str = "s", timeouts: Timeouts | None = None) -> Service:
    """A service on loopback."""
    backends = tuple(Backend(address=Address("127.0.0.1", port)) for port in ports)
    return Service(name=name, backends=backends, timeouts=timeouts or Timeouts())


def late() -> tuple[Script, asyncio.Event, asyncio.Event]:
    """A backend that answers when it is told to; set when a request has arrived; and to be set for its answer."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await go.wait()
        peer.send(ok(b"late"))
        await peer.closed()

    return script, arrived, go


def forward(name: str = "s", route: str = "r", **more: Any) -> Route:
    """A route to a service, for all requests unless `matches` says otherwise."""
    return Route(name=route, action=Forward(services=(WeightedService(name=name),)), **more)


class Gateway:
    """A running data plane with one listener."""

    def __init__(self, plane: DataPlane, port: int, log: AccessLogWriter | None, log_fd: int | None) -> None:
        self.plane = plane
        self.port = port
        self._log = log
        self._log_fd = log_fd

    def log_lines(self) -> list[str]:
        """What was logged so far. Ends the log's thread, which starts again with the next line."""
        assert self._log is not None
        assert self._log_fd is not None
        self._log.close()
        return os.pread(self._log_fd, 1 << 20, 0).decode().splitlines()


@asynccontextmanager
async def gateway(
    *ports: int,
    services: Sequence[Service] | None = None,
    routes: Sequence[Route] | None = None,
    listener: Listener | None = None,
    log: LogFormat | None = None,
    ssl: Any = None,
    backend_contexts: Any = None,
    **more: Any,
) -> AsyncIterator[Gateway]:
    """A data plane that forwards everything to the backends on `ports`, or by `services` and `routes`."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    port = sock.getsockname()[1]
    listener = listener or Listener(name="web", address=Address("127.0.0.1", port))
    configuration = Configuration(
        listeners=(listener,),
        services=tuple(services) if services is not None else (service(*ports),) if ports else (),
        routes=tuple(routes) if routes is not None else (forward(),) if ports else (),
        access_log=AccessLog(to="off"),
        **more,
    )
    table = Table(configuration)
    log_fd = os.memfd_create("access-log") if log is not None else None
    writer = AccessLogWriter(log_fd, log) if log is not None and log_fd is not None else None
    plane = DataPlane(table, loop=asyncio.get_running_loop(), access_log=writer, backend_contexts=backend_contexts)
    await plane.serve(listener, sock, contexts=None if ssl is None else ServerContexts([((), ssl)]))
    try:
        yield Gateway(plane, port, writer, log_fd)
    finally:
        await plane.drain(0.05)
        table.close()
        if writer is not None and log_fd is not None:
            writer.close()
            os.close(log_fd)


def impatient(**seconds: float) -> Listener:
    """A listener with short time-outs towards clients."""
    return Listener(name="web", address=Address("127.0.0.1", 1), timeouts=ClientTimeouts(**seconds))


# --- backends -------------------------------------------------------------------------------------------

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One connection that a scripted backend has accepted."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer
        self.received = b""

    async def head(self) -> bytes:
        """The next head, with its empty line; b"" at the end of the stream."""
        try:
            data = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            self.received += error.partial
            return b""
        self.received += data
        return data

    async def exactly(self, size: int) -> bytes:
        """That many bytes."""
        data = await self.reader.readexactly(size)
        self.received += data
        return data

    async def rest(self) -> bytes:
        """All until the end of the stream."""
        data = await self.reader.read()
        self.received += data
        return data

    def send(self, data: bytes) -> None:
        """Write without waiting."""
        self.writer.write(data)

    async def closed(self) -> None:
        """Wait until the gateway has closed the connection, whatever it sends before."""
        try:
            await self.rest()
        except ConnectionError:
            return


class BackendServer:
    """A running scripted backend."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.peers: list[Peer] = []

    @property
    def received(self) -> list[bytes]:
        """What each connection has brought."""
        return [peer.received for peer in self.peers]


@asynccontextmanager
async def backend(script: Script, port: int = 0) -> AsyncIterator[BackendServer]:
    """A server on loopback that plays `script` on each connection and then closes it."""
    handlers: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        peer = Peer(len(found.peers), reader, writer)
        found.peers.append(peer)
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the gateway has closed, or the test is over
        finally:
            handlers.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    found = BackendServer(server.sockets[0].getsockname()[1])
    try:
        yield found
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def ok(body: bytes = b"hello", extra: bytes = b"") -> bytes:
    """A complete response."""
    return b"HTTP/1.1 200 OK\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


def always(response: bytes) -> Script:
    """Answer each head (requests have no body) with the same bytes and keep the connection."""

    async def script(peer: Peer) -> None:
        while await peer.head():
            peer.send(response)

    return script


def once(response: bytes) -> Script:
    """Answer the first head and close."""

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(response)

    return script


# --- clients --------------------------------------------------------------------------------------------


class Client:
    """A raw connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Write without waiting."""
        self.writer.write(data)

    async def head(self) -> bytes:
        """The next head, with its empty line."""
        async with asyncio.timeout(WAIT):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        """That many bytes."""
        async with asyncio.timeout(WAIT):
            return await self.reader.readexactly(size)

    async def response(self) -> tuple[bytes, bytes]:
        """A head and the body that its Content-Length tells."""
        head = await self.head()
        size = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        return head, await self.exactly(size)

    async def rest(self) -> bytes:
        """All until the gateway closes."""
        async with asyncio.timeout(WAIT):
            return await self.reader.read()


@asynccontextmanager
async def client(port: int, **more: Any) -> AsyncIterator[Client]:
    """Connect to a port on loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **more)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def talk(port: int, data: bytes) -> bytes:
    """Send raw bytes and read until the gateway closes."""
    async with client(port) as peer:
        peer.send(data)
        return await peer.rest()


def request(target: str = "/", *lines: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request with a Host field, and further header lines."""
    length = [f"Content-Length: {len(body)}"] if body else []
    head = [f"{method} {target} HTTP/1.1", "Host: test", *lines, *length, "", ""]
    return "\r\n".join(head).encode("latin-1") + body
