"""A client that makes its own segments: what was not judged never comes to a backend, and strangers end nothing."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from support import packets
from support.kernelpath import KernelPath, wait_until
from support.network import GATEWAY, Client, Network, Server

ADDRESS = "10.203.1.77"  # nobody's: no stack answers for it
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_ports = count(20_000)


class Raw:
    """One end of a TCP connection, by hand."""

    def __init__(self, net: Network) -> None:
        with net.client.inside():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._wire.bind(("v1o", 0x0800))
        self._wire.settimeout(5)
        found = re.search(r"link/ether (\S+)", net.gateway.run("ip", "link", "show", "v1g"))
        assert found is not None
        self._gateway = bytes.fromhex(found[1].replace(":", ""))
        self.port = next(_ports)
        self.seq, self.ack = 1_000_000, 0
        self.received = b""

    def segment(self, data: bytes = b"", *, at: int | None = None, flags: int = ACK | PSH, urgent: int = 0) -> None:
        """Send one."""
        seq = self.seq if at is None else at
        frame = packets.tcp(
            data, (GATEWAY, 8080), (ADDRESS, self.port), seq=seq, ack=self.ack, flags=flags, urgent=urgent
        )
        self._wire.send(self._gateway + frame[6:])

    def data(self, data: bytes) -> None:
        """Send what comes next."""
        self.segment(data)
        self.seq += len(data)

    def _next(self) -> tuple[int, int, bytes]:
        while True:
            frame = self._wire.recv(65536)
            if frame[23] != 6 or frame[26:34] != socket.inet_aton(GATEWAY) + socket.inet_aton(ADDRESS):
                continue
            source, target, seq, _, offset, flags = struct.unpack_from("!HHIIBB", frame, 34)
            if (source, target) == (8080, self.port):
                size = int.from_bytes(frame[16:18], "big")
                return seq, flags, frame[34 + (offset >> 4) * 4 : 14 + size]

    def connect(self) -> None:
        """Shake hands."""
        self.segment(flags=SYN)
        seq, flags, _ = self._next()
        assert flags == SYN | ACK
        self.seq, self.ack = self.seq + 1, seq + 1
        self.segment(flags=ACK)

    def read(self, least: int) -> bytes:
        """Take in, and acknowledge, until there are so many bytes in all."""
        while len(self.received) < least:
            seq, flags, payload = self._next()
            assert not flags & RST, "reset"
            if seq == self.ack and payload:
                self.received += payload
                self.ack += len(payload)
                self.segment(flags=ACK)
        return self.received

    def quiet(self, seconds: float = 0.3) -> None:
        """Whatever comes meanwhile."""
        self._wire.settimeout(seconds)
        try:
            while True:
                self._next()
        except TimeoutError:
            self._wire.settimeout(5)

    def close(self) -> None:
        """Leave nothing behind."""
        self.segment(flags=RST)
        self._wire.close()


@pytest.fixture
def raw(path: KernelPath) -> Iterator[Raw]:
    found = Raw(path.net)
    found.connect()
    yield found
    found.close()
    path.forget()  # what a client of this kind leaves is no leak


@pytest.fixture
def asked(b1: Server, b2: Server) -> list[list[str]]:
    """What the backends get."""
    for server in (b1, b2):
        server.requests.clear()
    return [b1.requests, b2.requests]


def head(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a.test", *fields, "", ""]).encode()


def hidden(asked: list[list[str]]) -> list[str]:
    return [request for requests in asked for request in requests if "hidden" in request]


def test_it_can_talk(raw: Raw, asked: list[list[str]]) -> None:
    """Else the others prove nothing."""
    raw.data(head("/one?a"))
    assert raw.read(1).startswith(b"HTTP/1.1 200")
    raw.data(head("/one?b"))
    assert wait_until(lambda: asked[0] == ["GET /one?a", "GET /one?b"])


@pytest.fixture
def unanswered(path: KernelPath) -> Iterator[Callable[[], None]]:
    """The first backend's answers are lost, until this is called."""
    lost = ("route", "{}", "blackhole", "10.203.2.1/32")

    def change(word: str) -> None:
        path.net.b1.run("ip", *(part.format(word) for part in lost))

    change("add")
    with ExitStack() as stack:
        stack.callback(change, "del")
        yield lambda: stack.pop_all().close()


