"""The supervisor's side of the connection to a program that embeds it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from rauta.offload import Counters, RequestKey, Traffic
from rauta.routing.model import Configuration
from rauta.routing.settings import Address, Listener
from rauta.runtime import program
from rauta.runtime.control import (
    MESSAGE_LIMIT,
    Channel,
    ControlError,
    Counted,
    Drain,
    Drained,
    Message,
    Result,
    Status,
    Wanted,
    Withdrawn,
    encode_wanted,
    pack,
)
from rauta.runtime.errors import StartError
from rauta.runtime.program import PROGRAM, Program
from rauta.runtime.revision import Reloaded
from support.process import PATIENCE

CONFIGURATION = Configuration(listeners=(Listener(name="web", address=Address("127.0.0.1", 1)),))
LIVE = {"offload": {"name": "bcc"}}


class Supervisor:
    """What a program can have done."""

    def __init__(self) -> None:
        self.requests: dict[RequestKey, Traffic] = {}
        self.drains: list[tuple[str, float | None]] = []
        self.loaded: list[Any] = []
        self.gate = asyncio.Semaphore(1)  # in order, as the real one
        self.waiting = 0

    async def reload(self, cause: str, load: Callable[[], Configuration] | None = None) -> Reloaded:
        assert load is not None
        try:
            self.waiting += 1
            async with self.gate:
                self.loaded.append(load())
        except StartError as error:
            return Reloaded(ok=False, text=str(error))
        return Reloaded(ok=True, text=cause)

    def drain(self, cause: str, timeout: float | None = None) -> None:
        self.drains.append((cause, timeout))

    async def counters(self) -> Counters | None:
        return Counters(requests=dict(self.requests))


class Pair:
    """A program and its supervisor, joined."""

    def __init__(self, events: int | None = None) -> None:
        self.supervisor = Supervisor()
        self.messages: list[Message] = []
        self.came = asyncio.Event()
        self.ours, theirs = socket.socketpair()
        wanted = Wanted(number=1, configuration=b"", name="")
        self.program = Program(theirs, os.getppid(), wanted, [], events)
        self.channel = Channel(self._on_message, lambda _: None)

    async def open(self) -> None:
        await self.channel.open(asyncio.get_running_loop(), self.ours)
        await self.program.open(self.supervisor)

    def _on_message(self, message: Message) -> None:
        self.messages.append(message)
        self.came.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await self.came.wait()
                self.came.clear()


def run(test: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        pair = Pair()
        await pair.open()
        try:
            await test(pair)
        finally:
            await pair.program.close()
            pair.channel.close()

    asyncio.run(main())


def key(route: str, method: str = "GET", service: str = "s") -> RequestKey:
    return RequestKey(
        listener="web", route=route, service=service, code=200, method=method, protocol="HTTP/1.1", tier=1, hook="tc"
    )


def test_what_it_wants_is_loaded_once() -> None:
    async def test(pair: Pair) -> None:
        pair.channel.send_frame(encode_wanted(Wanted(number=2, configuration=pack(CONFIGURATION), name="")))
        await pair.until(lambda: pair.messages)
        pair.channel.send_frame(encode_wanted(Wanted(number=3, configuration=b"no pickle", name="")))
        await pair.until(lambda: len(pair.messages) == 2)
        first, second = pair.messages
        assert first == Result(2, True, PROGRAM)
        assert pair.supervisor.loaded == [CONFIGURATION]
        assert isinstance(second, Result)
        assert (second.number, second.ok) == (3, False)
        assert "cannot be taken over" in second.text
        with pytest.raises(StartError, match="the program that it belongs to says what it serves"):
            pair.program.load()

    run(test)


def test_each_change_is_its_own_and_may_be_withdrawn() -> None:
    """While they wait for their turn."""

    async def test(pair: Pair) -> None:
        wanted = {number: replace(CONFIGURATION, workers=number) for number in (2, 3, 4)}
        async with pair.supervisor.gate:
            for number, configuration in wanted.items():
                pair.channel.send_frame(
                    encode_wanted(Wanted(number=number, configuration=pack(configuration), name=""))
                )
            pair.channel.send(Withdrawn(3))
            pair.channel.send(Drain(1.0, 0.0))  # comes behind it
            async with asyncio.timeout(PATIENCE):
                while not pair.supervisor.drains or pair.supervisor.waiting < 3:
                    await asyncio.sleep(0.001)
        await pair.until(lambda: len(pair.messages) == 3)
        assert pair.messages == [
            Result(2, True, PROGRAM),
            Result(3, False, "the program has withdrawn it"),
            Result(4, True, PROGRAM),
        ]
        assert pair.supervisor.loaded == [wanted[2], wanted[4]]
        assert not pair.program._waited_for

    run(test)


def test_counts_that_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COUNT_INTERVAL", 0.001)

    async def test(pair: Pair) -> None:
        pair.supervisor.requests = {
            key("a"): Traffic(requests=1),
            key("a", "HEAD"): Traffic(requests=2),
            key("b", service=""): Traffic(requests=3),
        }
        pair.program.tell(Status({"offload": {"name": "null"}}))  # which counts nothing
        pair.program.tell(Status(LIVE))
        await pair.until(lambda: len(pair.messages) == 3)
        assert pair.messages[2] == Counted({"web a s 200 1": 3, "web b  200 1": 3})
        pair.supervisor.requests[key("b", service="")] = Traffic(requests=4)
        await pair.until(lambda: len(pair.messages) == 4)
        assert pair.messages[3] == Counted({"web b  200 1": 4})

    run(test)


def test_the_last_counts_come_before_the_end() -> None:
    async def test(pair: Pair) -> None:
        pair.program.tell(Status(LIVE))
        pair.supervisor.requests = {key("a"): Traffic(requests=1)}
        await pair.program.drained(complete=False)
        await pair.until(lambda: len(pair.messages) == 3)
        assert pair.messages[1:] == [Counted({"web a s 200 1": 1}), Drained(False)]

    run(test)


def test_many_counts_with_long_names_fit_into_messages() -> None:
    async def test(pair: Pair) -> None:
        pair.program.tell(Status(LIVE))
        names = [f"{number:0128}" for number in range(2500)]
        pair.supervisor.requests = {key(name, service=name): Traffic(requests=2**62) for name in names}
        await pair.program.drained(complete=True)
        await pair.until(lambda: Drained(True) in pair.messages)  # none was too long, else the channel were closed
        counted = [message for message in pair.messages if isinstance(message, Counted)]
        assert [len(message.requests) for message in counted] == [1000, 1000, 500]
        assert MESSAGE_LIMIT > 1000 * (3 * 128 + 64)

    run(test)


def test_it_ends_the_gateway_by_a_word_or_by_its_end() -> None:
    async def test(pair: Pair) -> None:
        pair.channel.send(Drain(7.0, 0.0))
        pair.channel.close()
        async with asyncio.timeout(PATIENCE):
            while len(pair.supervisor.drains) < 2:
                await asyncio.sleep(0.001)
        assert pair.supervisor.drains == [(PROGRAM, 7.0), (PROGRAM, None)]

    run(test)


def test_a_program_that_is_gone_already() -> None:
    """Its number may be another process's by now."""

    async def main() -> None:
        pair = Pair()
        pair.program._pid = os.getpid()
        await pair.open()
        assert pair.supervisor.drains == [(PROGRAM, None)]
        await pair.program.close()
        pair.channel.close()

    asyncio.run(main())


