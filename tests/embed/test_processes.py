"""`Gateway(..., workers=N)`: processes of the program's own, from their start to every end that they can take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from rauta.api import (
    AccessLog,
    Address,
    AdminSettings,
    Asgi,
    Backend,
    BalancerSettings,
    Certificate,
    ConfigError,
    Configuration,
    Gateway,
    GatewayError,
    HealthCheck,
    HealthKind,
    Listener,
    OffloadSettings,
    Plugin,
    Respond,
    Route,
    Secret,
    Service,
    Table,
    TlsSettings,
)
from rauta.ctl import client as adminsocket
from rauta.ctl.errors import ControlError
from rauta.embed.processes import Processes
from support.http import always, backend, client, forward, late, ok, request, service
from support.process import PATIENCE, ROOT, background, free_port, get, pid_gone
from support.tls import make_pair


def listener(port: int, name: str = "web", **more: Any) -> Listener:
    return Listener(name=name, address=Address("127.0.0.1", port), **more)


def configuration(*listeners: Listener, body: str = "hi", **more: Any) -> Configuration:
    more.setdefault("routes", (Route(name="r", action=Respond(body=body)),))
    more.setdefault("access_log", AccessLog(to="off"))
    return Configuration(listeners=listeners, **more)


async def ask(port: int, *lines: str, **more: Any) -> bytes:
    async with client(port) as peer:
        peer.send(request("/", *lines, **more))
        _, body = await peer.response()
        return body


def supervisor_of(gateway: Gateway) -> int:
    running = gateway._running
    assert isinstance(running, Processes)
    return running._child.pid


async def until(holds: Callable[[], object]) -> None:
    """What nobody tells: counters in memory that is shared, gauges that are a second old."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


def refused(port: int) -> bool:
    """Whether nobody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def gone(*pids: int) -> bool:
    return all(pid_gone(pid) for pid in pids)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_from_start_to_end(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Two processes answer, which are none of the program; a new table, what is counted, and the end of all of it."""
    port = free_port()
    first = configuration(listener(port), routes=(Route(name="pid", action=Asgi(app="support.applications:pid")),))

    async def main() -> None:
        async with Gateway(first, workers=2) as gateway:
            workers = gateway.stats().workers
            supervisor = supervisor_of(gateway)
            assert len(set(workers)) == 2
            assert {int(await ask(port)) for _ in range(40)} == set(workers)
            assert os.getsid(supervisor) == supervisor  # Ctrl-C is not for it
            await gateway.apply(configuration(listener(port), body="second"))
            assert await ask(port) == b"second"
            await until(lambda: sum(found.count for found in gateway.stats().requests) == 41)
            stats = gateway.stats()
            assert {(found.route, found.status, found.count, found.tier) for found in stats.requests} == {
                ("pid", 200, 40, 3),
                ("r", 200, 1, 3),
            }
            assert (stats.draining, stats.workers) == (False, workers)
            assert await gateway.drain()
            assert gone(supervisor, *workers)
            assert sum(found.count for found in gateway.stats().requests) == 41
            assert (gateway.stats().draining, gateway.stats().workers) == (True, ())
            with pytest.raises(ConnectionRefusedError):
                await ask(port)
        for call in (gateway.__aenter__, lambda: gateway.apply(first), gateway.drain):
            with pytest.raises(GatewayError, match=r"closed|once"):
                await call()

    with caplog.at_level(logging.INFO, "rauta"), asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    events = [record for record in caplog.records if record.name == "rauta"]
    assert [record.event for record in events] == ["ready", "reloaded", "draining", "stopped"]  # type: ignore[attr-defined]
    assert events[0].fields["source"] == "a program's configuration"  # type: ignore[attr-defined]


def test_a_loop_that_stands_still_holds_nothing_up() -> None:
    async def main() -> None:
        port = free_port()
        async with Gateway(configuration(listener(port)), workers=1):
            asked = background(lambda: [get(port) for _ in range(3)])
            assert asked.result(PATIENCE) == [(200, b"hi")] * 3  # the loop is in here all the while

    asyncio.run(main())


