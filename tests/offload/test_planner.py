"""The planner by example, line by line as the docs tell it. What holds in general is in test_soundness."""

from __future__ import annotations

import pickle
from dataclasses import replace
from time import perf_counter

import pytest

from rauta.offload import ALL_PASS, Capabilities, Passed, Plan, Reason, plan
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import (
    Configuration,
    Match,
    PathMatch,
    Redirect,
    Route,
    ValueKind,
    ValueMatch,
)
from rauta.routing.services import Service
from rauta.routing.settings import Address, Forwarded, Listener, OffloadSettings
from support.build import backend, route, service

WEB = Listener(name="web", address=Address("0.0.0.0", 80))


def configuration(
    *routes: Route, listeners: tuple[Listener, ...] = (WEB,), services: tuple[Service, ...] = ()
) -> Configuration:
    return Configuration(
        listeners=listeners,
        services=services or (service("s", backend("10.1.0.1:80")),),
        routes=routes,
        offload=OffloadSettings(),
    )


def matching(path: PathMatch, *methods: str, host: str | None = None) -> Match:
    return Match(hosts=(HostPattern.parse(host),) if host else (), path=path, methods=frozenset(methods))


def exact(path: str, *methods: str, host: str | None = None) -> Match:
    return matching(PathMatch.exact(path), *methods, host=host)


def prefix(path: str, *methods: str, host: str | None = None) -> Match:
    return matching(PathMatch.prefix(path), *methods, host=host)


def regex(path: str, *methods: str, host: str | None = None) -> Match:
    return matching(PathMatch.regex(path), *methods, host=host)


def answer(made: Plan, target: str, *, host: str = "a.test", listener: str = "web") -> str | None:
    """`GET /a` -> `users/1`: route and tier."""
    method, path = target.split()
    decision = made.decide(listener, host, method, path)
    return None if decision is None else f"{decision.route.name}/{decision.tier}"


def reasons(made: Plan, name: str) -> set[Reason]:
    return {refusal.reason for refusal in made.refusals.get(name, ())}


# --- tiers and paths ------------------------------------------------------------------------------------


def test_tiers() -> None:
    made = plan(configuration(route("e", exact("/a")), route("p", prefix("/p"))))
    expected = {
        "GET /a": "e/1",
        "HEAD /a": "e/1",
        "POST /a": "e/2",
        "OPTIONS /a": "e/2",
        "PROPFIND /a": None,
        "get /a": None,
        "GET /p": "p/2",
        "GET /p/": "p/2",
        "DELETE /p/x/y": "p/2",
        "GET /px": None,
        "GET /a/": None,
    }
    assert {target: answer(made, target) for target in expected} == expected
    assert made.routes["e"].tiers == {1, 2}
    assert made.routes["p"].tiers == {2}
    assert not made.refusals


def test_a_regex_punts_its_literal_prefix_out_of_the_prefix_around_it() -> None:
    made = plan(configuration(route("all", prefix("/")), route("by-id", regex("/users/[0-9]+"))))
    assert answer(made, "GET /users") == "all/1", "no path /users/..., so it has an entry of its own"
    assert answer(made, "PUT /users") == "all/2"
    assert answer(made, "GET /users/") is None
    assert answer(made, "GET /users/7") is None
    assert answer(made, "GET /users/x") is None, "only tier 3 knows that the regex does not match"
    assert answer(made, "GET /usersx") == "all/2"
    assert reasons(made, "by-id") == {Reason.REGEX}
    assert reasons(made, "all") == {Reason.SHADOWED}
    assert "by-id" in made.refusals["all"][0].message


def test_a_regex_with_a_shorter_literal_makes_the_whole_prefix_pass() -> None:
    made = plan(
        configuration(route("p", prefix("/api/v1")), route("e", exact("/api/v1/x")), route("r", regex("/api.*")))
    )
    assert answer(made, "GET /api/v1/y") is None
    assert answer(made, "GET /api/v1/x") == "e/1", "exact goes before regex"


def test_a_regex_for_one_method_punts_only_that() -> None:
    made = plan(configuration(route("p", prefix("/a")), route("r", regex("/a/[0-9]+", "POST"))))
    assert answer(made, "GET /a/1") == "p/2"
    assert answer(made, "POST /a/1") is None


