"""A gateway that is killed or replaced: what is bound in the kernel goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import syscalls
from rauta.offload.bcc.places import folder_of
from support.kernelpath import KernelPath
from support.network import Client, Network, Server, network
from support.process import Gateway, children, pid_gone

CONFIGURATION = """\
version: 1
workers: 1
offload: {{mode: require}}
admin: {{socket: {home}/admin}}
access_log: {{to: "off"}}
listeners: {{web: {{address: "0.0.0.0:8080"}}}}
services:
  one: {{backends: [{{address: "10.203.2.2:80"}}]}}
routes:
  - {{name: one, match: {{path: {{exact: /one}}}}, service: one}}
  - {{name: hello, match: {{path: {{exact: /hello}}}}, respond: {{body: "hi"}}}}
"""


class Place:
    """A network of its own, in which gateways come and go."""

    def __init__(self, net: Network, home: Path) -> None:
        self.net = net
        self.file = home / "rauta.yaml"
        self.file.write_text(CONFIGURATION.format(home=home))
        self.gateways: list[Gateway] = []

    def start(self, *arguments: str) -> Gateway:
        """One more, which serves."""
        command = self.net.gateway.command(sys.executable, "-m", "rauta.proxy")
        gateway = Gateway("--config", str(self.file), *arguments, command=command)
        self.gateways.append(gateway)
        gateway.wait_for("ready")
        return gateway

    def path(self, gateway: Gateway) -> KernelPath:
        """What is in the kernel."""
        return KernelPath(self.net, gateway, self.file.with_name("access.log"))


@pytest.fixture
def place(_clean: None, tmp_path: Path) -> Iterator[Place]:
    with network() as net, Server(net.b1, "b1"):
        found = Place(net, tmp_path)
        folder = folder_of(net.gateway.path.stat().st_ino)
        try:
            yield found
        finally:
            for gateway in found.gateways:
                gateway.destroy()
            left = folder.exists()
            syscalls.remove(folder)
        assert not left


def kill(gateway: Gateway) -> None:
    pids = [gateway.process.pid, *children(gateway.process.pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    gateway.process.wait()
    assert all(pid_gone(pid) for pid in pids[1:])


def ask(client: Client, path: KernelPath) -> str:
    """One more request on a connection: how the kernel counted it."""
    with path.counting() as seen:
        assert client.ask("GET", "/one").body == b"b1"
    (how,) = [name for name in seen if name.startswith(("hit_", "miss_"))]
    return how


def test_the_kernel_goes_on_when_rauta_is_killed_and_the_next_one_goes_on_with_it(place: Place) -> None:
    first = place.start()
    path = place.path(first)
    with Client(place.net.connect()) as client:
        assert ask(client, path) == "hit_first"
        kill(first)
        assert ask(client, path) == "hit_next"
        with Client(place.net.connect()) as other:
            assert ask(other, path) == "hit_first"
        with pytest.raises(OSError), Client(place.net.connect()) as other:  # noqa: PT011 - reset, now or later
            other.ask("GET", "/hello")
        second = place.start()
        assert ask(client, path) == "hit_next"
        assert client.ask("GET", "/hello").body == b"hi"
    assert second.stop() == 0


def test_flows_that_are_adopted_keep_their_ports(place: Place) -> None:
    """The host's own ports are others than when they were bound, so that new flows get others, too."""
    first = place.start()
    path = place.path(first)
    with Client(place.net.connect()) as client:
        assert ask(client, path) == "hit_first"
        kill(first)
        place.net.gateway.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=10000 40000")
        second = place.start()
        assert ask(client, path) == "hit_next"
        with Client(place.net.connect()) as other:
            assert ask(other, path) == "hit_first"
            with path.map("nats") as nats:
                ports = sorted(int.from_bytes(key[10:12], "big") for key, _ in nats.items())
        assert [port > 40_000 for port in ports] == [False, True]
    assert second.stop() == 0


def test_a_takeover_leaves_the_programs_to_the_successor(place: Place) -> None:
    first = place.start()
    path = place.path(first)
    with Client(place.net.connect()) as client:
        assert ask(client, path) == "hit_first"
        second = place.start("--takeover")
        assert first.wait() == 0
        assert ask(client, path) == "hit_next"
        with Client(place.net.connect()) as other:
            assert ask(other, path) == "hit_first"
            assert other.ask("GET", "/hello").body == b"hi"
    assert second.stop() == 0


def test_a_successor_that_fails_takes_nothing_away(place: Place) -> None:
    first = place.start()
    path = place.path(first)
    with Client(place.net.connect()) as client:
        assert ask(client, path) == "hit_first"
        command = place.net.gateway.command(sys.executable, "-m", "rauta.proxy")
        # Its address is in use, which it finds out behind the start of its offload or before: either must do no harm.
        second = Gateway("--config", str(place.file), command=command)
        place.gateways.append(second)
        assert second.wait() == 2
        assert ask(client, path) == "hit_next"
    assert first.stop() == 0