def test_files_and_what_they_name(tmp_path: Path) -> None:
    """Names of files are relative to the file that has them, also of another file, in another folder."""

    def file(folder: str, port: int, included: str) -> Path:
        home = tmp_path / folder
        home.mkdir()
        make_pair(home)
        (home / "routes.yaml").write_text(f"routes: [{{name: r, respond: {{body: {included}}}}}]\n")
        (home / "rauta.yaml").write_text(
            f'version: 1\nworkers: 7\nlisteners: {{web: {{address: "127.0.0.1:{port}", '
            "tls: {certificates: [{cert: tls.crt, key: {file: tls.key}}]}}}\n"
            "include: [routes.yaml]\naccess_log: {to: access.log}\n"
        )
        return home / "rauta.yaml"

    def fetched(folder: str, port: int) -> str:
        command = ["curl", "-sS", "--cacert", str(tmp_path / folder / "tls.crt"), f"https://localhost:{port}/"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    async def main() -> None:
        port = free_port()
        async with Gateway(file("one", port, "first"), workers=1) as gateway:
            assert fetched("one", port) == "first"
            second = file("two", port, "second")
            await gateway.apply(second)
            assert fetched("two", port) == "second"
            (second.parent / "routes.yaml").write_text("routes: 7\n")
            with pytest.raises(ConfigError, match=r"two/routes\.yaml:1: routes: "):
                await gateway.apply(str(second))
            assert fetched("two", port) == "second"
        assert "GET / " in (tmp_path / "two" / "access.log").read_text()

    asyncio.run(main())


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        port, other = free_port(), free_port()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            held = listener(taken.getsockname()[1], "b")
            tls = TlsSettings(certificates=(Certificate(cert="/none", key=Secret(file="/none")),))
            broken: list[tuple[Configuration, str]] = [
                (configuration(listener(port), held, body="no"), "listener 'b': .* is in use"),
                (configuration(listener(other, tls=tls)), "there is no file '/none'"),
                (configuration(listener(port), routes=(Route(name="r", action=Asgi(app="nowhere:app")),)), "nowhere"),
                (configuration(listener(port), services=(plugged(),)), "cannot be passed to the workers"),
            ]
            async with Gateway(configuration(listener(port)), workers=2) as gateway:
                for wrong, text in broken:
                    with pytest.raises(GatewayError, match=text):
                        await gateway.apply(wrong)
                assert await ask(port) == b"hi"
                with pytest.raises(ConnectionRefusedError):
                    await ask(other)
                await gateway.apply(configuration(listener(other), body="moved"))
                assert await ask(other) == b"moved"
                with pytest.raises(ConnectionRefusedError):
                    await ask(port)

    asyncio.run(main())


def plugged() -> Service:
    """Settings of a plugin that no other process can have."""
    kind = Plugin(name="some.plugin", settings=lambda: None)
    return Service(name="s", backends=(Backend(address=Address("127.0.0.1", 1)),), balancer=BalancerSettings(kind=kind))


def test_a_start_that_fails_tells_why_and_may_be_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        pair = make_pair(tmp_path)
        tls = TlsSettings(certificates=(Certificate(cert=str(pair.cert), key=Secret(env="RAUTA_TEST_NO_KEY")),))
        for wrong, text in (
            (configuration(listener(port, tls=tls)), "'RAUTA_TEST_NO_KEY' is not set"),
            (configuration(listener(port), services=(plugged(),)), "cannot be passed to the workers"),
        ):
            gateway = Gateway(wrong, workers=1)
            with pytest.raises(GatewayError, match=text):
                await gateway.__aenter__()
            with pytest.raises(GatewayError, match="is not open"):
                gateway.stats()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            gateway = Gateway(configuration(listener(port)), workers=1)
            with pytest.raises(GatewayError, match=r"listener 'web': .* is in use"):
                await gateway.__aenter__()
        async with gateway:
            assert await ask(port) == b"hi"

    asyncio.run(main())


def test_drain_lets_end_what_is_in_flight_or_cuts_it() -> None:
    async def main() -> None:
        script, arrived, go = late()
        async with backend(script) as peer:
            port = free_port()
            configured = configuration(listener(port), services=(service(peer.port),), routes=(forward(),))
            async with Gateway(configured, workers=1) as gateway:
                answer = asyncio.ensure_future(ask(port))  # noqa: TID251 - awaited below
                await arrived.wait()
                await until(lambda: gateway.stats().in_flight == 1)
                (only,) = gateway.stats().backends
                assert (only.up, only.in_flight, only.connections) == (True, 1, 1)
                assert gateway.stats().connections == 1
                drained = asyncio.ensure_future(gateway.drain(20))  # noqa: TID251 - awaited below
                await until(lambda: refused(port))
                go.set()
                assert await answer == b"late"
                assert await drained
            arrived.clear()
            go.clear()
            async with Gateway(configured, workers=1) as gateway, client(port) as asked:
                asked.send(request())
                await arrived.wait()
                assert not await gateway.drain(0.05)
                go.set()

    asyncio.run(main())


def test_health_of_backends() -> None:
    async def main() -> None:
        async with backend(always(ok(b"well"))) as peer:
            check = HealthCheck(kind=HealthKind.TCP, interval=0.1, unhealthy=1)
            backends = tuple(Backend(address=Address("127.0.0.1", number)) for number in (free_port(), peer.port))
            behind = Service(name="s", backends=backends, health=check)
            configured = configuration(listener(free_port()), services=(behind,), routes=(forward(),))
            async with Gateway(configured, workers=1) as gateway:
                await until(lambda: not gateway.stats().backends[0].up)
                assert gateway.stats().backends[1].up

    asyncio.run(main())


def test_processes_that_die_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        port = free_port()
        async with Gateway(configuration(listener(port)), workers=1) as gateway:
            (worker,) = gateway.stats().workers
            os.kill(supervisor_of(gateway), signal.SIGKILL)
            running = gateway._running
            assert isinstance(running, Processes)
            async with asyncio.timeout(PATIENCE):
                await running._ended.wait()
            told = r"have ended \(killed by SIGKILL\).*\n.*ready: http"
            for call in (gateway.stats, gateway.drain, lambda: gateway.apply(configuration(listener(port)))):
                with pytest.raises(GatewayError, match=told):
                    await call()  # type: ignore[misc]
            assert gone(worker)

    with caplog.at_level(logging.INFO, "rauta"):
        asyncio.run(main())
    (died,) = [record for record in caplog.records if getattr(record, "event", "") == "gateway_died"]
    assert died.levelno == logging.ERROR


def test_a_worker_that_dies_is_replaced() -> None:
    async def main() -> None:
        port = free_port()
        async with Gateway(configuration(listener(port)), workers=1) as gateway:
            await ask(port)
            (worker,) = gateway.stats().workers
            os.kill(worker, signal.SIGKILL)
            await until(lambda: gateway.stats().workers not in ((), (worker,)))
            assert await ask(port) == b"hi"
            await until(lambda: sum(found.count for found in gateway.stats().requests) == 2)

    asyncio.run(main())


PROGRAM = """
    import asyncio, os, sys
    from rauta.api import AccessLog, Address, Configuration, Gateway, Listener, Respond, Route

    async def main():
        listener = Listener(name="web", address=Address("127.0.0.1", int(sys.argv[1])))
        route = Route(name="r", action=Respond(body="hi"))
        configuration = Configuration(listeners=(listener,), routes=(route,), access_log=AccessLog(to="stderr"))
        async with Gateway(configuration, workers=2) as gateway:
            child = gateway._running._child.pid
            forked = os.fork()
            if not forked:  # holds a copy of whatever the program holds
                os.read(0, 1)
                os._exit(0)
            print(child, *gateway.stats().workers, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@contextlib.contextmanager
def program(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A program that has forked, and the processes of its gateway."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    with subprocess.Popen(
        [sys.executable, str(script), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        try:
            yield running, [int(word) for word in running.stdout.readline().split()]
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_program(tmp_path: Path, number: signal.Signals) -> None:
    """Though a child that it has forked holds all its descriptors."""
    port = free_port()
    with program(tmp_path, port) as (running, pids):
        assert len(pids) == 3
        assert get(port) == (200, b"hi")
        running.send_signal(number)
        running.wait(PATIENCE)
        assert gone(*pids)
        with pytest.raises(ConnectionRefusedError):
            get(port)


def test_ctrl_c_is_the_programs(tmp_path: Path) -> None:
    """The whole group gets it; the gateway drains because the program does, and its access log, which goes to standard
    error, is on the program's."""
    port = free_port()
    with program(tmp_path, port) as (running, pids):
        with socket.create_connection(("127.0.0.1", port)) as kept:
            kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert kept.recv(4096).startswith(b"HTTP/1.1 200 ")
            os.killpg(running.pid, signal.SIGINT)
            _, said = running.communicate(timeout=PATIENCE)
        assert gone(*pids)
    assert '"GET / HTTP/1.1" 200 ' in said
    assert "KeyboardInterrupt" in said


def test_a_start_or_an_end_that_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        port = free_port()
        gateway = Gateway(configuration(listener(port)), workers=1)
        starting = asyncio.ensure_future(gateway.__aenter__())  # noqa: TID251 - awaited below
        await until(_children)
        pids = _children()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert gone(*pids)
        async with backend(always(b"")) as peer:
            configured = configuration(listener(port), services=(service(peer.port),), routes=(forward(),))
            gateway = await Gateway(configured, workers=1).__aenter__()
            pids = [supervisor_of(gateway), *gateway.stats().workers]
            async with client(port) as asked:
                asked.send(request())
                await until(lambda: gateway.stats().in_flight)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await gateway.close()
            assert gone(*pids)
            await gateway.close()

    asyncio.run(main())


def _children() -> list[int]:
    """Of this process, that are gateways."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(FileNotFoundError):
                if b"rauta.runtime.embedded" in Path("/proc", child, "cmdline").read_bytes():
                    found.append(int(child))
    return found


def test_sockets_of_the_program() -> None:
    async def main() -> None:
        other = free_port()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            routes = (
                Route(name="r", action=Respond(body="hi")),
                Route(name="o", listeners=("other",), action=Respond(body="other")),
            )
            configured = configuration(listener(1), listener(other, "other"), routes=routes)
            async with Gateway(configured, sockets={"web": [sock]}, workers=2) as gateway:
                assert sock.fileno() == -1  # it is the gateway's
                assert await ask(port) == b"hi"
                with pytest.raises(ConnectionRefusedError):
                    await ask(other)
                await gateway.apply(configuration(listener(1), listener(other, "other"), body="second"))
                assert await ask(port) == b"second"
                with pytest.raises(GatewayError, match=r"listener 'web' is served on a socket of the program"):
                    await gateway.apply(configuration(listener(2)))
                with pytest.raises(GatewayError, match="cannot be served alone"):
                    await gateway.apply(configuration(listener(other, "other")))
            with pytest.raises(ConnectionRefusedError):
                await ask(port)

    asyncio.run(main())


def test_a_table_and_a_key_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(Table):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    async def main() -> None:
        pair, port = make_pair(tmp_path), free_port()
        monkeypatch.setenv("RAUTA_TEST_KEY", pair.key.read_text())
        tls = TlsSettings(certificates=(Certificate(cert=str(pair.cert), key=Secret(env="RAUTA_TEST_KEY")),))
        first, second = (Watched(configuration(listener(port, tls=tls), body=body)) for body in ("first", "second"))
        command = ["curl", "-sS", "--cacert", str(pair.cert), f"https://localhost:{port}/"]
        async with Gateway(first, workers=1) as gateway:
            assert subprocess.run(command, capture_output=True, check=True).stdout == b"first"
            assert not first.closed
            await gateway.apply(second)
            assert (first.closed, second.closed) == (True, False)
            assert subprocess.run(command, capture_output=True, check=True).stdout == b"second"
        assert second.closed

    asyncio.run(main())


def test_the_admin_interface_shows_it_and_cannot_reload_it(tmp_path: Path) -> None:
    async def main() -> None:
        admin = AdminSettings(socket=str(tmp_path / "admin"))
        configured = configuration(listener(free_port()), admin=admin, offload=OffloadSettings())
        async with Gateway(configured, workers=2) as gateway:
            door = adminsocket.AdminSocket(admin.socket, "of this test")
            status = await asyncio.to_thread(adminsocket.ask, door, "GET", "/v1/status")
            assert {worker["pid"] for worker in status["workers"]} == set(gateway.stats().workers)
            assert status["offload"]["reason"] == gateway.stats().offload
            with pytest.raises(ControlError, match="the program that it belongs to says what it serves"):
                await asyncio.to_thread(adminsocket.ask, door, "POST", "/v1/reload")
            assert os.listdir(tmp_path) == ["admin"]  # noqa: PTH208 - and no door for a successor
            assert await asyncio.to_thread(adminsocket.ask, door, "GET", "/v1/config")
        assert not os.listdir(tmp_path)  # noqa: PTH208

    asyncio.run(main())


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"workers": -1}, "workers=-1: 0 (serve on this event loop) or a number of processes, 1 to 256"),
        ({"workers": 257}, "workers=257: "),
        ({"workers": "2"}, "workers='2': 0 (serve on this event loop) or a number of processes, 1 to 256"),
        ({"workers": True}, "workers=True: "),
        ({"workers": 1.5}, "workers=1.5: "),
        ({"workers": 1, "listener": "web"}, "listener='web' is for an ASGI host's requests, and workers=1 serve none"),
        ({"workers": 1, "sockets": {}}, "sockets={}: workers=1 would serve nothing"),
        ({"workers": 1, "sockets": {"wep": [object()]}}, "there is no listener 'wep'"),
        ({"offload": "auto"}, "offload='auto': kernel tiers belong to the gateway's processes, and workers=0 has none"),
        ({"workers": 1, "offload": "yes"}, "offload='yes': known are file, auto, require, none, OffloadSettings"),
        ({"workers": 1, "offload": 1}, "offload=1: give a mode, for example 'auto', or OffloadSettings"),
    ],
)
def test_what_cannot_be_had(more: dict[str, Any], text: str) -> None:
    with pytest.raises(GatewayError, match=re.escape(text)):
        Gateway(configuration(listener(1)), **more)


def test_an_asgi_host_has_processes_of_its_own() -> None:
    async def main() -> None:
        gateway = Gateway(configuration(listener(free_port())), workers=2)
        sent: list[Any] = []
        messages = iter([{"type": "lifespan.startup"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        await gateway({"type": "lifespan"}, receive, send)
        assert sent[0]["type"] == "lifespan.startup.failed"
        assert "serves in the processes of its host" in sent[0]["message"]
        for kind in ("http", "websocket"):
            with pytest.raises(GatewayError, match="workers=2: as an ASGI application"):
                await gateway({"type": kind}, receive, send)

    asyncio.run(main())


def test_nothing_is_left_behind() -> None:
    """Neither descriptors nor tasks."""

    async def main() -> None:
        before = 0
        for _ in range(3):
            async with Gateway(configuration(listener(free_port())), workers=1) as gateway:
                gateway.stats()
            now = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
            assert now <= before or not before
            before = before or now
        async with asyncio.timeout(5):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.005)

    asyncio.run(main())