def test_priority_puts_a_prefix_before_an_exact_path() -> None:
    made = plan(configuration(route("e", exact("/a/x")), route("p", prefix("/a"), priority=1)))
    assert answer(made, "GET /a/x") == "p/1"
    assert reasons(made, "e") == {Reason.UNREACHED}
    assert "'p'" in made.refusals["e"][0].message


def test_a_shorter_prefix_answers_the_methods_that_the_longer_one_has_not() -> None:
    made = plan(configuration(route("short", prefix("/a")), route("long", prefix("/a/b", "GET"))))
    assert answer(made, "GET /a/b/c") == "long/2"
    assert answer(made, "POST /a/b/c") == "short/2"


def test_a_redirect_below_a_prefix_passes_and_is_no_loss() -> None:
    old = Route(name="old", action=Redirect(host="b.test"), matches=(prefix("/a/old"),))
    made = plan(configuration(route("p", prefix("/a")), old))
    assert answer(made, "GET /a/old/x") is None
    assert answer(made, "GET /a/older") == "p/2"
    assert reasons(made, "old") == {Reason.ACTION}
    assert not reasons(made, "p")


def test_a_header_condition_in_front_punts_its_path() -> None:
    header = replace(exact("/a"), headers=(ValueMatch("x", ValueKind.PRESENT),))
    made = plan(configuration(route("plain", exact("/a")), route("canary", header)))
    assert answer(made, "GET /a") is None
    assert reasons(made, "canary") == {Reason.HEADERS}
    assert reasons(made, "plain") == {Reason.SHADOWED}


def test_a_rule_behind_a_certain_one_does_not_punt() -> None:
    header = replace(prefix("/"), headers=(ValueMatch("x", ValueKind.PRESENT),))
    made = plan(configuration(route("plain", exact("/a")), route("canary", header)))
    assert answer(made, "GET /a") == "plain/1"
    assert answer(made, "GET /b") is None


def test_paths_that_the_kernel_never_looks_up_need_no_entry_and_reach_no_wider_prefix() -> None:
    made = plan(configuration(route("p", prefix("/")), route("e", exact("/a%2Fb")), route("f", exact("/a//b"))))
    assert made.listeners["web"].owners[0].exact == {}
    for path in ("/a%2Fb", "/a//b", "/%61", "/a/../b", "*"):
        assert made.look("web", "a.test", "GET", path) is Passed.PATH
    assert reasons(made, "e") == reasons(made, "f") == {Reason.PATH}


def test_entries_that_say_nothing_new_are_left_out() -> None:
    made = plan(configuration(route("p", prefix("/a"), prefix("/a/b"), prefix("/a/b/c")), route("q", regex("/q.*"))))
    assert list(made.listeners["web"].owners[0].prefix) == ["/a/"]


def test_an_exact_path_that_passes_stays_as_a_hole_in_its_prefix() -> None:
    hole = Route(name="hole", action=Redirect(host="b.test"), matches=(exact("/a/x", "GET"),))
    made = plan(configuration(route("p", prefix("/a", "GET")), hole))
    assert made.listeners["web"].owners[0].exact == {"/a/x": ALL_PASS}
    assert answer(made, "GET /a/x") is None


def test_the_example_of_the_document() -> None:
    canary = replace(prefix("/v2"), headers=(ValueMatch("x-canary", ValueKind.PRESENT),))
    routes = (
        route("list", exact("/users", "GET")),
        route("all", prefix("/")),
        route("by-id", regex("/users/[0-9]+")),
        route("canary", canary),
        Route(name="old", action=Redirect(host="new.example.com"), matches=(prefix("/old"),)),
    )
    made = plan(configuration(*routes))
    (owner,) = made.listeners["web"].owners
    assert owner.exact == {"/users": ("list", *["all"] * 6)}
    assert owner.prefix == {"/": ("all",) * 7, "/users/": ALL_PASS, "/v2/": ALL_PASS, "/old/": ALL_PASS}
    (shadowed,) = made.refusals["all"]
    assert shadowed.message == (
        "at /users/, and at 1 more: route 'by-id' (regex /users/[0-9]+) goes first, and only tier 3 can tell whether "
        "it claims a request"
    )


# --- hosts and listeners --------------------------------------------------------------------------------


