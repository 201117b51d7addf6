"""A second gateway takes the sockets of the first, both real processes, under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rauta.runtime.takeover import DOOR_SUFFIX
from support.lending import lending, listening
from support.process import PATIENCE, ROOT, Backend, Gateway, background, children, free_port, get, pid_gone


@pytest.fixture
def backend() -> Iterator[Backend]:
    running = Backend()
    try:
        yield running
    finally:
        running.close()


class Home:
    """A folder with the file of a gateway, and the gateways that were started from it."""

    def __init__(self, path: Path, backend: Backend) -> None:
        self.path = path
        self.file = path / "rauta.yaml"
        self.door = path / f"admin.sock{DOOR_SUFFIX}"
        self.port = free_port()
        self._backend = backend
        self._started: list[Gateway] = []

    def write(self, word: str, *, workers: int = 2, **sections: Any) -> None:
        document = {
            "version": 1,
            "workers": workers,
            "access_log": {"to": "off"},
            "admin": {"socket": str(self.path / "admin.sock")},
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}"}},
            "services": {"s": {"backends": [{"address": f"127.0.0.1:{self._backend.port}"}]}},
            "routes": [
                {"name": "word", "match": {"path": {"exact": "/word"}}, "respond": {"body": word}},
                {"name": "rest", "service": "s"},
            ],
            **sections,
        }
        self.file.write_text(json.dumps(document))

    def start(self, *arguments: str, ready: bool = True, **more: Any) -> Gateway:
        running = Gateway("--config", str(self.file), *arguments, **more)
        self._started.append(running)
        if ready:
            running.wait_for("ready")
            running.hold_workers()
        return running

    def destroy(self) -> None:
        for running in self._started:
            running.destroy()


@pytest.fixture
def home(tmp_path: Path, backend: Backend) -> Iterator[Home]:
    made = Home(tmp_path, backend)
    try:
        yield made
    finally:
        made.destroy()


class Load:
    """Clients on one loop: some on kept-alive connections, some with a connection for each request. What failed, and
    what was answered."""

    def __init__(self, port: int) -> None:
        self.answers: list[bytes] = []
        self.failures: list[str] = []
        self.closed_by_server = 0
        self._port = port
        self._stop = asyncio.Event()

    async def run_while(self, work: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(16):
                clients.create_task(self._client(keep=number % 2 == 0))
            try:
                await asyncio.to_thread(work)
            finally:
                self._stop.set()

    async def _client(self, *, keep: bool) -> None:
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    while await self._request(reader, writer, keep=keep) and not self._stop.is_set():
                        pass
                finally:
                    writer.close()
                    await writer.wait_closed()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error))

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keep: bool) -> bool:
        """Whether the connection may be used again."""
        connection = "keep-alive" if keep else "close"
        writer.write(f"GET /word HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.answers.append(await reader.readexactly(length))
        if not head.startswith(b"http/1.1 200"):
            self.failures.append(repr(head))
        closing = b"connection: close" in head
        self.closed_by_server += closing and keep
        return keep and not closing


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 3), (3, 1)])
def test_under_load_nothing_fails(before: int, after: int, home: Home) -> None:
    home.write("old", workers=before)
    old = home.start()

    def take_over() -> None:
        home.write("new", workers=after)
        new = home.start("--takeover")
        assert new.wait_for("taken_over")["predecessor"] == old.process.pid
        assert old.wait() == 0

    async def scenario() -> Load:
        load = Load(home.port)
        await load.run_while(take_over)
        return load

    load = asyncio.run(scenario())
    assert load.failures == []
    assert {b"old", b"new"} == {*load.answers}
    assert load.closed_by_server  # kept-alive connections were told
    assert old.wait_for("stopped")["complete"] is True
    assert {get(home.port, "/word") for _ in range(40)} == {(200, b"new")}


def test_a_chain_of_takeovers_leaves_files_and_admin_in_place(home: Home) -> None:
    web = home.path / "web.sock"
    listeners = {"web": {"address": f"unix:{web}"}, "tcp": {"address": f"127.0.0.1:{home.port}"}}
    home.write("1", listeners=listeners)
    last = home.start()
    inodes = [path.stat().st_ino for path in (web, home.door, home.path / "admin.sock")]
    for number in (2, 3):
        home.write(str(number), listeners=listeners)
        new = home.start("--takeover")
        assert last.wait() == 0
        assert [path.stat().st_ino for path in (web, home.door, home.path / "admin.sock")] == inodes
        assert ask_unix(web, "/word").endswith(str(number).encode())
        assert status(home)["workers"][0]["pid"] in children(new.process.pid)
        assert new.wait_for("taken_over")["predecessor"] == last.process.pid
        last = new
    assert last.stop() == 0
    assert not any(path.exists() for path in (web, home.door, home.path / "admin.sock"))


def ask_unix(path: Path, target: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def status(home: Home) -> Any:
    return json.loads(ask_unix(home.path / "admin.sock", "/v1/status").partition(b"\r\n\r\n")[2])


def test_what_is_in_flight_ends_where_it_began(home: Home, backend: Backend) -> None:
    home.write("old")
    old = home.start()
    slow = background(lambda: get(home.port, "/slow"))
    assert backend.slow_arrived.acquire(timeout=PATIENCE)
    home.write("new")
    home.start("--takeover")
    old.wait_for("draining")
    # Its workers learn it next; until they have, both answer.
    assert any(get(home.port, "/word") == (200, b"new") for _ in range(1000))
    assert old.process.poll() is None
    backend.release.set()
    assert slow.result(PATIENCE) == (200, b"/slow")
    assert old.wait() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"listeners": {"web": {"address": "192.0.2.1:80"}}},
        {"access_log": {"to": "/no/such/folder/log"}},
    ],
    ids=["address", "log"],
)
def test_one_that_cannot_start_changes_nothing(wrong: dict[str, Any], home: Home) -> None:
    home.write("old")
    old = home.start()
    home.write("new", **wrong)
    new = home.start("--takeover", ready=False)
    assert new.wait() == 2
    assert get(home.port, "/word") == (200, b"old")
    if old.events("takeover_began"):
        assert "is gone" in old.wait_for("takeover_failed")["reason"]
    home.write("reloaded")
    old.signal(signal.SIGHUP)  # nothing is left locked
    old.wait_for("reloaded")
    assert get(home.port, "/word") == (200, b"reloaded")
    assert home.door.exists()
    home.start("--takeover")
    assert old.wait() == 0


def test_one_that_is_killed_on_the_way_changes_nothing(home: Home) -> None:
    home.write("old")
    old = home.start()
    new = home.start("--takeover", ready=False)
    old.wait_for("takeover_began")
    new.hold_workers()
    new.process.kill()
    assert new.wait() == -signal.SIGKILL
    old.wait_for("takeover_failed")
    assert get(home.port, "/word") == (200, b"old")


def has_sockets(new: Gateway) -> None:
    """Wait until it starts its workers, for which it needs them."""
    while not children(new.process.pid) and new.process.poll() is None:
        pass


def test_one_that_is_told_to_stop_on_the_way_changes_nothing(home: Home) -> None:
    web = home.path / "web.sock"
    home.write("old", listeners={"web": {"address": f"unix:{web}"}})
    old = home.start()
    new = home.start("--takeover", ready=False)
    old.wait_for("takeover_began")
    has_sockets(new)
    new.signal(signal.SIGTERM)
    assert new.wait() == 0
    old.wait_for("takeover_failed")
    assert ask_unix(web, "/word").endswith(b"old")


def test_the_old_one_is_stopped_on_the_way(home: Home) -> None:
    home.write("old")
    old = home.start()
    new = home.start("--takeover", ready=False)
    old.wait_for("takeover_began")
    old.signal(signal.SIGTERM)
    assert old.wait() == 0
    assert new.wait() in (0, 1)
    if new.process.returncode == 1:
        assert "goes on: it is being stopped" in "".join(new.lines)


def test_the_old_one_is_killed_on_the_way(home: Home) -> None:
    home.write("old")
    old = home.start()
    home.write("new")
    new = home.start("--takeover", ready=False)
    has_sockets(new)
    old.signal(signal.SIGKILL)
    new.wait_for("ready")
    assert get(home.port, "/word") == (200, b"new")
    assert home.door.exists()
    assert new.stop() == 0
    assert not home.door.exists()


def test_listeners_may_differ(home: Home) -> None:
    gone, added = free_port(), free_port()
    web = home.path / "web.sock"
    kept = {"address": f"127.0.0.1:{home.port}"}
    home.write(
        "old",
        listeners={"web": kept, "gone": {"address": f"127.0.0.1:{gone}"}, "unix": {"address": f"unix:{web}"}},
    )
    old = home.start()
    home.write("new", listeners={"renamed": kept, "added": {"address": f"127.0.0.1:{added}"}})
    home.start("--takeover")
    assert old.wait() == 0
    assert get(home.port, "/word") == (200, b"new")
    assert get(added, "/word") == (200, b"new")
    with pytest.raises(ConnectionRefusedError):
        get(gone, "/word")
    assert not web.exists()


def test_a_wildcard_becomes_one_address(home: Home) -> None:
    home.write("old", listeners={"web": {"address": f"0.0.0.0:{home.port}"}})
    old = home.start()
    home.write("new")
    home.start("--takeover")
    assert old.wait() == 0
    assert get(home.port, "/word") == (200, b"new")


def test_with_nobody_there_it_is_an_ordinary_start(home: Home) -> None:
    home.write("first")
    running = home.start("--takeover")
    assert str(home.door) in running.wait_for("takeover_none")["message"]
    assert get(home.port, "/word") == (200, b"first")
    assert home.door.stat().st_mode & 0o777 == 0o600


def test_without_an_admin_socket_there_is_no_place_to_meet(home: Home) -> None:
    home.write("x", admin=None)
    text = json.loads(home.file.read_text())
    del text["admin"]
    home.file.write_text(json.dumps(text))
    running = home.start("--takeover", ready=False)
    assert running.wait() == 2
    assert "--takeover needs `admin: {}`" in "".join(running.lines)


def test_a_second_one_waits_for_the_first(home: Home) -> None:
    home.write("old", workers=1)
    old = home.start()
    first = home.start("--takeover", ready=False)
    old.wait_for("takeover_began")
    second = home.start("--takeover")
    assert old.wait() == 0
    assert first.wait() == 0
    assert second.wait_for("taken_over")["predecessor"] == first.process.pid
    assert get(home.port, "/word") == (200, b"old")


def test_a_gateway_of_another_protocol_is_refused(home: Home) -> None:
    home.write("old", workers=1)
    old = home.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.settimeout(PATIENCE)
        stranger.connect(str(home.door))
        stranger.sendall(b'{"takeover": 99}')
        assert b"version 1 of the protocol is spoken here, not 99" in stranger.recv(10000)
    for words in (b"\xff", b"[]", b""):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(home.door))
            if words:
                stranger.sendall(words)
    old.wait_for("takeover_failed", 4)
    assert get(home.port, "/word") == (200, b"old")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_gets_nothing(home: Home) -> None:
    home.write("old", workers=1)
    old = home.start()
    home.door.chmod(0o666)
    for folder in (home.path, *home.path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    script = f"""
