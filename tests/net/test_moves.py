"""Requests for several services on one connection: it keeps what it leaves, and finds it again."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from net.conftest import MANY
from rauta.offload.bcc import counting
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.places import names_of
from support.kernelpath import KernelPath, members, wait_until
from support.network import Client, Host, Server, body_of

BODY = bytes(range(256)) * 400  # some 100 KB
NAT_PORTS = range(10_000, 32_768)  # what the gateway speaks to backends from in the kernel's tiers


def _connections(host: Host, state: str = "established") -> list[int]:
    """Ports of the gateway of connections to port 80 of a backend that are the kernel tiers'."""
    lines = host.run("ss", "-Htn", "state", state, "sport = :80").splitlines()
    ports = [int(line.split()[-1].rpartition(":")[2]) for line in lines]
    return [port for port in ports if port in NAT_PORTS]


@pytest.fixture(autouse=True)
def _nothing_from_before(path: KernelPath, b1: Server, b2: Server) -> None:
    """Tests before this one may have left connections of the kernel's, whose flows they forgot."""
    for server in (b1, b2):
        server.hang_up(NAT_PORTS)
    assert wait_until(lambda: not _connections(path.net.b1) + _connections(path.net.b2))


def _posted(name: str) -> bytes:
    return f"{name} {len(BODY)} {hashlib.sha256(BODY).hexdigest()}".encode()


@contextmanager
def _cut(host: Host) -> Iterator[None]:
    """Nothing that the host sends reaches the gateway."""
    host.run("ip", "route", "add", "blackhole", "10.203.2.1", "table", "5")
    host.run("ip", "rule", "add", "pref", "1", "table", "5")
    try:
        yield
    finally:
        host.run("ip", "rule", "del", "pref", "1")
        host.run("ip", "route", "flush", "table", "5")


def test_two_services_to_and_fro(path: KernelPath, b1: Server, b2: Server) -> None:
    b1.peers.clear()
    b2.peers.clear()
    with path.counting() as seen, Client(path.net.connect()) as client:
        for number in range(5):
            assert client.ask("GET", "/one").body == b"b1"
            assert client.ask("GET", f"/two/bytes/{number * 3000}").body == body_of("b2", number * 3000)
            assert client.ask("POST", "/post", BODY).body == _posted("b1")
            assert client.ask("GET", f"/two/chunked/{number * 3000}").body == body_of("b2", number * 3000)
    assert (seen["hit_first"], seen["moved"], seen["moved_back"]) == (1, 1, 18)
    assert seen["local_assigned"] + seen["miss_other_service"] == 0
    assert len(set(b1.peers)) == len(set(b2.peers)) == 1


def test_clients_without_time_stamps_to_and_fro(path: KernelPath) -> None:
    path.net.client.run("sysctl", "-q", "-w", "net.ipv4.tcp_timestamps=0")
    try:
        sock = path.net.connect()
    finally:
        path.net.client.run("sysctl", "-q", "-w", "net.ipv4.tcp_timestamps=1")
    # (Backends offer none either: they are asked with what the client has.)
    with path.counting() as seen, Client(sock) as client:
        for number in range(5):
            assert client.ask("GET", "/one").body == b"b1"
            assert client.ask("GET", f"/two/bytes/{number * 3000}").body == body_of("b2", number * 3000)
    assert (seen["moved"], seen["moved_back"]) == (1, 8)


def test_requests_are_counted_for_the_service_that_had_them(path: KernelPath) -> None:
    known = Known.load(names_of(path.net.gateway.path.stat().st_ino))

    def counted() -> tuple[Counter[str], Counter[str]]:
        requests: Counter[str] = Counter()
        octets: Counter[str] = Counter()
        for key, traffic in counting.read_requests(path.folder, known).items():
            requests[key.service] += traffic.requests
            octets[key.service] += traffic.bytes
        return requests, octets

    before = counted()
    with Client(path.net.connect()) as client:
        for _ in range(3):
            assert client.ask("GET", "/one").body == b"b1"
            assert client.ask("GET", "/two/bytes/100000").body == body_of("b2", 100_000)
        assert client.ask("GET", "/other").body == b"b2"
    assert path.settle() == []
    requests, octets = (after - then for after, then in zip(counted(), before, strict=True))
    assert requests == {"one": 3, "two": 4}
    assert octets["one"] < 20_000 < 300_000 < octets["two"] < 400_000


