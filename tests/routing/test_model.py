"""The model refuses what it cannot hold, says where, and survives the trip to a worker."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from rauta.routing.errors import ModelError, Problem
from rauta.routing.filters import RequestId, Rewrite
from rauta.routing.hosts import HostPattern
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    PathMatch,
    Redirect,
    Respond,
    Route,
    ValueKind,
    ValueMatch,
    WeightedService,
    header_match,
    nearest,
)
from rauta.routing.services import (
    Backend,
    HealthCheck,
    HealthKind,
    LimitOverrides,
    Service,
    ServiceLimits,
    TimeoutOverrides,
    Timeouts,
)
from rauta.routing.settings import (
    X_FORWARDED,
    AccessLog,
    Address,
    AdminSettings,
    Certificate,
    ClientLimits,
    ClientTimeouts,
    Forwarded,
    Listener,
    OffloadMode,
    OffloadSettings,
    PassedNames,
    Passthrough,
    Secret,
    Shutdown,
    TlsSettings,
)
from support.build import backend, configuration, route, service

HERE = Address("0.0.0.0", 80)


def route_with(**fields: Any) -> Route:
    return Route(name="r", action=Forward(services=(WeightedService(name="s"),)), **fields)


TLS = TlsSettings(certificates=(Certificate(cert="c", key=Secret(file="k")),))


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, "127.0.0.1:80"),
        ("[::1]:8080", "::1", 8080, "[::1]:8080"),
        ("[2001:DB8:0:0::1]:1", "2001:db8::1", 1, "[2001:db8::1]:1"),
        ("app.internal:65535", "app.internal", 65535, "app.internal:65535"),
        ("my_app:1", "my_app", 1, "my_app:1"),
        (":8080", "0.0.0.0", 8080, "0.0.0.0:8080"),
    ],
)
def test_addresses(text: str, host: str, port: int, shown: str) -> None:
    address = Address.parse(text, any_host="0.0.0.0")
    assert (address.host, address.port, str(address)) == (host, port, shown)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("127.0.0.1", "write host:port"),
        ("127.0.0.1:", "write host:port"),
        ("127.0.0.1:http", "write host:port"),
        ("127.0.0.1:0", "1 to 65535"),
        ("127.0.0.1:65536", "1 to 65535"),
        ("127.0.0.1:123456", "write host:port"),
        ("::1:80", "needs brackets"),
        ("[127.0.0.1]:80", "only an IPv6 address"),
        ("[::g]:80", "neither an IP address"),
        ("1.2.3:80", "not a valid IPv4"),
        ("1.2.3.256:80", "not a valid IPv4"),
        ("a b:80", "neither an IP address"),
        (":80", "has no host"),
        ("unix:", "1 to 107 bytes"),
        ("unix:/" + "x" * 107, "1 to 107 bytes"),
        ("unix:/" + "ä" * 54, "1 to 107 bytes"),
        ("unix:/a\0b", "none of them NUL"),
    ],
)
def test_addresses_that_are_none(text: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        Address.parse(text)


def test_a_unix_socket_is_an_address() -> None:
    address = Address.parse("unix:/run/a.sock")
    assert address == Address.unix("/run/a.sock")
    assert (address.host, address.port, address.path, address.ip) == ("", 0, "/run/a.sock", None)
    assert str(address) == "unix:/run/a.sock"
    assert not address.is_name
    assert Address.parse("app.internal:80").is_name
    assert not Address.parse("[::1]:80").is_name
    assert Address.unix("/" + "x" * 106).path == "/" + "x" * 106


BAD: list[tuple[Callable[[], Any], tuple[str | int, ...], str]] = [
    (lambda: Backend(address=HERE, weight=-1), ("weight",), "out of range"),
    (lambda: Backend(address=HERE, weight=1_000_001), ("weight",), "out of range"),
    (lambda: Service(name="s", backends=()), ("backends",), "at least one"),
    (lambda: service("s", backend("a:1"), backend("a:1")), ("backends", 1, "address"), "already backend 1"),
    (lambda: service("bad name"), ("name",), "is not a name"),
    (lambda: service("-x"), ("name",), "is not a name"),
    (lambda: service("x" * 129), ("name",), "is not a name"),
    (lambda: Address("", 0), (), "out of range"),
    (lambda: Address("a", 0, "/run/a"), (), "has a host or a port"),
    (lambda: Address("", 1, "/run/a"), (), "has a host or a port"),
    (lambda: service("s", Backend(address=Address.unix("/a")), Backend(address=Address.unix("/a"))),
     ("backends", 1, "address"), "already backend 1"),
    (lambda: Timeouts(request=86401), ("request",), "1 ms to 24 h"),
    (lambda: TimeoutOverrides(request=0), ("request",), "1 ms to 24 h"),
    (lambda: ServiceLimits(body=-1), ("body",), "0 to 1 TiB"),
    (lambda: ServiceLimits(body=(1 << 40) + 1), ("body",), "0 to 1 TiB"),
    (lambda: LimitOverrides(body=-1), ("body",), "0 to 1 TiB"),
    (lambda: ServiceLimits(connections=0), ("connections",), "1 to 65536"),
    (lambda: ServiceLimits(waiting=-1), ("waiting",), "0 to 65536"),
    (lambda: ServiceLimits(waiting=65537), ("waiting",), "0 to 65536"),
    (lambda: ClientLimits(connections=0), ("connections",), "1 to 1000000"),
    (lambda: HealthCheck(interval=0.05), ("interval",), "100 ms at least"),
    (lambda: HealthCheck(interval=86401), ("interval",), "1 ms to 24 h"),
    (lambda: HealthCheck(timeout=0), ("timeout",), "1 ms to 24 h"),
    (lambda: HealthCheck(path="healthz"), ("path",), "does not start with '/'"),
    (lambda: HealthCheck(path="/a?b c"), ("path",), "'/a?b c'"),
    (lambda: HealthCheck(path="/../a"), ("path",), "above the root"),
    (lambda: HealthCheck(host="a b"), ("host",), "'a b' is not a name, an IPv4"),
    (lambda: HealthCheck(host="a:0"), ("host",), "'a:0' is not a name, an IPv4"),
    (lambda: HealthCheck(statuses=()), ("statuses",), "no answer would be good"),
    (lambda: HealthCheck(statuses=((200, 200), (199, 200))), ("statuses", 1), "not a range"),
    (lambda: HealthCheck(statuses=((300, 200),)), ("statuses", 0), "not a range"),
    (lambda: HealthCheck(statuses=((200, 600),)), ("statuses", 0), "not a range"),
    (lambda: HealthCheck(healthy=0), ("healthy",), "1 to 100"),
    (lambda: HealthCheck(unhealthy=101), ("unhealthy",), "1 to 100"),
    (lambda: HealthCheck(kind=HealthKind.TCP, path="/healthz"), ("path",), "sends no request"),
    (lambda: HealthCheck(kind=HealthKind.TCP, host="a"), ("host",), "sends no request"),
    (lambda: HealthCheck(kind=HealthKind.TCP, statuses=((200, 200),)), ("statuses",), "sends no request"),
    (lambda: AdminSettings(socket=""), ("socket",), "1 to 107 bytes"),
    (lambda: AdminSettings(address=Address("admin.internal", 1)), ("address",), "write an IP address"),
    (lambda: AdminSettings(address=Address.unix("/a")), ("address",), "write an IP address"),
    (lambda: AdminSettings(address=Address("0.0.0.0", 9901)), ("token",), "give a token"),
    (lambda: Shutdown(delay=-1), ("delay",), "0 s to 1 h"),
    (lambda: Shutdown(delay=3601), ("delay",), "0 s to 1 h"),
    (lambda: Shutdown(timeout=0), ("timeout",), "1 ms to 24 h"),
    (lambda: route_with(upgrades=frozenset({"a b"})), ("upgrades",), "not the name of a protocol"),
    (lambda: route_with(upgrades=frozenset({"a/1/2"})), ("upgrades",), "not the name of a protocol"),
    (lambda: route_with(upgrades=frozenset({"/1"})), ("upgrades",), "not the name of a protocol"),
    (lambda: route_with(upgrades=frozenset({"HTTP/2.0"})), ("upgrades",), "cannot be tunnelled"),
    (lambda: route_with(upgrades=frozenset({"H2C"})), ("upgrades",), "cannot be tunnelled"),
    (lambda: route_with(upgrades=frozenset({"http2"})), ("upgrades",), "cannot be tunnelled"),
    (lambda: route_with(upgrades=frozenset({"TLS"})), ("upgrades",), "cannot be tunnelled"),
    (lambda: route_with(filters=(RequestId(), Rewrite(prefix="/b")), matches=(Match(path=PathMatch.exact("/a")),)),
     ("filters", 1, "prefix"), "needs a prefix match"),
    (lambda: Listener(name="l", address=HERE, filters=(Rewrite(host="a.b"),)), ("filters", 0), "the match of a route"),
    (lambda: Timeouts(connect=0), ("connect",), "1 ms to 24 h"),
    (lambda: Timeouts(response=float("inf")), ("response",), "1 ms to 24 h"),
    (lambda: Timeouts(idle=float("nan")), ("idle",), "1 ms to 24 h"),
    (lambda: TimeoutOverrides(idle=-1.0), ("idle",), "1 ms to 24 h"),
    (lambda: ClientTimeouts(head=0), ("head",), "1 ms to 24 h"),
    (lambda: ClientLimits(head=10), ("head",), "1 KiB to 1 MiB"),
    (lambda: PathMatch.exact("foo"), ("exact",), "does not start with '/'"),
    (lambda: PathMatch.exact("/a?b"), ("exact",), "contains"),
    (lambda: PathMatch.prefix("/.."), ("prefix",), "above the root"),
    (lambda: PathMatch.prefix("/a//"), ("prefix",), "must not end in '//'"),
    (lambda: PathMatch.regex("("), ("regex",), "missing )"),
    (lambda: ValueMatch("", ValueKind.PRESENT), ("name",), "empty"),
    (lambda: ValueMatch("x", ValueKind.REGEX, "["), ("regex",), "is not closed"),
    (lambda: header_match("a b", ValueKind.PRESENT), ("name",), "not the name of a header"),
    (lambda: header_match("a", ValueKind.EXACT, "x\ny"), ("exact",), "can never be the value"),
    (lambda: header_match("a", ValueKind.EXACT, " x"), ("exact",), "can never be the value"),
    (lambda: Match(methods=frozenset({"G ET"})), ("methods",), "is not a method"),
    (lambda: Match(methods=frozenset({"get"})), ("methods",), "write 'GET'"),
    (lambda: Match(methods=frozenset({"CONNECT"})), ("methods",), "answered 405"),
    (lambda: Forward(services=()), ("services",), "empty"),
    (lambda: Forward(services=(WeightedService(name="a"),) * 2), ("services", 1, "name"), "listed twice"),
    (lambda: Forward(services=(WeightedService(name="a", weight=0),)), ("services",), "all weights are 0"),
    (lambda: Redirect(status=200, path="/x"), ("status",), "not a redirect"),
    (Redirect, (), "lead to itself"),
    (lambda: Redirect(scheme="ftp"), ("scheme",), "neither"),
    (lambda: Redirect(host="*.a"), ("host",), "is not a host name"),
    (lambda: Redirect(port=0), ("port",), "out of range"),
    (lambda: Redirect(path="/a", prefix="/b"), ("path",), "either"),
    (lambda: Redirect(path="x"), ("path", "full"), "does not start"),
    (lambda: Redirect(prefix="x"), ("path", "prefix"), "does not start"),
    (lambda: Respond(status=100), ("status",), "200 to 599"),
    (lambda: Respond(status=204, body="x"), ("body",), "no body"),
    (lambda: Respond(content_type="a\r\nb: c"), ("content_type",), "not a header value"),
    (lambda: dataclasses.replace(route("r"), matches=()), ("match",), "empty"),
    (lambda: route("r", priority=1_000_001), ("priority",), "out of range"),
    (
        lambda: Route(name="r", action=Redirect(prefix="/b"), matches=(Match(path=PathMatch.exact("/a")),)),
        ("match", 0, "path"),
        "needs a prefix match",
    ),
    (lambda: Listener(name="l", address=Address("name", 80)), ("address",), "needs an IP address"),
    (Secret, (), "exactly one of"),
    (lambda: Secret(file="a", env="b"), (), "exactly one of"),
    (lambda: TlsSettings(certificates=()), ("certificates",), "needs a certificate"),
    (lambda: OffloadSettings(interfaces=()), ("interfaces",), "empty"),
    (lambda: OffloadSettings(interfaces=("eth0", "a/b")), ("interfaces", 1), "not the name of a network interface"),
    (lambda: AccessLog(to=""), ("to",), "stdout"),
    (lambda: AccessLog(to="off", require=True), ("require",), "required and off"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "where", "complaint"), BAD)
def test_bad_values(build: Callable[[], Any], where: tuple[str | int, ...], complaint: str) -> None:
    with pytest.raises(ModelError) as caught:
        build()
    (problem,) = caught.value.problems
    assert problem.where == where
    assert complaint in problem.message


def test_what_the_limits_allow() -> None:
    assert ServiceLimits(body=0, connections=65536, waiting=0).body == 0
    assert HealthCheck(path="/a?b=c", host="[::1]:80", statuses=((200, 599),), interval=0.1).kind is HealthKind.HTTP
    assert Shutdown(delay=0).delay == 0
    assert AdminSettings(address=Address("::1", 9901)).token is None
    assert AdminSettings(address=Address("0.0.0.0", 9901), token=Secret(env="TOKEN")).address is not None
    assert route_with(upgrades=frozenset({"WebSocket"})).upgrades == {"websocket"}
    assert route_with(upgrades=frozenset({"IRC/6.9"})).upgrades == {"irc/6.9"}
    assert route_with().upgrades == {"websocket"}


def test_addresses_are_taken_once() -> None:
    web = Listener(name="web", address=Address("127.0.0.1", 80))
    with pytest.raises(ModelError, match=r"admin\.address: 127\.0\.0\.1:80 is taken by listener 'web'"):
        Configuration(listeners=(web,), admin=AdminSettings(address=Address("127.0.0.1", 80)))
    local = Listener(name="local", address=Address.unix("/run/rauta/admin.sock"))
    with pytest.raises(ModelError, match=r"admin\.socket: unix:/run/rauta/admin\.sock is taken by listener 'local'"):
        Configuration(listeners=(local,), admin=AdminSettings())
    one, two = (Listener(name=name, address=Address.unix("/run/a.sock")) for name in ("one", "two"))
    with pytest.raises(ModelError, match=r"listeners\.two\.address: unix:/run/a\.sock is taken by 'one'"):
        Configuration(listeners=(one, two))


def test_a_configuration_reports_all_problems_at_once() -> None:
    listener = Listener(name="web", address=HERE)
    with pytest.raises(ModelError) as caught:
        Configuration(
            listeners=(listener, dataclasses.replace(listener, name="other"), listener),
            services=(service("users"), service("users")),
            routes=(
                route("r", to="usres"),
                dataclasses.replace(route("r", to="users"), listeners=("wbe",)),
                route("far", to="nothing-like-it"),
            ),
            workers=0,
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "workers: 0 is out of range: 1 to 256",
        "listeners[2].name: the name 'web' is used twice",
        "services[1].name: the name 'users' is used twice",
        "routes[1].name: the name 'r' is used twice",
        "listeners.other.address: 0.0.0.0:80 is taken by 'web'",
        "routes[0].services[0].name: there is no service 'usres'; did you mean 'users'?",
        "routes[1].listeners[0]: there is no listener 'wbe'; did you mean 'web'?",
        "routes[2].services[0].name: there is no service 'nothing-like-it'; known: users",
    ]


def test_many_unknown_names_do_not_take_long() -> None:
    services = tuple(service(f"service-{i}") for i in range(2000))
    with pytest.raises(ModelError) as caught:
        configuration(*(route(f"r{i}", to=f"servise-{i}") for i in range(2000)), services=services)
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) == 2000
    assert sum("did you mean" in message for message in messages) == 20


def test_a_header_prefix_may_end_in_a_space() -> None:
    assert header_match("Authorization", ValueKind.PREFIX, "Bearer ").value == "Bearer "
    with pytest.raises(ModelError, match="can never be"):
        header_match("Authorization", ValueKind.PREFIX, " Bearer")


def test_nothing_to_serve() -> None:
    with pytest.raises(ModelError, match="there is no listener"):
        Configuration(listeners=())


@pytest.mark.parametrize(
    ("tls", "listener", "route_", "offload", "expected"),
    [
        (None, None, None, None, X_FORWARDED),
        (None, None, None, OffloadSettings(mode=OffloadMode.NONE), X_FORWARDED),
        (None, None, None, OffloadSettings(), frozenset()),
        (None, None, None, OffloadSettings(mode=OffloadMode.REQUIRE), frozenset()),
        (TLS, None, None, OffloadSettings(), X_FORWARDED),
        (None, {Forwarded.FORWARDED}, None, OffloadSettings(), {Forwarded.FORWARDED}),
        (None, set(), None, None, frozenset()),
        (None, set(), {Forwarded.FORWARDED}, None, {Forwarded.FORWARDED}),
        (TLS, {Forwarded.FORWARDED}, set(), None, frozenset()),
    ],
)
def test_the_default_of_forwarded_fields_depends_on_the_file_alone(
    tls: Any, listener: Any, route_: Any, offload: Any, expected: Any
) -> None:
    web = Listener(name="web", address=HERE, tls=tls, forwarded=None if listener is None else frozenset(listener))
    setup = Configuration(listeners=(web,), offload=offload)
    chosen = dataclasses.replace(route("r"), forwarded=None if route_ is None else frozenset(route_))
    assert setup.forwarded_of(web, chosen) == expected


def test_everything_can_be_sent_to_a_worker() -> None:
    setup = configuration(
        route("r", Match(hosts=(HostPattern.parse("*.a.test"),), headers=(header_match("X", ValueKind.PRESENT),))),
        Route(name="d", action=Respond(status=204)),
    )
    assert pickle.loads(pickle.dumps(setup)) == setup  # noqa: TID251 -- our own bytes
    error = ModelError(Problem(("a", 1), "b"))
    assert pickle.loads(pickle.dumps(error)).problems == error.problems  # noqa: TID251


def test_problems_say_where() -> None:
    assert str(Problem(("routes", 3, "match", 0), "x")) == "routes[3].match[0]: x"
    assert Problem(("match",), "x").under("routes", 3).where == ("routes", 3, "match")
    assert str(Problem((), "x")) == "x"


def test_nearest() -> None:
    assert nearest("prefx", ["prefix", "exact"]) == "prefix"
    assert nearest("zzz", ["prefix", "exact"]) is None


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("a.test", "exact"),
        ("b.test", "wildcard"),
        ("x.b.test", "rest"),  # a wildcard stands for one label
        ("test", "rest"),
        ("", "rest"),
    ],
)
def test_exact_names_go_before_wildcards_and_the_rest_comes_last(name: str, service: str) -> None:
    named = {"rest": ("*",), "wildcard": ("*.test",), "exact": ("a.test",)}
    items = [Passthrough(names=names, service=target) for target, names in named.items()]
    assert PassedNames(items).service_of(name) == service
    assert PassedNames(items[1:2]).service_of(name) == (None if service == "rest" else "wildcard")
