"""The point of the planner: whatever the plan answers, the table answers the same, whatever else the request holds.

And the other way round: the plan answers all that can be known from listener, host, method and path, and no less.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from ipaddress import ip_network
from itertools import product
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rauta.offload import Capabilities, Plan, plan
from rauta.routing.filters import RequestId
from rauta.routing.hosts import HostKind, HostPattern, normalise_host
from rauta.routing.model import (
    Action,
    Configuration,
    Forward,
    Match,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Route,
    ValueKind,
    ValueMatch,
    WeightedService,
)
from rauta.routing.outcome import Hit
from rauta.routing.paths import normalise_path, prefix_matches
from rauta.routing.precedence import Rule, rules_by_host
from rauta.routing.regexes import literal_prefix
from rauta.routing.request import FieldList, RequestView
from rauta.routing.services import (
    Backend,
    BalancerKey,
    HealthCheck,
    LimitOverrides,
    Plugin,
    ProxyProtocol,
    Service,
    ServiceLimits,
    Timeouts,
)
from rauta.routing.settings import (
    Address,
    EncodedSlash,
    Forwarded,
    Listener,
    OffloadMode,
    OffloadSettings,
    Passthrough,
    ProxySources,
)
from rauta.routing.table import Table
from support.build import backend, service

EXAMPLES = int(os.environ.get("RAUTA_SOUNDNESS_EXAMPLES", "60"))

pytestmark = pytest.mark.timeout(300 + EXAMPLES)

# --- configurations -------------------------------------------------------------------------------------

GOOD = (
    service("good-one", backend("10.1.0.1:80")),
    service("good-two", backend("10.1.0.2:80", 3), backend("10.1.0.3:80", 0), backend("10.1.0.1:81", 1)),
    service("good-near", backend("10.1.0.4:80"), backend("10.1.0.5:80"), key=BalancerKey.ADDRESS),
    service("good-far", backend("10.1.0.6:80"), backend("10.1.0.7:80"), key=BalancerKey.ADDRESS),
    replace(service("good-watched", backend("10.1.0.8:80")), health=HealthCheck()),
)
BAD = (
    service("bad-name", backend("users.internal:80")),
    service("bad-ipv6", backend("[fd00::1]:80")),
    service("bad-balancer", backend("10.1.0.1:80"), balancer="round_robin"),
    service("bad-many", *(backend(f"10.2.0.{i}:80") for i in range(33))),
    service("bad-empty", backend("10.1.0.1:80", 0)),
    replace(service("bad-time", backend("10.1.0.1:80")), timeouts=Timeouts(response=1.0)),
    replace(service("bad-limit", backend("10.1.0.1:80")), limits=ServiceLimits(body=1)),
    replace(service("bad-proxy", backend("10.1.0.1:80")), proxy_protocol=ProxyProtocol.V1),
    service("bad-unix", backend("unix:/run/a.sock")),
)
LISTENERS = (
    Listener(name="good-web", address=Address("0.0.0.0", 80)),
    Listener(name="good-other", address=Address("10.0.0.9", 81), encoded_slash=EncodedSlash.REJECT),
    Listener(name="good-quiet", address=Address("10.0.0.9", 82), forwarded=frozenset()),
    Listener(name="asks", address=Address("10.0.0.9", 83), forwarded=frozenset({Forwarded.FORWARDED})),
    Listener(name="bad-local", address=Address("127.0.0.1", 84)),
    Listener(name="bad-ipv6", address=Address("fd00::9", 80)),
    Listener(name="bad-unix", address=Address.unix("/run/web.sock")),
    Listener(name="bad-filter", address=Address("10.0.0.9", 85), filters=(RequestId(),)),
    Listener(name="bad-trust", address=Address("10.0.0.9", 86), trusted_proxies=(ip_network("10.0.0.0/8"),)),
    Listener(
        name="bad-header",
        address=Address("10.0.0.9", 87),
        proxy_protocol=ProxySources(sources=(ip_network("10.0.0.0/8"),)),
    ),
    Listener(
        name="bad-passing",
        address=Address("10.0.0.9", 88),
        passthrough=(Passthrough(names=("a.test",), service="good-one"),),
    ),
)
HOSTS = [
    HostPattern("a.test"),
    HostPattern("b.a.test"),
    HostPattern("c.b.a.test"),
    HostPattern("10.0.0.9"),
    HostPattern("[::1]"),
    *(
        HostPattern(name, kind)
        for name in ("test", "a.test", "b.a.test")
        for kind in (HostKind.ONE_LABEL, HostKind.WILDCARD)
    ),
]
PATHS = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/b", "/a//b", "/a%2Fb", "/.a"]
# Built here: the cache of `regex` throws out at random when it is full, and a strategy must not use `random`.
REGEXES = [
    PathMatch.regex(pattern)
    for pattern in (
        "/a/[0-9b]+",
        "/a.*",
        ".*",
        "/a/b",
        "/a/b/c?",
        "/b|/a",
        "/a/bc*",
        "/a/b/.+",
        "a",
        "/a/(?!x).*",
        "/a//b",
    )
]
PATH_MATCHES = st.one_of(
    st.sampled_from(PATHS).map(PathMatch.exact),
    st.sampled_from([path for path in PATHS if not path.endswith("//")]).map(PathMatch.prefix),
)
METHODS = st.sampled_from([(), (), (), ("GET",), ("GET", "HEAD"), ("POST",), ("POST", "PROPFIND"), ("PROPFIND",)])
HEADERS = [
    ValueMatch("x", ValueKind.EXACT, "1"),
    ValueMatch("x", ValueKind.PRESENT),
    ValueMatch("x", ValueKind.ABSENT),
    ValueMatch("x", ValueKind.REGEX, "[0-9]+"),
]
QUERIES = [ValueMatch("q", ValueKind.EXACT, "1"), ValueMatch("q", ValueKind.ABSENT)]
PLUGINS = [Plugin(name="offload-test-x"), Plugin(name="offload-test-raises")]


def seldom(strategy: st.SearchStrategy[object], otherwise: object) -> st.SearchStrategy[object]:
    """Conditions are as rare as in files: with too many of them nothing is left to the kernel."""
    return st.integers(0, 9).flatmap(lambda draw: strategy if draw == 9 else st.just(otherwise))


def matches() -> st.SearchStrategy[Match]:
    return st.builds(
        Match,
        hosts=st.lists(st.sampled_from(HOSTS), max_size=2).map(tuple),
        path=st.integers(0, 5).flatmap(lambda n: PATH_MATCHES if n else st.sampled_from(REGEXES)),
        methods=METHODS.map(frozenset),
        headers=seldom(st.sampled_from(HEADERS).map(lambda match: (match,)), ()),
        query=seldom(st.sampled_from(QUERIES).map(lambda match: (match,)), ()),
        plugins=seldom(seldom(st.sampled_from(PLUGINS).map(lambda plugin: (plugin,)), ()), ()),
    )


@st.composite
def actions(draw: st.DrawFn) -> Action:
    kind = draw(st.integers(0, 19))
    if kind > 17:
        return Redirect(host="x.test") if kind == 18 else Respond()
    services = draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3, unique=True))
    if kind > 14:
        services[0] = draw(st.sampled_from(BAD))
    weights = [draw(st.integers(0, 3)) for _ in services]
    weights[-1] += not any(weights)
    shares = (WeightedService(name=found.name, weight=weight) for found, weight in zip(services, weights, strict=True))
    return Forward(services=tuple(shares))


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    listeners = [draw(st.sampled_from(LISTENERS[:3]))]  # one that the kernel could serve, and perhaps others
    listeners += draw(
        st.lists(st.sampled_from([found for found in LISTENERS if found not in listeners]), max_size=2, unique=True)
    )
    names = [listener.name for listener in listeners]
    routes = draw(
        st.lists(
            st.builds(
                lambda **fields: fields,
                action=actions(),
                matches=st.lists(matches(), min_size=1, max_size=3).map(tuple),
                listeners=seldom(st.lists(st.sampled_from(names), unique=True).map(tuple), ()),
                priority=seldom(st.integers(-1, 1), 0),
                filters=seldom(st.just((RequestId(),)), ()),
                upgrades=seldom(st.just(frozenset()), frozenset({"websocket"})),
                limits=seldom(st.just(LimitOverrides(body=9)), LimitOverrides()),
                forwarded=seldom(st.sampled_from([frozenset(), frozenset({Forwarded.X_FORWARDED_FOR})]), None),
            ),
            min_size=draw(st.integers(1, 6)),  # hypothesis likes short lists, where nothing overlaps
            max_size=9,
        )
    )
    return Configuration(
        listeners=tuple(listeners),
        services=GOOD + BAD,
        routes=tuple(Route(name=f"r{number}", **fields) for number, fields in enumerate(routes)),
        offload=OffloadSettings(mode=draw(st.sampled_from([OffloadMode.AUTO] * 19 + [OffloadMode.NONE]))),
    )


# --- requests: all of them for each configuration -------------------------------------------------------

REQUEST_HOSTS = [
    "a.test",
    "B.a.test:80",
    "c.b.a.test.",
    "d.c.b.a.test",
    "x.test",
    "y.x.test",
    "test",
    "10.0.0.9",
    "[::1]",
    "z",
]
REQUEST_PATHS = [*PATHS, "/a/b/c/d", "/a/x", "/a/0", "/abc", "/A", "/c", "/a/../b", "/a/b//c", "/%61", "*"]
REQUEST_METHODS = ["GET", "HEAD", "POST", "PROPFIND"]
CONTENTS = [
    (query, FieldList(() if x is None else [("X", x)])) for query, x in product((None, "q=1", "q=2"), (None, "1", "y"))
]
CLIENTS = [("192.0.2.1", 40000), ("192.0.2.1", 40001), ("192.0.2.77", 1024)]


def requests(configuration: Configuration) -> Iterator[tuple[str, str, str, str]]:
    listeners = [listener.name for listener in configuration.listeners]
    return product(listeners, REQUEST_HOSTS, REQUEST_METHODS, REQUEST_PATHS)


SERVICES = Table(Configuration(listeners=LISTENERS, services=GOOD))


@cache  # every table builds its slots anew, which would be half of the time of the test
def picked(service: Service, client: tuple[str, int]) -> Backend | None:
    return SERVICES.pick(service, client, lambda backend: 0)


def assert_sound(made: Plan, table: Table, listener: str, host: str, method: str, path: str) -> str | None:
    """What the plan answers is what the table answers, with every content, for every client. Returns the route."""
    decision = made.decide(listener, host, method, path)
    if decision is None:
        return None
    normal_host, normal_path = normalise_host(host), normalise_path(path)
    assert normal_path == path
    for (query, headers), client in zip(CONTENTS, CLIENTS * len(CONTENTS), strict=False):
        request = RequestView(
            method=method, host=normal_host, path=normal_path, query=query, headers=headers, client=client
        )
        outcome = table.match(listener, request)
        assert isinstance(outcome, Hit), outcome
        assert outcome.route.name == decision.route.name
        assert outcome.service is not None
        planned = decision.route.service_of(client)
        assert planned.name == outcome.service.name
        assert planned.pick(client) == picked(outcome.service, client)
    return decision.route.name


# --- the oracle of completeness: one rule after the other, no index -------------------------------------


def specificity(host: HostPattern | None) -> tuple[int, int, int]:
    if host is None:
        return (2, 0, 0)
    return (0, 0, 0) if host.kind is HostKind.EXACT else (1, -host.name.count("."), int(host.kind is HostKind.WILDCARD))


def answers(configuration: Configuration, listener: str, rule: Rule) -> bool:
    action, match = rule.route.action, rule.match
    found = next(found for found in configuration.listeners if found.name == listener)
    return (
        isinstance(action, Forward)
        and all(share.name.startswith("good") for share in action.services if share.weight)
        and not (match.headers or match.query or match.plugins)
        and match.path.kind is not PathKind.REGEX
        and not configuration.forwarded_of(found, rule.route)
        and not (rule.route.filters or not rule.route.upgrades or rule.route.limits.body)
        and not listener.startswith("bad")
    )


def may_fit(path: PathMatch, requested: str) -> bool:
    if path.kind is PathKind.EXACT:
        return path.value == requested
    if path.kind is PathKind.PREFIX:
        return prefix_matches(path.value, requested)
    return requested.startswith(literal_prefix(path.value))


class Oracle:
    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.rules = {}
        for listener in configuration.listeners:
            by_host = rules_by_host(configuration, listener.name)
            for name in map(normalise_host, REQUEST_HOSTS):
                owners = [owner for owner in by_host if owner is None or owner.matches(name)]
                self.rules[listener.name, name] = by_host[min(owners, key=specificity)] if owners else []

    def __call__(self, listener: str, host: str, method: str, path: str) -> str | None:
        off = self.configuration.offload is None or self.configuration.offload.mode is OffloadMode.NONE
        if off or host.startswith("[") or method not in ("GET", "HEAD", "POST"):
            return None
        if "%" in path or "//" in path or "/.." in path or path == "*":
            return None
        for rule in self.rules[listener, normalise_host(host)]:
            if may_fit(rule.match.path, path) and (not rule.match.methods or method in rule.match.methods):
                return rule.route.name if answers(self.configuration, listener, rule) else None
        return None


# --- properties -----------------------------------------------------------------------------------------

PLUGIN_CODE = """
class X:
    Settings = None
    def __init__(self, settings): pass
    def match(self, request): return request.headers.get("x") == "1"
    def close(self): pass

