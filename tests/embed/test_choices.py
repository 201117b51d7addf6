"""What a program chooses beyond the file: as configurations, and kernel tiers for real."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rauta.api import (
    AccessLog,
    Address,
    Backend,
    Configuration,
    Forward,
    Forwarded,
    Gateway,
    GatewayError,
    Hook,
    Listener,
    OffloadMode,
    OffloadSettings,
    Respond,
    Route,
    Service,
    WeightedService,
)
from rauta.embed.choices import Choices
from rauta.offload.bcc import BccOffload
from rauta.offload.bcc.places import folder_of
from support.network import Client, Network, Server, network
from support.process import PATIENCE

LISTENERS = tuple(Listener(name=name, address=Address("127.0.0.1", port)) for port, name in enumerate("ab", 1))
SECTION = OffloadSettings(interfaces=("eth7",), hook=Hook.TC)
PLAIN = Configuration(listeners=LISTENERS, routes=(Route(name="r", action=Respond()),), workers=3)
WITH_SECTION = replace(PLAIN, offload=SECTION)


@pytest.mark.parametrize(
    ("configuration", "choice", "expected"),
    [
        (WITH_SECTION, None, None),
        (WITH_SECTION, "file", SECTION),
        (WITH_SECTION, "require", replace(SECTION, mode=OffloadMode.REQUIRE)),
        (WITH_SECTION, OffloadMode.NONE, replace(SECTION, mode=OffloadMode.NONE)),
        (WITH_SECTION, OffloadSettings(), OffloadSettings()),
        (PLAIN, None, None),
        (PLAIN, "file", None),
        (PLAIN, "auto", OffloadSettings()),
    ],
)
def test_kernel_tiers(configuration: Configuration, choice: Any, expected: OffloadSettings | None) -> None:
    found = Choices(2, choice, None).applied_to(configuration)
    assert (found.offload, found.workers) == (expected, 2)


def test_without_kernel_tiers_requests_are_as_the_file_says() -> None:
    """It has an `offload` section, so backends get no X-Forwarded fields: with and without processes."""
    found = Choices(1, None, None).applied_to(WITH_SECTION)
    assert [found.forwarded_of(listener) for listener in found.listeners] == [frozenset()] * 2
    kept = replace(LISTENERS[0], forwarded=frozenset({Forwarded.X_FORWARDED_FOR}))
    found = Choices(1, None, None).applied_to(replace(WITH_SECTION, listeners=(kept,)))
    assert found.listeners == (kept,)


def test_only_listeners_that_have_a_socket() -> None:
    routes = tuple(
        Route(name=f"r{position}", action=Respond(), listeners=names)
        for position, names in enumerate([(), ("a",), ("a", "b"), ("b",)])
    )
    found = Choices(1, None, frozenset("b")).applied_to(replace(PLAIN, routes=routes))
    assert found.listeners == LISTENERS[1:]
    assert [(route.name, route.listeners) for route in found.routes] == [("r0", ()), ("r2", ("b",)), ("r3", ("b",))]
    with pytest.raises(GatewayError, match="cannot be served alone: listeners: there is no listener"):
        Choices(1, None, frozenset("c")).applied_to(PLAIN)


@pytest.fixture
def net() -> Iterator[Network]:
    missing = BccOffload().missing(OffloadSettings())
    if missing is not None:
        pytest.skip(missing)
    with network() as found:
        yield found


def test_the_kernel_serves(net: Network) -> None:
    """The processes start where the program's thread is: here in a network namespace."""
    services = (Service(name="one", backends=(Backend(address=Address("10.203.2.2", 80)),)),)
    configuration = Configuration(
        listeners=(Listener(name="web", address=Address("0.0.0.0", 8080)),),
        services=services,
        routes=(Route(name="all", action=Forward(services=(WeightedService(name="one"),))),),
        access_log=AccessLog(to="off"),
    )
    offload = OffloadSettings(mode=OffloadMode.REQUIRE, hook=Hook.TC)

    async def main() -> None:
        async with Gateway(configuration, workers=1, offload=offload) as gateway:
            assert gateway.stats().offload == "kernel offload 'bcc'"
            with Client(net.connect()) as client:
                for _ in range(3):
                    assert client.ask("GET", "/bytes/300").status == 200
            async with asyncio.timeout(PATIENCE):
                while [(found.route, found.tier, found.count) for found in gateway.stats().requests] != [("all", 2, 3)]:
                    await asyncio.sleep(0.05)
            await gateway.apply(replace(configuration, routes=()))
            with Client(net.connect()) as client:
                assert client.ask("GET", "/bytes/300").status == 404
            await gateway.apply(configuration)
            with Client(net.connect()) as client:
                assert client.ask("GET", "/bytes/300").status == 200
            assert folder.exists()
            assert await gateway.drain()
            assert not folder.exists()
            # What was counted right before the end, too.
            assert {(found.route, found.tier): found.count for found in gateway.stats().requests} == {
                ("all", 2): 4,
                ("", 3): 1,
            }

    folder = folder_of(net.gateway.path.stat().st_ino)
    with Server(net.b1, "b1") as server, net.gateway.inside():
        asyncio.run(main())
        assert len(server.requests) == 4
