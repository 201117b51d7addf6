"""The supervisor's view of one child, with children that misbehave as no worker of ours does."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rauta.routing.model import Configuration
from rauta.routing.settings import Address, Listener
from rauta.runtime import process, segment
from rauta.runtime import supervisor as supervisor_module
from rauta.runtime.log import EventLog
from rauta.runtime.process import Stage, WorkerError, WorkerProcess
from rauta.runtime.supervisor import Supervisor
from support.process import free_port

# What a fake worker runs; `control` is its end of the socket pair.
PRELUDE = "import os, pickle, signal, socket, struct, sys, time; control = socket.socket(fileno=int(sys.argv[1]))\n"
SEND = "def send(kind, data): control.sendall(struct.pack('!cI', kind, len(data)) + data)\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes children run a script instead of the worker."""

    def install(script: str) -> None:
        def execute(slot: int, connections: tuple[int, int, int], *_: object) -> subprocess.Popen[bytes]:
            control, _passing, _segment = connections
            command = [sys.executable, "-c", PRELUDE + SEND + script, str(control)]
            return subprocess.Popen(command, pass_fds=(control,))

        monkeypatch.setattr(process, "_execute", execute)

    return install


def test_a_worker_that_leaves_and_does_not_end_is_killed(
    fake: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first child says that it drains and hangs; the second one serves until the supervisor is told to stop."""
    monkeypatch.setattr(supervisor_module, "DRAIN_TIMEOUT", 0.1)
    monkeypatch.setattr(supervisor_module, "KILL_GRACE", 0.1)
    mark = tmp_path / "mark"
    fake(f"""
import pathlib, select
send(b'J', b'{{"is": "Prepared"}}')
heard = b""
while b'"Commit"' not in heard: heard += control.recv(65536)
send(b'J', b'{{"is": "Ready"}}')
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.write_text(str(os.getpid()))
    send(b'J', b'{{"is": "Draining"}}')
    signal.pause()
try:
    select.select([os.pidfd_open(int(mark.read_text()))], [], [])
except ProcessLookupError:
    pass
os.kill(os.getppid(), signal.SIGTERM)
signal.pause()
""")
    address = Address("127.0.0.1", free_port())
    configuration = Configuration(listeners=(Listener(name="web", address=address),), workers=1)
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream:
        try:
            status = asyncio.run(Supervisor(configuration, events=EventLog(writer)).run())
        finally:
            os.close(writer)
        said = [json.loads(line)["event"] for line in stream]
    assert status == 0
    assert said == ["worker_leaving", "worker_ready", "draining", "stopped"]


def meet(stage: Stage) -> tuple[WorkerProcess, WorkerError | None]:
    """Start the child, wait until it has come so far (or has failed to), then until it is gone."""

    async def scenario() -> tuple[WorkerProcess, WorkerError | None]:
        loop = asyncio.get_running_loop()
        memory = segment.create(1)
        try:
            worker = WorkerProcess(3, (), memory[0], (), loop)
        finally:
            segment.close(memory)
        watching = loop.create_task(worker.watch())
        await worker.send_setup(b"")
        error = None
        try:
            await worker.reach(stage)
        except WorkerError as caught:
            error = caught
        worker.kill()
        await worker.reach(Stage.GONE)
        await watching
        return worker, error

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "sent",
    [
        "send(b'P', pickle.dumps(1))",
        "send(b'J', b'no json')",
        """send(b'J', b'{"is": "Commit"}')""",
        """send(b'J', b'{"is": "Drain", "timeout": 0.0, "idle": 0.0}')""",
        """send(b'J', b'{"is": "Health", "service": "s", "down": []}')""",
        """send(b'J', b'{"is": "Command", "number": 1, "name": "drain"}')""",
    ],
)
def test_a_child_that_sends_what_no_worker_sends_is_killed(sent: str, fake: Callable[[str], None]) -> None:
    fake(sent + "\nsignal.pause()")
    worker, error = meet(Stage.PREPARED)
    assert error is not None
    assert not error.told
    assert "worker 3 was killed, its control connection is not sane" in str(error)
    assert worker.ending == "killed by SIGKILL"


def test_last_words_are_heard_after_the_death(fake: Callable[[str], None]) -> None:
    fake("""send(b'J', b'{"is": "Failed", "message": "no luck", "routes": {}}'); os._exit(2)""")
    _, error = meet(Stage.READY)
    assert (str(error), error and error.told) == ("no luck", True)


def test_a_grandchild_that_holds_the_connection_does_not_hide_the_death(fake: Callable[[str], None]) -> None:
    fake("if os.fork() == 0:\n    while control.recv(65536): pass\nos._exit(5)")
    _, error = meet(Stage.READY)
    assert str(error) == "worker 3 died before it was ready: exit status 5"


def test_stages_are_seen_however_fast_they_pass(fake: Callable[[str], None]) -> None:
    fake("""
for name in ('Prepared', 'Ready', 'Draining'): send(b'J', b'{"is": "%s"}' % name.encode())
send(b'J', b'{"is": "Drained", "complete": true}')
""")
    worker, error = meet(Stage.GONE)
    assert error is None
    assert (worker.was_ready, worker.complete) == (True, True)


def test_ready_and_leaving_in_one_breath_is_a_start_that_worked(fake: Callable[[str], None]) -> None:
    frames = ", ".join(f"""b'{{"is": "{name}"}}'""" for name in ("Prepared", "Ready", "Draining"))
    fake(f"control.sendall(b''.join(struct.pack('!cI', b'J', len(m)) + m for m in [{frames}]))\nsignal.pause()")
    worker, error = meet(Stage.READY)
    assert error is None
    assert worker.was_ready
