"""The access log: one line per request, buffered, written by a thread of its own.

* Nothing is formatted unless there is a log.
* The loop never waits for the log: a pipe that nobody reads or a slow disk must not stop the requests. Lines that
  find too much waiting are dropped, and a later line tells how many.
* The query is logged, for it is what people search logs for; values of parameters whose names speak of secrets are
  replaced by `***`. Header fields, so also Authorization and Cookie, are never logged.
* Nothing from a request can break a line or a quotation: all but printable ASCII is escaped.
* No line is longer than what a pipe takes in one piece: whatever a client sends, lines of several workers do not mix.
  What was too long ends in `[...]`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from rauta.proxy.clock import Clock
from rauta.routing.settings import LogFormat

if TYPE_CHECKING:
    from rauta.proxy.exchange import Exchange

FLUSH_SIZE: Final = 32 * 1024  # bytes; some 200 lines to one hand-over to the thread
FLUSH_TICKS: Final = 10  # of the wheel: a line is at most a second old when it is written
MAX_WAITING: Final = 4 * 1024 * 1024  # bytes that wait for a slow reader before lines are dropped
_PIPE_BUF: Final = 4096  # pipe(7): writes of up to this size do not mix with those of other workers

_UNSAFE = re.compile(r'[^\x20-\x7e]|["\\]')
_SECRET = re.compile(
    r"(?i)token|secret|passw|pwd|api_?-?key|signature|credential|session|jwt|\A(?:code|sig|key|auth)\Z"
)  # no repetition: linear in the name

# A target is cut to this many characters before anything looks at it: longer ones tell a reader nothing more.
MAX_TARGET: Final = 2048
_CUT: Final = "[...]"
# What the other fields may take of a line that is too long, in bytes as written; `target` may take MAX_TARGET. With
# the fixed parts, some 400 bytes, the sum stays below PIPE_BUF.
_MAX_WRITTEN: Final = {
    "method": 32, "target": MAX_TARGET, "host": 256, "listener": 128, "route": 128, "service": 128, "backend": 256,
    "detail": 512, "request_id": 128,
}  # fmt: skip


class Entry(NamedTuple):
    """What is logged of one request. Times are seconds; None, and no client, is shown as `-` (JSON: null)."""

    client: str
    status: int
    listener: str
    method: str | None = None
    target: str | None = None
    version: str | None = None
    bytes_sent: int = 0
    host: str | None = None
    route: str | None = None
    service: str | None = None
    backend: str | None = None
    duration: float = 0.0
    upstream: float | None = None
    reason: str | None = None
    detail: str | None = None
    connect: float | None = None
    received: int = 0
    attempts: int = 0
    request_id: str | None = None
    grpc_status: str | None = None


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def redact(query: str) -> str:
    """The query, with the values of parameters whose names (percent-decoded) speak of secrets replaced."""
    return "&".join(map(_redacted, query.split("&")))


def _redacted(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if not equals:
        return pair
    return f"{name}=***" if _SECRET.search(unquote(name) if "%" in name else name) else pair


def logged_target(path: str, query: str | None) -> str:
    """A target as it is logged: secrets replaced, and cut to MAX_TARGET before that work is done."""
    room = MAX_TARGET - len(path)
    if room < 0:
        return path[:MAX_TARGET] + _CUT
    if query is None:
        return path
    if len(query) > room:
        return f"{path}?{redact(query[:room])}{_CUT}"
    return f"{path}?{redact(query)}"


def _shortened(entry: Entry, written: Callable[[str], str]) -> Entry:
    """The entry with each text cut so that, as `written`, it takes no more than its share of a line."""
    for name, most in _MAX_WRITTEN.items():
        text = getattr(entry, name)
        if text is None or len(written(text)) <= most:
            continue
        text = text[:most]
        while (size := len(written(text)) + len(_CUT)) > most:
            text = text[: len(text) * most // size]
        entry = Entry(**{**entry._asdict(), name: text + _CUT})
    return entry


def _common(entry: Entry, stamp: str) -> str:
    """Common Log Format, and behind it `key=value` for what it has no room for."""
    line = "-" if entry.method is None else _escape(f"{entry.method} {entry.target or '-'} HTTP/{entry.version or '-'}")
    upstream = "-" if entry.upstream is None else f"{entry.upstream:.6f}"
    connect = "-" if entry.connect is None else f"{entry.connect:.6f}"
    text = (
        f'{entry.client or "-"} - - [{stamp}] "{line}" {entry.status} {entry.bytes_sent} listener={entry.listener}'
        f" host={_escape(entry.host or '-')} route={entry.route or '-'} service={entry.service or '-'}"
        f" backend={entry.backend or '-'} tier=3 time={entry.duration:.6f} upstream={upstream}"
        f" reason={entry.reason or '-'} connect={connect} received={entry.received} attempts={entry.attempts}"
        f" id={entry.request_id or '-'}"
    )
    if entry.grpc_status is not None:
        text += f" grpc={_escape(entry.grpc_status)}"
    return text + (f' detail="{_escape(entry.detail)}"\n' if entry.detail else "\n")


def _json(entry: Entry, stamp: str) -> str:
    fields = {
        "time": stamp,
        "client": entry.client or None,
        "method": entry.method,
        "target": entry.target,
        "protocol": None if entry.version is None else f"HTTP/{entry.version}",
        "status": entry.status,
        "bytes": entry.bytes_sent,
        "listener": entry.listener,
        "host": entry.host,
        "route": entry.route,
        "service": entry.service,
        "backend": entry.backend,
        "tier": 3,
        "duration": round(entry.duration, 6),
        "upstream": None if entry.upstream is None else round(entry.upstream, 6),
        "reason": entry.reason,
        "connect": None if entry.connect is None else round(entry.connect, 6),
        "received": entry.received,
        "attempts": entry.attempts,
        "request_id": entry.request_id,
    }
    if entry.grpc_status is not None:
        fields["grpc_status"] = entry.grpc_status
    if entry.detail:
        fields["detail"] = entry.detail
    return json.dumps(fields, separators=(",", ":")) + "\n"


_FORMATS: Final[dict[LogFormat, Callable[[Entry, str], str]]] = {LogFormat.COMMON: _common, LogFormat.JSON: _json}
_WRITTEN: Final[dict[LogFormat, Callable[[str], str]]] = {LogFormat.COMMON: _escape, LogFormat.JSON: json.dumps}

_GAPS: Final = {
    LogFormat.COMMON: "# %d lines dropped: the log's reader is too slow\n",
    LogFormat.JSON: '{"dropped":%d,"detail":"the log\'s reader is too slow"}\n',
}


_LAST_STANDARD: Final = 2  # stderr


def _between(earlier: float, later: float) -> float | None:
    """Seconds; None if one of the two was never reached."""
    return later - earlier if earlier and later else None


class AccessLogWriter:
    """Lines to a file descriptor. The descriptor stays the caller's: `close` ends the thread and leaves it open."""

    def __init__(self, fd: int, form: LogFormat = LogFormat.COMMON) -> None:
        self._fd = fd
        self._form = form
        self._format = _FORMATS[form]
        clock = Clock()
        self._stamp = clock.utc_stamp if form is LogFormat.JSON else clock.log_stamp
        self._lines: list[str] = []
        self._size = 0
        self._ticks = 0
        self._dropped = 0
        self._queue: SimpleQueue[bytes | int | None] = SimpleQueue()  # lines; the next descriptor; the end
        self._waiting = 0  # bytes in the queue; guarded by the lock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        # Regular files take writes of any size whole (O_APPEND); pipes, sockets and terminals only small ones.
        self._piece = 1 << 20 if stat.S_ISREG(os.fstat(fd).st_mode) else _PIPE_BUF
        self.failure: OSError | None = None  # of the last write; requests go on whatever happens to the log

    # --- on the loop ---

    def exchange(self, exchange: Exchange, duration: float) -> None:
        """Log an exchange that has ended after `duration` seconds."""
        head = exchange.head
        self.write(
            Entry(
                client=exchange.client[0],
                status=exchange.status,
                listener=exchange.dispatcher.listener.name,
                method=head.method,
                target=logged_target(head.path, head.query),
                version=head.version,
                bytes_sent=exchange.bytes_sent,
                host=head.host,
                route=exchange.route,
                service=exchange.service,
                backend=None if exchange.backend is None else exchange.backend.name,
                duration=duration,
                upstream=_between(exchange.t_connected, exchange.t_head),
                connect=_between(exchange.started, exchange.t_connected),
                received=exchange.bytes_received,
                attempts=exchange.attempts,
                request_id=exchange.request_id,
                grpc_status=exchange.grpc_status,
                reason=exchange.reason,
                detail=exchange.detail,
            )
        )

    def write(self, entry: Entry) -> None:
        """Log one line. `target` is as `logged_target` makes it."""
        stamp = self._stamp()
        line = self._format(entry, stamp)
        if len(line) > _PIPE_BUF:
            line = self._format(_shortened(entry, _WRITTEN[self._form]), stamp)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_SIZE:
            self.flush()

    def tick(self) -> None:
        """To be called at each tick of the wheel: no line waits for long."""
        self._ticks += 1
        if self._ticks >= FLUSH_TICKS:
            self._ticks = 0
            self.flush()

    def flush(self) -> None:
        """Hand all lines to the thread."""
        if not self._lines:
            return
        lines, self._lines, self._size = self._lines, [], 0
        with self._lock:
            if self._waiting > MAX_WAITING:
                self._dropped += len(lines)
                return
        if self._dropped:
            lines.append(_GAPS[self._form] % self._dropped)
            self._dropped = 0
        for piece in self._pieces(lines):
            with self._lock:
                self._waiting += len(piece)
            self._queue.put(piece)
        self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            thread.start()
            self._thread = thread  # not before: whoever closes the log from another thread joins what it finds here

    def reopen(self, fd: int) -> None:
        """Write to this descriptor from the next line on, and close it in the end; the one before is closed once what
        was logged until now has been written."""
        self.flush()
        self._queue.put(fd)
        self._start()

    def close(self, timeout: float = 5.0) -> None:
        """Write what is left, for at most `timeout` seconds."""
        self.flush()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            self._thread = None

    def release(self, timeout: float = 5.0) -> None:
        """As `close`, and close the descriptor: not a standard stream, nor one that a slow reader still holds up."""
        self.flush()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout)
        if self._fd > _LAST_STANDARD and (thread is None or not thread.is_alive()):
            os.close(self._fd)

    def _pieces(self, lines: list[str]) -> list[bytes]:
        """Whole lines, joined up to the size that is written at once."""
        pieces: list[bytes] = []
        part: list[str] = []
        size = 0
        for line in lines:
            if size + len(line) > self._piece and part:
                pieces.append("".join(part).encode("ascii", "backslashreplace"))
                part, size = [], 0
            part.append(line)
            size += len(line)
        pieces.append("".join(part).encode("ascii", "backslashreplace"))
        return pieces

    # --- in the thread ---

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, int):
                os.close(self._fd)
                self._fd = piece
                continue
            try:
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._fd, view) :]
                self.failure = None
            except OSError as error:  # disk full, reader gone: the data plane tells it
                self.failure = error
            with self._lock:
                self._waiting -= len(piece)
