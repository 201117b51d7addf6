"""HTTP/2 under load while its connections end: nothing is lost, be it stopped, reloaded or taken over."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.http2.library import LIBRARIES
from support import grpcpeers
from support.h2traffic import CLIENTS, Traffic
from support.process import Gateway, free_port


class Home:
    """A configuration file, and the gateways that were started from it."""

    def __init__(self, path: Path, library: str) -> None:
        self.path = path
        self.file = path / "rauta.yaml"
        self.port = free_port()
        self.other = free_port()
        self._environment = {"RAUTA_HTTP2": library}
        self._started: list[Gateway] = []

    def write(self, word: str, *ports: int, **sections: Any) -> None:
        """`/word` is answered with a word, on these ports."""
        document = {
            "version": 1,
            "workers": 2,
            "access_log": {"to": "off"},
            "admin": {"socket": str(self.path / "admin.sock")},
            "listeners": {f"l{port}": {"address": f"127.0.0.1:{port}"} for port in ports},
            "routes": [{"name": "word", "match": {"path": {"exact": "/word"}}, "respond": {"body": word}}],
        }
        for name, more in sections.items():
            document[name] = [*document[name], *more] if isinstance(more, list) else more  # type: ignore[misc]
        self.file.write_text(json.dumps(document))

    def start(self, *arguments: str) -> Gateway:
        running = Gateway("--config", str(self.file), *arguments, env=self._environment)
        self._started.append(running)
        running.wait_for("ready")
        running.hold_workers()
        return running

    def destroy(self) -> None:
        for running in self._started:
            running.destroy()


@pytest.fixture(params=LIBRARIES)
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    made = Home(tmp_path, request.param)
    try:
        yield made
    finally:
        made.destroy()


def test_stopped(home: Home) -> None:
    home.write("word", home.port)
    running = home.start()
    traffic = Traffic(home.port, lasting=False)

    def stop() -> None:
        running.signal(signal.SIGTERM)
        assert running.wait() == 0

    traffic.run_while(stop)
    assert traffic.failures == []
    assert traffic.told == CLIENTS
    assert running.wait_for("stopped")["complete"] is True


def test_a_listener_that_is_dropped(home: Home) -> None:
    home.write("old", home.port, home.other)
    running = home.start()
    dropped, kept = Traffic(home.other, lasting=False), Traffic(home.port)

    def reload() -> None:
        home.write("new", home.port)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")

    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(kept.run_while, ended.wait)
        try:
            dropped.run_while(reload)
        finally:
            ended.set()
        others.result()
    assert (dropped.failures, kept.failures) == ([], [])
    assert (dropped.told, kept.told) == (CLIENTS, 0)
    assert {*dropped.answers} <= {b"old", b"new"}
    assert {*kept.answers} == {b"old", b"new"}


def test_taken_over(home: Home) -> None:
    home.write("old", home.port)
    old = home.start()
    traffic = Traffic(home.port)

    def take_over() -> None:
        home.write("new", home.port)
        home.start("--takeover")
        assert old.wait() == 0

    traffic.run_while(take_over)
    assert traffic.failures == []
    assert traffic.told == CLIENTS
    assert {*traffic.answers} == {b"old", b"new"}
    assert old.wait_for("stopped")["complete"] is True


def test_calls_of_grpc_while_it_is_taken_over(home: Home) -> None:
    """Threads of a client share a connection: some begin a call while others learn that it ends."""
    over = threading.Event()
    with grpcpeers.serving() as server, grpcpeers.channel(home.port) as client, ThreadPoolExecutor(8) as pool:
        sections = {
            "services": {"s": {"backends": [{"address": f"127.0.0.1:{server.port}"}], "protocol": "http2"}},
            "routes": [{"name": "calls", "service": "s"}],
        }
        home.write("old", home.port, **sections)
        old = home.start()

        def call() -> int:
            answered = 0
            while not over.is_set():
                answered += grpcpeers.unary(client, "Unary", b"hi") == b"hi"
            return answered

        calls = [pool.submit(call) for _ in range(8)]
        try:
            home.start("--takeover")
            assert old.wait() == 0
        finally:
            over.set()
        assert min(future.result(30) for future in calls) > 10
