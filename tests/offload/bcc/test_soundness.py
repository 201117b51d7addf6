"""What the kernel decides of a request is what tier 3 decides for the same bytes; and it decides what it can."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rauta.offload import Capabilities, plan
from rauta.offload.bcc import syscalls
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.tables import Tables
from rauta.proxy.http1.grammar import HEAD_END, parse_request
from rauta.routing.errors import RequestError
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import Configuration, Forward, Match, PathKind, PathMatch, Route, WeightedService
from rauta.routing.outcome import Hit
from rauta.routing.request import RequestView
from rauta.routing.services import Backend, Service
from rauta.routing.settings import AccessLog, Address, Listener, OffloadSettings
from rauta.routing.table import Table
from support import packets

LISTENER = ("198.51.100.1", 8080)
HOSTS = (
    None,
    HostPattern("api.test"),
    HostPattern("deep.api.test"),
    HostPattern("api.test", HostKind.WILDCARD),
    HostPattern("api.test", HostKind.ONE_LABEL),
    HostPattern("test", HostKind.WILDCARD),
    HostPattern("x-1.test"),
)
PATHS = ("/", "/a", "/a/b", "/a/b/", "/a.b", "/ab", "/a/b/c", "/users", "/users/", "/~x", "/a..", "/" + "p" * 100)


class Kernel:
    """The programs with one configuration at a time."""

    def __init__(self, folder: Path) -> None:
        self.tables = Tables(folder, range(10_000, 11_000), Known(None))
        self._decided = syscalls.pinned(folder / "decided")

    def take(self, configuration: Configuration) -> None:
        self.tables.write(plan(configuration, Capabilities()), ())
        self.tables.switch()

    def decide(self, payload: bytes, client: tuple[str, int] = packets.CLIENT) -> tuple[str, int] | None:
        found, _, _ = syscalls.run(self._decided, packets.tcp(payload, LISTENER, client))
        return (self.tables.known.routes.names()[found >> 2], found & 3) if found else None

    def close(self) -> None:
        self.tables.close()
        os.close(self._decided)


@pytest.fixture(scope="module")
def kernel(programs: Path) -> Iterator[Kernel]:
    found = Kernel(programs)
    yield found
    found.close()


def configuration(*routes: Route) -> Configuration:
    services = tuple(
        Service(name=name, backends=(Backend(address=Address("203.0.113.1", 80 + number)),))
        for number, name in enumerate(("s", "t"))
    )
    listener = Listener(name="web", address=Address(*LISTENER))
    return Configuration(
        listeners=(listener,),
        services=services,
        routes=routes,
        access_log=AccessLog(to="off"),
        offload=OffloadSettings(),
    )


matches = st.builds(
    Match,
    hosts=st.lists(st.sampled_from(HOSTS[1:]), max_size=2, unique=True).map(tuple),
    path=st.one_of(
        st.builds(PathMatch, kind=st.just(PathKind.EXACT), value=st.sampled_from(PATHS)),
        st.sampled_from(PATHS).map(PathMatch.prefix),
        st.sampled_from(("/a/[0-9]+", "/users/.*", "/[a-z]+")).map(lambda text: PathMatch(PathKind.REGEX, text)),
    ),
    methods=st.sets(st.sampled_from(("GET", "HEAD", "POST", "PUT", "DELETE")), max_size=2).map(frozenset),
)
tables = st.lists(st.lists(matches, min_size=1, max_size=2), min_size=1, max_size=6).map(
    lambda found: configuration(
        *(
            Route(
                name=f"r{number}",
                matches=tuple(group),
                action=Forward(services=(WeightedService(name="st"[number % 2]),)),
            )
            for number, group in enumerate(found)
        )
    )
)


def mostly(good: Sequence[bytes], odd: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One in sixteen is odd: a head has many parts, and what has one odd part is decided by that alone."""
    return st.integers(0, 15).flatmap(lambda place: st.sampled_from(odd if place == 15 else good))


