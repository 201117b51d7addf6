"""Clients that ask again and again, and count what they are answered."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lab import Host

_PATIENCE = 5.0  # seconds for one answer
_PAUSE = 0.01  # between two requests of one client


@dataclass(slots=True)
class Tally:
    """Answers with status 200, and everything else by what it was."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        how = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failed.items()))
        return f"{self.answered:,} answered, {self.failed.total()} failed" + (f" ({how})" if how else "")


class _Connection:
    """HTTP/1.1 on a socket of another host, made when it is needed."""

    def __init__(self, host: Host, address: tuple[str, int], path: str) -> None:
        self._host = host
        self._address = address
        self._request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode()
        self._sock: socket.socket | None = None

    def ask(self) -> str | None:
        """One request: what was wrong, None if nothing was."""
        try:
            if self._sock is None:
                with self._host.inside():
                    self._sock = socket.create_connection(self._address, _PATIENCE)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.sendall(self._request)
            head = self._read(self._sock)
        except OSError as error:
            self.close()
            return _told(error)
        if b"\r\nConnection: close\r\n" in head:
            self.close()
        return None if head.startswith(b"HTTP/1.1 200 ") else head[9:12].decode("latin-1")

    def _read(self, sock: socket.socket) -> bytes:
        """The head of an answer, once all of it is there."""
        data = b""
        while True:
            head, end, body = data.partition(b"\r\n\r\n")
            if end and len(body) >= int(head.partition(b"\r\nContent-Length: ")[2].partition(b"\r\n")[0]):
                return head + b"\r\n"
            more = sock.recv(1 << 16)
            if not more:
                raise ConnectionAbortedError
            data += more

    def close(self) -> None:
        """The next request makes a new one."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _told(error: OSError) -> str:
    kinds = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset",
        BrokenPipeError: "reset",
        ConnectionAbortedError: "cut",
        TimeoutError: "timed out",
    }
    return kinds.get(type(error), str(error))


def rush(host: Host, address: tuple[str, int], path: str, requests: int, connections: int) -> tuple[Tally, float]:
    """So many requests as fast as they go, on that many connections that are kept; and the seconds it took."""
    tally, lock = Tally(), threading.Lock()

    def work() -> None:
        connection = _Connection(host, address, path)
        found = Counter(connection.ask() for _ in range(requests // connections))
        connection.close()
        with lock:
            tally.answered += found.pop(None, 0)
            tally.failed.update({kind: count for kind, count in found.items() if kind is not None})

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.monotonic() - started


class Load:
    """Some hundred requests a second: half of the clients keep their connection, half make one for each request."""

    def __init__(self, host: Host, address: tuple[str, int], path: str) -> None:
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._tallies = {"kept": Tally(), "new": Tally()}
        self._threads = [
            threading.Thread(target=self._work, args=(_Connection(host, address, path), kind), daemon=True)
            for kind in ("kept", "new", "kept", "new", "kept", "new")
        ]

    def lap(self) -> dict[str, Tally]:
        """What came of the requests since the last call: those on `kept` connections and those on `new` ones."""
        with self._lock:
            found, self._tallies = self._tallies, {"kept": Tally(), "new": Tally()}
        return found

    def _work(self, connection: _Connection, kind: str) -> None:
        while not self._over.wait(_PAUSE):
            wrong = connection.ask()
            if kind == "new":
                connection.close()
            with self._lock:
                tally = self._tallies[kind]
                if wrong is None:
                    tally.answered += 1
                else:
                    tally.failed[wrong] += 1
        connection.close()

    @contextmanager
    def going(self) -> Iterator[Load]:
        """The clients ask, until the end."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
