"""A client on ONE HTTP/2 connection: a download, and beside it small requests at a fixed rate.

    download_client.py HOST PORT tls|plain BIG SMALL RATE

Prints JSON: bytes and seconds of the download, milliseconds of the small requests from the time at which they were
due, and how much of these the client itself took: it sent late, or read late what the kernel had (which notes when the
last of what a read returns has arrived). Frames are taken apart by hand, with windows that need no updates, so that the
client keeps up; `busy` is its share of a CPU.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Final

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_LARGEST: Final = (1 << 31) - 1  # a window (RFC 9113 6.9.1); more than the download has
_READ: Final = 64 * 1024  # no more than the kernel holds together: all of a read has come at about the same time
_TIMESTAMPS: Final = 35  # SO_TIMESTAMPNS
_MAX_STREAMS: Final = 3  # SETTINGS_MAX_CONCURRENT_STREAMS
_BIG: Final = 1  # its stream
_LONGEST: Final = 120.0  # seconds


class Wire:
    """The connection, and when the kernel has got what was read last."""

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.sock = socket.create_connection((host, port), timeout=_LONGEST)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._tls: ssl.SSLObject | None = None
        if tls:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._shake_hands()
        self.sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)

    def _shake_hands(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="bench.test")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._incoming.write(self.sock.recv(_READ))
        self.sock.sendall(self._outgoing.read())

    def send(self, data: bytes) -> None:
        """All of it."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._outgoing.read()
        self.sock.sendall(data)

    def receive(self) -> tuple[list[memoryview], int]:
        """What has come, and when the kernel got the last of it, in ns. Raises EOFError."""
        size, notes, _, _ = self.sock.recvmsg_into([self._buffer], 64)
        if not size:
            raise EOFError("the gateway has closed the connection")
        arrived = time.time_ns()
        for level, kind, data in notes:
            if level == socket.SOL_SOCKET and kind == _TIMESTAMPS:
                seconds, rest = struct.unpack("ll", data[:16])
                arrived = seconds * 1_000_000_000 + rest
        if self._tls is None:
            return [self._view[:size]], arrived
        self._incoming.write(self._view[:size])
        pieces: list[memoryview] = []
        try:
            while True:
                pieces.append(memoryview(self._tls.read(16384)))
        except ssl.SSLWantReadError:
            return pieces, arrived


