"""Clients and backends of all kinds: with and without time stamps, SACK and window scaling, with small segments, behind
links and paths of a smaller MTU, with numbers that wrap."""

from __future__ import annotations

import hashlib
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import pytest

from net.conftest import CONFIGURATION
from support.kernelpath import KernelPath, kernel_path, members, wait_until
from support.network import GATEWAY, Client, Host, Server, body_of, network
from support.rawtcp import ACK, ADDRESS, FIN, Raw

OPTIONS = ("timestamps", "sack", "window_scaling")
Options = frozenset[str]
KINDS = [frozenset(some) for number in range(len(OPTIONS) + 1) for some in combinations(OPTIONS, number)]
EVERY = KINDS[-1]
# Both alike, and each against one that has everything. The rest is in the long set.
CORE = (
    [(kind, kind) for kind in KINDS] + [(kind, EVERY) for kind in KINDS[:-1]] + [(EVERY, kind) for kind in KINDS[:-1]]
)
REST = [(client, backends) for client in KINDS for backends in KINDS if (client, backends) not in CORE]


def _told(kinds: tuple[Options, Options]) -> str:
    return "-".join("+".join(option for option in OPTIONS if option in kind) or "none" for kind in kinds)


@contextmanager
def _with(hosts: tuple[Host, ...], options: Options) -> Iterator[None]:
    for host in hosts:
        host.run("sysctl", "-qw", *(f"net.ipv4.tcp_{option}={int(option in options)}" for option in OPTIONS))
    try:
        yield
    finally:
        for host in hosts:
            host.run("sysctl", "-qw", *(f"net.ipv4.tcp_{option}=1" for option in OPTIONS))


def talk(client: Client, size: int) -> None:
    """All tiers and both services on one connection, with bodies of so many bytes both ways."""
    sent = bytes(range(256)) * (size // 256 + 1)
    digest = hashlib.sha256(sent).hexdigest()
    for service, name in (("", "b1"), ("/two", "b2"), ("", "b1"), ("/two", "b2")):
        assert client.ask("GET", f"{service}/bytes/{size}").body == body_of(name, size)
        assert client.ask("POST", f"{service}/post", sent).body == f"{name} {len(sent)} {digest}".encode()
        assert client.ask("GET", f"{service}/chunked/{min(size, 50_000)}").body == body_of(name, min(size, 50_000))
    assert client.ask("GET", "/rx/5").body == body_of("b2", 5)
    assert client.ask("GET", f"/bytes/{size}").body == body_of("b1", size)


def _options(path: KernelPath, kinds: tuple[Options, Options], size: int) -> None:
    of_client, of_backends = kinds
    net = path.net
    with (
        _with((net.client,), of_client),
        _with((net.b1, net.b2), of_backends),
        path.counting() as seen,
        Client(net.connect()) as client,
    ):
        talk(client, size)
    # No time stamp can be made up for a backend that has none: then it is tier 3's from the start.
    in_kernel = "timestamps" not in of_client or "timestamps" in of_backends
    assert seen["backend_accepted"] == (2 if in_kernel else 0)
    assert seen["moved_back"] == (2 if in_kernel else 0)


@pytest.mark.parametrize("kinds", CORE, ids=_told)
def test_options(path: KernelPath, kinds: tuple[Options, Options]) -> None:
    _options(path, kinds, 100_000)


@pytest.mark.long
@pytest.mark.parametrize("kinds", [*CORE, *REST], ids=_told)
def test_ten_mebibytes(path: KernelPath, kinds: tuple[Options, Options]) -> None:
    _options(path, kinds, 10 << 20)


@pytest.mark.parametrize("size", [88, 536, 1000])
def test_clients_that_take_small_segments(path: KernelPath, size: int) -> None:
    with path.net.client.inside():
        sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, size)
    sock.settimeout(20)
    sock.connect((GATEWAY, 8080))
    with path.counting() as seen, Client(sock) as client:
        talk(client, 30_000)
    assert seen["moved_back"] == 2 or size < 536  # a head must be in one segment


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(("link", "mtu"), [(1, 1400), (2, 1400), (2, 576)])
def test_links_of_a_smaller_mtu(hook: str, tmp_path: Path, link: int, mtu: int) -> None:
    with network(offloads=hook != "xdp") as net:
        far = net.client if link == 1 else net.b1
        for host, name in ((net.gateway, f"v{link}g"), (far, f"v{link}o")):
            host.run("ip", "link", "set", name, "mtu", str(mtu))
        with (
            Server(net.b1, "b1"),
            Server(net.b2, "b2"),
            kernel_path(net, tmp_path, CONFIGURATION, hook) as path,
            path.counting() as seen,
            Client(net.connect()) as client,
        ):
            talk(client, 100_000)
        assert seen["moved_back"] == 2


