"""Health checks against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rauta.routing.model import Configuration, Forward, Route, WeightedService
from rauta.routing.services import Backend, HealthCheck, HealthKind, ProxyProtocol, Service
from rauta.routing.settings import Address, Listener
from rauta.runtime.agent.health import CheckFailedError, HealthChecks, probe
from rauta.runtime.log import EventLog, Level

Told = tuple[str, frozenset[str]]


class Events(EventLog):
    """Keeps the names of events and what they say."""

    def __init__(self) -> None:
        super().__init__(-1, terminal=False)
        self.names: list[str] = []
        self.messages: list[str] = []

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        self.names.append(event)
        self.messages.append(message)


class Server:
    """Answers every connection with some bytes, and keeps what it got."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.port = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.received.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # a TCP check, or one that has seen enough
        finally:
            writer.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a test, bounded."""

    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    asyncio.run(bounded())


def configuration(*ports: int, **check: object) -> Configuration:
    settings = {"interval": 0.1, "timeout": 1.0, "healthy": 2, "unhealthy": 3, **check}
    service = Service(
        name="s",
        backends=tuple(Backend(address=Address("127.0.0.1", port)) for port in ports),
        health=HealthCheck(**settings),  # type: ignore[arg-type]
    )
    return Configuration(
        listeners=(Listener(name="web", address=Address("127.0.0.1", 1)),),
        services=(service,),
        routes=(Route(name="r", action=Forward(services=(WeightedService(name="s"),))),),
    )


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OK, None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, None),
        (b"HTTP/1.0 399 x\r\n\r\n", None),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.1 503 x\r\n\r\n", "status 503"),
        (b"", "closed before an answer"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20000 + b"\r\n", "no HTTP"),
    ],
    ids=["200", "after a 103", "399", "404", "503", "nothing", "ssh", "malformed", "endless"],
)
def test_what_counts_as_good(answer: bytes, why: str | None) -> None:
    async def main() -> None:
        async with Server(answer) as server:
            check = HealthCheck(path="/live?x=1", host="checked.example")
            work = probe(Address("127.0.0.1", server.port), check, None)
            if why is None:
                await work
            else:
                with pytest.raises(CheckFailedError, match=why):
                    await work
            (request,) = server.received
            assert request.startswith(b"GET /live?x=1 HTTP/1.1\r\nHost: checked.example\r\nUser-Agent: rauta-health/")

    run(main)


def test_a_proxy_header_goes_first() -> None:
    async def main() -> None:
        async with Server(OK) as server:
            await probe(Address("127.0.0.1", server.port), HealthCheck(), ProxyProtocol.V1)
            assert server.received[0].startswith(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n")

    run(main)


def test_tcp_and_unix(tmp_path: Path) -> None:
    async def main() -> None:
        async with Server(b"not asked") as server:
            await probe(Address("127.0.0.1", server.port), HealthCheck(kind=HealthKind.TCP), None)
        with pytest.raises(ConnectionRefusedError):
            await probe(Address("127.0.0.1", server.port), HealthCheck(kind=HealthKind.TCP), None)
        path = str(tmp_path / "s")
        unix = Server(OK)
        listening = await asyncio.start_unix_server(unix._serve, path)
        await probe(Address.unix(path), HealthCheck(), None)
        assert b"Host: localhost\r\n" in unix.received[0]
        listening.close()

    run(main)


def test_a_backend_goes_down_and_comes_back_by_the_thresholds() -> None:
    async def main() -> None:
        told: asyncio.Queue[Told] = asyncio.Queue()
        events = Events()
        loop = asyncio.get_running_loop()
        checks = HealthChecks(loop, lambda service, down: told.put_nowait((service, down)), events)
        async with Server(OK) as server, Server(OK) as other:
            checks.update(configuration(server.port, other.port))
            server.answer = b"HTTP/1.1 500 x\r\n\r\n"
            address = f"127.0.0.1:{server.port}"
            assert await told.get() == ("s", frozenset({address}))
            assert len(server.received) >= 3
            assert checks.states("s")[address].failure == "status 500"
            server.received.clear()
            server.answer = OK
            assert await told.get() == ("s", frozenset())
            assert len(server.received) >= 2
            assert events.names == ["backend_down", "backend_up"]
            down, up = events.messages
            assert down.endswith("is down: status 500 (3 checks in a row)")
            assert up.endswith("is up (2 checks in a row)")
        await checks.close()

    run(main)


def test_one_check_in_a_row_and_a_name_that_nobody_knows() -> None:
    async def main() -> None:
        told: asyncio.Queue[Told] = asyncio.Queue()
        events = Events()
        loop = asyncio.get_running_loop()
        checks = HealthChecks(loop, lambda service, down: told.put_nowait((service, down)), events)
        check = HealthCheck(interval=0.1, timeout=10.0, unhealthy=1)
        nobody = Backend(address=Address("nobody.invalid", 1))  # RFC 6761 6.4
        whole = configuration(1)
        service = Service(name="s", backends=(nobody,), health=check)
        checks.update(Configuration(listeners=whole.listeners, services=(service,), routes=whole.routes))
        await told.get()
        (message,) = events.messages
        assert message.startswith("service 's': nobody.invalid:1 is down: nobody.invalid: ")
        assert "Unknown error" not in message
        assert message.endswith(" (1 check in a row)")
        await checks.close()

    run(main)


def test_state_survives_a_reload_that_leaves_the_check_alone() -> None:
    async def main() -> None:
        told: asyncio.Queue[Told] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        checks = HealthChecks(loop, lambda service, down: told.put_nowait((service, down)), Events())
        async with Server(OK) as server:
            port = server.port
        checks.update(configuration(port))
        assert (await told.get())[1]
        checks.update(configuration(port))
        assert not checks.states("s")[f"127.0.0.1:{port}"].healthy
        assert told.empty()
        checks.update(configuration(port, path="/other"))  # another check: nothing is known, so it counts as healthy
        assert await told.get() == ("s", frozenset())
        checks.update(
            Configuration(listeners=(Listener(name="web", address=Address("127.0.0.1", 1)),), services=(), routes=())
        )
        assert checks.states("s") == {}
        await checks.close()

    run(main)