def test_events_that_nobody_reads_are_lost() -> None:
    """Once the program is gone, so that the pipe does not fill up."""

    async def main() -> None:
        ours, theirs = os.pipe()
        pair = Pair(ours)
        pair.program._pid = os.getpid()
        await pair.open()
        async with asyncio.timeout(PATIENCE):
            for _ in range(4):
                await asyncio.to_thread(os.write, theirs, bytes(60_000))
        await pair.program.close()
        pair.channel.close()
        os.close(ours)
        os.close(theirs)

    asyncio.run(main())


def test_sockets_that_are_none(tmp_path: Any) -> None:
    with (tmp_path / "file").open("wb") as file:
        wanted = Wanted(number=1, configuration=b"", name="", sockets={"web": (os.dup(file.fileno()),)})
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(StartError, match="a socket of the program cannot be used"):
            Program(theirs, 1, wanted, []).lent(CONFIGURATION.listeners)
        os.close(wanted.sockets["web"][0])


def test_the_module_is_not_for_people() -> None:
    command = [sys.executable, "-m", "rauta.runtime.embedded"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (
        2,
        "rauta: this is started by rauta.api.Gateway; use `python -m rauta.proxy`\n",
    )


def test_a_first_frame_of_another_kind() -> None:
    from rauta.runtime.control import Setup, encode_setup, receive_wanted

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_setup(Setup(configuration=CONFIGURATION, access_log=None)))
        with pytest.raises(ControlError, match="holds a Setup"):
            receive_wanted(theirs)
