"""Log lines: what they say, what they hide, and that they never stop the loop."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.accesslog import MAX_TARGET, AccessLogWriter, Entry, logged_target, redact
from rauta.routing.settings import LogFormat

FULL = Entry(
    client="192.0.2.7",
    status=200,
    listener="web",
    method="GET",
    target="/a?b=c",
    version="1.1",
    bytes_sent=5,
    host="test",
    route="users",
    service="s",
    backend="127.0.0.1:9000",
    duration=0.0012345,
    upstream=0.001,
)


def written(form: LogFormat, *entries: Entry) -> list[str]:
    fd = os.memfd_create("log")
    try:
        log = AccessLogWriter(fd, form)
        for entry in entries:
            log.write(entry)
        log.close()
        return os.pread(fd, 1 << 20, 0).decode().splitlines()
    finally:
        os.close(fd)


def test_common() -> None:
    (line,) = written(LogFormat.COMMON, FULL)
    words = shlex.split(line)
    assert words[:3] == ["192.0.2.7", "-", "-"]
    assert words[5:] == [
        "GET /a?b=c HTTP/1.1", "200", "5", "listener=web", "host=test", "route=users", "service=s",
        "backend=127.0.0.1:9000", "tier=3", "time=0.001234", "upstream=0.001000", "reason=-",
        "connect=-", "received=0", "attempts=0", "id=-",
    ]  # fmt: skip


def test_json() -> None:
    (line,) = written(LogFormat.JSON, FULL)
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert fields == {
        "client": "192.0.2.7", "method": "GET", "target": "/a?b=c", "protocol": "HTTP/1.1", "status": 200, "bytes": 5,
        "listener": "web", "host": "test", "route": "users", "service": "s", "backend": "127.0.0.1:9000", "tier": 3,
        "duration": 0.001234, "upstream": 0.001, "reason": None,
        "connect": None, "received": 0, "attempts": 0, "request_id": None,
    }  # fmt: skip


@given(st.text(st.characters(max_codepoint=255), max_size=30))
def test_nothing_breaks_a_line(text: str) -> None:
    entry = FULL._replace(target=text, detail=text, method="GET")
    lines = written(LogFormat.COMMON, entry)
    assert len(lines) == 1
    assert lines[0].isascii()
    assert lines[0].isprintable()
    assert len(shlex.split(lines[0])) == 21 + bool(text)
    (line,) = written(LogFormat.JSON, entry)
    assert json.loads(line)["target"] == text
    assert line.isprintable()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a=b&c=d", "a=b&c=d"),
        ("token=x", "token=***"),
        ("a=1&access_token=x&b=2", "a=1&access_token=***&b=2"),
        ("Password=x&apiKey=y&api_key=z", "Password=***&apiKey=***&api_key=***"),
        ("X-Amz-Signature=x&X-Amz-Credential=y", "X-Amz-Signature=***&X-Amz-Credential=***"),
        ("code=x&monkey=y&state=z", "code=***&monkey=y&state=z"),
        ("client_secret=a=b=c", "client_secret=***"),
        ("%74oken=x&c%6fde=y&a%zz=1", "%74oken=***&c%6fde=***&a%zz=1"),
        ("token&a=token", "token&a=token"),
        ("=x&&token=", "=x&&token=***"),
        ("", ""),
    ],
)
def test_redacted(query: str, expected: str) -> None:
    assert redact(query) == expected


def test_a_long_hostile_query_costs_little() -> None:
    started = time.process_time()
    for query in ("pwd" * 20_000, "pwd&" * 15_000, "%70wd" * 12_000, "a=pwd" * 12_000):
        assert len(logged_target("/", query)) < MAX_TARGET + 10
    redact("pwd" * 20_000)
    assert time.process_time() - started < 1  # it was 7 s


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/a", None, "/a"),
        ("/a", "", "/a?"),
        ("/a", "token=x", "/a?token=***"),
        ("/" + "a" * 3000, "token=x", "/" + "a" * (MAX_TARGET - 1) + "[...]"),
        ("/a", "token=" + "x" * 3000, "/a?token=***[...]"),
        ("/a", "a=" + "x" * 3000, "/a?a=" + "x" * (MAX_TARGET - 4) + "[...]"),
    ],
)
def test_targets_are_cut_before_secrets_are_looked_for(path: str, query: str | None, expected: str) -> None:
    assert logged_target(path, query) == expected


LONG = st.text(st.characters(max_codepoint=255), min_size=1, max_size=6).map(lambda text: text * 2000)
TEXTS = st.fixed_dictionaries({}, optional=dict.fromkeys(["method", "target", "host", "detail"], LONG))
NAMES = {"listener": "l" * 128, "route": "r" * 128, "service": "s" * 128, "backend": "b" * 259}


@given(TEXTS, st.sampled_from(LogFormat))
def test_no_line_is_longer_than_what_a_pipe_takes_whole(texts: dict[str, str], form: LogFormat) -> None:
    entry = FULL._replace(client="f" * 45, **NAMES, **texts)
    (line,) = written(form, entry)
    assert len(line) + 1 <= 4096
    assert line.isprintable()
    if form is LogFormat.JSON:
        fields = json.loads(line)
        for name, text in texts.items():
            shown = fields[name]
            assert shown == text or (shown.endswith("[...]") and text.startswith(shown[:-5]))


def test_a_pipe_that_nobody_reads_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rauta.proxy.accesslog.MAX_WAITING", 256 * 1024)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    log = AccessLogWriter(writing)
    line = FULL._replace(target="/" + "a" * 1000)
    started = time.monotonic()
    for _ in range(1000):
        log.write(line)
    assert time.monotonic() - started < 5
    # Now somebody reads: what was kept comes whole, and the gap is told.
    kept = b""
    os.set_blocking(reading, False)
    deadline = time.monotonic() + 10
    log.flush()
    while time.monotonic() < deadline and b"lines dropped" not in kept:
        try:
            kept += os.read(reading, 1 << 20)
        except BlockingIOError:
            log.write(line)
            log.flush()
            time.sleep(0.001)
    lines = kept.decode().splitlines()
    assert any(text.startswith("# ") and text.endswith("lines dropped: the log's reader is too slow") for text in lines)
    assert all(len(text) == len(lines[0]) for text in lines[:200])
    os.set_blocking(reading, True)
    os.close(reading)
    log.close()
    os.close(writing)
