"""Which programs are on an interface: what was there before stays, and where XDP cannot be it is said why."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import network as machine
from support.network import Network, network, take_from_xdp
from support.process import Gateway

CONFIGURATION = """\
version: 1
workers: 1
offload: {{mode: {mode}, hook: {hook}}}
admin: {{socket: {home}/admin}}
access_log: {{to: "off"}}
listeners: {{web: {{address: "0.0.0.0:8080"}}}}
routes: [{{name: hello, match: {{path: {{exact: /hello}}}}, respond: {{body: "hi"}}}}]
"""


@pytest.fixture(scope="module")
def place(_clean: None) -> Iterator[Network]:
    with network(offloads=False) as net:
        yield net


def programs(net: Network) -> list[str]:
    """The names of the XDP programs in the gateway's namespace."""
    return re.findall(r"prog/xdp id \d+ name (\w+)", net.gateway.run("ip", "-d", "link", "show"))


def start(place: Network, home: Path, mode: str, hook: str) -> Gateway:
    (home / "rauta.yaml").write_text(CONFIGURATION.format(home=home, mode=mode, hook=hook))
    command = place.gateway.command(sys.executable, "-m", "rauta.proxy")
    return Gateway("--config", str(home / "rauta.yaml"), command=command)


@pytest.mark.parametrize(("hook", "seen"), [("xdp", ["rauta_xdp"] * 3), ("tc", []), ("auto", [])])
def test_a_hook_is_taken_and_given_back(place: Network, tmp_path: Path, hook: str, seen: list[str]) -> None:
    gateway = start(place, tmp_path, "require", hook)
    try:
        gateway.wait_for("ready")
        assert programs(place) == seen
        assert gateway.stop() == 0
    finally:
        gateway.destroy()
    assert programs(place) == []


def test_a_program_of_somebody_else_stays(place: Network, tmp_path: Path) -> None:
    take_from_xdp(place.gateway, "v2g")
    for mode in ("require", "auto"):
        gateway = start(place, tmp_path, mode, "xdp")
        try:
            if mode == "require":
                assert gateway.wait() == 2
            else:
                gateway.wait_for("ready")
            assert "offload.hook is xdp, but on v2g another XDP program is attached" in "".join(gateway.lines)
            assert programs(place) == ["pass"]
        finally:
            gateway.destroy()


@pytest.mark.parametrize(
    ("name", "text"),
    [("ip_forward", "does not forward: net.ipv4.ip_forward must be 1"), ("tcp_syncookies", "tcp_syncookies is 0")],
)
def test_what_the_host_must_allow(place: Network, tmp_path: Path, name: str, text: str) -> None:
    place.gateway.run("sysctl", "-qw", f"net.ipv4.{name}=0")
    gateway = start(place, tmp_path, "require", "tc")
    try:
        assert gateway.wait() == 2
        assert text in "".join(gateway.lines)
    finally:
        gateway.destroy()
        place.gateway.run("sysctl", "-qw", f"net.ipv4.{name}=1")


def test_what_netlink_tells_of_interfaces(place: Network) -> None:
    place.gateway.run("ip", "link", "add", "br0", "type", "bridge")
    place.gateway.run("ip", "link", "set", "v3g", "master", "br0")
    try:
        with place.gateway.inside():
            found = machine.interfaces()
    finally:
        place.gateway.run("ip", "link", "del", "br0")
    assert (found["v3g"].kind, found["v3g"].below, found["v1g"].below) == ("veth", "br0", "")
    assert found["v1g"].xdp_features & 3 == 3  # veth runs XDP and redirects
    assert (found["br0"].kind, found["lo"].ethernet) == ("bridge", False)
