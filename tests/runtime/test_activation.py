"""LISTEN_FDS: sockets from a parent, with real processes and `systemd-socket-activate` where there is one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rauta.routing.settings import Address, Listener
from rauta.runtime import sockets
from rauta.runtime.passed import PassedSocket, claimed
from support.lending import inode, lending, listening
from support.process import Gateway, children, free_port, get


def config(home: Path, listeners: dict[str, str], *, workers: int = 2) -> Path:
    path = home / "rauta.yaml"
    document: dict[str, Any] = {
        "version": 1,
        "workers": workers,
        "access_log": {"to": "off"},
        "listeners": {name: {"address": address} for name, address in listeners.items()},
        "routes": [{"name": "all", "respond": {"body": "hello"}}],
    }
    path.write_text(json.dumps(document))
    return path


@contextlib.contextmanager
def lent(path: Path, socks: Sequence[socket.socket], names: Sequence[str] = ()) -> Iterator[Gateway]:
    fds = [sock.fileno() for sock in socks]
    running = Gateway("--config", str(path), command=lending(fds, names), pass_fds=fds)
    try:
        running.wait_for("ready")
        running.hold_workers()
        yield running
    finally:
        running.destroy()


def held(pid: int) -> list[int]:
    """The inodes of the sockets that a process has."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [int(link.removeprefix("socket:[").removesuffix("]")) for link in links if link.startswith("socket:[")]


def ask_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := client.recv(1000):
            answer += data
        return answer


def test_the_parents_socket_is_served_by_all_and_outlives_them(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        # Nobody serves yet: this one waits in the parent's queue, which is the point of it.
        early = socket.create_connection(("127.0.0.1", port))
        early.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with lent(config(tmp_path, {"web": f"127.0.0.1:{port}"}), [sock]) as running:
            assert early.recv(1000).startswith(b"HTTP/1.1 200")
            workers = children(running.process.pid)
            assert len(workers) == 2
            assert all(inode(sock) in held(worker) for worker in workers)
            assert {get(port) for _ in range(10)} == {(200, b"hello")}
            environment = Path(f"/proc/{workers[0]}/environ").read_bytes()
            assert b"LISTEN_" not in environment
            assert running.stop() == 0
            assert running.events("passed_socket_unused") == []
        early.close()
        late = socket.create_connection(("127.0.0.1", port))  # it listens on, for the next one
        late.close()


def test_several_sockets_of_an_address_are_spread_over_the_slots(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0), shared=True))
        port = first.getsockname()[1]
        rest = [listening(socket.AF_INET, ("127.0.0.1", port), shared=True) for _ in range(2)]
        three = [first, *(stack.enter_context(sock) for sock in rest)]
        with lent(config(tmp_path, {"web": f"127.0.0.1:{port}"}), three) as running:
            wanted = {inode(sock) for sock in three}
            shares = [wanted & {*held(worker)} for worker in children(running.process.pid)]
            assert sorted(map(len, shares)) == [1, 2]
            assert set.union(*shares) == wanted
            assert {get(port) for _ in range(30)} == {(200, b"hello")}
            assert running.stop() == 0


def test_a_unix_socket_is_found_by_its_path_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with listening(socket.AF_UNIX, str(path)) as sock:
        (tmp_path / "link").symlink_to(tmp_path)
        file = config(tmp_path, {"web": f"unix:{tmp_path}/link/web.sock"})
        with lent(file, [sock]) as running:
            assert ask_unix(path).endswith(b"hello")
            running.signal(signal.SIGHUP)
            running.wait_for("reloaded")
            config(tmp_path, {"web": f"127.0.0.1:{free_port()}"})
            running.signal(signal.SIGHUP)
            running.wait_for("reloaded", 2)  # the listener is gone; the file is the manager's
            assert path.exists()
            assert running.stop() == 0
        assert path.exists()