class Frames:
    """Takes frames apart: how much each stream has got, and which have ended."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._header = b""
        self._payload = b""
        self._left = self._kind = self._flags = self._stream = 0
        self.streams = 100  # that may be open at the same time, unless the gateway says else (SETTINGS)
        self.got: dict[int, int] = {}
        self.ended: list[tuple[int, bool]] = []  # streams, and whether in order

    def feed(self, view: memoryview) -> None:
        """Bytes of the connection. Raises EOFError."""
        at, size = 0, len(view)
        while at < size:
            if not self._left:
                missing = 9 - len(self._header)
                self._header += view[at : at + missing]
                at += missing
                if len(self._header) == 9:
                    self._begin(self._header)
                    self._header = b""
                continue
            step = min(self._left, size - at)
            if self._kind == DATA:
                self.got[self._stream] = self.got.get(self._stream, 0) + step
            elif self._kind != HEADERS:
                self._payload += view[at : at + step]
            at += step
            self._left -= step
            if not self._left:
                self._end()

    def _begin(self, header: bytes) -> None:
        self._left = int.from_bytes(header[:3], "big")
        self._kind, self._flags = header[3], header[4]
        self._stream = int.from_bytes(header[5:], "big") & _LARGEST
        self._payload = b""
        if not self._left:
            self._end()

    def _end(self) -> None:
        if self._kind == SETTINGS and not self._flags & ACK:
            found = dict(struct.iter_unpack(">HI", self._payload))
            self.streams = found.get(_MAX_STREAMS, self.streams)
            self._wire.send(frame(SETTINGS, ACK, 0, b""))
        elif self._kind == PING and not self._flags & ACK:
            self._wire.send(frame(PING, ACK, 0, self._payload))
        elif self._kind == GOAWAY:
            raise EOFError(f"the gateway has said GOAWAY: {self._payload!r}")
        elif self._kind == RST_STREAM:
            self.ended.append((self._stream, False))
        elif self._kind in (DATA, HEADERS) and self._flags & END_STREAM:
            self.ended.append((self._stream, True))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 4.1."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def request(stream: int, path: str, authority: str, *, tls: bool) -> bytes:
    """A GET. Its fields are literals, or of the static table (RFC 7541 appendix A): the same bytes each time."""
    fields = b"\x82" + (b"\x87" if tls else b"\x86")
    for name, value in ((b"\x04", path), (b"\x01", authority)):
        fields += name + bytes((len(value),)) + value.encode()
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, fields)


@dataclass(slots=True)
class Tally:
    """Of the small requests: those under way (due and sent, ns), latencies and the client's share in ms, failures."""

    open: dict[int, tuple[int, int]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    failures: int = 0

    def count(self, stream: int, arrived: int, *, good: bool) -> None:
        """A small request has ended, in what the kernel had completely at `arrived`."""
        now = time.time_ns()
        due, sent = self.open.pop(stream)
        self.failures += not good
        self.latencies.append((now - due) / 1e6)
        self.shares.append((sent - due + max(0, now - max(arrived, sent))) / 1e6)


class Run:
    """The download, and the small requests beside it."""

    def __init__(self, host: str, port: int, *, tls: bool, paths: tuple[str, str], rate: int) -> None:
        self.tally = Tally()
        self.done = 0  # when the download was complete
        self._wire = Wire(host, port, tls=tls)
        self._frames = Frames(self._wire)
        self._between = 1_000_000_000 // rate
        self._paths = paths
        self._authority, self._tls = f"{host}:{port}", tls
        settings = struct.pack(">HIHI", 2, 0, 4, _LARGEST)  # no push, window of streams
        grown = frame(WINDOW_UPDATE, 0, 0, (_LARGEST - 65_535).to_bytes(4, "big"))
        self._wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings) + grown)
        self.began = time.time_ns()

    @property
    def size(self) -> int:
        """Bytes of the download."""
        return self._frames.got.get(_BIG, 0)

    def go(self) -> None:
        """To the end. Raises EOFError or OSError: the connection ended before."""
        self._ask(_BIG, self._paths[0])
        ready = select.poll()
        ready.register(self._wire.sock, select.POLLIN)
        due, stream = self.began, _BIG + 2
        while not self.done or self.tally.open:
            now = time.time_ns()
            if now - self.began > _LONGEST * 1e9:
                raise TimeoutError("the download does not end")
            full = len(self.tally.open) + 1 >= self._frames.streams
            if now >= due and not self.done and not full:
                self._ask(stream, self._paths[1])
                self.tally.open[stream] = (due, time.time_ns())
                stream, due = stream + 2, due + self._between
            elif ready.poll(1000 if self.done or full else max(0.0, (due - now) / 1e6)):
                self._take()

    def _ask(self, stream: int, path: str) -> None:
        self._wire.send(request(stream, path, self._authority, tls=self._tls))

    def _take(self) -> None:
        pieces, arrived = self._wire.receive()
        for piece in pieces:
            self._frames.feed(piece)
        for ended, good in self._frames.ended:
            if ended == _BIG:
                self.done = time.time_ns()
                self.tally.failures += not good
            else:
                self.tally.count(ended, arrived, good=good and self._frames.got.pop(ended, 0) > 0)
        self._frames.ended.clear()


def at(share: float, values: list[float]) -> float:
    """A quantile; 0 of nothing."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2) if values else 0.0


def main() -> None:
    """Run, and print what was seen."""
    host, port, how, big, small, rate = sys.argv[1:]
    used = time.process_time()
    run = Run(host, int(port), tls=how == "tls", paths=(big, small), rate=int(rate))
    tally = run.tally
    try:
        run.go()
    except (EOFError, OSError) as error:
        print(f"{run.size} bytes, {len(tally.open)} small requests under way: {error}", file=sys.stderr)
        tally.failures += len(tally.open) + (not run.done)
    seconds = ((run.done or time.time_ns()) - run.began) / 1e9
    print(
        json.dumps(
            {
                "bytes": run.size,
                "seconds": round(seconds, 3),
                "requests": len(tally.latencies),
                "p50": at(0.5, tally.latencies),
                "p99": at(0.99, tally.latencies),
                "worst": at(1.0, tally.latencies),
                "client": at(0.99, tally.shares),
                "busy": round((time.process_time() - used) / seconds, 2),
                "failures": tally.failures,
            }
        )
    )


if __name__ == "__main__":
    main()
