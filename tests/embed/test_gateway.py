"""`async with Gateway(...)`: the native data plane within this process, on both event loops."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from rauta.api import (
    AccessLog,
    Address,
    Backend,
    BackendTls,
    Configuration,
    Gateway,
    GatewayError,
    HealthCheck,
    HealthKind,
    Listener,
    Respond,
    Route,
    Service,
    Table,
    load,
)
from support import h2client
from support.http import always, backend, client, forward, free_port, late, ok, request, service
from support.tls import make_pair

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's coroutine on that loop."""

    def runner(main: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            failures: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
            async with asyncio.timeout(30):
                await main
            assert not failures, failures

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as found:
            found.run(bounded())

    return runner


def listener(port: int, name: str = "web", **more: Any) -> Listener:
    return Listener(name=name, address=Address("127.0.0.1", port), **more)


def configuration(*listeners: Listener, body: str = "hi", **more: Any) -> Configuration:
    more.setdefault("routes", (Route(name="r", action=Respond(body=body)),))
    return Configuration(listeners=listeners, access_log=AccessLog(to="off"), **more)


async def ask(port: int, *lines: str, **more: Any) -> bytes:
    async with client(port) as peer:
        peer.send(request("/", *lines, **more))
        _, body = await peer.response()
        return body


def test_a_file_is_served(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with backend(always(ok(b"from the backend"))) as peer:
            port = free_port()
            file, log = tmp_path / "rauta.yaml", tmp_path / "access.log"
            file.write_text(
                f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\n'
                f'services: {{s: {{backends: [{{address: "127.0.0.1:{peer.port}"}}]}}}}\n'
                "routes: [{name: all, service: s}]\naccess_log: {to: access.log, format: json}\n"
            )
            async with Gateway(file) as gateway:
                assert await ask(port) == b"from the backend"
                stats = gateway.stats()
                assert [(found.route, found.service, found.status, found.count) for found in stats.requests] == [
                    ("all", "s", 200, 1)
                ]
                (only,) = stats.backends
                assert (only.service, only.up, only.in_flight, only.connections) == ("s", True, 0, 1)
            assert '"route":"all"' in log.read_text()
            with pytest.raises(ConnectionRefusedError):
                await ask(port)

    run(main())


def test_a_table_is_served_and_closed() -> None:
    async def main() -> None:
        port = free_port()
        table = Table(configuration(listener(port)))
        gateway = Gateway(table)
        async with gateway:
            assert await ask(port) == b"hi"
        for call in (gateway.stats, gateway.__aenter__, lambda: gateway.apply(table), gateway.drain):
            with pytest.raises(GatewayError, match=r"closed|once"):
                await call()  # type: ignore[misc]
        await gateway.close()

    asyncio.run(main())


def test_https_and_http2(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        pair, port = make_pair(tmp_path), free_port()
        file = tmp_path / "rauta.yaml"
        file.write_text(
            f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}", '
            "tls: {certificates: [{cert: tls.crt, key: {file: tls.key}}]}}}\n"
            "routes: [{name: r, respond: {body: secret}}]\naccess_log: {to: 'off'}\n"
        )
        context = ssl.create_default_context(cafile=str(pair.cert))
        async with Gateway(str(file)):
            async with client(port, ssl=context, server_hostname="localhost") as peer:
                peer.send(request())
                assert (await peer.response())[1] == b"secret"
            context.set_alpn_protocols(["h2"])
            async with h2client.client(port, ssl=context, server_hostname="localhost") as second:
                head = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "localhost")]
                assert (await second.answer(second.head(head))).body == b"secret"

    run(main())


def test_tls_to_backends(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        pair, port = make_pair(tmp_path), free_port()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok(b"over TLS"))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        at = Address("localhost", server.sockets[0].getsockname()[1])
        behind = Service(name="s", backends=(Backend(address=at),), tls=BackendTls(ca=str(pair.cert)))
        async with Gateway(configuration(listener(port), services=(behind,), routes=(forward(),))):
            assert await ask(port) == b"over TLS"
        server.close()

    run(main())