class Raises(X):
    def match(self, request): raise RuntimeError("as the test wants")
"""


@pytest.fixture(scope="module", autouse=True)
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("plugins")
    (folder / "offload_test_plugins.py").write_text(PLUGIN_CODE)
    about = folder / "offload_test_plugins-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: offload-test-plugins\nVersion: 1\n")
    points = "offload-test-x = offload_test_plugins:X\noffload-test-raises = offload_test_plugins:Raises\n"
    (about / "entry_points.txt").write_text(f"[rauta.matchers]\n{points}")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("offload_test_plugins", None)


@settings(max_examples=EXAMPLES)
@given(configurations())
def test_the_plan_answers_as_the_table_and_all_that_can_be_known(configuration: Configuration) -> None:
    made, table, expected = plan(configuration), Table(configuration), Oracle(configuration)
    decided = 0
    for request in requests(configuration):
        route = assert_sound(made, table, *request)
        assert route == expected(*request), request
        decided += route is not None
    event("decided: " + ("none" if not decided else "some" if decided < 100 else "many"))
    table.close()


def limit(low: int, high: int, wide: int = 250) -> st.SearchStrategy[int]:
    """Mostly wide: with all limits tight at once nothing would be answered."""
    return st.integers(0, 3).flatmap(lambda draw: st.integers(low, high) if draw == 3 else st.just(wide))


LIMITS = st.builds(
    Capabilities,
    listeners=limit(0, 2),
    hosts=limit(0, 6),
    exact=limit(0, 4),
    prefix=limit(0, 4),
    routes=limit(0, 4),
    services=limit(0, 3),
    backends=limit(1, 2, 32),
    shares=limit(1, 3),
    host_length=limit(3, 12),
    path_length=limit(1, 8),
    wildcard_hosts=st.booleans(),
    methods=st.sampled_from([frozenset({"GET"}), frozenset({"GET", "HEAD", "POST"})]),
)


@settings(max_examples=EXAMPLES)
@given(configurations(), LIMITS)
def test_small_capabilities_lose_answers_and_change_none(configuration: Configuration, limits: Capabilities) -> None:
    made, table, expected = plan(configuration, limits), Table(configuration), Oracle(configuration)
    assert made.size.listeners <= limits.listeners
    assert made.size.hosts <= limits.hosts
    assert made.size.exact <= limits.exact
    assert made.size.prefix <= limits.prefix
    assert made.size.routes <= limits.routes
    assert made.size.services <= limits.services
    decided = set()
    for request in requests(configuration):
        route = assert_sound(made, table, *request)
        assert route in (None, expected(*request)), request
        decided.add(route)
    event("decided: " + ("some" if decided - {None} else "none"))
    table.close()


@settings(max_examples=EXAMPLES)
@given(configurations())
def test_every_route_that_is_not_in_the_plan_has_a_refusal(configuration: Configuration) -> None:
    made = plan(configuration)
    for route in configuration.routes:
        assert route.name in made.routes or made.refusals.get(route.name), route
        assert all(str(refusal) for refusal in made.refusals.get(route.name, ()))
    answered = {made.decide(*request) for request in requests(configuration)} - {None}
    tiers = {(found.route.name, found.tier) for found in answered if found is not None}
    assert tiers <= {(name, tier) for name, route in made.routes.items() for tier in route.tiers}
