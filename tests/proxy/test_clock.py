"""Stamps of log lines."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from rauta.proxy.clock import Clock


def test_utc_stamp() -> None:
    stamp = Clock().utc_stamp()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_second_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    for now, expected in ((1.25, "00:00:01.250"), (1.9999, "00:00:01.999"), (61.0, "00:01:01.000")):
        monkeypatch.setattr("rauta.proxy.clock.time", lambda now=now: now)
        assert clock.utc_stamp() == f"1970-01-01T{expected}Z"
