"""One packet of a connection is lost, doubled, delayed or broken, each packet in turn: no answer is wrong or missing,
no request is executed twice, and no flow is left."""

from __future__ import annotations

import hashlib
import itertools
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from net.conftest import CONFIGURATION
from support.kernelpath import KernelPath, kernel_path
from support.mangler import Fault, Mangler, Script, mangler
from support.network import Client, Network, Server, body_of, network

pytestmark = pytest.mark.timeout(300)

LINKS = (1, 2)  # to the client, to b1
BODY = bytes(range(256)) * 20


@dataclass(frozen=True)
class World:
    """What the connections of a test run through."""

    path: KernelPath
    wire: Mangler
    backends: tuple[Server, ...]


@pytest.fixture(scope="module")
def world(_clean: None, hook: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        network(wired=LINKS) as net,
        Server(net.b1, "b1") as b1,
        Server(net.b2, "b2") as b2,
        mangler(net.wire, LINKS) as wire,
        kernel_path(net, tmp_path_factory.mktemp("faults"), CONFIGURATION, hook) as path,
    ):
        yield World(path, wire, (b1, b2))


def _get(client: Client, path: str, name: str) -> None:
    kind, _, number = path.rpartition("/")
    got, body = client.ask("GET", f"{path}?{name}").body, body_of(f"b1-{name}", int(number))
    assert got == body, f"{kind}: {len(got)} bytes of {len(body)}"


def _post(client: Client, name: str) -> None:
    expected = f"b1 {len(BODY)} {hashlib.sha256(BODY).hexdigest()}".encode()
    assert client.ask("POST", f"/post?{name}", BODY).body == expected


def gets(client: Client, name: str) -> None:
    """Responses of one segment and of several, and the client ends."""
    _get(client, "/bytes/20", f"{name}a")
    _get(client, "/bytes/5000", f"{name}b")


def posts(client: Client, name: str) -> None:
    """A body that comes while the backend is being asked, and another one on the bound flow."""
    _post(client, f"{name}a")
    _post(client, f"{name}b")


def as_much(client: Client, name: str) -> None:
    """Before the third request, each side has sent as much as the other: then numbers are as far from both cookies."""
    first = client.ask("GET", f"/bytes/20?{name}a")
    sent = len(f"GET /bytes/20?{name}a HTTP/1.1\r\nHost: a.test\r\n\r\n")
    missing = 2 * (len(first.head) + 4 + len(first.body)) - 2 * sent - len("X: \r\n")
    assert client.ask("GET", f"/bytes/20?{name}b", fields=[f"X: {'x' * missing}"]).status == 200
    assert client.ask("GET", f"/bytes/20?{name}c").status == 200


def tier_3(client: Client, name: str) -> None:
    """From the first request on."""
    assert client.ask("GET", f"/rx/5?{name}").body == body_of(f"b2-{name}", 5)


def chunks_and_tier_3(client: Client, name: str) -> None:
    """A response whose end must be walked to, and then another tier."""
    _get(client, "/chunked/4500", f"{name}a")
    assert client.ask("GET", "/rx/5").body == body_of("b2", 5)
    _get(client, "/bytes/20", f"{name}b")


def half_closed(client: Client, name: str) -> None:
    """The client ends first, and then comes the response."""
    client.send("GET", f"/bytes/9000?{name}")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read().body == body_of(f"b1-{name}", 9000)
    assert client.rest() == b""


def to_and_fro(client: Client, name: str) -> None:
    """Two services: each keeps its connection while the other one is asked."""
    _get(client, "/bytes/20", f"{name}a")
    assert client.ask("GET", "/two/bytes/20").body == body_of("b2", 20)
    _get(client, "/bytes/5000", f"{name}b")
    assert client.ask("GET", "/two/bytes/20").body == body_of("b2", 20)
    _post(client, f"{name}c")


def told(client: Client, name: str) -> None:
    """A backend that gets the PROXY header first; a request with a body; and the same on a connection that waited."""
    _get(client, "/told/bytes/20", f"{name}a")
    body = f"b1 {len(BODY)} {hashlib.sha256(BODY).hexdigest()}".encode()
    assert client.ask("POST", f"/told/post?{name}b", BODY).body == body
    assert client.ask("GET", "/two/bytes/20").body == body_of("b2", 20)
    _get(client, "/told/bytes/5000", f"{name}c")


def closed_by_the_backend(client: Client, name: str) -> None:
    """The response has no end but the connection's."""
    client.send("GET", f"/endless/9000?{name}")
    assert client.read().body == body_of(f"b1-{name}", 9000)


SCENARIOS = (gets, posts, as_much, tier_3, chunks_and_tier_3, half_closed, to_and_fro, told, closed_by_the_backend)

