"""Clients that speak HTTP/2 over a path with a round trip, and never wait for an answer before they ask again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from rauta.proxy.http2.frames import NOTICE_PING
from support.h2client import PING, frame
from support.h2wire import ACK, ConnectionEndedError, Wire, get, wire

CLIENTS = 4
DELAY = 0.03  # seconds, each way
PACE = 0.01  # from one request to the next


class Traffic:
    """What was answered, and what was not, though it was asked for before the client could know that the connection
    ends. `told` are the connections that ended so; `lasting` clients then make another one, others are done."""

    def __init__(self, port: int, *, lasting: bool = True) -> None:
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self.told = 0
        self._port = port
        self._lasting = lasting
        self._stop = asyncio.Event()

    def run_while(self, work: Callable[[], object]) -> None:
        """Ask for /word all the while, and until it is answered."""
        asyncio.run(self._run(work))

    async def _run(self, work: Callable[[], object]) -> None:
        async with far(self._port) as port, asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client(port))
            try:
                await asyncio.sleep(20 * DELAY)
                await asyncio.to_thread(work)
            finally:
                if self._lasting:
                    self._stop.set()

    async def _client(self, port: int) -> None:
        while not self._stop.is_set():
            try:
                async with wire(port) as peer:
                    await self._talk(peer)
            except (ConnectionEndedError, OSError) as error:
                self.failures.append(repr(error))
            if not self._lasting:
                break

    async def _talk(self, peer: Wire) -> None:
        peer.patience = 30
        sent: list[int] = []
        async with asyncio.TaskGroup() as both:
            asking = both.create_task(self._ask(peer, sent))
            with suppress(ConnectionEndedError):
                await peer.until(lambda: bool(peer.seen.pings) or (asking.done() and _left(peer, sent) == 0))
                if peer.seen.pings:
                    peer.send(frame(PING, ACK, 0, NOTICE_PING))
                await peer.until(lambda: asking.done() and _left(peer, sent) == 0)
            asking.cancel()
        self.told += bool(peer.seen.goaways)
        for stream in sent:
            answer = peer.streams[stream]
            if answer.ended and answer.status == 200:
                self.answers.append(answer.body)
            else:
                self.failures.append(f"stream {stream}: {answer}, {peer.seen.goaways}")

    async def _ask(self, peer: Wire, sent: list[int]) -> None:
        while not (peer.seen.goaways or peer.seen.closed or self._stop.is_set()):
            sent.append(2 * len(sent) + 1)
            peer.send(get(sent[-1], "/word"))
            await asyncio.sleep(PACE)


def _left(peer: Wire, sent: list[int]) -> int:
    return sum(not (peer.streams[stream].ended or peer.streams[stream].reset is not None) for stream in sent)


# --- the path ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def far(port: int) -> AsyncIterator[int]:
    """A port whose connections go to that one, and take their time."""
    paths = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal paths
        try:
            there, back = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        paths += 1
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, back))
            both.create_task(_pump(there, writer))
        paths -= 1

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        while paths:
            await asyncio.sleep(PACE)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each piece, and the end, come `DELAY` later."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        data = b" "
        while data:
            due, data = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not writer.is_closing():
                writer.write(data)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async with asyncio.TaskGroup() as both:
        both.create_task(deliver())
        data = b" "
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            pieces.put_nowait((loop.time() + DELAY, data))
