"""Reload in one worker: what is built beside what is served, and what becomes of it when it is not wanted."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.dataplane import DataPlane, Endpoint
from rauta.routing.model import Configuration, Match, Respond, Route
from rauta.routing.services import Plugin
from rauta.routing.settings import AccessLog, Address, Listener
from rauta.routing.table import Table
from rauta.runtime import changing
from rauta.runtime.changing import Changes
from rauta.runtime.control import Applied, Apply, Built, Change, Drop, Message, encode_change, pack
from rauta.runtime.passing import send_descriptors
from support.compiled import plain_only
from support.process import PATIENCE, free_port

HEADER = 5  # bytes in front of a frame's payload


def configuration(*ports: int, word: str = "x", log: str = "off") -> Configuration:
    listeners = tuple(Listener(name=f"l{port}", address=Address("127.0.0.1", port)) for port in ports)
    route = Route(name="all", action=Respond(body=word))
    return Configuration(listeners=listeners, routes=(route,), access_log=AccessLog(to=log))


class Heard:
    """A channel that keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._news = asyncio.Event()

    def send(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()

    async def next(self) -> Message:
        while not self.messages:
            await self._news.wait()
            self._news.clear()
        return self.messages.pop(0)


@dataclass
class Bench:
    """A worker's changes, and the supervisor's end of the connections."""

    plane: DataPlane
    changes: Changes
    heard: Heard
    passing: socket.socket
    opened: list[socket.socket] = field(default_factory=list)

    def bind(self, port: int) -> socket.socket:
        """A socket as a supervisor would pass it."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        self.opened.append(sock)
        return sock

    def change(self, generation: int, new: Configuration | bytes, *fds: int, opened: tuple[int, ...] = ()) -> None:
        send_descriptors(self.passing, fds)
        change = Change(
            generation=generation,
            configuration=new if isinstance(new, bytes) else pack(new),
            opened=tuple(Address("127.0.0.1", port) for port in opened),
            access_log=len(fds) > len(opened),
        )
        self.changes.change(encode_change(change)[HEADER:])


def run(port: int, scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Let a scenario play with a data plane that serves `port`."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        plane = DataPlane(Table(configuration(port)), loop=loop, access_log=None)
        sock = socket.create_server(("127.0.0.1", port))
        await plane.serve(configuration(port).listeners[0], sock)
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        heard = Heard()
        changes = Changes(loop, plane, heard, theirs, None)  # type: ignore[arg-type] # of the channel it uses `send`
        bench = Bench(plane, changes, heard, ours)
        try:
            async with asyncio.timeout(PATIENCE):
                await scenario(bench)
        finally:
            await changes.end()
            await plane.drain(1.0, idle=0.0)
            plane.close()
            for each in (ours, theirs, *bench.opened):
                each.close()

    asyncio.run(play())


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    """What a change froze is collected again, for the tests behind."""
    yield
    gc.unfreeze()


def descriptors() -> int:
    """How many are open in this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_configuration_that_cannot_be_taken_over_is_answered_and_leaves_nothing_behind() -> None:
    port, other = free_port(), free_port()

    async def scenario(bench: Bench) -> None:
        mine = bench.bind(other)
        gc.collect()  # what other tests left behind would be closed in between
        before = descriptors()
        bench.change(2, b"\x80\x05cno_such_plugin\nSettings\n.", mine.fileno(), opened=(other,))
        answer = await bench.heard.next()
        assert isinstance(answer, Built)
        assert (answer.generation, "no_such_plugin" in answer.problem) == (2, True)
        assert descriptors() == before
        # Its descriptor was taken off the queue: the next change finds its own.
        bench.change(3, configuration(port, other), mine.fileno(), opened=(other,))
        assert await bench.heard.next() == Built(3, "")
        bench.changes.apply(Apply(3))
        assert await bench.heard.next() == Applied(3)
        (listening,) = [d.listener.address.port for d in bench.plane.dispatchers if d.listener.address.port == other]
        assert listening == other

    run(port, scenario)


def test_a_plugin_that_fails_is_answered() -> None:
    port = free_port()
    match = Match(plugins=(Plugin(name="no-such-matcher"),))
    broken = Configuration(
        listeners=configuration(port).listeners,
        routes=(Route(name="r", action=Respond(), matches=(match,)),),
    )

    async def scenario(bench: Bench) -> None:
        bench.change(2, broken)
        answer = await bench.heard.next()
        assert isinstance(answer, Built)
        assert "no-such-matcher" in answer.problem

    run(port, scenario)


def test_what_is_dropped_while_it_is_built_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    port, other = free_port(), free_port()
    building, go_on = threading.Event(), threading.Event()

    def slow(new: Configuration) -> Table:
        building.set()
        go_on.wait(PATIENCE)
        return Table(new)

    async def scenario(bench: Bench) -> None:
        mine = bench.bind(other)
        before = descriptors()
        monkeypatch.setattr(changing, "Table", slow)
        bench.change(2, configuration(port, other), mine.fileno(), opened=(other,))
        await asyncio.to_thread(building.wait, PATIENCE)
        bench.changes.drop(Drop(2))
        go_on.set()
        monkeypatch.undo()
        bench.change(3, configuration(port))
        assert await bench.heard.next() == Built(3, "")
        assert descriptors() == before

    run(port, scenario)


def test_a_swap_that_fails_retires_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    port, other = free_port(), free_port()
    retired: list[int] = []

    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        left = asyncio.Event()

        def leave() -> None:
            retired.append(1)
            left.set()

        loop.add_signal_handler(signal.SIGTERM, leave)

        async def refuse(*_: object) -> None:
            raise OSError(24, "Too many open files")

        mine = bench.bind(other)
        before = descriptors()
        bench.change(2, configuration(port, other), mine.fileno(), opened=(other,))
        assert await bench.heard.next() == Built(2, "")
        monkeypatch.setattr(DataPlane, "swap", refuse)
        bench.changes.apply(Apply(2))
        await left.wait()
        monkeypatch.undo()
        loop.remove_signal_handler(signal.SIGTERM)
        assert "generation 2 cannot be served" in told[0]["message"]
        assert descriptors() == before
        assert bench.heard.messages == []

    run(port, scenario)
    assert retired == [1]


def test_a_log_that_is_no_longer_used_is_closed(tmp_path: Path) -> None:
    port = free_port()

    async def scenario(bench: Bench) -> None:
        before = 0
        for generation in range(2, 8):
            fd = os.open(tmp_path / f"log{generation}", os.O_WRONLY | os.O_CREAT)
            bench.change(generation, configuration(port, log=str(tmp_path)), fd)
            os.close(fd)
            assert await bench.heard.next() == Built(generation, "")
            bench.changes.apply(Apply(generation))
            assert await bench.heard.next() == Applied(generation)
            before = before or descriptors()
            assert descriptors() == before

    run(port, scenario)


def test_building_leaves_the_collector_as_it_was() -> None:
    port = free_port()

    async def scenario(bench: Bench) -> None:
        bench.change(2, b"no pickle")
        await bench.heard.next()
        assert gc.isenabled()
        bench.change(3, configuration(port))
        await bench.heard.next()
        assert gc.isenabled()

    run(port, scenario)


@plain_only
def test_an_old_generation_is_not_kept() -> None:
    port = free_port()
    closed: list[int] = []

    class Counted(Table):
        def close(self) -> None:
            closed.append(1)
            super().close()

    async def scenario(bench: Bench) -> None:
        endpoints = [Endpoint(listener=configuration(port).listeners[0])]
        await bench.plane.swap(Counted(configuration(port)), endpoints)
        bench.change(2, configuration(port))
        assert await bench.heard.next() == Built(2, "")
        bench.changes.apply(Apply(2))
        assert await bench.heard.next() == Applied(2)
        assert closed == [1]

    run(port, scenario)