# Heads that are nearly right: each part is mostly plain, now and then odd, and bytes are changed afterwards.
GOOD_METHODS, ODD_METHODS = (
    (b"GET", b"GET", b"HEAD", b"POST", b"PUT"),
    (b"DELETE", b"PATCH", b"OPTIONS", b"get", b"TRACE"),
)
ODD_TARGETS = (
    b"/a?", b"/a/../b", b"/a/..", b"/a/.", b"/./a", b"/a//b", b"//a", b"/%61", b"/a%2fb", b"/a\\b", b"*",
    b"http://api.test/a", b"/a#b", b"/a?x#b", b"/a<b", b'/a?x"y', b"/a?{", b"/a?\xe4", b"/\xe4", b"",
)  # fmt: skip
GOOD_HOSTS = (b"api.test", b"API.test:8080", b"x.api.test", b"deep.api.test", b"x-1.test", b"other", b"a_b")
ODD_HOSTS = (
    b"y.x.api.test.", b"[::1]", b"a..b", b"-a.test", b"a-.test", b"api.test:", b"api.test:99999", b"api.test:0",
    b"api.test ", b"", b".", b"h" * 130, b"a,b", b"a@b", b"a/b",
)  # fmt: skip
GOOD_FIELDS = (
    b"Accept: */*", b"User-Agent: curl/8.0", b"Connection: keep-alive", b"Connection: close",
    b"X: \t a\tb ", b"X:", b"X: \xe4", b"A-Name-That-Is-Longer-Than-Eight-Bytes-And-More: 1",
)  # fmt: skip
ODD_FIELDS = (
    b"Connection: x", b"Connection: close, x", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5",
    b"Content-Length: 5 5", b"Content-Length: 5\r\nContent-Length: 5", b"Content-Length: 9999999999",
    b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: websocket", b"TE: trailers", b"Trailer: x",
    b"Keep-Alive: timeout=5", b"HTTP2-Settings: AAA", b"Proxy-Connection: close", b"Proxy-Authorization: x",
    b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Real-IP: 1.2.3.4",
    b"X_Forwarded_For: 1.2.3.4", b"X_Real_IP: 1.2.3.4", b"Max-Forwards: 0", b"Host: second",
    b"Client-Cert: :QUJD:", b"CLIENT-CERT-CHAIN: :QUJD:",
    b"X : a", b" folded", b"no colon", b": no name", b"X: \x00", b"X: \x7f", b"X: a\rb", b"X: a\nb", b"X(: 1",
    b"N" * 70 + b": 1", b"X: \t\x00", b"X: \t\x7fa", b"X:\t\t\x01",
)  # fmt: skip
VERSIONS = (b"HTTP/1.0", b"http/1.1", b"HTTP/1.1 ", b"HTTP/1.2", b"HTTP/2.0", b" HTTP/1.1")

methods = mostly(GOOD_METHODS, ODD_METHODS)
targets = st.one_of(
    mostly([*map(str.encode, PATHS), b"/a?x=1", b"/a?x=/../%41"], ODD_TARGETS),
    st.lists(st.sampled_from((b"/", b"a", b".", b"b", b"users", b"~")), max_size=8).map(
        lambda found: b"/" + b"".join(found)
    ),
)
hosts = mostly(GOOD_HOSTS, ODD_HOSTS)
fields = st.lists(mostly(GOOD_FIELDS, ODD_FIELDS), max_size=4)


