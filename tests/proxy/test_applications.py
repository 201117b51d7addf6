"""Routes to ASGI applications in the worker's own loop: what these get, what becomes of what they send, their ends."""

from __future__ import annotations

import ast
import asyncio
import ipaddress
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rauta.proxy.asgi import applications as starting
from rauta.proxy.asgi.applications import ApplicationError, Applications
from rauta.proxy.dataplane import DataPlane, Endpoint
from rauta.proxy.tasks import Tasks
from rauta.routing.model import Asgi, Configuration, Match, PathMatch, Respond, Route
from rauta.routing.services import LimitOverrides, TimeoutOverrides
from rauta.routing.settings import AccessLog, Address, Forwarded, Listener, LogFormat
from rauta.routing.table import Table
from support import applications as apps
from support.asgiclient import ask
from support.http import Gateway, client, gateway, request, run


@pytest.fixture(autouse=True)
def _clean() -> None:
    apps.events.clear()
    apps.go = asyncio.Event()  # belongs to the loop that waits first
    apps.both_begin = asyncio.Barrier(2)


def route(name: str = "app", **more: Any) -> Route:
    return Route(name=name, action=Asgi(app=f"support.applications:{name}"), **more)


@asynccontextmanager
async def site(*routes: Route, **more: Any) -> AsyncIterator[Gateway]:
    async with gateway(routes=routes or (route(),), log=LogFormat.JSON, **more) as found:
        yield found


def logged(rauta: Gateway) -> dict[str, Any]:
    (line,) = rauta.log_lines()
    return dict(json.loads(line))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_what_an_application_gets() -> None:
    async def main() -> None:
        asked = route(forwarded=frozenset({Forwarded.X_FORWARDED_FOR}))
        async with site(asked) as rauta:
            seen = await ask(rauta.port, [("X-A", "1"), ("Connection", "x-b"), ("X-B", "2")], path="/sh%6fw?x=%20")
            scope = ast.literal_eval(seen.body.decode())
            assert scope.pop("client")[0] == "127.0.0.1"
            assert scope.pop("server") == ("127.0.0.1", rauta.port)
            assert scope == {
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/show",
                "raw_path": b"/show",
                "query_string": b"x=%20",
                "root_path": "",
                "headers": [(b"host", b"test"), (b"x-a", b"1"), (b"x-forwarded-for", b"127.0.0.1")],
            }
            assert seen.all("content-length")
            line = logged(rauta)
            assert (line["route"], line["service"], line["backend"], line["status"]) == ("app", None, None, 200)

    run(main())


def test_http2_and_what_a_trusted_proxy_says() -> None:
    async def main() -> None:
        trusting = Listener(
            name="web", address=Address("127.0.0.1", 1), trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),)
        )
        async with site(listener=trusting) as rauta:
            fields = [("X-Forwarded-For", "192.0.2.5"), ("X-Forwarded-Proto", "https")]
            seen = await ask(rauta.port, fields, http2=True, path="/show")
            scope = ast.literal_eval(seen.body.decode())
            assert (scope["http_version"], scope["client"], scope["scheme"]) == ("2", ("192.0.2.5", 0), "https")

    run(main())


@pytest.mark.parametrize("http2", [False, True])
def test_bodies_are_streamed_both_ways(http2: bool) -> None:
    async def main() -> None:
        async with site() as rauta:
            body = bytes(range(256)) * (64 if http2 else 4000)
            seen = await ask(rauta.port, http2=http2, method="POST", path="/echo", body=body)
            assert seen.whole
            assert seen.body == body
            assert seen.all("x-mixed-case") == ["1"]
            assert len(seen.all("date")) == 1

    run(main())


def test_a_chunked_body_and_the_clients_expectation() -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = await ask(rauta.port, [("Expect", "100-continue")], method="POST", path="/echo", body=b"hello")
            assert (seen.interim, seen.body) == ([100], b"hello")
            async with client(rauta.port) as peer:
                peer.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
                peer.send(b"2\r\nhi\r\n0\r\n\r\n")
                assert b"2\r\nhi\r\n" in await peer.rest()

    run(main())