@pytest.mark.parametrize("service", ["one", "two"])
def test_large_bodies_to_a_backend_that_is_new_or_known(path: KernelPath, service: str) -> None:
    first, name = ("/two/bytes/1", "b1") if service == "one" else ("/bytes/1", "b2")
    target = "/post" if service == "one" else "/two/post"
    with path.counting() as seen, Client(path.net.connect()) as client:
        for _ in range(3):
            assert client.ask("GET", first).status == 200
            assert client.ask("POST", target, BODY).body == _posted(name)
    assert (seen["moved"], seen["moved_back"]) == (1, 4)


def test_more_services_than_are_kept(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        for number in range(3 * MANY):
            service = number % MANY
            answer = client.ask("GET", f"/s{service}/bytes/{number * 100}")
            assert answer.body == body_of(f"b{1 + service % 2}", number * 100)
        assert len(_connections(path.net.b1)) + len(_connections(path.net.b2)) == 5
    assert seen["moved"] > 10
    assert seen["moved_back"] > 5
    assert seen["local_assigned"] == 0


def test_who_chooses_backends_all_the_time_goes_to_tier_3(path: KernelPath) -> None:
    """Of ten services in turn, most are not kept."""
    with path.counting() as seen, Client(path.net.connect()) as client:
        for number in range(1000):
            service = number % MANY
            assert client.ask("GET", f"/s{service}/bytes/10").body == body_of(f"b{1 + service % 2}", 10)
    assert (seen["miss_other_service"], seen["local_assigned"]) == (1, 1)
    assert seen["moved"] >= 100


def test_a_parked_connection_that_its_backend_ends(path: KernelPath, b1: Server) -> None:
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        with path.counting() as ended:
            b1.hang_up(NAT_PORTS)
            assert wait_until(lambda: not _connections(path.net.b1))
        with path.counting() as again:
            assert client.ask("GET", "/one").body == b"b1"
    assert ended["parked_ended"] == 1
    assert (again["moved"], again["moved_back"], again["local_assigned"]) == (1, 0, 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_parked_connection_that_had_ended_unheard(path: KernelPath, b1: Server, method: str) -> None:
    """The request comes to a backend that knows nothing of it any more: nobody has it, and tier 3 asks again."""
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        with _cut(path.net.b1):
            b1.hang_up(NAT_PORTS, by_reset=True)
            assert wait_until(lambda: not _connections(path.net.b1, "synchronized"))
        with path.counting() as seen:
            expected = b"b1" if method == "GET" else b"b1 3 "
            assert client.ask(method, "/one", b"abc" if method == "POST" else b"").body.startswith(expected)
    assert (seen["moved_back"], seen["parked_gone"], seen["local_assigned"]) == (1, 1, 1)


def test_the_end_of_the_client_is_the_end_of_all_that_it_had(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        for service in range(4):
            assert client.ask("GET", f"/s{service}/bytes/1").status == 200
        assert len(_connections(path.net.b1)) == len(_connections(path.net.b2)) == 2
    assert wait_until(lambda: not _connections(path.net.b1) + _connections(path.net.b2))


def test_hand_over_is_the_end_of_all_that_the_flow_had(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        assert client.ask("GET", "/hello").body == b"hi"
        assert wait_until(lambda: not _connections(path.net.b1) + _connections(path.net.b2))
        assert client.ask("GET", "/one").body == b"b1"


@pytest.mark.parametrize("last", ["/dead/1", "/silent/1"])
def test_a_backend_that_fails_is_the_end_of_all_that_the_flow_had(path: KernelPath, last: str) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        for _ in range(20):  # the other one of `silent` may be chosen
            if client.ask("GET", last).status == 502 or path.counters()["backend_silent"]:
                break
        assert client.ask("GET", "/one").body == b"b1"
        assert wait_until(lambda: not _connections(path.net.b1) + _connections(path.net.b2)) or last == "/silent/1"
    assert seen["refused"] == (last == "/dead/1")


def test_to_the_client_time_does_not_go_back(path: KernelPath) -> None:
    """A backend's clock that is slower than the other one's: as if it had lost ten seconds."""
    at = members("parked")["ts_delta"]
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        with path.map("parked") as parked:
            ((key, value),) = list(parked.items())
            slower = (at.of(value) + 10_000) % (1 << 32)
            parked.set(key, value[: at.offset] + slower.to_bytes(4, "little") + value[at.offset + 4 :])
        client.sock.settimeout(3)
        for _ in range(3):
            assert client.ask("GET", "/one").body == b"b1"
            assert client.ask("GET", "/bytes/20000").body == body_of("b1", 20_000)
            assert client.ask("GET", "/other").body == b"b2"


def test_people_see_where_connections_are(path: KernelPath) -> None:
    def listed() -> list[dict[str, object]]:
        rautactl = Path(sys.executable).with_name("rautactl")
        found = json.loads(path.net.gateway.run(str(rautactl), "offload", "flows", "--json"))["flows"]
        assert isinstance(found, list)
        return found

    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        host, port = client.sock.getsockname()
        (entry,) = [entry for entry in listed() if entry["client"] == f"{host}:{port}"]
        expected = {"address": "10.203.1.1:8080", "state": "bound", "listener": "web", "service": "two"}
        expected |= {"backend": "10.203.3.2:80", "route": "other", "method": "GET", "code": 200, "requests": 1}
        assert expected.items() <= entry.items()
        assert entry["parked"] == ["one"]
    assert path.settle() == []
    assert listed() == []


@pytest.mark.parametrize("timestamps", [0, 1])
def test_a_backend_that_has_answered_since_is_not_asked_again(path: KernelPath, b1: Server, timestamps: int) -> None:
    """Once it has spoken, what it says is the client's: nobody knows what it has done with the request."""
    path.net.client.run("sysctl", "-qw", f"net.ipv4.tcp_timestamps={timestamps}")
    try:
        sock = path.net.connect()
    finally:
        path.net.client.run("sysctl", "-qw", "net.ipv4.tcp_timestamps=1")
    with Client(sock) as client:
        for target in ("/one", "/other", "/one"):
            assert client.ask("GET", target).status == 200
        with path.counting() as seen:  # from here on, whenever the reset comes through
            with _cut(path.net.b1):
                b1.hang_up(NAT_PORTS, by_reset=True)
                assert wait_until(lambda: not _connections(path.net.b1, "synchronized"))
            with pytest.raises(ConnectionResetError):
                client.ask("GET", "/one")
    assert (seen["parked_gone"], seen["ended_by_reset"]) == (0, 1), seen


@pytest.mark.parametrize("again", [False, True])
def test_a_port_that_another_client_has_now_is_left_alone(path: KernelPath, *, again: bool) -> None:
    """What is parked may lose its port, when all have been taken once."""
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("GET", "/other").body == b"b2"
        with path.map("parked") as parked, path.map("nats") as nats:
            ((key, value),) = list(parked.items())
            others = key[:8] + bytes([key[8] ^ 1]) + key[9:12]
            nats.set(value[:12], others)
        with path.counting() as seen:
            assert not again or client.ask("GET", "/one").body == b"b1"
        assert (seen["moved"], seen["moved_back"]) == (int(again), 0)
    assert wait_until(lambda: not path.flows())
    with path.map("nats") as nats:
        assert [found for _, found in nats.items()] == [others]
    path.forget()
