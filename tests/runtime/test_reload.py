"""Reload, with real processes and real traffic: every request obeys the old file or the new one, and none is lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.process import PATIENCE, Backend, Gateway, children, free_port, gateway, get


@pytest.fixture
def backend() -> Iterator[Backend]:
    running = Backend()
    try:
        yield running
    finally:
        running.close()


class File:
    """A configuration file that answers with a word, on one port or more."""

    def __init__(self, home: Path, backend: Backend) -> None:
        self.home = home
        self.path = home / "rauta.yaml"
        self.backend = backend
        self.port = free_port()

    def write(self, word: str, *more_ports: int, **sections: Any) -> None:
        """`/word` answers `word`; `/slow...` goes to the backend."""
        listeners = {f"l{port}": {"address": f"127.0.0.1:{port}"} for port in (self.port, *more_ports)}
        routes = [
            {"name": "word", "match": {"path": {"exact": "/word"}}, "respond": {"body": word}},
            {"name": "rest", "service": "s"},
        ]
        document = {
            "version": 1,
            "workers": 2,
            "listeners": listeners,
            "access_log": {"to": "off"},
            "services": {"s": {"backends": [{"address": f"127.0.0.1:{self.backend.port}"}]}},
            "routes": routes,
            **sections,
        }
        temporary = self.home / "new"
        temporary.write_text(json.dumps(document))
        temporary.rename(self.path)


@pytest.fixture
def file(tmp_path: Path, backend: Backend) -> File:
    return File(tmp_path, backend)


def reload(running: Gateway, count: int = 1) -> None:
    """SIGHUP, and wait until the new file is live."""
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded", count)


def descriptors_of(pid: int) -> int:
    """How many are open in a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Traffic:
    """Clients that ask on kept-alive connections without a pause, and what they got."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(port,), daemon=True) for _ in range(clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            while not self._stop.is_set():
                connection.request("GET", "/word")
                response = connection.getresponse()
                body = response.read()
                self.answers.append(body)
                if response.status != 200:
                    self.failures.append(f"{response.status} {body!r}")
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
        finally:
            connection.close()


def test_many_reloads_under_traffic_lose_nothing(file: File) -> None:
    file.write("word 0")
    with gateway("--config", str(file.path)) as running, Traffic(file.port) as traffic:
        supervisor = running.process.pid
        workers = children(supervisor)
        for number in range(1, 21):
            file.write(f"word {number}")
            reload(running, number)
            assert get(file.port, "/word")[1] == b"word %d" % number
        descriptors = {pid: descriptors_of(pid) for pid in (supervisor, *workers)}
        for number in range(21, 31):
            file.write(f"word {number}")
            reload(running, number)
        assert children(supervisor) == workers
        for pid, count in descriptors.items():
            assert descriptors_of(pid) <= count + 2  # connections of `get` that are just closing
    assert traffic.failures == []
    assert len(set(traffic.answers)) > 10


def test_the_next_request_of_a_kept_connection_obeys_the_new_file(file: File) -> None:
    file.write("old")
    with gateway("--config", str(file.path)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", file.port, timeout=PATIENCE)
        connection.request("GET", "/word")
        assert connection.getresponse().read() == b"old"
        file.write("new")
        reload(running)
        connection.request("GET", "/word")
        assert connection.getresponse().read() == b"new"
        connection.close()


def test_a_request_in_flight_ends_as_it_began(file: File) -> None:
    file.write("old")
    with gateway("--config", str(file.path)) as running:
        connection = http.client.HTTPConnection("127.0.0.1", file.port, timeout=PATIENCE)
        connection.request("GET", "/slow")
        assert file.backend.slow_arrived.acquire(timeout=PATIENCE)
        file.write("new", services={"s": {"backends": [{"address": "127.0.0.1:1"}]}})
        reload(running)
        file.backend.release.set()
        assert connection.getresponse().read() == b"/slow"
        connection.close()
        assert get(file.port, "/other")[0] == 502


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"routes": [{"name": "x", "service": "nobody"}]}, "there is no service 'nobody'"),
        ({"access_log": {"to": "/no/such/folder/log"}}, "No such file or directory"),
        ({"listeners": {"web": {"address": "192.0.2.1:80"}}}, "is not an address of this machine"),
    ],
    ids=["reference", "log", "address"],
)
def test_a_file_that_cannot_be_served_changes_nothing(wrong: dict[str, Any], said: str, file: File) -> None:
    file.write("old")
    with gateway("--config", str(file.path)) as running:
        file.write("new", **wrong)
        running.signal(signal.SIGHUP)
        assert said in running.wait_for("reload_failed")["message"]
        assert get(file.port, "/word") == (200, b"old")
        file.write("mended")
        reload(running)
        assert get(file.port, "/word") == (200, b"mended")


def test_listeners_come_and_go(file: File) -> None:
    other = free_port()
    file.write("one")
    with gateway("--config", str(file.path)) as running:
        file.write("two", other)
        reload(running)
        assert get(other, "/word") == (200, b"two")
        assert get(file.port, "/word") == (200, b"two")
        file.write("three")
        reload(running, 2)
        assert get(file.port, "/word") == (200, b"three")
        with pytest.raises(ConnectionRefusedError):
            get(other, "/word")


def test_a_unix_listener_is_served_and_its_file_removed(file: File) -> None:
    path = file.home / "web.sock"
    web = {"web": {"address": f"unix:{path}"}, "tcp": {"address": f"127.0.0.1:{file.port}"}}
    file.write("hello", listeners=web)
    with gateway("--config", str(file.path)) as running:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /word HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := client.recv(1000):
                answer += data
        assert answer.endswith(b"\r\n\r\nhello")
        assert running.stop() == 0
    assert not path.exists()


def test_a_successor_starts_with_the_file_that_is_live(file: File) -> None:
    file.write("old")
    with gateway("--config", str(file.path)) as running:
        file.write("new")
        reload(running)
        for pid in children(running.process.pid):
            os.kill(pid, signal.SIGKILL)
        running.wait_for("worker_ready", 2)
        for _ in range(10):
            assert get(file.port, "/word") == (200, b"new")


def test_the_access_log_is_reopened(file: File) -> None:
    log = file.home / "access.log"
    file.write("hello", access_log={"to": str(log)})
    with gateway("--config", str(file.path)) as running:
        assert get(file.port, "/word")[0] == 200
        log.rename(file.home / "old.log")
        running.signal(signal.SIGUSR1)
        running.wait_for("reopened")
        assert get(file.port, "/word")[0] == 200
        assert running.stop() == 0
    assert len((file.home / "old.log").read_text().splitlines()) == 1
    assert len(log.read_text().splitlines()) == 1


def test_the_access_log_moves_with_a_reload(file: File) -> None:
    first, second = file.home / "first.log", file.home / "second.log"
    file.write("hello", access_log={"to": str(first)})
    with gateway("--config", str(file.path)) as running:
        get(file.port, "/word")
        file.write("hello", access_log={"to": str(second), "format": "json"})
        reload(running)
        get(file.port, "/word")
        file.write("hello")
        reload(running, 2)
        get(file.port, "/word")
        assert running.stop() == 0
    assert len(first.read_text().splitlines()) == 1
    (line,) = second.read_text().splitlines()
    assert json.loads(line)["target"] == "/word"


def test_changing_the_access_log_leaves_no_descriptor_behind(file: File) -> None:
    file.write("hello")
    with gateway("--config", str(file.path)) as running:
        workers = children(running.process.pid)

        def change(number: int) -> list[int]:
            file.write("hello", access_log={"to": str(file.home / f"log{number}")})
            reload(running, number)
            return [descriptors_of(pid) for pid in workers]

        before = change(1)
        for number in range(2, 6):
            after = change(number)
        assert after == before


def test_a_listener_moves_from_one_address_to_all(file: File) -> None:
    file.write("one")
    with gateway("--config", str(file.path)) as running:
        for number, host in enumerate(("0.0.0.0", "127.0.0.1"), 1):
            file.write(host, listeners={"web": {"address": f"{host}:{file.port}"}})
            reload(running, number)
            assert get(file.port, "/word") == (200, host.encode())


def test_without_a_file_there_is_nothing_to_reload(backend: Backend) -> None:
    port = free_port()
    with gateway("--listen", f"127.0.0.1:{port}", "--to", backend.url) as running:
        running.signal(signal.SIGHUP)
        assert "no configuration file" in running.wait_for("reload_failed")["message"]
        assert get(port, "/here") == (200, b"/here")


def test_worker_memory_stays_level_over_reloads(file: File) -> None:
    file.write("x")
    with gateway("--config", str(file.path)) as running:
        (pid, *_) = children(running.process.pid)

        def reload_some(first: int, last: int) -> int:
            for number in range(first, last):
                reload(running, number)
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4  # KiB

        before = reload_some(1, 31)
        after = reload_some(31, 91)
        assert after - before < 2048, f"{after - before} KiB more after 60 reloads"


def test_a_load_that_crashes_changes_nothing(file: File) -> None:
    """A plugin's settings are foreign code: whatever they raise, the gateway goes on."""
    file.write("old")
    script = file.home / "crash.py"
    script.write_text(
        "import sys\n"
        "from rauta.config import load\n"
        "import rauta.config\n"
        "loads = []\n"
        "def once(path):\n"
        "    loads.append(path)\n"
        "    if len(loads) == 2: raise ZeroDivisionError('no luck')\n"
        "    return load(path)\n"
        "rauta.config.load = once\n"
        "from rauta.runtime.cli import main\n"
        "sys.exit(main())\n"
    )
    running = Gateway("--config", str(file.path), command=[sys.executable, str(script)])
    try:
        running.wait_for("ready")
        running.signal(signal.SIGHUP)
        assert "no luck" in running.wait_for("reload_failed")["message"]
        assert get(file.port, "/word") == (200, b"old")
        file.write("new")
        reload(running)
        assert get(file.port, "/word") == (200, b"new")
    finally:
        running.destroy()