def test_health_checks_take_a_backend_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with backend(always(ok(b"well"))) as peer:
            port, dead = free_port(), free_port()
            check = HealthCheck(kind=HealthKind.TCP, interval=0.1, unhealthy=1)
            backends = tuple(Backend(address=Address("127.0.0.1", number)) for number in (dead, peer.port))
            behind = Service(name="s", backends=backends, health=check)
            async with Gateway(configuration(listener(port), services=(behind,), routes=(forward(),))) as gateway:
                while gateway.stats().backends[0].up:
                    await asyncio.sleep(0.01)
                assert gateway.stats().backends[1].up
                for _ in range(10):
                    assert await ask(port) == b"well"
            assert [record.event for record in caplog.records if record.name == "rauta"] == ["backend_down"]  # type: ignore[attr-defined]

    with caplog.at_level(logging.INFO, "rauta"):
        run(main())


def test_names_of_backends_are_looked_up(run: Run) -> None:
    async def main() -> None:
        async with backend(always(ok(b"by name"))) as peer:
            port = free_port()
            at = Address("localhost", peer.port)
            behind = Service(name="s", backends=(Backend(address=at),))
            async with Gateway(configuration(listener(port), services=(behind,), routes=(forward(),))) as gateway:
                assert await ask(port) == b"by name"
                running = gateway._running
                assert running is not None
                while "localhost" not in running.names.known:
                    await asyncio.sleep(0.01)

    run(main())


def test_apply_loses_no_request(run: Run) -> None:
    async def main() -> None:
        port = free_port()
        ended = asyncio.Event()
        seen: set[bytes] = set()
        asked = 0

        async def ask_on() -> None:
            nonlocal asked
            async with client(port) as peer:
                while not ended.is_set():
                    peer.send(request())
                    head, body = await peer.response()
                    assert head.startswith(b"HTTP/1.1 200 ")
                    seen.add(body)
                    asked += 1

        async with Gateway(configuration(listener(port), body="0")) as gateway:
            clients = [asyncio.ensure_future(ask_on()) for _ in range(5)]  # noqa: TID251 - awaited below
            for number in range(1, 11):
                await gateway.apply(configuration(listener(port), body=str(number)))
                before = asked
                while asked < before + 20:
                    await asyncio.sleep(0.001)
            ended.set()
            await asyncio.gather(*clients)
        assert {b"%d" % number for number in range(1, 11)} <= seen

    run(main())


