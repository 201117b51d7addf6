"""Warnings: what is allowed, and most likely not meant."""

# ruff: noqa: E501 - tables of messages read better with one a line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rauta.config import ConfigError, Loaded, load

BASE = """\
version: 1
listeners: {a: {address: ":8080"}, b: {address: "127.0.0.1:9090"}}
services: {s: {backends: [{address: "10.0.0.1:80"}]}}
routes:
- {name: uses-s, service: s, match: {path: {exact: /uses-s}}}
"""


@pytest.fixture
def warnings(good: Callable[[str], Loaded], tmp_path: Any) -> Callable[[str], list[str]]:
    return lambda text: [str(warning).replace(f"{tmp_path}/rauta.yaml:", "") for warning in good(text).warnings]


Warnings = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("one", "two", "reached"),
    [
        ("{}", "{}", False),
        ("match: {path: {prefix: /a}}", "match: {path: {prefix: /a/}}", False),
        ("match: {path: {prefix: /a}}", "match: {path: {exact: /a}}", True),
        ("match: {hosts: [X.example]}", "match: {hosts: [x.example]}", False),
        ("match: {hosts: [x.example, y.example]}", "match: {hosts: [y.example]}", False),
        ("match: {hosts: [x.example]}", "match: {hosts: [x.example, y.example]}", True),
        ("match: {hosts: [x.example]}", "{}", True),
        ("match: {methods: [GET, POST]}", "match: {methods: [POST]}", False),
        ("{}", "match: {methods: [POST]}", True),
        ("listeners: [a]", "{}", True),
        ("{}", "listeners: [a]", False),
        ("listeners: [a]", "listeners: [b]", True),
        ("priority: 1", "{}", False),
        ("match: [{path: {exact: /a}}, {path: {exact: /b}}]", "match: {path: {exact: /b}}", False),
        ("match: {path: {exact: /b}}", "match: [{path: {exact: /a}}, {path: {exact: /b}}]", True),
        ("match: {headers: [{name: a, present: true}, {name: b, present: true}]}",
         "match: {headers: [{name: B, present: true}, {name: a, present: true}]}", False),
        ("match: {query: [{name: a, exact: x}]}", "match: {query: [{name: A, exact: x}]}", True),
    ],
)  # fmt: skip
def test_a_route_behind_an_identical_one_is_never_reached(
    one: str, two: str, reached: bool, warnings: Warnings
) -> None:
    rows = [
        f"- {{name: {name}, respond: {{}}, {rest.strip('{}') if rest == '{}' else rest}}}"
        for name, rest in (("one", one), ("two", two))
    ]
    where = "routes[2].match" if "match" in two else "routes[2]"
    expected = [] if reached else [f"7: {where}: this route is never reached: 'one' has the same match and goes first"]
    assert warnings(BASE + "\n".join(rows)) == expected


def test_priority_turns_the_order_around(warnings: Warnings) -> None:
    text = BASE + "- {name: low, respond: {}}\n- {name: high, respond: {}, priority: 1}\n"
    assert warnings(text) == ["6: routes[1]: this route is never reached: 'high' has the same match and goes first"]


def test_plugins_are_never_taken_for_equal(warnings: Warnings, plugins: None) -> None:
    row = "- {{name: {}, respond: {{}}, match: {{plugins: [{{name: plain}}]}}}}\n"
    assert warnings(BASE + row.format("one") + row.format("two")) == []


