"""A worker by itself, with the test as its supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.settings import AccessLog, Address, Listener
from rauta.runtime import segment
from rauta.runtime.control import Commit, Decoder, Drain, Drained, Message, Prepared, Ready, Setup, encode, encode_setup
from support.process import PATIENCE, ROOT, free_port, get


class Child:
    """A worker with one listening socket."""

    def __init__(self) -> None:
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE)
        self.passing, their_passing = socket.socketpair(type=socket.SOCK_SEQPACKET)
        (memory,) = segment.create(1)
        fds = (theirs.fileno(), their_passing.fileno(), memory, self.listener.fileno())
        arguments = "slot=0 control={} passing={} segment={} listeners={}".format(*fds).split()
        command = [sys.executable, "-m", "rauta.runtime.worker", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=fds)
        theirs.close()
        their_passing.close()
        os.close(memory)
        self._decoder = Decoder()

    @property
    def setup(self) -> Setup:
        listener = Listener(name="web", address=Address("127.0.0.1", self.port))
        route = Route(name="all", action=Respond(body="here"))
        log = AccessLog(to="off")
        return Setup(
            configuration=Configuration(listeners=(listener,), routes=(route,), access_log=log), access_log=None
        )

    def hear(self) -> Message | None:
        while True:
            for message in self._decoder.feed(b""):
                return message
            data = self.control.recv(1000)
            if not data:
                return None
            for message in self._decoder.feed(data):
                return message

    def close(self) -> None:
        self.control.close()
        self.passing.close()
        self.listener.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def child() -> Iterator[Child]:
    running = Child()
    try:
        yield running
    finally:
        running.close()


def test_the_life_of_a_worker(child: Child) -> None:
    child.control.sendall(encode_setup(child.setup))
    assert child.hear() == Prepared()
    child.control.sendall(encode(Commit()))
    assert child.hear() == Ready()
    assert get(child.port) == (200, b"here")
    child.control.sendall(encode(Drain(5.0, 0.5)))
    assert child.hear() == Drained(True)
    assert child.hear() is None
    assert child.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("sent", ["nothing", "half", "setup", "commit"])
def test_a_worker_ends_with_its_supervisor_at_any_stage(child: Child, sent: str) -> None:
    setup = encode_setup(child.setup)
    if sent == "half":
        child.control.sendall(setup[: len(setup) // 2])
    elif sent != "nothing":
        child.control.sendall(setup)
    if sent == "commit":
        child.control.sendall(encode(Commit()))
    child.control.close()
    assert child.process.wait(PATIENCE) == 0


def test_a_start_that_is_called_off_serves_nothing(child: Child) -> None:
    child.control.sendall(encode_setup(child.setup) + encode(Drain(5.0, 0.5)))
    assert [child.hear(), child.hear(), child.hear()] == [Prepared(), Drained(True), None]
    assert child.process.wait(PATIENCE) == 0


def test_started_by_hand_it_says_what_to_do() -> None:
    command = [sys.executable, "-m", "rauta.runtime.worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert done.stderr == "rauta: workers are started by the gateway: use `python -m rauta.proxy`\n"


def test_a_build_that_hangs_ends_without_a_supervisor() -> None:
    """A plugin that never returns holds the only thread: nothing in the process could see the supervisor's end."""
    code = """
import socket
from rauta.runtime import worker
def hang(setup, fds):
    while True: pass
worker.BUILD_LIMIT, worker.receive_setup, worker.build = 1, lambda control: object(), hang
control, passing = socket.socketpair()
worker.serve(worker.Connections(control=control, passing=passing), [], None)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == -signal.SIGALRM
