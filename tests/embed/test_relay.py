"""What processes say on standard error, in the program."""

from __future__ import annotations

import json
import logging
import os

import pytest

from rauta.embed.relay import LAST_LINES, Relay
from support.process import PATIENCE


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