import os, socket
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect({str(home.door)!r})
print(sock.recv(1000))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "user 65534" in done.stdout
    assert "must not take the sockets" in old.wait_for("takeover_failed")["reason"]


def test_the_door_moves_with_the_admin_socket(home: Home) -> None:
    home.write("old", workers=1)
    old = home.start()
    home.write("old", workers=1, admin={"socket": str(home.path / "other.sock")})
    old.signal(signal.SIGHUP)
    old.wait_for("reloaded")
    assert not home.door.exists()
    home.start("--takeover").wait_for("taken_over")
    assert old.wait() == 0


def test_lent_sockets_stay_lent(home: Home) -> None:
    """The manager's socket goes from gateway to gateway, and its file is never theirs."""
    web = home.path / "web.sock"
    listeners = {"web": {"address": f"unix:{web}"}}
    home.write("1", listeners=listeners)
    with listening(socket.AF_UNIX, str(web)) as sock:
        old = home.start(command=lending([sock.fileno()]), pass_fds=[sock.fileno()])
        home.write("2", listeners=listeners, workers=3)
        new = home.start("--takeover")
        assert old.wait() == 0
        assert ask_unix(web, "/word").endswith(b"2")
        assert new.stop() == 0
        assert web.exists()


def test_the_service_manager_learns_the_main_process(home: Home) -> None:
    home.write("x", workers=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home.path / "notify"))
        manager.settimeout(PATIENCE)
        environment = {**os.environ, "NOTIFY_SOCKET": str(home.path / "notify")}
        old = home.start(env=environment)
        assert manager.recv(1000).startswith(b"READY=1\n")
        new = home.start("--takeover", env=environment)
        assert manager.recv(1000) == b"MAINPID=%d" % new.process.pid
        assert manager.recv(1000).startswith(b"READY=1\n")
        assert old.wait() == 0
        assert new.stop() == 0
        assert manager.recv(1000).startswith(b"STOPPING=1\n")  # the old one said nothing of the kind