def test_a_host_of_tier_3_owns_its_requests() -> None:
    redirect = Route(name="r", action=Redirect(host="b.test"), matches=(prefix("/", host="a.test"),))
    made = plan(configuration(route("any", prefix("/")), redirect))
    assert made.look("web", "A.test:80", "GET", "/") is Passed.ROUTE
    assert answer(made, "GET /", host="b.test") == "any/2"
    assert answer(made, "GET /x", host="a.test") is None


def test_wildcards() -> None:
    one_label = Match(hosts=(HostPattern("a.test", HostKind.ONE_LABEL),))
    routes = (
        route("apex", prefix("/", host="a.test")),
        route("one", one_label),
        route("wide", prefix("/", host="*.test")),
        route("deep", prefix("/", host="*.b.a.test")),
    )
    made = plan(configuration(*routes))
    expected = {
        "a.test": "apex/2",
        "x.a.test": "one/2",
        "b.a.test": "one/2",
        "x.b.a.test": "deep/2",
        "y.x.a.test": "wide/2",
        "z.y.x.b.a.test": "deep/2",
        "other.test": "wide/2",
        "test": None,
    }
    assert {host: answer(made, "GET /", host=host) for host in expected} == expected
    assert made.look("web", "test", "GET", "/") is Passed.UNKNOWN_HOST
    assert made.look("web", "[::1]", "GET", "/") is Passed.HOST
    assert made.size.hosts == 4


def test_a_listener_of_tier_3_is_in_the_plan_and_passes() -> None:
    local = Listener(name="local", address=Address("127.0.0.1", 80))
    made = plan(configuration(route("r"), listeners=(WEB, local)))
    assert made.look("local", "a.test", "GET", "/") is Passed.LISTENER
    assert made.listeners["local"].address == local.address
    assert answer(made, "GET /") == "r/2"
    (refusal,) = made.refusals["r"]
    assert (refusal.listener, refusal.reason) == ("local", Reason.LISTENER_ADDRESS)
    with pytest.raises(KeyError):
        made.decide("unknown", "a.test", "GET", "/")


def test_a_route_may_do_without_the_forwarded_fields_that_its_listener_adds() -> None:
    asking = replace(WEB, forwarded=frozenset({Forwarded.FORWARDED}))
    quiet = replace(route("quiet", exact("/q")), forwarded=frozenset())
    made = plan(configuration(route("loud", exact("/l")), quiet, listeners=(asking,)))
    assert answer(made, "GET /q") == "quiet/1"
    assert answer(made, "GET /l") is None
    assert made.refusals["loud"][0].message == "adds forwarded: the kernel tiers change no request"


# --- services -------------------------------------------------------------------------------------------


def test_services_are_what_tier_3_chooses_from() -> None:
    services = (
        service("a", backend("10.1.0.9:80"), backend("10.1.0.10:80", 2), backend("10.1.0.8:80", 0)),
        service("b", backend("10.1.0.10:80", 2), backend("10.1.0.9:80")),
        service("unused", backend("users.internal:80")),
    )
    made = plan(configuration(route("r", to={"a": 2, "unused": 0, "b": 3}), services=services))
    planned = made.routes["r"]
    assert [found.name for found in planned.services] == ["a", "b"]
    assert planned.cumulative == (2, 5)
    assert [str(found.address) for found in made.services["a"].backends] == ["10.1.0.10:80", "10.1.0.9:80"]
    assert made.services["a"].table is made.services["b"].table, "one table per set of backends"
    assert made.services["a"].table.backends == made.services["a"].backends
    assert len(made.services["a"].table.slots) == 4099
    assert (made.size.services, made.size.backends, made.size.tables) == (2, 2, 1)
    assert [found.number for found in made.services.values()] == [0, 1]


def test_a_plan_can_be_sent_to_another_process() -> None:
    made = plan(configuration(route("r", exact("/a"))))
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: TID251


# --- capabilities ---------------------------------------------------------------------------------------


def hosts(*names: str) -> tuple[Route, ...]:
    return tuple(route(f"r-{name}", exact("/a", host=name), exact("/b", host=name)) for name in names)


def test_a_host_that_does_not_fit_owns_and_passes_the_next_may_fit() -> None:
    small = route("r-small", exact("/a", host="small.test"))
    made = plan(configuration(*hosts("one.test", "two.test"), small, route("any")), Capabilities(exact=3))
    assert answer(made, "GET /a", host="one.test") == "r-one.test/1"
    assert made.look("web", "two.test", "GET", "/a") is Passed.ROUTE
    assert answer(made, "GET /a", host="small.test") == "r-small/1"
    assert reasons(made, "r-two.test") == {Reason.FULL}
    message = made.refusals["r-two.test"][0].message
    assert message == "no room for host two.test: it needs 2 exact entries, 1 are left"