@pytest.mark.parametrize("http2", [False, True])
def test_trailers_and_early_hints(http2: bool) -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = await ask(rauta.port, http2=http2, path="/trailers")
            assert (seen.interim, seen.body, seen.trailers) == ([103], b"hi", {"x-sum": "1"})

    run(main())


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/fail", "ValueError('on purpose')"),
        ("/fail_before_the_body", "ValueError('on purpose')"),
        ("/nothing", "without a complete response"),
        ("/twice", "no place here"),
        ("/split", "invalid character in a header field"),
    ],
)
def test_applications_that_fail_are_answered_500(path: str, detail: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = await ask(rauta.port, path=path)
            assert seen.whole
            assert seen.status == 500
            assert b"application_failed" in seen.body
            assert b"purpose" not in seen.body
            line = logged(rauta)
            assert line["reason"] == "application_failed"
            assert detail in line["detail"]
            assert (await ask(rauta.port, path="/state")).status == 200

    with caplog.at_level(logging.ERROR, "rauta.asgi"):
        run(main())
    assert path == "/nothing" or "Traceback" in caplog.text


@pytest.mark.parametrize("path", ["/fail_late", "/too_short"])
def test_applications_that_fail_within_a_response_cut_it(path: str) -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = await ask(rauta.port, path=path)
            assert seen.status == 200
            assert not seen.whole
            line = logged(rauta)
            assert (line["status"], line["reason"]) == (200, "application_failed")

    run(main())


def test_a_body_that_is_longer_than_it_says() -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = await ask(rauta.port, path="/too_long")
            assert not seen.whole
            assert b"hello" not in seen.body

    run(main())


def test_a_client_that_leaves_is_told() -> None:
    async def main() -> None:
        async with site() as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/hang"))
                await until(lambda: "waits" in apps.events)
            await until(lambda: "left" in apps.events)

    run(main())


def test_a_client_that_takes_nothing_stops_the_application() -> None:
    async def main() -> None:
        async with site() as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/stream"))
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                before = -1
                while before != len(apps.events):
                    before = len(apps.events)
                    await asyncio.sleep(0.2)
                assert before < 512
                peer.writer.transport.abort()
            await until(lambda: "gone" in apps.events)

    run(main())


def test_an_application_that_takes_nothing_stops_the_client() -> None:
    sent = 0

    async def main() -> None:
        nonlocal sent
        async with site() as rauta, client(rauta.port) as peer:
            peer.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 << 20))

            async def send() -> None:
                nonlocal sent
                while sent < 1024:
                    peer.send(bytes(65536))
                    await peer.writer.drain()
                    sent += 1

            task = asyncio.get_running_loop().create_task(send())
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 512
            apps.go.set()
            await task
            assert (await peer.response())[1] == str(64 << 20).encode()

    run(main())


@pytest.mark.parametrize(("setting", "reason"), [("response", "upstream_timeout"), ("request", "request_timeout")])
def test_time_outs(setting: str, reason: str) -> None:
    async def main() -> None:
        async with site(route(timeouts=TimeoutOverrides(**{setting: 0.2}))) as rauta:
            seen = await ask(rauta.port, path="/hang")
            assert seen.status == 504
            await until(lambda: "left" in apps.events)
            assert logged(rauta)["reason"] == reason

    run(main())


def test_the_limit_of_bodies() -> None:
    async def main() -> None:
        async with site(route(limits=LimitOverrides(body=4))) as rauta:
            assert (await ask(rauta.port, method="POST", path="/echo", body=b"hello")).status == 413

    run(main())


# --- lifespan -------------------------------------------------------------------------------------------


def test_lifespan_of_a_worker() -> None:
    async def main() -> None:
        async with site() as rauta:
            assert apps.events == ["app startup"]
            assert (await ask(rauta.port, path="/state")).body == b"hello of app"
        assert apps.events == ["app startup", "app shutdown"]

    run(main())


def test_an_application_without_lifespan() -> None:
    async def main() -> None:
        async with site(route("no_lifespan")) as rauta:
            assert (await ask(rauta.port)).body == b"no lifespan"

    run(main())


def test_one_that_does_not_start() -> None:
    async def main() -> None:
        listener = Listener(name="web", address=Address("127.0.0.1", 1))
        table = Table(Configuration(listeners=(listener,), routes=(route("broken"),)))
        plane = DataPlane(table, loop=asyncio.get_running_loop(), access_log=None)
        with pytest.raises(ApplicationError, match=r"route 'broken': asgi .*broken' did not start: no database"):
            await plane.prepare(table)
        await plane.drain(0)
        plane.close()

    run(main())