# What is done (`again`: a late duplicate, when the connection is over), and to which bits of a packet: its last byte,
# and of the TCP header the sequence number, what it acknowledges, FIN, SYN, RST, the window and the time stamp.
KINDS = {
    "again": ("again", 0, 0),
    "drop": ("drop", 0, 0),
    "drop two": ("drop two", 0, 0),
    "double": ("double", 0, 0),
    "delay": ("delay", 0, 0),
    "last byte": ("corrupt", -1, 1),
    "seq": ("corrupt", 7, 1),
    "ack": ("corrupt", 11, 4),
    "fin": ("corrupt", 13, 1),
    "syn": ("corrupt", 13, 2),
    "rst": ("corrupt", 13, 4),
    "window": ("corrupt", 14, 255),
    "time stamp": ("corrupt", 27, 16),
}


_ports = itertools.cycle(range(10_000, 32_000))  # a script knows its connection by the port: none comes twice


def _bound(net: Network) -> socket.socket:
    with net.client.inside():
        sock = socket.socket()
    sock.bind(("", next(_ports)))
    return sock


def _play(world: World, scenario: Callable[[Client, str], None], fault: Fault | None, name: str) -> tuple[str, Script]:
    """ "" if all went well, else what did not."""
    sock = _bound(world.path.net)
    sock.settimeout(20)
    told = ""
    with world.wire.script(sock.getsockname()[1], fault) as script, Client(sock) as client:
        try:
            sock.connect(("10.203.1.1", 8080))
            scenario(client, name)
        except (OSError, EOFError, ValueError, AssertionError) as error:
            told = f"{type(error).__name__}: {error}"[:200]
    return told, script


def _play_all(
    world: World, scenario: Callable[[Client, str], None], faults: list[Fault], tag: str
) -> list[tuple[str, Script]]:
    """One connection for each fault, many at a time."""
    with ThreadPoolExecutor(24) as pool:
        played = list(
            pool.map(lambda numbered: _play(world, scenario, numbered[1], f"{tag}-{numbered[0]}-"), enumerate(faults))
        )
    # A silent backend is tier 3's, which takes a client that has ended for one that has gone.
    logged = "".join(world.path.logged()) if scenario is half_closed else ""
    return [("" if f"?{tag}-{at}-" in logged else told, script) for at, (told, script) in enumerate(played)]


def _nothing_is_left(world: World, tag: str) -> None:
    """No flow; and no request was executed twice."""
    left = world.path.settle(10)
    world.path.forget()
    asked = Counter(request for server in world.backends for request in server.requests if f"?{tag}-" in request)
    assert not [request for request, count in asked.items() if count > 1]
    for server in world.backends:
        server.requests.clear()
    assert not left


# With several connections to backends, what is broken is seen as with one: that is for the long set.
LATER = [(scenario, kind) for scenario in (to_and_fro, told) for kind in KINDS if KINDS[kind][0] == "corrupt"]


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        pytest.param(scenario, kind, marks=[pytest.mark.long] if (scenario, kind) in LATER else [])
        for scenario in SCENARIOS
        for kind in KINDS
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_each_packet(world: World, scenario: Callable[[Client, str], None], kind: str) -> None:
    what, at, mask = KINDS[kind]
    tag = kind.replace(" ", "-")
    told, script = _play(world, scenario, None, "none")
    assert not told
    assert {place[0] for place in script.counts} == (set(LINKS) if scenario is not tier_3 else {1})
    faults = [
        Fault(link, toward, packet, what, at, mask)
        for (link, toward), count in script.counts.items()
        for packet in range(count)
    ]
    played = _play_all(world, scenario, faults, tag)
    wrong = [
        f"{fault}: {told}\n" + "\n".join(script.trace)
        for fault, (told, script) in zip(faults, played, strict=True)
        if told
    ]
    assert not wrong, f"{len(wrong)} of {len(faults)}\n" + "\n\n".join(wrong[:3])
    # Some of the packets seen first are acknowledgements that need not come again: most faults must have happened.
    assert sum(script.done for _, script in played) >= len(faults) * 0.5
    _nothing_is_left(world, tag)


@pytest.mark.parametrize(
    ("scenario", "seeds"),
    [
        pytest.param(to_and_fro, range(24), id="to_and_fro"),
        *(
            pytest.param(scenario, range(100, 500), id=f"{scenario.__name__}-many", marks=[pytest.mark.long])
            for scenario in SCENARIOS
        ),
    ],
)
def test_random_faults(world: World, scenario: Callable[[Client, str], None], seeds: range) -> None:
    """One packet of thirty, on all links, is lost, doubled or overtaken."""
    faults = [Fault(0, "", seed, "random", 33) for seed in seeds]
    played = _play_all(world, scenario, faults, "random")
    wrong = [
        f"{fault}: {told}\n" + "\n".join(script.trace)
        for fault, (told, script) in zip(faults, played, strict=True)
        if told
    ]
    assert not wrong, f"{len(wrong)} of {len(faults)}\n" + "\n\n".join(wrong[:3])
    assert sum(script.done for _, script in played) > len(faults) / 4
    _nothing_is_left(world, "random")