@pytest.mark.parametrize(
    ("listeners", "on", "who"),
    [
        ("a: {address: ':1', %s}", "", "'a'"),
        ("a: {address: ':1', %s}, b: {address: ':2', %s}", "", "'a', 'b'"),
        ("a: {address: ':1', %s}, b: {address: ':2'}", "listeners: [a], ", "'a'"),
        ("a: {address: ':1', %s}, b: {address: ':2'}", "", None),
        ("a: {address: ':1', %s}, b: {address: ':2'}", "listeners: [b], ", None),
        ("a: {address: ':1', %s, tls: {certificates: [{cert: c, key: {file: k}}]}}", "", None),
    ],
)
def test_a_route_of_listeners_that_pass_everything_through(
    listeners: str, on: str, who: str | None, write: Callable[[str], Any]
) -> None:
    passing = listeners.replace("%s", "passthrough: [{names: [x.test], service: s}]")
    text = (
        f"version: 1\nlisteners: {{{passing}}}\nservices: {{s: {{backends: [{{address: '10.0.0.1:80'}}]}}}}\n"
        f"routes:\n- {{{on}name: r, service: s}}\n"
    )
    found = [str(one).rpartition("rauta.yaml:")[2] for one in load(write(text), check_files=False).warnings]
    key = "routes[0].listeners" if on else "routes[0]"
    told = f"5: {key}: this route is never reached: no request is read on {who}, with passthrough and no tls"
    assert found == ([told] if who else [])


@pytest.mark.parametrize(
    ("protocol", "match", "told"),
    [
        ("", "{grpc: {service: a.B}}", "match.grpc"),
        ("protocol: http1, ", "[{path: {exact: /}}, {grpc: {method: C}}, {grpc: {method: D}}]", "match[1].grpc"),
        ("protocol: http2, ", "{grpc: {service: a.B}}", None),
        ("protocol: auto, tls: {}, ", "{grpc: {service: a.B}}", None),
        ("", "{path: {prefix: /a.B}, methods: [POST]}", None),
    ],
)
def test_grpc_to_a_service_of_http1(protocol: str, match: str, told: str | None, warnings: Warnings) -> None:
    text = BASE.replace("s: {backends", f"s: {{{protocol}backends") + f"- {{name: r, service: s, match: {match}}}\n"
    why = "gRPC needs HTTP/2, and service 's' is spoken to in http1: write protocol: http2 there"
    assert [line for line in warnings(text) if "port of" not in line] == (
        [f"6: routes[1].{told}: {why}"] if told else []
    )


@pytest.mark.parametrize(("pattern", "linear"), [("/a(b|c)+", True), ("/a(?=b).*", False), (r"/(.)\\1", False)])
def test_patterns_without_a_linear_engine(pattern: str, linear: bool, warnings: Warnings) -> None:
    lines = warnings(BASE + f'- {{name: r, respond: {{}}, match: [{{}}, {{path: {{regex: "{pattern}"}}}}]}}')
    assert len(lines) == (not linear)
    if not linear:
        assert lines[0].startswith("6: routes[1].match[1].path.regex: pattern ")
        assert lines[0].endswith("has look-around or back-references, or is too large: "
                                 "if a request uses up its time for regexes, the answer is 503 (regex_timeout)")  # fmt: skip


def test_patterns_of_headers_and_query(warnings: Warnings) -> None:
    text = (
        BASE
        + '- {name: r, respond: {}, match: {headers: [{name: a, regex: "(?=b)"}], query: [{name: a, regex: "(?!b)"}]}}'
    )
    assert [line.split(": ")[1] for line in warnings(text)] == [
        "routes[1].match.headers[0].regex",
        "routes[1].match.query[0].regex",
    ]


def test_services(warnings: Warnings) -> None:
    services = "services: {s: {backends: [{address: 'x:1', weight: 0}]}, idle: {backends: [{address: 'x:1'}]}}"
    text = BASE.replace('services: {s: {backends: [{address: "10.0.0.1:80"}]}}', services)
    assert warnings(text) == [
        "3: services.s.backends: all weights are 0: its requests are answered 503",
        "3: services.idle: no route uses this service",
    ]


