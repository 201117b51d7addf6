"""From one generation to the next, and what the agent finds out, in a data plane."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from rauta.proxy.dataplane import Endpoint
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.services import Backend, Service
from rauta.routing.settings import AccessLog, Address, Listener
from rauta.routing.table import Table
from support.http import Gateway, Peer, always, backend, client, forward, free_port, gateway, ok, request, run, service


def is_closed(table: Table) -> bool:
    return not table._balancers  # which it drops with its plugins


def table_of(rauta: Gateway, *routes: Route, services: tuple[Service, ...] = ()) -> tuple[Table, list[Endpoint]]:
    (dispatcher, *_) = rauta.plane.dispatchers
    listener: Listener = dispatcher.listener
    configuration = Configuration(
        listeners=(listener,), routes=routes, services=services, access_log=AccessLog(to="off")
    )
    return Table(configuration), [Endpoint(listener=listener)]


def test_requests_on_one_connection_obey_the_table_of_their_time() -> None:
    async def main() -> None:
        async with gateway(routes=[Route(name="a", action=Respond(body="one"))]) as rauta, client(rauta.port) as peer:
            for word in ("one", "two", "three"):
                if word != "one":
                    await rauta.plane.swap(*table_of(rauta, Route(name="a", action=Respond(body=word))))
                peer.send(request())
                assert (await peer.response())[1] == word.encode()

    run(main())


def test_a_table_is_closed_after_the_last_request_that_it_decided() -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await go.wait()
        peer.send(ok())
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            old, endpoints = table_of(rauta, forward(), services=(service(server.port),))
            await rauta.plane.swap(old, endpoints)
            peer.send(request())
            while not server.peers:
                await asyncio.sleep(0.005)
            new, endpoints = table_of(
                rauta, Route(name="a", action=Respond(body="new")), services=(service(server.port),)
            )
            await rauta.plane.swap(new, endpoints)
            assert not is_closed(old)
            async with client(rauta.port) as other:
                other.send(request())
                assert (await other.response())[1] == b"new"
            go.set()
            assert (await peer.response())[1] == b"hello"
            assert is_closed(old)
            assert not is_closed(new)

    run(main())


def test_connections_to_backends_outlive_a_swap_unless_the_backend_left() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            peer.send(ok())
        ended.set()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for _ in range(3):
                peer.send(request())
                await peer.response()
                await rauta.plane.swap(*table_of(rauta, forward(), services=(service(server.port),)))
            assert len(server.peers) == 1
            await rauta.plane.swap(*table_of(rauta, Route(name="a", action=Respond())))
            assert [*rauta.plane.pools] == []
            await ended.wait()

    run(main())


def test_backends_that_are_down_get_nothing_also_after_a_swap() -> None:
    async def main() -> None:
        async with backend(always(ok(b"one"))) as one, backend(always(ok(b"two"))) as two:
            services = (service(one.port, two.port),)
            async with gateway(services=services, routes=[forward()]) as rauta:

                async def answers() -> set[bytes]:
                    found = set()
                    for _ in range(30):
                        async with client(rauta.port) as peer:
                            peer.send(request())
                            found.add((await peer.response())[1].partition(b"\n")[0])
                    return found

                assert await answers() == {b"one", b"two"}
                rauta.plane.set_down("s", frozenset({f"127.0.0.1:{one.port}"}))
                assert await answers() == {b"two"}
                await rauta.plane.swap(*table_of(rauta, forward(), services=services))
                assert await answers() == {b"two"}
                rauta.plane.set_down("s", frozenset({f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}"}))
                assert await answers() == {b"503 Service Unavailable"}
                rauta.plane.set_down("s", frozenset())
                assert await answers() == {b"one", b"two"}

    run(main())


def test_a_name_leads_where_the_agent_says_and_idle_connections_elsewhere_go() -> None:
    async def main() -> None:
        async with backend(always(ok())) as server:
            named = Backend(address=Address("backend.invalid", server.port))
            services = [Service(name="s", backends=(named,))]
            async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
                peer.send(request())
                assert b"upstream_dns" in (await peer.response())[1]
                rauta.plane.set_names("backend.invalid", ("127.0.0.9", "127.0.0.1"))  # nothing listens at the first
                for _ in range(3):
                    peer.send(request())
                    assert (await peer.response())[1] == b"hello"
                (pool,) = rauta.plane.pools
                assert pool.idle == 1
                rauta.plane.set_names("backend.invalid", ("127.0.0.9",))
                assert pool.idle == 0
                while pool.open:
                    await asyncio.sleep(0.005)

    run(main())


def test_a_swap_that_cannot_open_its_sockets_changes_nothing() -> None:
    async def main() -> None:
        async with gateway(routes=[Route(name="a", action=Respond(body="one"))]) as rauta, client(rauta.port) as peer:
            table, (endpoint,) = table_of(rauta, Route(name="a", action=Respond(body="two")))
            closed = socket.socket()
            closed.close()
            other = replace(endpoint.listener, name="other", address=Address("127.0.0.1", free_port()))
            with pytest.raises(OSError, match="Bad file descriptor"):
                await rauta.plane.swap(table, [endpoint, Endpoint(listener=other, sockets=(closed,))])
            peer.send(request())
            assert (await peer.response())[1] == b"one"

    run(main())