def test_what_follows_a_request_is_not_stashed(
    path: KernelPath, raw: Raw, asked: list[list[str]], unanswered: Callable[[], None]
) -> None:
    """While the backend has not accepted yet, what comes is kept, but only of the request that was judged."""
    first = raw.seq
    with path.counting() as seen:
        raw.data(head("/one?first"))
        assert [flow.state for flow in path.flows() if flow.port == raw.port] == ["BINDING"]
        raw.data(head("/one?hidden", "X Filler: tier 3 would refuse it"))
        unanswered()
        raw.segment(head("/one?first"), at=first)
        assert raw.read(1).startswith(b"HTTP/1.1 200")
        raw.quiet()
    assert (seen["drop_stash"], seen["stashed"]) == (1, 0)
    assert asked[0] == ["GET /one?first"]


def test_other_bytes_do_not_take_the_place_of_judged_ones_over_a_hole(raw: Raw, asked: list[list[str]]) -> None:
    raw.data(head("/post", "Content-Length: 1", method="POST"))
    raw.quiet(0.1)
    judged, other = head("/one?judged"), head("/one?hidden", method="GET")
    assert len(judged) == len(other)
    raw.segment(judged, at=raw.seq + 1)
    raw.segment(b"x" + other)
    raw.quiet()
    assert not hidden(asked)


@pytest.mark.parametrize("flags", [PSH, 0, ACK | SYN, ACK | PSH | URG])
def test_what_a_backend_would_not_take_is_not_judged(raw: Raw, asked: list[list[str]], flags: int) -> None:
    """Or other bytes could be sent in its place."""
    raw.data(head("/one?first"))
    raw.read(1)
    raw.quiet(0.1)
    judged = head("/one?judged", "X-Filler: xxxxxx-for: 1")
    other = head("/one?hidden", "X Filler: xxxxxx-for: 1")
    assert len(judged) == len(other)
    raw.segment(judged, flags=flags)
    raw.segment(other)
    raw.quiet()
    assert not hidden(asked)


def test_beyond_the_acknowledged_it_is_judged_again(raw: Raw, asked: list[list[str]]) -> None:
    """An ACK of what was never sent makes a backend drop the segment, after it was judged."""
    raw.data(head("/one?first"))
    raw.read(1)
    raw.quiet(0.1)
    judged = head("/one?judged", "X-Filler: xxxxxx-for: 1")
    raw.ack += 100_000
    raw.segment(judged)
    raw.ack -= 100_000
    raw.segment(head("/one?hidden", "X Filler: xxxxxx-for: 1"))
    raw.quiet(0.1)
    assert not hidden(asked)
    raw.data(judged)
    assert wait_until(lambda: asked[0] == ["GET /one?first", "GET /one?judged"])


def test_urgent_bytes_are_not_cut_out_of_bodies(raw: Raw, asked: list[list[str]]) -> None:
    raw.data(head("/post?first", "Content-Length: 100", method="POST"))
    raw.quiet(0.1)
    raw.segment(b"x" * 100, flags=ACK | PSH | URG, urgent=50)
    raw.quiet()
    raw.data(b"x" * 100)
    assert b"b1 100 " in raw.read(160)


def test_strangers_neither_end_nor_mislead_a_connection(path: KernelPath, b1: Server) -> None:
    """They know addresses and ports, but no numbers."""
    raw = Raw(path.net)
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        host, raw.port = client.sock.getsockname()
        for seq in range(0, 1 << 32, 1 << 23):
            for flags in (0, RST, FIN, ACK):
                frame = packets.tcp(b"", (GATEWAY, 8080), (host, raw.port), seq=seq, ack=seq ^ 0x5A5A5A5A, flags=flags)
                raw._wire.send(raw._gateway + frame[6:])
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("POST", "/post", b"x" * 3000).status == 200
    raw._wire.close()