@pytest.mark.parametrize(
    ("address", "listener"),
    [
        ("127.0.0.1:8080", "a"),
        ("localhost:8080", "a"),
        ("127.0.0.1:9090", "b"),
        ("10.0.0.1:8080", None),
        ("localhost:9090", None),
    ],
)
def test_loops(address: str, listener: str | None, warnings: Warnings) -> None:
    lines = warnings(BASE.replace("10.0.0.1:80", address))
    assert lines == (
        [f"3: services.s.backends[0].address: {address} is this gateway's own listener {listener!r}: requests would go round in circles"]
        if listener else []
    )  # fmt: skip


def test_a_loop_through_a_unix_socket(warnings: Warnings) -> None:
    text = BASE.replace('b: {address: "127.0.0.1:9090"}', "b: {address: 'unix:/run/web.sock'}")
    assert warnings(text.replace('"10.0.0.1:80"', "'unix:/run/web.sock'")) == [
        "3: services.s.backends[0].address: unix:/run/web.sock is this gateway's own listener 'b': requests would go round in circles"
    ]


TWICE = "only the last request id of a list counts: remove this one"


@pytest.mark.parametrize(
    ("filters", "problem"),
    [
        ("[{request_id: {}}]", None),
        ("[{request_id: {}}, {request_id: {header: X-Other}}]", f"6: routes[1].filters[0].request_id: {TWICE}"),
        ("[{rewrite: {host: a.example}}]", None),
        ("[{rewrite: {path: {prefix: /b}}}]", None),
        ("[{rewrite: {path: {full: /b}}}, {rewrite: {path: {prefix: /c}}}]",
         "6: routes[1].filters[1].rewrite.path.prefix: the rewrite before it leads to '/b', without the prefix of the route: it changes nothing"),
        ("[{rewrite: {path: {full: /a/b}}}, {rewrite: {path: {prefix: /c}}}]", None),
        ("[{rewrite: {path: {prefix: /b}}}, {rewrite: {path: {prefix: /c}}}]",
         "6: routes[1].filters[1].rewrite.path.prefix: the rewrite before it leads to '/b', without the prefix of the route: it changes nothing"),
        ("[{rewrite: {path: {prefix: /}}}, {rewrite: {path: {prefix: /c}}}]", None),
        ("[{rewrite: {path: {regex: '/a/([0-9]+)', substitution: '/x'}}}]", None),
        ("[{rewrite: {path: {regex: '/(.*)', substitution: '/x'}}}]", None),
        ("[{rewrite: {path: {regex: '(/b)?/a', substitution: '/x'}}}]", None),
        ("[{rewrite: {path: {regex: '/abc/.*', substitution: '/x'}}}]",
         "6: routes[1].filters[0].rewrite.path.regex: it rewrites paths that start with '/abc/', and the route matches none: it changes nothing"),
        ("[{rewrite: {path: {prefix: /abc}}}, {rewrite: {path: {regex: '/abc/.*', substitution: '/x'}}}]", None),
    ],
)  # fmt: skip
def test_filters_of_a_route(filters: str, problem: str | None, warnings: Warnings) -> None:
    row = f"- {{name: r, service: s, match: {{path: {{prefix: /a}}}}, filters: {filters}}}\n"
    assert warnings(BASE + row) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("match", "reached"),
    [
        ("{exact: /users/7}", True),
        ("{exact: /orders/7}", False),
        ("{regex: '/us.*'}", True),
        ("{regex: '/users/7.*'}", True),
        ("{regex: '/o.*'}", False),
        ("{prefix: /}", True),
        ("{prefix: /users/7}", True),
        ("{prefix: /user}", False),
    ],
)
def test_a_rewrite_of_paths_that_the_route_does_not_have(match: str, reached: bool, warnings: Warnings) -> None:
    row = f"- {{name: r, service: s, match: {{path: {match}}}, "
    row += "filters: [{rewrite: {path: {regex: '/users/(.*)', substitution: '/u'}}}]}\n"
    assert [line.split(": ")[1] for line in warnings(BASE + row)] == (
        [] if reached else ["routes[1].filters[0].rewrite.path.regex"]
    )


