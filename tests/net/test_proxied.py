"""Backends that are told who the client is, by the PROXY protocol, while the kernel answers."""

from __future__ import annotations

import hashlib
import os

import pytest

from support.kernelpath import KernelPath
from support.network import Client, Server, body_of


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
    for _ in range(8):  # one of the two backends refuses
        with Client(path.net.connect()) as client:
            body = os.urandom(3000)
            answer = client.ask("POST", "/deadtold/post", body)
            assert answer.body == f"b2 3000 {hashlib.sha256(body).hexdigest()}".encode()
            assert b2.peers[-1] == client.sock.getsockname()
    assert path.counters()["refused"] > 0
