"""Backends that are told who the client is, by the PROXY protocol, while the kernel answers."""

from __future__ import annotations

import hashlib
import os

import pytest

from support.kernelpath import KernelPath, members, wait_until
from support.network import Client, Server, body_of
from support.rawtcp import ACK, FIN, Raw


def test_a_backend_knows_the_client(path: KernelPath, b1: Server) -> None:
    b1.peers.clear()
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("GET", "/told/bytes/20").body == body_of("b1", 20)
        assert client.ask("GET", "/told/bytes/90000").body == body_of("b1", 90_000)
        assert b1.peers == [client.sock.getsockname()] * 2
    assert (seen["hit_first_2"], seen["hit_next_2"], seen["local_assigned"]) == (1, 1, 0)


@pytest.mark.parametrize("size", [1, 1000, 5000, 14_000, 16_356, 16_384, 200_000])
def test_bodies_come_behind_the_header(path: KernelPath, size: int) -> None:
    body = os.urandom(size)
    with path.counting() as seen, Client(path.net.connect()) as client:
        for _ in range(2):
            answer = client.ask("POST", "/told/post", body)
            assert answer.body == f"b1 {size} {hashlib.sha256(body).hexdigest()}".encode()
    assert seen["local_assigned"] == 0


def test_to_and_fro(path: KernelPath, b1: Server) -> None:
    """Another service at the same backend is told nothing, and has a connection of its own."""
    with path.counting() as seen, Client(path.net.connect()) as client:
        b1.peers.clear()
        for _ in range(3):
            assert client.ask("GET", "/told/bytes/20").body == body_of("b1", 20)
            assert client.ask("GET", "/bytes/20").body == body_of("b1", 20)
        us = client.sock.getsockname()
        assert [peer == us for peer in b1.peers] == [True, False] * 3
        assert len(set(b1.peers)) == 2
    assert (seen["moved"], seen["moved_back"]) == (1, 4)


def test_a_refused_request_comes_to_tier_3_without_the_header(path: KernelPath, b2: Server) -> None:
    b2.peers.clear()
    for _ in range(24):  # one of the two backends refuses; all by chance get the other once in 2^24 runs
        with Client(path.net.connect()) as client:
            body = os.urandom(3000)
            answer = client.ask("POST", "/deadtold/post", body)
            assert answer.body == f"b2 3000 {hashlib.sha256(body).hexdigest()}".encode()
            assert b2.peers[-1] == client.sock.getsockname()
    assert path.counters()["refused"] > 0


def test_a_client_cannot_write_the_header_itself(path: KernelPath) -> None:
    """What it numbers before its head is where the header is, as the backend counts: if that was lost, its own would be
    taken. (As if it had been: nothing is acknowledged yet, says the map.)"""
    told, client_part, backend_part = members("flow"), members("asking"), members("answering")
    raw = Raw(path.net)
    raw.connect()
    raw.data(b"GET /told/bytes/20 HTTP/1.1\r\nHost: a.test\r\n\r\n")
    raw.read(50)
    (flow,) = [flow for flow in path.flows() if flow.port == raw.port]
    head = flow.value[told["head_seq"].offset :][:4]
    acked = told["backend"].offset + backend_part["acked"].offset
    assert flow.value[told["header_due"].offset] == 1
    assert flow.value[told["client"].offset + client_part["head"].offset :][:4] == head
    with path.map("flows") as flows:
        flows.set(flow.key, flow.value[:acked] + head + flow.value[acked + 4 :])
    forged = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)
    with path.counting() as seen:
        raw.segment(forged, at=int.from_bytes(head, "little") - len(forged))
        raw.segment(b"", at=int.from_bytes(head, "little") - 1, flags=FIN | ACK)
        assert wait_until(lambda: path.counters()["drop_spans"] >= 2)
    assert (seen["drop_spans"], seen["to_backend"]) == (2, 0)
    raw.close()
    path.forget()
