"""When a connection to a backend goes back into the pool, where real sockets would need luck to show it."""

from __future__ import annotations

from typing import Any

import pytest

from rauta.proxy.http1.client import ClientConnection
from rauta.proxy.messages import RequestHead
from rauta.proxy.plan import RoutePlan
from rauta.routing.model import Configuration, Match
from rauta.routing.outcome import Hit
from rauta.routing.settings import Address, Listener
from support.http import forward, ok, service


class FakeTransport:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes) -> None:
        pass

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        pass


class FakePool:
    """Pool and wheel in one."""

    name = host_name = "backend"

    def __init__(self) -> None:
        self.wheel = self
        self.idle: list[ClientConnection] = []

    def put(self, connection: ClientConnection) -> None:
        self.idle.append(connection)

    def arm(self, item: object, seconds: float) -> None:
        pass


class FakeExchange:
    upgrade = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize("waiting", [False, True], ids=["sent", "waiting"])
def test_a_request_that_still_waits_to_be_written_keeps_the_connection_out_of_the_pool(waiting: bool) -> None:
    """The backend has answered without reading the body, and may never read it: the next request would wait behind
    it, and nothing would slow its client down."""
    pool: Any = FakePool()
    exchange: Any = FakeExchange()
    transport: Any = FakeTransport()
    listener = Listener(name="web", address=Address("127.0.0.1", 1))
    configuration = Configuration(listeners=(listener,), services=(service(1),), routes=(forward(),))
    plan = RoutePlan.of(Hit(forward(), Match(), service(1)), listener, configuration)
    connection = ClientConnection(pool)
    connection.connection_made(transport)
    connection.send_request(exchange, RequestHead("POST", "/", None, "a", "a", "1.1", 5), "", plan)
    connection.send_body(b"hello")
    connection.send_end([])
    if waiting:
        connection.pause_writing()
    connection.data_received(ok())
    assert transport.aborted is waiting
    assert pool.idle == ([] if waiting else [connection])
