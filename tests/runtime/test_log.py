from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest

from rauta.runtime.log import EventLog, bridge


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_elsewhere_each_event_is_one_json_line(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    events = EventLog(writer)
    assert not events.terminal
    events.warning("odd", 'a "quoted"\nline', worker=3)
    line = os.read(reader, 10_000).decode()
    assert line.count("\n") == 1
    event = json.loads(line)
    assert event["time"].endswith("Z")
    del event["time"]
    assert event == {
        "level": "warning",
        "event": "odd",
        "message": 'a "quoted"\nline',
        "pid": os.getpid(),
        "worker": 3,
    }


def test_on_a_terminal_it_is_text() -> None:
    master, slave = os.openpty()
    try:
        events = EventLog(slave)
        assert events.terminal
        events.info("ready", "here we are", worker=3)
        events.error("died", "alas")
        assert os.read(master, 10_000) == b"rauta: here we are\r\nrauta: error: alas\r\n"
    finally:
        os.close(master)
        os.close(slave)


def test_a_closed_stderr_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        EventLog(writer, terminal=False).info("x", "y")
    finally:
        os.close(writer)


def test_what_libraries_log_comes_out_as_events(pipe: tuple[int, int], root_logger: None) -> None:
    reader, writer = pipe
    bridge(EventLog(writer))
    logger = logging.getLogger("some.library")
    logger.info("nobody asked")
    try:
        raise ValueError("deep")
    except ValueError:
        logger.exception("it broke: %s", 7)
    (line,) = os.read(reader, 10_000).decode().splitlines()
    event = json.loads(line)
    assert (event["level"], event["event"], event["logger"]) == ("error", "log", "some.library")
    assert event["message"].startswith("it broke: 7\nTraceback")
    assert event["message"].endswith("ValueError: deep")


def test_a_record_that_cannot_be_formatted_hurts_nobody(
    pipe: tuple[int, int], root_logger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = pipe
    bridge(EventLog(writer))
    logging.getLogger("odd").error("%d", "no number")
    assert "no number" in capsys.readouterr().err
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    assert sys.exc_info() == (None, None, None)