@pytest.mark.parametrize("before", [1, 2, 3, 60, 1000])
def test_numbers_that_wrap(path: KernelPath, b1: Server, b2: Server, before: int) -> None:
    raw = Raw(path.net, (1 << 32) - before)
    raw.connect()
    with path.counting() as seen:
        for target, name in (("/bytes/3000", "b1"), ("/two/bytes/2000", "b2"), ("/bytes/2500", "b1")):
            size = int(target.rpartition("/")[2])
            raw.data(f"GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
            raw.received = b""
            raw.read(size + 100)
            assert raw.received.endswith(body_of(name, size))
    assert (seen["moved"], seen["moved_back"]) == (1, 1)
    raw.close()
    path.forget()  # what a client of this kind leaves is no leak


# --- a router finds a packet too large -----------------------------------------------------------------------


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _too_large(host: Host, source: tuple[str, int], target: tuple[str, int], seq: int, mtu: int) -> None:
    """ICMP type 3, code 4 (RFC 1191): a host on the way tells `source` about its packet to `target`."""
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    inner = struct.pack("!BBHHHBBH", 0x45, 0, 1500, 1, 0x4000, 63, 6, 0) + addresses
    inner = inner[:10] + struct.pack("!H", _sum(inner)) + inner[12:]
    quoted = inner + struct.pack("!HHI", source[1], target[1], seq)
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    message = message[:2] + struct.pack("!H", _sum(message)) + message[4:]
    with host.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(message, (source[0], 0))


def _mtu(host: Host, *place: str) -> str:
    """What a TCP connection of the host knows of its path."""
    found = re.search(r"\bpmtu:(\d+)", host.run("ss", "-Htin", *place))
    assert found is not None
    return found[1]


@pytest.mark.parametrize("moved", [False, True])
def test_backends_hear_of_packets_that_are_too_large(path: KernelPath, *, moved: bool) -> None:
    with Client(path.net.connect()) as client:
        for target in ("/one", "/other", "/one") if moved else ("/one",):
            assert client.ask("GET", target).status == 200
        flow = path.flow_of(client.sock)
        told = members("flow")
        port = int.from_bytes(flow.nat[10:12], "big")
        seq = members("answering")["next"].of(flow.value[told["backend"].offset :])
        place = (f"sport = :80 and dport = :{port}",)
        assert _mtu(path.net.b1, *place) == "1500"
        with path.counting() as seen:
            # A stranger's guess first: nothing like it is on its way.
            _too_large(path.net.client, (GATEWAY, 8080), client.sock.getsockname(), (seq + 1000) % (1 << 32), 900)
            _too_large(path.net.client, (GATEWAY, 8080), client.sock.getsockname(), seq, 1000)
            assert wait_until(lambda: _mtu(path.net.b1, *place) == "1000")
        assert seen["icmp_translated"] == 1
        assert client.ask("GET", "/bytes/50000").body == body_of("b1", 50_000)
    path.net.b1.run("ip", "route", "flush", "cache")


@pytest.mark.parametrize("moved", [False, True])
def test_clients_hear_of_packets_that_are_too_large(path: KernelPath, *, moved: bool) -> None:
    with Client(path.net.connect()) as client:
        for target in ("/one", "/other", "/one") if moved else ("/one",):
            assert client.ask("GET", target).status == 200
        flow = path.flow_of(client.sock)
        told = members("flow")
        nat = int.from_bytes(flow.nat[10:12], "big")
        seq = members("asking")["next"].of(flow.value[told["client"].offset :]) + told["client_delta"].of(flow.value)
        place = (f"dport = :8080 and sport = :{client.sock.getsockname()[1]}",)
        assert _mtu(path.net.client, *place) == "1500"
        with path.counting() as seen:
            _too_large(path.net.b1, ("10.203.2.1", nat), ("10.203.2.2", 80), seq % (1 << 32), 1000)
            assert wait_until(lambda: _mtu(path.net.client, *place) == "1000")
        assert seen["icmp_translated"] == 1
        assert client.ask("POST", "/post", bytes(50_000)).body.startswith(b"b1 50000 ")
    path.net.client.run("ip", "route", "flush", "cache")


def test_a_port_out_of_time_wait(path: KernelPath) -> None:
    """Linux goes on 65,537 behind the last number: that is no late duplicate, also where tier 3 had the connection."""
    found = re.search(r"link/ether (\S+)", path.net.client.run("ip", "link", "show", "v1o"))
    assert found is not None
    # Nobody answers for the address, and the local stack has to send there.
    path.net.gateway.run("ip", "neigh", "replace", ADDRESS, "lladdr", found[1], "dev", "v1g", "nud", "permanent")
    first = Raw(path.net)
    first.connect()
    first.data(b"GET /hello HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert first.read(20).endswith(b"\r\n\r\nhi")
    first.segment(flags=FIN | ACK)
    first.seq += 1
    first.quiet()
    first.ack += 1
    first.segment(flags=ACK)
    first.vanish()
    assert wait_until(lambda: not path.net.gateway.run("ss", "-Htan", f"dport = :{first.port}"))
    second = Raw(path.net, first.seq + 65_537)
    second.port = first.port
    second.connect()
    for target, expected in (("/hello", b"hi"), ("/hello", b"hi")):
        second.received = b""
        second.data(f"GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        assert second.read(20).endswith(expected)
    second.close()
    path.forget()
    path.net.gateway.run("ip", "neigh", "del", ADDRESS, "dev", "v1g")
