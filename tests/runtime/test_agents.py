"""The admin sockets over reloads: what can stay stays, and what is given up is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from rauta.routing.model import Configuration
from rauta.routing.services import Backend, HealthCheck, Service
from rauta.routing.settings import Address, AdminSettings, Listener
from rauta.runtime import segment
from rauta.runtime.agents import MOST_COMMANDS, Agents
from rauta.runtime.control import AgentSetup, Command, Health, Look, Names, Result
from rauta.runtime.errors import StartError
from rauta.runtime.log import EventLog
from support.process import free_port


def run(scenario: Callable[[Agents], Coroutine[Any, Any, None]]) -> None:
    """Let a scenario play with agents that are never started."""

    async def play() -> None:
        memory = segment.create(1)
        agents = Agents(memory, EventLog(), on_news=lambda news: None, on_command=lambda command: None, on_look=list)
        try:
            await scenario(agents)
        finally:
            await agents.stop()
            segment.close(memory)

    asyncio.run(play())


def setup(admin: AdminSettings | None) -> AgentSetup:
    listener = Listener(name="web", address=Address("127.0.0.1", 8080))
    return AgentSetup(generation=1, configuration=Configuration(listeners=(listener,), admin=admin), token=None)


def change(agents: Agents, admin: AdminSettings | None) -> dict[str, socket.socket] | None:
    """Bind and use."""
    found = agents.bind(admin)
    agents.configure(setup(admin), found)
    return found


def test_sockets_that_can_stay_are_the_same(tmp_path: Path) -> None:
    path, ports = str(tmp_path / "admin"), [free_port(), free_port()]

    async def scenario(agents: Agents) -> None:
        first = change(agents, AdminSettings(socket=path))
        assert first is not None
        assert first.keys() == {"socket"}
        second = change(agents, AdminSettings(socket=path, address=Address("127.0.0.1", ports[0])))
        assert second is not None
        assert second["socket"] is first["socket"]
        third = change(agents, AdminSettings(socket=path, address=Address("127.0.0.1", ports[1])))
        assert third is not None
        assert third["socket"] is first["socket"]
        assert second["address"].fileno() == -1
        assert change(agents, AdminSettings(socket=path, address=Address("127.0.0.1", ports[1]))) is None
        fourth = change(agents, AdminSettings(socket=path + "2", address=Address("127.0.0.1", ports[1])))
        assert fourth is not None
        assert fourth["address"] is third["address"]
        assert not Path(path).exists()
        assert change(agents, None) == {}
        assert fourth["address"].fileno() == -1
        assert not Path(path + "2").exists()

    run(scenario)


def test_what_is_not_wanted_after_all_leaves_the_old_ones_open(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")

    async def scenario(agents: Agents) -> None:
        first = change(agents, AdminSettings(socket=path))
        assert first is not None
        new = agents.bind(AdminSettings(socket=path, address=Address("127.0.0.1", free_port())))
        assert new is not None
        agents.unbind(new)
        assert new["address"].fileno() == -1
        assert first["socket"].fileno() >= 0
        assert Path(path).exists()

    run(scenario)


def test_an_address_in_use_leaves_the_old_ones_open(tmp_path: Path) -> None:
    path = str(tmp_path / "admin")

    async def scenario(agents: Agents) -> None:
        first = change(agents, AdminSettings(socket=path))
        assert first is not None
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = Address("127.0.0.1", taken.getsockname()[1])
            with pytest.raises(StartError, match=f"admin: {address} is in use"):
                agents.bind(AdminSettings(socket=path, address=address))
        assert first["socket"].fileno() >= 0
        assert Path(path).exists()

    run(scenario)


def test_the_socket_is_for_its_owner_alone_and_a_live_one_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "admin"

    async def scenario(agents: Agents) -> None:
        change(agents, AdminSettings(socket=str(path)))
        assert path.stat().st_mode & 0o777 == 0o600
        second = Agents(-1, EventLog(), on_news=lambda news: None, on_command=lambda command: None, on_look=list)
        with pytest.raises(StartError, match="is in use"):
            second.bind(AdminSettings(socket=str(path)))
        await second.stop()
        assert path.exists()

    run(scenario)


def test_the_file_of_a_dead_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def scenario(agents: Agents) -> None:
        change(agents, AdminSettings(socket=str(path)))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    run(scenario)


def test_what_the_agent_says_of_strangers_is_not_kept() -> None:
    """It parses what comes over networks, so what it says is bounded."""
    news: list[Health | Names] = []
    commands: list[Command] = []

    async def play() -> None:
        memory = segment.create(1)
        agents = Agents(memory, EventLog(), on_news=news.append, on_command=commands.append, on_look=list)
        check = HealthCheck()
        backends = (Backend(address=Address("named.example", 80)),)
        configuration = Configuration(
            listeners=(Listener(name="web", address=Address("127.0.0.1", 8080)),),
            services=(Service(name="s", backends=backends, health=check), Service(name="unchecked", backends=backends)),
        )
        agents.configure(AgentSetup(generation=1, configuration=configuration), None)
        for message in (
            Health("s", ["named.example:80"]),
            Health("unchecked", []),
            Health("nobody", []),
            Names("named.example", ["192.0.2.1"]),
            Names("other.example", ["192.0.2.1"]),
        ):
            agents._on_message(message)
        assert [*map(str, news)] == [str(Health("s", ["named.example:80"])), str(Names("named.example", ["192.0.2.1"]))]
        assert len(agents.news) == 2
        for number in range(100):
            agents._on_message(Command(number, "reload"))
        assert len(commands) == MOST_COMMANDS
        agents.answer(Result(0, True, ""))
        agents._on_message(Command(101, "reload"))
        assert len(commands) == MOST_COMMANDS + 1
        await agents.stop()
        segment.close(memory)

    asyncio.run(play())


class Process:
    """The one that runs, as far as Agents asks it."""

    def __init__(self) -> None:
        self.keeps_up = True
        self.shown: list[bytes] = []

    def show(self, frame: bytes) -> None:
        self.shown.append(frame)

    def end(self) -> None:
        self.gone = asyncio.Event()
        self.gone.set()


def test_an_agent_that_does_not_take_what_it_asked_for_gets_no_more() -> None:
    """Else it could fill the supervisor's memory by asking."""
    looks: list[str] = []

    async def play() -> None:
        memory = segment.create(1)
        agents = Agents(
            memory,
            EventLog(),
            on_news=lambda news: None,
            on_command=lambda command: None,
            on_look=lambda: looks.append("look"),
        )
        agents._on_message(Look())  # of one that is gone meanwhile
        agents.show(b"reading")
        assert looks == []
        agents._process = process = Process()  # type: ignore[assignment]
        agents._on_message(Look())
        agents.show(b"reading")
        process.keeps_up = False
        agents._on_message(Look())
        assert (looks, process.shown) == (["look"], [b"reading"])
        await agents.stop()
        segment.close(memory)

    asyncio.run(play())
