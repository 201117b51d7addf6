"""`Table.match` against the rules written down naively, and what the index must not change."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.routing.hashing import SERVICE_SEED, client_hash
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import (
    Match,
    PathKind,
    PathMatch,
    Respond,
    Route,
    ValueKind,
    ValueMatch,
    header_match,
)
from rauta.routing.outcome import Hit, Miss, PluginFailed, RegexTimeout
from rauta.routing.paths import prefix_matches
from rauta.routing.request import FieldList, RequestView
from rauta.routing.services import BalancerKey, BalancerSettings, Plugin
from rauta.routing.table import Table
from support.build import backend, configuration, route, service
from support.compiled import plain_only

HOST_NAMES = st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "test", "other"])
HOSTS = st.lists(st.builds(HostPattern, HOST_NAMES, st.sampled_from(HostKind)), max_size=2, unique=True).map(tuple)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "", "1"]), max_size=4).map(lambda parts: "/" + "/".join(parts))
REGEXES = st.sampled_from(["/a/.*", "/.*", "/[ab]+", "/a|/b", "/a/?b*", "/[aA]", r"/\d", "/a(?!b).*", "/ab?"])
PATH_MATCHES = st.one_of(
    PATHS.map(PathMatch.exact),
    PATHS.map(lambda path: PathMatch.prefix(path.rstrip("/") or "/")),
    REGEXES.map(PathMatch.regex),
)
KINDS = st.sampled_from([ValueKind.EXACT, ValueKind.PREFIX, ValueKind.PRESENT, ValueKind.ABSENT])
HEADERS = st.lists(st.builds(header_match, st.sampled_from("xy"), KINDS, st.sampled_from("12")), max_size=2).map(tuple)
QUERY = st.lists(st.builds(ValueMatch, st.sampled_from("pq"), KINDS, st.sampled_from("12")), max_size=2).map(tuple)
METHODS = st.frozensets(st.sampled_from(["GET", "POST"]), max_size=2)
MATCHES = st.builds(Match, hosts=HOSTS, path=PATH_MATCHES, methods=METHODS, headers=HEADERS, query=QUERY)


@st.composite
def routes(draw: st.DrawFn) -> list[Route]:
    found = draw(st.lists(st.tuples(st.lists(MATCHES, min_size=1, max_size=3), st.integers(-1, 1)), max_size=6))
    return [route(f"r{i}", *matches, priority=priority) for i, (matches, priority) in enumerate(found)]


@st.composite
def requests(draw: st.DrawFn) -> RequestView:
    pairs = [(name, draw(st.sampled_from("12"))) for name in draw(st.lists(st.sampled_from("xy"), unique=True))]
    query = draw(st.sampled_from([None, "", "p=1", "q=2&p=1", "p=2&p=1"]))
    return RequestView(
        method=draw(st.sampled_from(["GET", "POST", "PUT"])),
        host=draw(HOST_NAMES),
        path=draw(PATHS),
        query=query,
        headers=FieldList(pairs),
    )


def value_holds(condition: ValueMatch, value: str | None) -> bool:
    return {
        ValueKind.EXACT: value == condition.value,
        ValueKind.PREFIX: value is not None and value.startswith(condition.value),
        ValueKind.PRESENT: value is not None,
        ValueKind.ABSENT: value is None,
    }[condition.kind]


def holds(match: Match, request: RequestView) -> bool:
    """The conditions beyond the host, one by one."""
    import re

    path = match.path
    fits = {
        PathKind.EXACT: lambda: request.path == path.value,
        PathKind.PREFIX: lambda: prefix_matches(path.value, request.path),
        PathKind.REGEX: lambda: re.fullmatch(path.value, request.path, re.ASCII) is not None,
    }[path.kind]()
    parameters: dict[str, str] = {}
    for pair in filter(None, (request.query or "").split("&")):
        parameters.setdefault(*pair.split("="))  # type: ignore[arg-type]
    return (
        fits
        and (not match.methods or request.method in match.methods)
        and all(value_holds(condition, request.headers.get(condition.name)) for condition in match.headers)
        and all(value_holds(condition, parameters.get(condition.name)) for condition in match.query)
    )


def expected_route(all_routes: list[Route], request: RequestView) -> str | None:
    """The rules of docs/routing.md as a search through everything: which host, then which order, then who fits."""
    entries = [
        (host, i, j, found, match)
        for i, found in enumerate(all_routes)
        for j, match in enumerate(found.matches)
        for host in (match.hosts or (None,))
        if host is None or host.matches(request.host)
    ]

    def specificity(host: HostPattern | None) -> tuple[int, int, int]:
        if host is None:
            return (-1, 0, 0)
        return (host.kind is HostKind.EXACT, len(host.name), host.kind is HostKind.ONE_LABEL)

    owner = max((specificity(entry[0]) for entry in entries), default=None)
    owned = [entry for entry in entries if specificity(entry[0]) == owner]

    def before(one: Any, other: Any) -> int:
        (_, i, j, a, m), (_, k, n, b, o) = one, other
        kinds = [PathKind.EXACT, PathKind.REGEX, PathKind.PREFIX]
        by = [
            b.priority - a.priority,
            kinds.index(m.path.kind) - kinds.index(o.path.kind),
            len(o.path.value) - len(m.path.value) if m.path.kind is o.path.kind is PathKind.PREFIX else 0,
            bool(o.methods) - bool(m.methods),
            len(o.headers) - len(m.headers),
            len(o.query) - len(m.query),
            i - k,
            j - n,
        ]
        return next((difference for difference in by if difference), 0)

    for _, _, _, found, match in sorted(owned, key=functools.cmp_to_key(before)):
        if holds(match, request):
            return found.name
    return None


def matched(all_routes: list[Route], request: RequestView) -> str | None:
    outcome = Table(configuration(*all_routes)).match("web", request)
    assert isinstance(outcome, Hit | Miss)
    return outcome.route.name if isinstance(outcome, Hit) else None


@given(routes(), requests())
def test_the_table_decides_what_the_rules_say(all_routes: list[Route], request: RequestView) -> None:
    assert matched(all_routes, request) == expected_route(all_routes, request)


@given(routes(), requests(), st.randoms(use_true_random=False))
def test_order_of_the_file_matters_only_in_a_tie(
    all_routes: list[Route], request: RequestView, shuffler: random.Random
) -> None:
    """A route that wins in one order and not in another meets a twin: equal in all that goes before file order."""
    shuffled = shuffler.sample(all_routes, len(all_routes))
    winner, other = matched(all_routes, request), matched(shuffled, request)
    assert (winner is None) == (other is None)
    if winner != other:

        def ties(name: str | None) -> set[object]:
            (found,) = (r for r in all_routes if r.name == name)
            return {
                (
                    found.priority,
                    match.path.kind,
                    len(match.path.value) if match.path.kind is PathKind.PREFIX else 0,
                    bool(match.methods),
                    len(match.headers),
                    len(match.query),
                )
                for match in found.matches
                if holds(match, request)
            }

        assert ties(winner) & ties(other)


@given(routes(), requests())
def test_explain_tells_what_match_does(all_routes: list[Route], request: RequestView) -> None:
    table = Table(configuration(*all_routes))
    explanation = table.explain("web", request)
    assert explanation.outcome == table.match("web", request)
    claimed = [step for step in explanation.considered if step.claimed]
    if isinstance(explanation.outcome, Hit):
        assert [step.rule.route for step in claimed] == [explanation.outcome.route]
        assert claimed[0] is explanation.considered[-1]
    else:
        assert not claimed
    assert all(holds(step.rule.match, request) == step.claimed for step in explanation.considered), (
        "every rule that was passed over does not fit"
    )


def view(path: str, **fields: Any) -> RequestView:
    return RequestView(method="GET", host="", path=path, **fields)


def test_routes_belong_to_listeners() -> None:
    import dataclasses

    from rauta.routing.model import Configuration
    from rauta.routing.settings import Address, Listener

    here = dataclasses.replace(route("here"), listeners=("one",))
    both = route("both", Match(path=PathMatch.prefix("/both")))
    table = Table(
        Configuration(
            listeners=tuple(Listener(name=n, address=Address("0.0.0.0", p)) for n, p in (("one", 1), ("two", 2))),
            services=(service("s"),),
            routes=(here, both),
        )
    )
    assert isinstance(table.match("one", view("/x")), Hit)
    assert table.match("two", view("/x")) == Miss("no_route")
    assert isinstance(table.match("two", view("/both")), Hit)


@plain_only
def test_a_path_of_slashes_costs_no_more_than_its_prefixes() -> None:
    table = Table(configuration(route("deep", Match(path=PathMatch.prefix("/a/b/c")))))
    index = table._hosts["web"].get("")
    assert index is not None
    looked_up: list[str] = []

    class Spy(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looked_up.append(key)
            return super().get(key, default)

    index._prefixes = Spy(index._prefixes)
    assert table.match("web", view("/" * 60_000)) == Miss("no_route")
    assert len(looked_up) <= 4
    assert max(map(len, looked_up)) <= 3


# --- weighted services --------------------------------------------------------------------------------------


def shares_of(table: Table, clients: list[tuple[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for client in clients:
        outcome = table.match("web", view("/", client=client))
        assert isinstance(outcome, Hit)
        assert outcome.service is not None
        counts[outcome.service.name] = counts.get(outcome.service.name, 0) + 1
    return counts


CLIENTS = [(f"10.0.{i // 100}.{i % 100}", 1024 + i) for i in range(10_000)]


def test_weights_are_kept() -> None:
    services = tuple(map(service, ("stable", "canary", "off")))
    table = Table(configuration(route("r", to={"stable": 90, "canary": 10, "off": 0}), services=services))
    counts = shares_of(table, CLIENTS)
    assert set(counts) == {"stable", "canary"}
    assert 850 < counts["canary"] < 1150  # five standard deviations


def test_a_client_stays_with_its_service() -> None:
    services = tuple(map(service, ("one", "two")))
    table = Table(configuration(route("r", to={"one": 1, "two": 1}), services=services))
    assert shares_of(table, [CLIENTS[0]] * 50) in ({"one": 50}, {"two": 50})


def test_service_and_backend_are_chosen_independently() -> None:
    backends = (backend("10.0.0.1:80"), backend("10.0.0.2:80"))
    services = (service("one", *backends), service("two", *backends))
    table = Table(configuration(route("r", to={"one": 1, "two": 1}), services=services))
    counts: dict[tuple[str, str], int] = {}
    for client in CLIENTS:
        hit = table.match("web", view("/", client=client))
        assert isinstance(hit, Hit)
        assert hit.service is not None
        picked = table.pick(hit.service, client, lambda _: 0)
        key = (hit.service.name, str(picked.address) if picked else "")
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 4
    assert all(2300 < count < 2700 for count in counts.values())  # seven standard deviations


def test_the_choice_of_service_is_the_one_that_the_kernel_computes() -> None:
    services = tuple(map(service, ("one", "two", "three")))
    table = Table(configuration(route("r", to={"one": 3, "two": 0, "three": 5}), services=services))
    for client in CLIENTS[:200]:
        point = client_hash(*client, SERVICE_SEED) % 8
        assert shares_of(table, [client]) == {"one" if point < 3 else "three": 1}


def test_address_affinity_ignores_the_port() -> None:
    services = tuple(
        service(name, backend("10.0.0.1:80"), backend("10.0.0.2:80"), key=BalancerKey.ADDRESS)
        for name in ("one", "two")
    )
    table = Table(configuration(route("r", to={"one": 1, "two": 1}), services=services))
    clients = [("192.0.2.7", port) for port in range(1024, 1124)]
    assert len(shares_of(table, clients)) == 1
    assert len({table.pick(services[0], client, lambda _: 0) for client in clients}) == 1


# --- failures never fall through ----------------------------------------------------------------------------


def test_a_regex_that_cannot_be_decided_ends_the_search() -> None:
    hostile = Match(path=PathMatch.regex(r"/((a|aa)+)(?!b)c\1"))
    table = Table(configuration(route("policy", hostile), route("open")))
    outcome = table.match("web", view("/" + "a" * 60 + "!"))
    assert isinstance(outcome, RegexTimeout)
    assert (outcome.route.name, outcome.reason) == ("policy", "regex_timeout")


class Refuses:
    """A matcher that raises, answers nonsense or answers, as its settings say."""

    Settings = None
    closed = 0

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        if settings == "cannot be built":
            raise ValueError(settings)

    def match(self, request: RequestView) -> Any:
        if isinstance(self.settings, Exception):
            raise self.settings
        return self.settings

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from rauta.routing import plugins

    classes: dict[str, type] = {"refuses": Refuses, "picks": Picks}
    monkeypatch.setattr(plugins, "load_class", lambda group, name: classes[name])


@pytest.mark.parametrize("settings", [ZeroDivisionError("x"), None, 1, "yes"])
@pytest.mark.usefixtures("installed")
def test_a_matcher_that_fails_ends_the_search(settings: Any) -> None:
    guarded = Match(plugins=(Plugin(name="refuses", settings=settings),))
    outcome = Table(configuration(route("policy", guarded), route("open"))).match("web", view("/"))
    assert isinstance(outcome, PluginFailed)
    assert (outcome.route.name, outcome.plugin, outcome.reason) == ("policy", "refuses", "plugin_error")


@pytest.mark.parametrize(("answer", "name"), [(True, "policy"), (False, "open")])
@pytest.mark.usefixtures("installed")
def test_a_matcher_decides(answer: bool, name: str) -> None:
    guarded = Match(plugins=(Plugin(name="refuses", settings=answer),))
    outcome = Table(configuration(route("policy", guarded), route("open"))).match("web", view("/"))
    assert isinstance(outcome, Hit)
    assert outcome.route.name == name


@pytest.mark.usefixtures("installed")
def test_plugins_are_closed_also_when_another_cannot_be_built() -> None:
    from rauta.routing.plugins import PluginError

    good = Match(plugins=(Plugin(name="refuses", settings=True),))
    bad = Match(plugins=(Plugin(name="refuses", settings="cannot be built"),))
    before = Refuses.closed
    with pytest.raises(PluginError, match="'refuses' cannot be built"):
        Table(configuration(route("good", good), route("bad", bad)))
    assert Refuses.closed == before + 1
    Table(configuration(route("good", good))).close()
    assert Refuses.closed == before + 2


class Picks(Refuses):
    """A balancer that does as its settings say."""

    def pick(self, candidates: Any, key: int, load: Any) -> Any:
        if isinstance(self.settings, Exception):
            raise self.settings
        return candidates[self.settings] if isinstance(self.settings, int) else self.settings


@pytest.mark.parametrize("settings", [ZeroDivisionError("x"), None, backend("203.0.113.1:1")])
@pytest.mark.usefixtures("installed")
def test_a_balancer_that_fails_is_told_apart(settings: Any) -> None:
    from rauta.routing.conditions import PluginFailedError

    served = service("s", balancer=Plugin(name="picks", settings=settings))
    table = Table(configuration(route("r"), services=(served,)))
    with pytest.raises(PluginFailedError, match="'picks'"):
        table.pick(served, ("", 0), lambda _: 0)


# --- picking ------------------------------------------------------------------------------------------------


def test_pick_knows_only_usable_backends_with_weight() -> None:
    one, two, off = backend("10.0.0.1:80"), backend("10.0.0.2:80"), backend("10.0.0.3:80", 0)
    served = service("s", one, two, off)
    table = Table(configuration(route("r"), services=(served,)))

    def picked(*usable: Any) -> set[Any]:
        return {table.pick(served, client, lambda _: 0, usable or None) for client in CLIENTS[:200]}

    assert picked() == {one, two}
    assert picked(two) == {two}
    assert picked(two, off) == {two}
    assert picked(off) == {None}
    assert picked(off, one, two) == {one, two}


def test_direct_answers_have_no_service() -> None:
    table = Table(configuration(Route(name="r", action=Respond(status=204))))
    outcome = table.match("web", view("/"))
    assert isinstance(outcome, Hit)
    assert outcome.service is None


@pytest.mark.parametrize(
    ("settings", "spread"),
    [
        (BalancerSettings(), True),
        (BalancerSettings(key=BalancerKey.ADDRESS_PORT), False),
        (BalancerSettings(kind=Plugin(name="round_robin")), False),
    ],
    ids=["nothing asked for", "a key", "another balancer"],
)
def test_streams_of_a_connection_go_where_fewest_requests_are(settings: BalancerSettings, spread: bool) -> None:
    """Maglev would send all of them to one backend."""
    behind = replace(service("s", backend("10.0.0.1:80"), backend("10.0.0.2:80")), balancer=settings)
    table = Table(configuration(route("r", to={"s": 1}), services=(behind,)))
    busy = table.pick(behind, CLIENTS[0], lambda _: 0)
    found = [table.pick(behind, CLIENTS[0], lambda one: int(one is busy), stream=True) for _ in range(4)]
    assert (busy not in found) is spread
