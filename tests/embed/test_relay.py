"""What processes say on standard error, in the program."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rauta.embed.relay import LAST_LINES, Relay
from support.process import PATIENCE, ROOT, background, free_port, get, pid_gone

ENVELOPE: dict[str, Any] = {"time": "now", "level": "warning", "event": "e", "message": "m"}


def test_events_are_logged_and_the_rest_is_passed_on(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    relay = Relay()
    envelope = {"time": "now", "level": "warning", "event": "e", "message": "m%s"}
    others = ["Traceback (most recent call last):", '{"a":1}', "7", json.dumps({**envelope, "level": "odd"})]
    with caplog.at_level(logging.INFO, "rauta"):
        for line in (json.dumps({**envelope, "pid": 7}), *others):
            os.write(relay.theirs, line.encode() + b"\n")
        os.write(relay.theirs, b"\xffcut")
        relay.started()
        relay.join(PATIENCE)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "m%s")
    assert (record.event, record.fields) == ("e", {"pid": 7})  # type: ignore[attr-defined]
    assert capfd.readouterr().err.splitlines() == [*others, "\ufffdcut"]
    assert relay.last.splitlines() == [*others, "\ufffdcut"][-LAST_LINES:]


def test_a_pipe_that_nobody_reads_blocks_nobody() -> None:
    relay = Relay()
    assert not os.get_blocking(relay.theirs)
    relay.started()
    relay.join(PATIENCE)


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, *(json.dumps({**ENVELOPE, **more}) for more in ({"level": ["x"]}, {"level": {}}, {"self": 1}))],
    ids=["deep", "list", "mapping", "self"],
)
def test_what_only_looks_like_an_event_is_passed_on(
    line: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    relay = Relay()
    with caplog.at_level(logging.INFO, "rauta"):
        passed_on(relay, line)
    assert [record.getMessage() for record in caplog.records] == ["m"]
    assert capfd.readouterr().err == f"{line}\n"


def test_a_line_without_an_end_is_not_held(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    relay = Relay()
    pieces: list[int] = []
    monkeypatch.setattr(relay, "_pass_on", lambda line: pieces.append(len(line)))
    passed_on(relay, "x" * 300_000)
    assert sum(pieces) == 300_001
    assert max(pieces) == 65_536


def test_logging_that_fails_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    relay = Relay()

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError(record.getMessage())

    logger = logging.getLogger("rauta")
    logger.addFilter(broken)
    try:
        passed_on(relay, json.dumps({**ENVELOPE, "level": "error"}))
    finally:
        logger.removeFilter(broken)
    assert len(capfd.readouterr().err.splitlines()) == 2
    assert len(relay.last.splitlines()) == 2


def passed_on(relay: Relay, line: str) -> None:
    """This, and an event behind it."""
    theirs = os.dup(relay.theirs)
    os.set_blocking(theirs, True)
    with os.fdopen(theirs, "wb") as stream:
        stream.write(f"{line}\n{json.dumps(ENVELOPE)}\n".encode())
    relay.started()
    relay.join(PATIENCE)
    assert not relay._thread.is_alive()


PROGRAM = """
    import asyncio, sys
    from rauta.api import AccessLog, Address, Asgi, Configuration, Gateway, Listener, Route

    async def main():
        listener = Listener(name="web", address=Address("127.0.0.1", int(sys.argv[1])))
        route = Route(name="r", action=Asgi(app="support.applications:prints"))
        configuration = Configuration(listeners=(listener,), routes=(route,), access_log=AccessLog(to="off"))
        async with Gateway(configuration, workers=1) as gateway:
            print(gateway._running._child.pid, *gateway.stats().workers, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@contextmanager
def program(folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A program whose gateway has an application that prints, and the processes of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "RAUTA_TEST_FIFO": str(folder / "fifo")}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as running:
        assert running.stdout is not None
        try:
            yield running, [int(word) for word in running.stdout.readline().split()]
        finally:
            running.kill()


def test_who_prints_is_not_held_up_by_a_program_that_stands_still(tmp_path: Path) -> None:
    port = free_port()
    with program(tmp_path, port) as (running, pids):
        running.send_signal(signal.SIGSTOP)
        assert [get(port) for _ in range(3)] == [(200, b"printed")] * 3
    assert all(map(pid_gone, pids))


def test_who_prints_while_he_drains_does_not_fail_as_the_program_is_dead(tmp_path: Path) -> None:
    port = free_port()
    os.mkfifo(tmp_path / "fifo")
    with program(tmp_path, port) as (running, pids):
        answer = background(lambda: get(port, "/held"))
        with (tmp_path / "fifo").open("wb"):  # once the application reads
            running.kill()
            running.wait(PATIENCE)
        assert answer.result(PATIENCE) == (200, b"printed")
        assert all(map(pid_gone, pids))