def test_a_reload_starts_and_stops_applications() -> None:
    async def main() -> None:
        async with site() as rauta:
            listener = next(rauta.plane.dispatchers).listener

            async def swap(*routes: Route) -> None:
                table = Table(Configuration(listeners=(listener,), routes=routes, access_log=AccessLog(to="off")))
                try:
                    await rauta.plane.swap(table, [Endpoint(listener=listener)])
                except ApplicationError:
                    table.close()
                    raise

            async with client(rauta.port) as peer:
                peer.send(request("/hang"))
                await until(lambda: "waits" in apps.events)
                with pytest.raises(ApplicationError):
                    await swap(route("broken"))
                await swap(route("other"))
                assert (await ask(rauta.port)).body == b"hello of other"
                await asyncio.sleep(1.3)
                assert "app shutdown" not in apps.events  # it has a request in flight
            await until(lambda: "app shutdown" in apps.events)
            await swap(Route(name="r", action=Respond()))
            await until(lambda: "other shutdown" in apps.events)
        assert apps.events == [
            *("app startup", "waits", "other startup", "left", "app shutdown"),
            "other shutdown",
        ]

    run(main())


@asynccontextmanager
async def applications() -> AsyncIterator[Applications]:
    tasks = Tasks(asyncio.get_running_loop())
    found = Applications(tasks)
    yield found
    await found.keep(())
    await tasks.cancel()


def wanted(*names: str) -> dict[str, str]:
    return {f"support.applications:{name}": name for name in names}


def test_applications_start_at_the_same_time() -> None:
    async def main() -> None:
        async with applications() as found, asyncio.timeout(10):
            await found.start(wanted("patient", "patient_too"))
            assert len(found) == 2

    run(main())


def test_each_failure_is_told_and_the_others_run() -> None:
    async def main() -> None:
        async with applications() as found:
            with pytest.raises(ApplicationError) as raised:
                await found.start(wanted("broken", "app", "nowhere"))
            assert list(raised.value.routes) == ["broken", "nowhere"]
            first, second = str(raised.value).splitlines()
            assert first == "route 'broken': asgi 'support.applications:broken' did not start: no database"
            assert second.startswith("route 'nowhere': asgi 'support.applications:nowhere': there is no 'nowhere'")
            assert found.of("support.applications:app").state
            assert len(found) == 1
        assert apps.events == ["app startup", "app shutdown"]

    run(main())


def test_one_that_is_wanted_twice_starts_once() -> None:
    async def main() -> None:
        async with applications() as found:
            await asyncio.gather(found.start(wanted("app", "other")), found.start(wanted("app")))
            assert sorted(apps.events) == ["app startup", "other startup"]

    run(main())


def test_all_have_one_time_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hanging_of_tests.py").write_text("from support import applications\n\napplications.gate.wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(starting, "START_TIMEOUT", 0.5)

    async def main() -> None:
        async with applications() as found:
            names = {**wanted("endless"), "hanging_of_tests:app": "hanging", **wanted("app")}
            begin = asyncio.get_running_loop().time()
            with pytest.raises(ApplicationError) as raised:
                await found.start(names)
            assert asyncio.get_running_loop().time() - begin < 5
            assert raised.value.routes == {
                "endless": "asgi 'support.applications:endless' did not start: no lifespan.startup.complete within "
                "0.5 s, its import included",
                "hanging": "asgi 'hanging_of_tests:app': its import did not end within 0.5 s",
                "app": "asgi 'support.applications:app': the import of 'hanging_of_tests:app', before it, did not end "
                "within 0.5 s",
            }
            await found.start(wanted("app"))  # what hangs holds nothing up for ever

    try:
        run(main())
    finally:
        apps.gate.set()


def test_what_is_prepared_outlives_an_earlier_failure() -> None:
    """A reload that was given up may fail while the next one is being built."""

    async def main() -> None:
        async with site() as rauta:
            tables = [
                Table(Configuration(listeners=(next(rauta.plane.dispatchers).listener,), routes=(route(name),)))
                for name in ("late", "other")
            ]
            first = rauta.plane._shared.tasks.start(expect_failure(rauta.plane.prepare(tables[0])), name="first")
            await until(lambda: "late begins" in apps.events)
            await rauta.plane.prepare(tables[1])
            apps.go.set()
            await first
            assert rauta.plane._prepared == {"support.applications:other"}
            for table in tables:
                table.close()

    run(main())