def test_sigusr2_starts_what_is_installed_now(home: Home) -> None:
    home.write("old")
    script = home.path / "rauta"
    text = "#!{}\nimport sys\nsys.path.insert(0, {!r})\n{}\nfrom rauta.runtime.cli import main\nsys.exit(main())\n"
    script.write_text(text.format(sys.executable, str(ROOT), ""))
    script.chmod(0o755)
    old = home.start(command=[str(script)])
    script.write_text(text.format(sys.executable, str(ROOT), "sys.exit(3)"))
    old.signal(signal.SIGUSR2)
    assert old.wait_for("upgrade_failed")["status"] == 3
    assert get(home.port, "/word") == (200, b"old")
    home.write("new")
    script.write_text(text.format(sys.executable, str(ROOT), "import rauta; rauta.__version__ = '99'"))
    for pid in children(old.process.pid):
        os.kill(pid, signal.SIGUSR2)  # as a signal to the whole group: not for them
    old.signal(signal.SIGUSR2)
    new = old.wait_for("upgrade_began", 2)["successor"]
    try:
        assert old.wait_for("handed_over")["successor"] == new
        # It has the old one's streams, so the reader of its events goes on until it ends, too.
        assert old.process.wait(PATIENCE) == 0
        assert [event["version"] for event in old.events("ready")][1:] == ["99"]
        assert get(home.port, "/word") == (200, b"new")
        assert old.events("worker_died") == []
    finally:
        os.kill(new, signal.SIGTERM)
        assert pid_gone(new)


def test_sigusr2_needs_a_place_to_meet(backend: Backend) -> None:
    port = free_port()
    running = Gateway("--listen", f"127.0.0.1:{port}", "--to", backend.url)
    try:
        running.wait_for("ready")
        running.signal(signal.SIGUSR2)
        assert "`admin: {}`" in running.wait_for("upgrade_failed")["message"]
        assert get(port, "/x") == (200, b"/x")
    finally:
        running.destroy()
