"""The end of a gateway in every state that it can be in, on the loop and with processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.api import AccessLog, Address, Asgi, Configuration, Gateway, GatewayError, Listener, Respond, Route
from rauta.embed.inloop import InLoop
from rauta.embed.processes import Processes
from rauta.runtime.control import Result
from support.http import backend, client, forward, late, request, service
from support.process import PATIENCE, free_port

ENDS = "drains, or is drained"
ON_BOTH = pytest.mark.parametrize("workers", [0, 1], ids=["loop", "processes"])
Task = asyncio.Future[Any]


def start(coroutine: Any) -> Task:
    return asyncio.ensure_future(coroutine)  # noqa: TID251 - each is awaited


async def until(holds: Callable[[], object]) -> None:
    """Gauges of processes, and ports of theirs, are told by nobody."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


async def ask(port: int) -> bytes:
    async with client(port) as peer:
        peer.send(request())
        return (await peer.response())[1]


async def refused(port: int) -> bool:
    try:
        await ask(port)
    except ConnectionError:
        return True
    return False


def static(port: int, body: str = "first") -> Configuration:
    return configured(port, Route(name="r", action=Respond(body=body)))


def configured(port: int, route: Route, **more: Any) -> Configuration:
    listener = Listener(name="web", address=Address("127.0.0.1", port))
    return Configuration(listeners=(listener,), routes=(route,), access_log=AccessLog(to="off"), **more)


class Asked:
    """A gateway with a request that its backend answers once `go` is set."""

    def __init__(self, gateway: Gateway, port: int, go: asyncio.Event, answer: Task) -> None:
        self.gateway = gateway
        self.port = port
        self.go = go
        self.answer = answer

    async def drains(self) -> None:
        await until(lambda: self.gateway.stats().draining)
        async with asyncio.timeout(PATIENCE):
            while not await refused(self.port):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def asked(workers: int) -> AsyncIterator[Asked]:
    script, arrived, go = late()
    async with backend(script) as peer:
        port = free_port()
        gateway = Gateway(configured(port, forward(), services=(service(peer.port),)), workers=workers)
        await gateway.__aenter__()
        try:
            answer = start(ask(port))
            await arrived.wait()
            yield Asked(gateway, port, go, answer)
        finally:
            await gateway.close()
            go.set()


@ON_BOTH
def test_close_waits_for_a_drain_that_runs(workers: int) -> None:
    async def main() -> None:
        async with asked(workers) as it:
            drained = start(it.gateway.drain(20))
            await it.drains()
            closed, again = start(it.gateway.close()), start(it.gateway.close())
            await asyncio.wait({closed, again, it.answer}, timeout=0.3, return_when=asyncio.FIRST_COMPLETED)
            assert not any(task.done() for task in (closed, again, it.answer))
            it.go.set()
            assert await it.answer == b"late"
            await closed
            await again
            assert await drained

    asyncio.run(main())


@ON_BOTH
def test_a_drain_that_is_cancelled_goes_on(workers: int) -> None:
    async def main() -> None:
        async with asked(workers) as it:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(it.gateway.drain(20), 0.1)
            closed = start(it.gateway.close())
            await asyncio.wait({closed}, timeout=0.1)
            assert not closed.done()
            it.go.set()
            assert await it.answer == b"late"
            await closed

    asyncio.run(main())


@ON_BOTH
def test_a_second_drain_can_only_be_shorter(workers: int) -> None:
    async def main() -> None:
        async with asked(workers) as it:
            first = start(it.gateway.drain(PATIENCE))
            await it.drains()
            async with asyncio.timeout(PATIENCE / 2):
                assert not await it.gateway.drain(0.1)
                assert not await first
            assert not await it.gateway.drain(5)  # as it was
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await it.answer

    asyncio.run(main())


@ON_BOTH
def test_a_drain_gives_up_a_change(workers: int) -> None:
    """It waits for an application that does not start; the one behind it has not begun."""

    async def main() -> None:
        port = free_port()
        hanging = configured(port, Route(name="r", action=Asgi(app="support.applications:patient")))
        async with Gateway(static(port), workers=workers) as gateway:
            changes = [start(gateway.apply(hanging)), start(gateway.apply(static(port, "third")))]
            await asyncio.wait(changes, timeout=0.5)
            assert await ask(port) == b"first"
            async with asyncio.timeout(10):  # an application has 30 s
                drained = start(gateway.drain(20))
                await asyncio.sleep(0)
                assert gateway.stats().draining
                if not workers:
                    assert await refused(port)
                assert await drained
                for change in changes:
                    with pytest.raises(GatewayError, match=ENDS):
                        await change

    asyncio.run(main())


@ON_BOTH
def test_what_is_drained_serves_nothing_else(workers: int) -> None:
    async def main() -> None:
        port = free_port()
        async with Gateway(static(port), workers=workers) as gateway:
            assert await gateway.drain(1)
            with pytest.raises(GatewayError, match=ENDS):
                await gateway.apply(static(port, "second"))
            assert await refused(port)
            assert gateway.stats().draining
        with pytest.raises(GatewayError, match="is closed"):
            await gateway.apply(static(port))

    asyncio.run(main())


def test_a_change_that_is_cancelled_while_it_opens_a_listener_changes_nothing() -> None:
    """Of asyncio's loop: uvloop opens one without a pause."""

    async def main() -> None:
        port, other = free_port(), free_port()
        first = static(port)
        added = Listener(name="other", address=Address("127.0.0.1", other))
        second = replace(static(port, "second"), listeners=(*first.listeners, added))
        async with Gateway(first) as gateway:
            running = gateway._running
            assert isinstance(running, InLoop)
            changed = start(gateway.apply(second))
            while len(running.plane._entrances) < 2:
                await asyncio.sleep(0)
            changed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await changed
            assert len(running.plane._entrances) == 1
            assert await refused(other)
            assert await ask(port) == b"first"
            await gateway.apply(second)
            assert await ask(other) == await ask(port) == b"second"

    asyncio.run(main())


def test_changes_that_nobody_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has begun comes to be served, one behind it does not, and who waits is told of his own."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    monkeypatch.setenv("RAUTA_TEST_FIFO", str(fifo))

    async def main() -> None:
        port = free_port()
        wanted = [
            configured(port, Route(name="held", action=Asgi(app="support.applications:held"))),
            configured(port, Route(name="second", action=Respond(body="second"))),
            configured(port, Route(name="wrong", action=Asgi(app="nowhere:app"))),
        ]
        async with Gateway(static(port), workers=1) as gateway:
            for given_up in wanted[:2]:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(gateway.apply(given_up), 0.5)
            told = start(gateway.apply(wanted[2]))
            assert await ask(port) == b"first"
            await asyncio.to_thread(fifo.write_bytes, b"go")
            with pytest.raises(GatewayError, match="nowhere"):
                await told
            assert await ask(port) == b"held"
            running = gateway._running
            assert running is not None
            assert running.configuration == wanted[0]
            await gateway.apply(static(port, "last"))
            assert await ask(port) == b"last"

    asyncio.run(main())


def test_an_answer_that_nobody_has_asked_for() -> None:
    async def main() -> None:
        port = free_port()
        async with Gateway(static(port), workers=1) as gateway:
            running = gateway._running
            assert isinstance(running, Processes)
            running._on_message(Result(77, True, ""))
            assert await ask(port) == b"first"

    asyncio.run(main())
