"""Names of backends over time, with a resolver of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from rauta.routing.model import Configuration, Forward, Route, WeightedService
from rauta.routing.services import Backend, Service
from rauta.routing.settings import Address, Listener
from rauta.runtime.agent.names import Names, look_up
from rauta.runtime.log import EventLog, Level


class Events(EventLog):
    """Keeps the names of events."""

    def __init__(self) -> None:
        super().__init__(-1, terminal=False)
        self.names: list[str] = []

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        self.names.append(event)


def configuration(*hosts: str) -> Configuration:
    service = Service(name="s", backends=tuple(Backend(address=Address(host, 80)) for host in (*hosts, "127.0.0.1")))
    return Configuration(
        listeners=(Listener(name="web", address=Address("127.0.0.1", 1)),),
        services=(service,),
        routes=(Route(name="r", action=Forward(services=(WeightedService(name="s"),))),),
    )


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


class Zone:
    """What the names are, as the test wants it."""

    def __init__(self, **names: tuple[str, ...]) -> None:
        self.names = names
        self.asked: list[str] = []

    def look_up(self, host: str) -> tuple[str, ...]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]


def test_changes_are_told_and_the_last_good_addresses_kept() -> None:
    async def main() -> None:
        told: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
        events, zone = Events(), Zone(a=("192.0.2.1", "192.0.2.2"))
        loop = asyncio.get_running_loop()
        names = Names(loop, lambda *news: told.put_nowait(news), events, resolve=zone.look_up, interval=0.02)
        names.update(configuration("a"))
        assert await told.get() == ("a", ("192.0.2.1", "192.0.2.2"))
        zone.names["a"] = ("192.0.2.2", "192.0.2.1")  # a resolver's turn is no change
        del zone.names["a"]
        while not names.failing:
            await asyncio.sleep(0.005)
        assert names.known["a"] == ("192.0.2.1", "192.0.2.2")
        assert told.empty()
        zone.names["a"] = ("192.0.2.3",)
        assert await told.get() == ("a", ("192.0.2.3",))
        assert not names.failing
        assert events.names == ["name_unresolved", "name_resolved"]
        await names.close()

    run(main)


def test_only_names_are_looked_up_and_those_that_left_no_more() -> None:
    async def main() -> None:
        told: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
        zone = Zone(a=("192.0.2.1",), b=("192.0.2.2",))
        loop = asyncio.get_running_loop()
        names = Names(loop, lambda *news: told.put_nowait(news), Events(), resolve=zone.look_up, interval=0.02)
        names.update(configuration("a", "b"))
        assert {(await told.get())[0], (await told.get())[0]} == {"a", "b"}
        names.update(configuration("b"))
        await asyncio.sleep(0)
        zone.asked.clear()
        while len(zone.asked) < 3:
            await asyncio.sleep(0.005)
        assert set(zone.asked[1:]) == {"b"}  # the first may have been on its way
        assert "127.0.0.1" not in zone.asked
        await names.close()

    run(main)


def test_the_resolver_of_this_machine() -> None:
    assert "127.0.0.1" in look_up("localhost") or "::1" in look_up("localhost")
