"""sd_notify, against a socket as systemd has it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.runtime.notify import Notifier
from support.process import PATIENCE, Gateway, free_port


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify") if request.param == "file" else f"@rauta-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        sock.settimeout(PATIENCE)
        yield sock, name


def test_messages(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("all\nwell")
    assert sock.recv(1000) == b"READY=1\nSTATUS=all well"
    notifier.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d{7,}", sock.recv(1000))
    notifier.stopping("done")
    assert sock.recv(1000) == b"STOPPING=1\nSTATUS=done"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready("x")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready("x")


def test_the_life_of_a_gateway(tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "rauta.yaml"
    config.write_text(
        f'version: 1\nworkers: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\n'
        "routes: [{name: r, respond: {status: 204}}]\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        running = Gateway("--config", str(config), env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert sock.recv(1000).startswith(b"READY=1\n")
            running.signal(signal.SIGHUP)
            assert sock.recv(1000).startswith(b"RELOADING=1\n")
            assert sock.recv(1000).startswith(b"READY=1\nSTATUS=")
            config.write_text("version: 2\n")
            running.signal(signal.SIGHUP)
            assert sock.recv(1000).startswith(b"RELOADING=1\n")
            assert b"old configuration" in sock.recv(1000)
            running.signal(signal.SIGTERM)
            assert sock.recv(1000).startswith(b"STOPPING=1\n")
            assert running.wait() == 0
        finally:
            running.destroy()


def test_a_successor_finds_the_manager(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    environment = Notifier({"NOTIFY_SOCKET": name}).environment
    assert environment == {"NOTIFY_SOCKET": name}
    Notifier(environment).main_process(7)
    assert sock.recv(1000) == b"MAINPID=7"
    assert Notifier({}).environment == {}
