"""Connections that nobody uses for a while: longer than a cookie is valid, in real time."""

from __future__ import annotations

import socket
import time

import pytest

from support.kernelpath import KernelPath
from support.network import Client

IDLE = 131.0  # seconds; a cookie is valid for two minutes at most


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("keepalive", [False, True])
def test_a_first_request_that_comes_late(path: KernelPath, *, keepalive: bool) -> None:
    """The handshake made a flow, so the cookie is not needed any more; probes of an idle client are answered meanwhile.
    One connection has been used, another one is tier 3's."""
    with Client(path.net.connect()) as fresh, Client(path.net.connect()) as used, Client(path.net.connect()) as passed:
        assert used.ask("GET", "/one").body == b"b1"
        assert passed.ask("GET", "/hello").body == b"hi"
        if keepalive:
            fresh.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            fresh.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            fresh.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        with path.counting() as seen:
            time.sleep(IDLE)
        assert (seen["probe_answered"] >= 3) == keepalive
        with path.counting() as seen:
            assert fresh.ask("GET", "/one").body == b"b1"
        assert seen["hit_first"] == 1
        with path.counting() as seen:
            assert used.ask("GET", "/one").body == b"b1"
        assert seen["hit_next"] == 1
        with pytest.raises((OSError, EOFError, ValueError)):  # timeouts.idle of tier 3 is over
            passed.ask("GET", "/hello")
