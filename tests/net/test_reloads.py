"""A file that changes while connections are open: the next request on each obeys it, in the kernel too."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import syscalls
from rauta.offload.bcc.places import folder_of
from support.kernelpath import KernelPath
from support.network import Client, Network, Server, network
from support.process import Gateway

HEAD = """\
version: 1
workers: 1
offload: {{mode: require}}
access_log: {{to: "off"}}
listeners: {{web: {{address: "0.0.0.0:8080"}}}}
services:
  one: {{backends: [{{address: "10.203.2.2:80"}}]}}
  two: {{backends: [{{address: "10.203.3.2:80"}}]}}
routes:
{routes}
"""
ONE = "  - {name: a, match: {path: {exact: /a}}, service: one}"
TWO = "  - {name: a, match: {path: {exact: /a}}, service: two}"
HOST = (
    "  - {name: a, match: {path: {exact: /a}}, service: one}\n"
    '  - {name: of_host, match: {hosts: ["a.test"], path: {exact: /a}}, service: two}'
)
ANSWER = '  - {name: a, match: {path: {exact: /a}}, respond: {body: "hi"}}'
NOTHING = '  - {name: b, match: {path: {exact: /b}}, respond: {body: "hi"}}'


class Running:
    """A gateway, and its file."""

    def __init__(self, net: Network, home: Path) -> None:
        self.net = net
        self._file = home / "rauta.yaml"
        self._file.write_text(HEAD.format(routes=NOTHING))
        command = net.gateway.command(sys.executable, "-m", "rauta.proxy")
        self.gateway = Gateway("--config", str(self._file), command=command)
        self.gateway.wait_for("ready")
        self.path = KernelPath(net, self.gateway, home / "access.log")
        self._reloads = 0

    def change(self, routes: str) -> None:
        """The file has these routes now, and rauta has taken them."""
        self._file.write_text(HEAD.format(routes=routes))
        self._reloads += 1
        self.gateway.signal(signal.SIGHUP)
        self.gateway.wait_for("reloaded", count=self._reloads)


@pytest.fixture(scope="module")
def place(_clean: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with network() as net, Server(net.b1, "b1"), Server(net.b2, "b2"):
        folder = folder_of(net.gateway.path.stat().st_ino)
        found = Running(net, tmp_path_factory.mktemp("gateway"))
        try:
            yield found
        finally:
            assert found.gateway.stop() == 0
            left = folder.exists()
            syscalls.remove(folder)
        assert not left


@pytest.mark.parametrize(
    ("routes", "body", "counted"),
    [
        (TWO, b"b2", "moved"),
        (HOST, b"b2", "moved"),
        (ANSWER, b"hi", "handed_over_later"),
        (NOTHING, None, "handed_over_later"),
    ],
    ids=["another service", "a host's own route", "an answer of tier 3", "no route"],
)
def test_a_connection_that_is_open_obeys(place: Running, routes: str, body: bytes | None, counted: str) -> None:
    place.change(ONE)
    with Client(place.net.connect()) as client:
        for _ in range(2):
            assert client.ask("GET", "/a").body == b"b1"
        place.change(routes)
        with place.path.counting() as seen:
            answer = client.ask("GET", "/a")
        assert answer.body == body if body is not None else answer.status == 404
        assert seen[counted] == 1