def test_names_come_before_addresses_and_what_nobody_wants_is_told(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        one, two, other = [stack.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0))) for _ in range(3)]
        ports = [sock.getsockname()[1] for sock in (one, two, other)]
        bound = free_port()
        file = config(tmp_path, {"web": f"127.0.0.1:{bound}", "more": f"127.0.0.1:{ports[1]}"})
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        with os.fdopen(reading, "rb") as pipe:
            fds = [one.fileno(), two.fileno(), other.fileno(), pipe.fileno()]
            names = ["web", "rauta.socket", "", "pipe"]
            running = Gateway("--config", str(file), command=lending(fds, names), pass_fds=fds)
        try:
            running.wait_for("ready")
            assert get(ports[0]) == (200, b"hello")
            assert get(ports[1]) == (200, b"hello")
            elsewhere = running.wait_for("passed_socket_elsewhere")
            assert f"(web) is bound to 127.0.0.1:{ports[0]}" in elsewhere["message"]
            unused = {event["fd"]: event["message"] for event in running.events("passed_socket_unused")}
            assert f"is bound to 127.0.0.1:{ports[2]}, where no listener is" in unused[5]
            assert "(pipe) is not used: it is no socket" in unused[6]
            assert inode(other) not in held(running.process.pid)
            assert running.stop() == 0
        finally:
            running.destroy()


def test_what_is_for_another_process_is_left_alone(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    running = Gateway("--config", str(config(tmp_path, {"web": f"127.0.0.1:{port}"})), env=environment)
    try:
        running.wait_for("ready")
        assert get(port) == (200, b"hello")
        assert b"LISTEN_" not in Path(f"/proc/{children(running.process.pid)[0]}/environ").read_bytes()
        assert running.events("passed_socket_unused") == []
        assert running.stop() == 0
    finally:
        running.destroy()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed")
def test_as_systemd_passes_them(tmp_path: Path) -> None:
    port = free_port()
    file = config(tmp_path, {"web": f"127.0.0.1:{port}"})
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=web"]
    running = Gateway("--config", str(file), command=[*command, sys.executable, "-m", "rauta.proxy"])
    try:
        running.wait_for_text("Listening on")
        assert get(port) == (200, b"hello")  # it is started by the first connection, which waits for it
        assert running.wait_for("ready")["pid"] == running.process.pid
        assert running.stop() == 0
    finally:
        running.destroy()


def passed(sock: socket.socket, *, lent: bool, name: str = "") -> PassedSocket:
    return PassedSocket(os.dup(sock.fileno()), lent=lent, name=name)


@pytest.mark.parametrize(
    ("sockets_passed", "slots", "lent", "sizes", "distinct"),
    [
        (1, 3, True, [1, 1, 1], 1),  # one queue, shared
        (1, 3, False, [1, 1, 1], 3),  # a group that is ours grows
        (2, 3, True, [1, 1, 1], 2),
        (4, 3, False, [2, 1, 1], 4),  # none is left without somebody who accepts
        (4, 2, True, [2, 2], 4),
    ],
)
def test_the_share_of_each_slot(sockets_passed: int, slots: int, lent: bool, sizes: list[int], distinct: int) -> None:
    port = free_port()
    web = Listener(name="web", address=Address("127.0.0.1", port))
    with contextlib.ExitStack() as stack:
        found = [
            passed(stack.enter_context(listening(socket.AF_INET, ("127.0.0.1", port), shared=True)), lent=lent)
            for _ in range(sockets_passed)
        ]
        groups = sockets.bind([web], slots, passed={web.address: found})
        stack.callback(sockets.close, groups)
        assert [len(group[web.address]) for group in groups] == sizes
        assert len({inode(sock) for group in groups for sock in group[web.address]}) == distinct


def test_a_name_that_stands_for_two_addresses_is_served_at_both_by_every_slot() -> None:
    web = Listener(name="web", address=Address("127.0.0.1", 1))
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(listening(socket.AF_INET, ("127.0.0.1", 0))) for _ in range(2)]
        wanted, unwanted = claimed([passed(sock, lent=True, name="web") for sock in found], [web])
        assert unwanted == []
        groups = sockets.bind([web], 2, passed=wanted)
        stack.callback(sockets.close, groups)
        for group in groups:
            assert {inode(sock) for sock in group[web.address]} == {inode(sock) for sock in found}