async def expect_failure(preparing: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(ApplicationError):
        await preparing


# --- WebSocket ------------------------------------------------------------------------------------------


def test_websocket_messages_subprotocol_and_close() -> None:
    async def main() -> None:
        async with site() as rauta:
            url = f"ws://127.0.0.1:{rauta.port}/socket"
            async with connect(url, subprotocols=["a", "b"]) as peer:  # type: ignore[list-item]
                assert peer.subprotocol == "a"
                assert peer.response is not None
                assert peer.response.headers["X-Mine"] == "1"
                for message in ("hällo", b"\x00" * 1_000_000):
                    await peer.send(message)
                    assert await peer.recv() == message
                await (await peer.ping())
                await peer.close(4002, "bye")
            await until(lambda: "disconnect 4002 bye" in apps.events)
            async with connect(url) as peer:
                await peer.send("close")
                with pytest.raises(ConnectionClosed) as closed:
                    await peer.recv()
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you like")
            await until(lambda: not rauta.plane.open_connections)
            assert [json.loads(line)["status"] for line in rauta.log_lines()] == [101, 101]

    run(main())


@pytest.mark.parametrize("how", ["fail", "return"])
def test_a_websocket_that_the_application_leaves(how: str) -> None:
    async def main() -> None:
        async with site() as rauta:
            async with connect(f"ws://127.0.0.1:{rauta.port}/socket") as peer:
                await peer.send(how)
                with pytest.raises(ConnectionClosed) as closed:
                    await peer.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1011
            await until(lambda: not rauta.plane.open_connections)
            assert logged(rauta)["reason"] == "application_failed"

    run(main())


def test_a_websocket_that_is_cut() -> None:
    async def main() -> None:
        async with site() as rauta:
            async with connect(f"ws://127.0.0.1:{rauta.port}/socket") as peer:
                peer.transport.abort()
            await until(lambda: "disconnect 1006 " in apps.events)

    run(main())


@pytest.mark.parametrize(("path", "status"), [("/refuse", 403), ("/deny", 401), ("/unasked", 500), ("/fail", 500)])
def test_websockets_that_are_refused(path: str, status: int) -> None:
    async def main() -> None:
        async with site() as rauta:
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"ws://127.0.0.1:{rauta.port}{path}"):
                    pass
            assert refused.value.response.status_code == status
            if status == 401:
                assert refused.value.response.headers["X-Why"] == "1"
                assert refused.value.response.body == b"no"

    run(main())


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Sec-WebSocket-Version: 13",), b"400"),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA"), b"400"),
        (("Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), b"426"),
    ],
)
def test_handshakes_that_are_wrong(lines: tuple[str, ...], status: bytes) -> None:
    async def main() -> None:
        async with site() as rauta, client(rauta.port) as peer:
            peer.send(request("/socket", "Connection: Upgrade", "Upgrade: websocket", *lines))
            head = await peer.head()
            assert head.split()[1] == status
            assert (b"Sec-WebSocket-Version: 13" in head) == (status == b"426")

    run(main())


def test_a_route_that_switches_to_nothing_gives_the_application_a_request() -> None:
    async def main() -> None:
        match = Match(path=PathMatch.prefix("/"))
        async with site(route(upgrades=frozenset(), matches=(match,))) as rauta, client(rauta.port) as peer:
            peer.send(request("/show", "Connection: Upgrade", "Upgrade: websocket"))
            assert b"'type': 'http'" in (await peer.response())[1]

    run(main())


# --- the loop's lag -------------------------------------------------------------------------------------


def test_an_application_that_blocks_is_seen() -> None:
    async def main() -> None:
        async with site() as rauta:
            seen = []
            rauta.plane._shared.wheel.each_tick.append(lambda: seen.append(rauta.plane.loop_lag))
            await until(lambda: len(seen) > 3)
            quiet = max(seen)
            assert (await ask(rauta.port, path="/block")).body == b"done"
            await until(lambda: max(seen) > 0.25)
            assert quiet < 0.25

    run(main())
