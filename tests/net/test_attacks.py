"""A client that makes its own segments: what was not judged never comes to a backend, and strangers end nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support import packets
from support.kernelpath import KernelPath, wait_until
from support.network import GATEWAY, Client, Server
from support.rawtcp import ACK, FIN, PSH, RST, SYN, URG, Raw


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