def test_apply_opens_and_closes_listeners(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        first, second = free_port(), free_port()
        unix = Listener(name="unix", address=Address.parse(f"unix:{tmp_path}/web.sock"))
        async with Gateway(configuration(listener(first), unix)) as gateway:
            reader, writer = await asyncio.open_unix_connection(unix.address.path)
            writer.write(request("/", "Connection: close"))
            assert b"200 OK" in await reader.read()
            writer.close()
            await gateway.apply(configuration(listener(second)))
            assert await ask(second) == b"hi"
            with pytest.raises(ConnectionRefusedError):
                await ask(first)
            assert not Path(str(unix.address.path)).exists()
            await gateway.apply(configuration(listener(first), unix))
            assert await ask(first) == b"hi"
        assert not Path(str(unix.address.path)).exists()

    run(main())


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        broken = tmp_path / "broken.yaml"
        broken.write_text("version: 1\nlisteners: 7\n")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            async with Gateway(configuration(listener(port))) as gateway:
                with pytest.raises(GatewayError, match="is in use"):
                    await gateway.apply(configuration(listener(port), listener(taken.getsockname()[1], "b"), body="no"))
                with pytest.raises(Exception, match=r"broken\.yaml:2: listeners: "):
                    await gateway.apply(broken)
                assert await ask(port) == b"hi"

    asyncio.run(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            gateway = Gateway(configuration(listener(taken.getsockname()[1])))
            with pytest.raises(GatewayError, match="is in use"):
                await gateway.__aenter__()
        async with gateway:  # a start that failed may be tried again
            pass

    asyncio.run(main())


def test_drain_lets_end_what_is_in_flight(run: Run) -> None:
    script, arrived, go = late()

    async def main() -> None:
        async with backend(script) as peer:
            port = free_port()
            configured = configuration(listener(port), services=(service(peer.port),), routes=(forward(),))
            async with Gateway(configured) as gateway:
                answer = asyncio.ensure_future(ask(port))  # noqa: TID251 - awaited below
                await arrived.wait()
                assert gateway.stats().in_flight == 1
                drained = asyncio.ensure_future(gateway.drain(10))  # noqa: TID251
                while not gateway.stats().draining:
                    await asyncio.sleep(0)
                with pytest.raises(ConnectionRefusedError):
                    await ask(port)
                go.set()
                assert await answer == b"late"
                assert await drained

    arrived.clear()
    go.clear()
    run(main())


def test_drain_cuts_what_does_not_end() -> None:
    async def main() -> None:
        async with backend(always(b"")) as peer:
            port = free_port()
            configured = configuration(listener(port), services=(service(peer.port),), routes=(forward(),))
            async with Gateway(configured) as gateway, client(port) as asked:
                asked.send(request())
                while not gateway.stats().in_flight:
                    await asyncio.sleep(0.01)
                assert not await gateway.drain(0.05)
                assert gateway.stats().in_flight == 0

    asyncio.run(main())


def test_given_sockets_are_served_and_others_are_not() -> None:
    async def main() -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port, other = sock.getsockname()[1], free_port()
            configured = configuration(listener(1), listener(other, "other"))
            async with Gateway(configured, sockets={"web": [sock.dup()]}):
                assert await ask(port) == b"hi"
                with pytest.raises(ConnectionRefusedError):
                    await ask(other)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"listener": "wep"}, "there is no listener 'wep'; known: web"),
        ({"sockets": {"wep": []}}, "there is no listener 'wep'"),
    ],
)
def test_what_cannot_be_embedded(more: dict[str, Any], text: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(text)):
        Gateway(configuration(listener(1)), **more)


def test_plain_becomes_tls_at_an_address(tmp_path: Path) -> None:
    async def main() -> None:
        pair, port = make_pair(tmp_path), free_port()
        file = tmp_path / "rauta.yaml"
        file.write_text(
            f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}", '
            f"tls: {{certificates: [{{cert: {pair.cert}, key: {{file: {pair.key}}}}}]}}}}}}\n"
            "routes: [{name: r, respond: {}}]\n"
        )
        async with Gateway(configuration(listener(port))) as gateway:
            assert await ask(port) == b"hi"
            await gateway.apply(load(file).configuration)
            context = ssl.create_default_context(cafile=pair.cert)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(main())


def test_nothing_is_left_behind() -> None:
    """Neither descriptors nor tasks."""

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        for _ in range(3):
            port = free_port()
            async with backend(always(ok())) as peer:
                behind = Service(
                    name="s",
                    backends=(Backend(address=Address("localhost", peer.port)),),
                    health=HealthCheck(kind=HealthKind.TCP),
                )
                async with Gateway(configuration(listener(port), services=(behind,), routes=(forward(),))):
                    await ask(port)
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.005)
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208

    asyncio.run(main())


def test_applications_that_fail_are_told_with_their_places(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
        text = f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\naccess_log: {{to: "off"}}\nroutes:\n'
        good.write_text(text + "- {name: r, respond: {body: good}}\n")
        bad.write_text(text + '- {name: r, asgi: "support.applications:broken"}\n')
        why = "route 'r': asgi 'support.applications:broken' did not start: no database"
        with pytest.raises(GatewayError) as raised:
            async with Gateway(bad):
                pass
        assert str(raised.value) == f"{bad}:5: {why}"
        async with Gateway(good) as gateway:
            for config, place in ((bad, f"{bad}:5: "), (load(bad).configuration, "")):
                with pytest.raises(GatewayError) as raised:
                    await gateway.apply(config)
                assert str(raised.value) == place + why
            assert await ask(port) == b"good"

    run(main())