def test_a_listener_whose_hosts_do_not_fit_is_left_out() -> None:
    other = Listener(name="other", address=Address("0.0.0.0", 81))
    one = replace(route("one", exact("/a", host="one.test")), listeners=("other",))
    made = plan(configuration(*hosts("x.test", "y.test"), one, listeners=(WEB, other)), Capabilities(hosts=2))
    assert made.look("other", "one.test", "GET", "/a") is Passed.LISTENER
    assert answer(made, "GET /a", host="x.test") == "r-x.test/1"
    assert reasons(made, "one") == {Reason.FULL}


@pytest.mark.parametrize("name", ["routes", "services", "prefix", "listeners"])
def test_nothing_fits_into_nothing(name: str) -> None:
    made = plan(configuration(route("r", prefix("/a"))), Capabilities(**{name: 0}))
    assert not made.routes
    assert not made.services
    assert answer(made, "GET /a") is None
    assert reasons(made, "r") == {Reason.FULL}


def test_without_wildcards_nothing_stands_for_any_host() -> None:
    routes = (route("any"), route("wild", prefix("/", host="*.test")), route("one", prefix("/", host="one.test")))
    made = plan(configuration(*routes), Capabilities(wildcard_hosts=False))
    assert answer(made, "GET /", host="one.test") == "one/2"
    assert answer(made, "GET /", host="two.test") is None
    assert answer(made, "GET /", host="other") is None
    assert reasons(made, "any") == reasons(made, "wild") == {Reason.HOST}
    made = plan(configuration(routes[0], routes[2]), Capabilities(wildcard_hosts=False))
    assert answer(made, "GET /", host="other") == "any/2"


def test_what_is_longer_than_the_keys_is_passed_and_reaches_nothing_wider() -> None:
    redirect = Redirect(host="b.test")
    routes = (
        route("any", prefix("/")),
        Route(name="path", action=redirect, matches=(exact("/long"), prefix("/wide"), regex("/very/.*"))),
        Route(name="host", action=redirect, matches=(prefix("/", host="long.test"), prefix("/", host="*.wide.test"))),
    )
    made = plan(configuration(*routes), Capabilities(path_length=4, host_length=8))
    for path in ("/long", "/wide", "/wide/x", "/very/x"):
        assert made.look("web", "a.test", "GET", path) is Passed.PATH
    for host in ("long.test", "x.wide.test"):
        assert made.look("web", host, "GET", "/") is Passed.HOST
    assert answer(made, "GET /abc") == "any/2"
    assert list(made.listeners["web"].hosts) == []


def test_capabilities_have_columns_for_their_methods() -> None:
    with pytest.raises(ValueError, match="PROPFIND"):
        Capabilities(methods=frozenset({"GET", "PROPFIND"}))


# --- cost -----------------------------------------------------------------------------------------------


def path_of(number: int) -> PathMatch:
    text = f"/api/v{number % 3}/things{number}"
    return (PathMatch.exact(text), PathMatch.prefix(text), PathMatch.regex(text + "/[0-9]+"))[number // 100 % 3]


def many(count: int) -> Configuration:
    hosts = [(HostPattern(f"h{number}.test"),) for number in range(100)]
    routes = (
        route(f"r{number}", Match(hosts=hosts[number % 100], path=path_of(number)), to=f"s{number % 500}")
        for number in range(count)
    )
    services = (service(f"s{i}", *(backend(f"10.1.{i % 250}.{j}:80") for j in (1, 2, 3))) for i in range(500))
    return configuration(*routes, services=tuple(services))


def test_the_cost_is_linear_in_the_number_of_routes() -> None:
    """10,000 routes take 0.4 s here; a quadratic planner would take 16 times as long for 4 times as many."""

    def seconds(configured: Configuration, routes: int) -> float:
        started = perf_counter()
        assert plan(configured).size.routes == routes
        return perf_counter() - started

    few, more = many(900), many(3600)
    assert min(seconds(more, 2400) for _ in range(3)) < 10 * min(seconds(few, 600) for _ in range(3))