def test_filters_without_a_backend(warnings: Warnings) -> None:
    filters = "[{request_id: {}}, {response_headers: {set: {A: b}}}, {request_headers: {set: {A: b}}}, {rewrite: {host: a.b}}]"
    told = "this changes what a backend gets, and the route has none: rauta answers by itself"
    assert warnings(BASE + f"- {{name: r, respond: {{}}, filters: {filters}}}") == [
        f"6: routes[1].filters[2].request_headers: {told}",
        f"6: routes[1].filters[3].rewrite: {told}",
    ]


def test_request_ids_of_listeners(warnings: Warnings) -> None:
    text = BASE.replace('{address: ":8080"}', '{address: ":8080", filters: [{request_id: {}}]}')
    row = "- {name: r, service: s, filters: [{request_id: {header: X-Own}}], match: {path: {exact: /r}}}"
    assert warnings(text + row) == []  # the route's replaces the listener's
    twice = text.replace("[{request_id: {}}]", "[{request_id: {}}, {request_id: {}}]")
    assert warnings(twice) == [f"2: listeners.a.filters[0].request_id: {TWICE}"]


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        ("trusted_proxies: [10.0.0.0/8]", None),
        ("trusted_proxies: [10.0.0.0/8, 0.0.0.0/0]",
         "2: listeners.b.trusted_proxies[1]: 0.0.0.0/0 trusts every client: each of them can say that it has any other address"),
        ("trusted_proxies: ['::/0']",
         "2: listeners.b.trusted_proxies[0]: ::/0 trusts every client: each of them can say that it has any other address"),
        ("proxy_protocol: {from: [10.0.0.0/8]}", None),
        ("proxy_protocol: {from: [10.0.0.0/8, 0.0.0.0/0]}",
         "2: listeners.b.proxy_protocol.from[1]: 0.0.0.0/0 trusts every client: each of them can say that it has any other address"),
        ("forwarded: []", None),
        ("forwarded: [], trusted_proxies: [10.0.0.1]",
         "2: listeners.b.forwarded: what the trusted proxies say is not passed on: backends see neither them nor the client"),
        ("forwarded: [forwarded], trusted_proxies: [10.0.0.1]", None),
    ],
)  # fmt: skip
def test_trusted_proxies(listener: str, problem: str | None, warnings: Warnings) -> None:
    text = BASE.replace('b: {address: "127.0.0.1:9090"}', f'b: {{address: "127.0.0.1:9090", {listener}}}')
    assert warnings(text) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        ("{}", None),
        ("{timeout: 5s}", None),
        ("{timeout: 5001ms}",
         "3: services.s.health.timeout: a check may take 5.001s, and one is due every 5s: a backend that hangs is checked less often than that"),
        ("{interval: 1s}",
         "3: services.s.health: a check may take 2s, and one is due every 1s: a backend that hangs is checked less often than that"),
    ],
)  # fmt: skip
def test_health_checks_that_take_longer_than_their_interval(
    health: str, problem: str | None, warnings: Warnings
) -> None:
    text = BASE.replace(
        'backends: [{address: "10.0.0.1:80"}]', f'backends: [{{address: "10.0.0.1:80"}}], health: {health}'
    )
    assert warnings(text) == ([problem] if problem else [])


@pytest.mark.parametrize(("address", "told"), [("127.0.0.1:9901", False), ("[::1]:1", False), ("192.0.2.1:9901", True)])
def test_an_admin_interface_beyond_loopback(address: str, told: bool, warnings: Warnings) -> None:
    lines = warnings(BASE + f"admin: {{address: '{address}', token: {{env: TOKEN}}}}")
    assert len(lines) == told
    if told:
        assert lines[0].startswith(
            f"6: admin.address: {address} can be reached from other machines, and the token goes"
        )