@st.composite
def heads(draw: Any) -> bytes:
    version = draw(mostly((b"HTTP/1.1",), (b"HTTP/1.0", b"http/1.1", b"HTTP/1.1 ")))
    lines = [draw(methods) + b" " + draw(targets) + b" " + version]
    lines += [draw(st.sampled_from((b"Host: ", b"host:", b"HOST:  ", b"Host:\t"))) + draw(hosts)]
    lines += draw(fields)
    if draw(st.booleans()):
        lines[1:] = draw(st.permutations(lines[1:]))
    body = draw(mostly((b"",), (b"hello", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")))
    data = bytearray(b"\r\n".join([*lines, b"", b""]) + body)
    for _ in range(draw(st.sampled_from((0,) * 8 + (1, 2)))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if data:
            data[at] = draw(st.sampled_from(b"\r\n\t :/.%?\x00\x7f\x80aA0-_"))
    return bytes(data)


def tier_3(configuration_: Configuration, payload: bytes) -> str | None:
    """The route of the first request in these bytes, if there is a complete one, and it is all that is there."""
    end = payload.find(HEAD_END)
    if end < 0:
        return None
    try:
        head = parse_request(payload[: end + 2])
    except RequestError:
        return None
    length = max(0, head.length)
    if head.length < -1 and len(payload) > end + 4:
        return None
    if len(payload) > end + 4 + length:
        return None
    table = Table(configuration_)
    try:
        outcome = table.match(
            "web",
            RequestView(
                method=head.method,
                host=head.host,
                path=head.path,
                query=head.query,
                headers=head,
                client=packets.CLIENT,
            ),
        )
    finally:
        table.close()
    if not isinstance(outcome, Hit):
        return None
    # The backend gets the bytes as they are, so there must be nothing in them that tier 3 would have taken out.
    lines = [line.partition(b":") for line in payload[:end].split(b"\r\n")[1:]]
    sent = [(name.decode("latin-1"), value.strip(b" \t").decode("latin-1")) for name, _, value in lines]
    if payload.split(b" ")[1].partition(b"?")[0] != head.path.encode("latin-1"):
        return None  # tier 3 would have sent another path
    ours = ("host", "content-length", "connection")
    changed = head.fields != [field for field in sent if field[0].lower() not in ours]
    return None if changed or head.named or head.expects or head.upgrade or head.claims() else outcome.route.name


@pytest.mark.timeout(0 if "RAUTA_SOUNDNESS" in os.environ else 600)
@settings(
    max_examples=int(os.environ.get("RAUTA_SOUNDNESS", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(found=tables, payloads=st.lists(heads(), min_size=8, max_size=30))
def test_the_kernel_decides_as_tier_3_does(kernel: Kernel, found: Configuration, payloads: list[bytes]) -> None:
    kernel.take(found)
    for payload in payloads:
        decided = kernel.decide(payload)
        if decided is not None:
            assert decided[0] == tier_3(found, payload), payload
        # else: what the kernel leaves, tier 3 decides; that it leaves no more than it must, the next test tells


def request(
    method: bytes = b"GET",
    target: bytes = b"/a",
    version: bytes = b"HTTP/1.1",
    host: bytes = b"api.test",
    field: bytes = b"X: 1",
    end: bytes = b"",
) -> bytes:
    return b"\r\n".join([method + b" " + target + b" " + version, b"Host: " + host, field, b"", end])


ONE_ODD = (
    *(request(method=odd) for odd in ODD_METHODS),
    *(request(target=odd) for odd in ODD_TARGETS),
    *(request(version=odd) for odd in VERSIONS),
    *(request(host=odd) for odd in ODD_HOSTS),
    *(request(field=odd) for odd in ODD_FIELDS),
    *(request(b"POST", field=odd, end=b"hello") for odd in ODD_FIELDS),
    *(request(end=odd) for odd in (b"x", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n")),
    *(request()[:size] for size in range(len(request()))),
)


def test_whatever_is_odd_alone_is_decided_as_tier_3_does(kernel: Kernel) -> None:
    """Any route would take it: what is odd must not be overlooked, nor a path be sent as it is if tier 3 would not."""
    action = Forward(services=(WeightedService(name="s"),))
    found = configuration(Route(name="all", matches=(Match(path=PathMatch.prefix("/")),), action=action))
    kernel.take(found)
    assert kernel.decide(request()) == ("all", 2)
    wrong = [odd for odd in ONE_ODD if kernel.decide(odd) not in (None, (tier_3(found, odd), 2))]
    assert not wrong


WITH_A_BYTE = {
    "path": lambda byte, before, after: request(target=b"/" + before + byte + after),
    "query": lambda byte, before, after: request(target=b"/a?" + before + byte + after),
    "host": lambda byte, before, after: request(host=b"x" + before + byte + after + b"x"),
    "name": lambda byte, before, after: request(field=b"x" + before + byte + after + b": 1"),
    "value": lambda byte, before, after: request(field=b"X: " + before + byte + after),
}
# What tier 3 takes there, somewhere in the middle of a word, and the kernel leaves to it.
LEFT = {"path": b"", "query": b"\\", "host": b"", "name": b"!#$%&'*+.^_`|~", "value": b""}


@pytest.mark.parametrize("where", WITH_A_BYTE)
def test_each_byte_is_taken_where_tier_3_takes_it(kernel: Kernel, where: str) -> None:
    """At each place of a word and behind it: eight bytes are looked at together."""
    action = Forward(services=(WeightedService(name="s"),))
    found = configuration(Route(name="all", matches=(Match(path=PathMatch.prefix("/")),), action=action))
    kernel.take(found)
    left = set()
    for byte in range(256):
        for place in range(9):
            asked = WITH_A_BYTE[where](bytes([byte]), b"a" * place, b"b" * (9 - place))
            expected, decided = tier_3(found, asked), kernel.decide(asked)
            assert decided in (None, ("all", 2)) if expected else decided is None, (bytes([byte]), place)
            if expected and not decided and place == 3:
                left.add(byte)
    assert left == set(LEFT[where])


def _exact(name: str, path: str = "/a", host: str = "api.test") -> Route:
    match = Match(hosts=(HostPattern(host),), path=PathMatch.exact(path))
    return Route(name=name, matches=(match,), action=Forward(services=(WeightedService(name="s"),)))


@pytest.mark.parametrize("what", ["path", "host"])
def test_names_of_any_length_are_found_by_all_their_bytes(kernel: Kernel, what: str) -> None:
    """The longest in between, so that what is behind a short one is not zero by itself."""
    if what == "path":
        texts = ["/" + "p" * size for size in range(1, 247)]
    else:
        texts = [".".join(["h" * min(size, 60), *(["i" * (size - 61)] if size > 61 else [])]) for size in range(1, 124)]
    named = {text: f"r{number}" for number, text in enumerate(dict.fromkeys(texts))}
    kernel.take(configuration(*(_exact(name, **{what: text}) for text, name in named.items())))
    longest = max(named, key=len)
    for text in named:
        for asked in (longest, text, text + "x"):
            target, host = (asked, "api.test") if what == "path" else ("/a", asked)
            decided = kernel.decide(request(target=target.encode(), host=host.encode()))
            assert decided == ((named[asked], 1) if asked in named else None), (len(asked), decided)


@pytest.mark.parametrize("kind", [HostKind.WILDCARD, HostKind.ONE_LABEL])
def test_wildcards_have_names_of_any_length(kernel: Kernel, kind: HostKind) -> None:
    """What is not found below the wildcard would be the other route's."""
    action = Forward(services=(WeightedService(name="s"),))
    path = PathMatch.exact("/a")
    below = Match(hosts=(HostPattern("example.com", kind),), path=path)
    kernel.take(
        configuration(
            Route(name="below", matches=(below,), action=action),
            Route(name="other", matches=(Match(path=path),), action=action),
        )
    )
    for size in range(1, 118):
        label = "a" * size if size < 60 else f"{'a' * 40}{'.' if kind is HostKind.WILDCARD else '-'}{'b' * (size - 41)}"
        decided = kernel.decide(request(host=f"{label}.example.com".encode()))
        assert decided == (("below", 1) if size + len(".example.com") <= 127 else None), size


LENGTHS = ("0", "5", "00", "05", "4294967296", "4294967301", "5368709119", "8589934597", "9999999999", "99999999999")


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_is_what_it_says(kernel: Kernel, length: str) -> None:
    action = Forward(services=(WeightedService(name="s"),))
    kernel.take(configuration(Route(name="all", matches=(Match(path=PathMatch.prefix("/")),), action=action)))
    for spaces in (" ", "", "  "):
        head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length:%s%s\r\n\r\n" % (spaces.encode(), length.encode())
        for body in (b"", b"hello"):
            decided = kernel.decide(head + body)
            assert (decided is not None) == (length in ("0", "5") and len(body) <= int(length)), (spaces, body)


REAL = {
    "curl": b"GET /a HTTP/1.1\r\nHost: api.test\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    "curl post": (
        b"POST /users/1 HTTP/1.1\r\nHost: api.test:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
        b"Content-Length: 5\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nhello"
    ),
    "wrk": b"GET /a HTTP/1.1\r\nHost: 198.51.100.1:8080\r\n\r\n",
    "requests": (
        b"GET /a?q=1 HTTP/1.1\r\nHost: api.test\r\nUser-Agent: python-requests/2.32.0\r\n"
        b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
    ),
    "go": b"GET /a HTTP/1.1\r\nHost: api.test\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
    "aiohttp": (
        b"GET /a HTTP/1.1\r\nHost: api.test\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        b"User-Agent: Python/3.11 aiohttp/3.13\r\n\r\n"
    ),
    "httpx": (
        b"GET /a HTTP/1.1\r\nHost: api.test\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
        b"Connection: keep-alive\r\nUser-Agent: python-httpx/0.27.0\r\n\r\n"
    ),
    "java": (
        b"GET /a HTTP/1.1\r\nHost: api.test\r\nUser-Agent: Java-http-client/21\r\nContent-Type: text/plain\r\n\r\n"
    ),
    "chromium": (
        b"GET /a HTTP/1.1\r\nHost: api.test\r\nConnection: keep-alive\r\nCache-Control: max-age=0\r\n"
        b'sec-ch-ua: "Chromium";v="120", "Not?A_Brand";v="8"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: "Linux"\r\n'
        b"Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like "
        b"Gecko) Chrome/120.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
        b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: a=b; c=d\r\n\r\n"
    ),
}


@pytest.mark.parametrize("client", REAL)
def test_requests_of_real_clients_are_decided(kernel: Kernel, client: str) -> None:
    routes = [
        Route(name=name, matches=(Match(path=path),), action=Forward(services=(WeightedService(name=service),)))
        for name, path, service in (("a", PathMatch.exact("/a"), "s"), ("users", PathMatch.prefix("/users"), "t"))
    ]
    kernel.take(configuration(*routes))
    expected = ("users", 2) if client == "curl post" else ("a", 1)
    assert kernel.decide(REAL[client]) == expected