@pytest.mark.parametrize(
    ("address", "tls", "problem"),
    [
        ("10.0.0.1:80", "", None),
        ("10.0.0.1:443", "", "5: services.s.backends[0].address: 10.0.0.1:443 is most likely a port of HTTPS, and is spoken to without: write tls: {}"),
        ("a.test:443", "tls: {}", None),
        ("a.test:80", "tls: {}", "5: services.s.backends[0].address: a.test:80 is most likely a port of plain HTTP, and the service has tls"),
        ("unix:/run/a", "tls: {name: a.test}", None),
        ("a.test:443", "tls: {verify: true}", None),
        ("a.test:443", "tls: {name: a.test, verify: false}", "6: services.s.tls.verify: anybody may be the backend, and reads and changes all that is sent: better ca: FILE"),
    ],
)  # fmt: skip
def test_how_backends_are_spoken_to(address: str, tls: str, problem: str | None, warnings: Warnings) -> None:
    text = BASE.replace(
        'services: {s: {backends: [{address: "10.0.0.1:80"}]}}',
        f'services:\n  s:\n    backends: [{{address: "{address}"}}]\n    {tls}',
    )
    assert warnings(text) == ([problem] if problem else [])


PASSED = """\
version: 1
listeners: {web: {address: ":443", passthrough: [{names: [a.test], service: s}]}}
services: {s: {backends: [{address: "10.0.0.1:443"}], HEALTH}}
routes: []
"""


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        ("", None),
        ("health: tcp", None),
        ("health: {tls: {verify: false}}", None),
        ("health: http", "3: services.s.health: plain requests to a port of TLS: write health: {tls: {name: NAME}}, or health: tcp"),
    ],
)  # fmt: skip
def test_how_backends_are_checked_whose_tls_goes_through(health: str, problem: str | None, warnings: Warnings) -> None:
    assert warnings(PASSED.replace("HEALTH", health)) == ([problem] if problem else [])


def test_checks_have_no_tls_of_their_own_elsewhere(write: Any) -> None:
    text = BASE.replace('"10.0.0.1:80"}]', '"10.0.0.1:80"}], health: {tls: {}}')
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    assert str(caught.value).endswith(
        ":3: services.s.health.tls: is for a service that a listener passes TLS through to: write tls in the service"
    )


def test_warnings_can_be_left_out(write: Any) -> None:
    path = write(BASE + "- {name: one, respond: {}}\n- {name: two, respond: {}}")
    assert len(load(path).warnings) == 1
    assert load(path, warn=False).warnings == ()


_MATCHES = st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.lists(st.sampled_from(["a.x", "*.x"]), min_size=1, max_size=2, unique=True),
        "path": st.sampled_from([{"exact": "/p"}, {"prefix": "/p"}, {"prefix": "/"}, {"regex": "/p.*"}]),
        "methods": st.lists(st.sampled_from(["GET", "PUT"]), min_size=1, max_size=2, unique=True),
    },
)
_ROUTES = st.lists(
    st.fixed_dictionaries({"match": st.lists(_MATCHES, min_size=1, max_size=2), "priority": st.integers(0, 1)}),
    min_size=1,
    max_size=6,
)


@given(routes=_ROUTES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_said_to_be_unreachable_is_never_hit(routes: list[dict[str, Any]], write: Any) -> None:
    import yaml

    from rauta.routing.outcome import Hit
    from rauta.routing.request import RequestView
    from rauta.routing.table import Table

    named = [{"name": f"r{i}", "respond": {}, **route} for i, route in enumerate(routes)]
    text = yaml.safe_dump({"version": 1, "listeners": {"web": {"address": "127.0.0.1:1"}}, "routes": named})
    loaded = load(write(text))
    unreachable = {warning.key.split("]")[0] + "]" for warning in loaded.warnings}
    table = Table(loaded.configuration)
    for host in ("a.x", "b.x", "y"):
        for path in ("/p", "/p/q", "/z", "/pp"):
            for method in ("GET", "PUT", "POST"):
                outcome = table.match("web", RequestView(method=method, host=host, path=path))
                if isinstance(outcome, Hit):
                    assert f"routes[{outcome.route.name[1:]}]" not in unreachable
