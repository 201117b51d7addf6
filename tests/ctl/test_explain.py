from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

API = "Host: api.example.com"
ORG = "Host: a.example.org"


def facts(text: str) -> dict[str, str]:
    """The `name  value` lines of the output; those of the table are not of interest."""
    found = {}
    for line in text.splitlines():
        name, gap, value = line.partition("  ")
        if gap:
            found.setdefault(name.strip(), value.strip())
    return found


def test_a_request_that_the_kernel_could_answer(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("explain", "GET", "http://api.example.com:8080/users", "--client", "192.0.2.7:4000")
    assert (ended.code, ended.err) == (0, "")
    told = facts(ended.out)
    assert told["request"] == "GET /users"
    assert told["client"] == "192.0.2.7:4000"
    assert told["listener"] == "web, http on 0.0.0.0:8080 (the only one)"
    assert told["host"] == "api.example.com, owned by the routes of api.example.com"
    assert told["route"] == "exact"
    assert told["service"] == "users"
    assert told["backend"].startswith(("10.0.2.2:80, for this client", "10.0.3.2:80, for this client"))
    assert "10.0.2.2:80 25%, 10.0.3.2:80 75%" in told["backend"]
    assert told["tier"] == "3 for now, 1 in the plan"
    assert told["why 3"] == "no offload is installed"
    assert told["adds"] == "no forwarded fields"


def test_a_request_that_the_kernel_answers(
    rautactl: Callable[..., Any], example: Path, install: Callable[..., None]
) -> None:
    install()
    arguments = ("explain", "GET", "http://api.example.com:8080/users")
    told = facts(rautactl(*arguments).out)
    assert told["tier"] == "1"
    assert "why 3" not in told
    offload = rautactl(*arguments, "--json").document["offload"]
    assert offload == {"available": True, "name": "toy", "why": "kernel offload 'toy'"}


def test_what_the_machine_lacks_is_told(
    rautactl: Callable[..., Any], example: Path, install: Callable[..., None]
) -> None:
    install(missing="the kernel is 6.1, 6.9 is needed")
    told = facts(rautactl("explain", "GET", "http://api.example.com:8080/users").out)
    assert told["tier"] == "3 for now, 1 in the plan"
    assert told["why 3"] == "toy: the kernel is 6.1, 6.9 is needed"


def test_every_rule_before_the_claim_says_why_not(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("explain", "GET", "/orders/1", "-H", API, "--json")
    assert ended.code == 3
    rules = ended.document["rules"]
    assert [(rule["route"], rule["claimed"], rule["verdict"]) for rule in rules] == [
        ("shared", False, "needs method POST or PUT"),
        ("beta", False, "needs header x-beta exact 1"),
    ]
    assert ended.document["answer"] == {
        "status": 404,
        "reason": "no_route",
        "message": "no route of this host claims the request",
        "grpc": None,
    }
    assert ended.document["rules_total"] == 7


def test_rules_of_other_paths_are_counted_and_listed_on_demand(rautactl: Callable[..., Any], example: Path) -> None:
    brief = rautactl("explain", "GET", "/old/x", "-H", API).out
    assert "not listed of this host's rules: 5 of other paths; 1 behind, not asked (--all lists them)" in brief
    assert "teapot" not in brief
    everything = rautactl("explain", "GET", "/old/x", "-H", API, "--all").out
    assert "path is not exact /tea" in everything
    assert "not asked: the request is settled" in everything
    document = rautactl("explain", "GET", "/old/x", "-H", API, "--all", "--json").document
    assert [rule["place"] for rule in document["rules"]] == list(range(1, 8))
    assert [rule["route"] for rule in document["rules"] if rule["claimed"]] == ["old"]


def test_the_answer_of_a_route_without_service(rautactl: Callable[..., Any], example: Path) -> None:
    told = facts(rautactl("explain", "GET", "/old/x", "-H", API).out)
    assert told["answer"] == "redirect 301 to prefix /new"
    assert told["tier"] == "3"
    assert "redirect" in told["why no lower"]
    assert facts(rautactl("explain", "GET", "/tea", "-H", API).out)["answer"] == "respond 418"


def test_a_weighted_client_gets_the_service_that_the_table_gives(rautactl: Callable[..., Any], example: Path) -> None:
    got: Counter[str] = Counter()
    for port in range(40000, 40060):
        client = ("--client", f"192.0.2.7:{port}")
        document = rautactl("explain", "POST", "/orders", "-H", API, *client, "--json").document
        got[document["service"]["name"]] += 1
        assert document["route"]["services"] == [{"name": "users", "weight": 9}, {"name": "canary", "weight": 1}]
    assert got["users"] > got["canary"] > 0
    told = facts(rautactl("explain", "POST", "/orders", "-H", API).out)
    assert told["service"].endswith("for this client (users 90%, canary 10%)")


@pytest.mark.parametrize(
    ("arguments", "tier", "code"),
    [
        (("GET", "/users", "-H", API), 1, None),
        (("POST", "/users", "-H", API), 2, "beyond_tier_1"),
        (("GET", "/%75sers", "-H", API), 3, "request_path"),
        (("PURGE", "/users", "-H", API), 3, "request_method"),
        (("GET", "/users/7", "-H", API), 3, "regex"),
        (("GET", "/x", "-H", API, "-H", "x-beta: 1"), 3, "headers"),
        (("GET", "/old", "-H", API), 3, "action"),
        (("GET", "/slow", "-H", ORG), 3, "timeouts"),
        (("GET", "/turns", "-H", ORG), 3, "balancer"),
    ],
)
def test_the_tier_and_why_no_lower(
    rautactl: Callable[..., Any], example: Path, arguments: tuple[str, ...], tier: int, code: str | None
) -> None:
    ended = rautactl("explain", *arguments, "--json")
    assert ended.code == 0
    document = ended.document
    assert document["tier"] == tier
    codes = [why["code"] for why in document["why_no_lower"]]
    assert code in codes if code else codes == []
    assert document["offload"]["available"] is False


def test_only_reasons_that_concern_the_request_are_told(rautactl: Callable[..., Any], example: Path) -> None:
    text = example.read_text().replace("listeners:\n", 'listeners:\n  local: {address: "127.0.0.1:9090"}\n')
    both = """
  - name: both
    match: [{path: {regex: "/b/[0-9]+"}}, {path: {prefix: /b}, headers: [{name: x-b, present: true}]}]
    service: users
"""
    example.write_text(text + both)

    def codes(path: str, listener: str) -> list[str]:
        arguments = ("explain", "GET", path, "-H", "X-B: 1", "--listener", listener, "--json")
        return [why["code"] for why in rautactl(*arguments).document["why_no_lower"]]

    assert codes("/b/7", "web") == ["regex"]
    assert codes("/b/x", "web") == ["headers"]
    assert codes("/b/x", "local") == ["headers", "listener_address"]


def test_a_balancer_that_is_not_bound_to_the_client(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("explain", "GET", "/turns", "-H", ORG)
    assert "one of 2: 10.0.6.2:80, 10.0.7.2:80 (round_robin" in facts(ended.out)["backend"]
    service = rautactl("explain", "GET", "/turns", "-H", ORG, "--json").document["service"]
    assert service["backend_fixed"] is False


def test_a_service_without_usable_backend(rautactl: Callable[..., Any], example: Path) -> None:
    example.write_text(example.read_text().replace('"10.0.5.2:80"', '"10.0.5.2:80", weight: 0'))
    ended = rautactl("explain", "GET", "/slow", "-H", ORG)
    assert ended.code == 0  # a route claims it
    assert facts(ended.out)["answer"] == "503 no_backend: all backends of service 'slow' have weight 0"
    document = rautactl("explain", "GET", "/slow", "-H", ORG, "--json").document
    assert document["service"]["backend"] is None
    assert "no_backend" in [why["code"] for why in document["why_no_lower"]]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("GET", "/%00"), "400 bad_path: the path contains an encoded NUL (%00)"),
        (("GET", "/../x"), "400 bad_path: the path leads above the root ('..')"),
        (("GET", "*"), "400 bad_target: the target '*' is only for OPTIONS"),
        (("GET", "/", "-H", "Host: a b"), "400 bad_host: invalid host 'a b'"),
        (("GET", "/", "-H", "Host: a", "-H", "Host: b"), "400 bad_host: the request has more than one Host field"),
        (("TRACE", "/"), "405 method_not_allowed: TRACE is not served"),
        (("OPTIONS", "*"), "200 options: OPTIONS * is about the gateway, which answers by itself"),
        (
            ("GET", "/", "-H", "Host: apl.example.com"),
            "404 unknown_host: no route of listener 'web' has this host; did you mean 'api.example.com'?",
        ),
        (("GET", "/nope", "-H", API), "404 no_route: no route of this host claims the request"),
    ],
)
def test_what_no_route_claims(
    rautactl: Callable[..., Any], example: Path, arguments: tuple[str, ...], answer: str
) -> None:
    ended = rautactl("explain", *arguments)
    assert (ended.code, ended.err) == (3, "")
    assert facts(ended.out)["answer"] == answer
    document = rautactl("explain", *arguments, "--json").document
    assert document["claimed"] is False
    assert f"{document['answer']['status']} {document['answer']['reason']}" == answer.partition(":")[0]


def test_a_regex_that_runs_out_of_time(rautactl: Callable[..., Any], example: Path) -> None:
    hostile = r'  - {name: look, match: {path: {regex: "/z(a|aa)+(?!b)$"}}, service: users}'
    example.write_text(f"{example.read_text()}{hostile}\n")
    ended = rautactl("explain", "GET", f"/z{'a' * 60}!")
    assert ended.code == 3
    assert facts(ended.out)["answer"].startswith("503 regex_timeout: a regex of route 'look' used up its budget")


def test_a_path_that_is_normalised_is_shown(rautactl: Callable[..., Any], example: Path) -> None:
    told = facts(rautactl("explain", "GET", "/a/../%75sers", "-H", API).out)
    assert told["path"] == "/users (normalised; this is what is matched and sent)"
    assert told["route"] == "exact"


def test_defaults_are_said(rautactl: Callable[..., Any], example: Path) -> None:
    told = facts(rautactl("explain", "GET", "/").out)
    assert told["client"] == "127.0.0.1:0 (the default; --client names another)"
    assert told["host"] == "localhost (the default; -H 'Host: NAME' names another)"


def test_forwarded_fields_are_told(rautactl: Callable[..., Any], example: Path) -> None:
    example.write_text(example.read_text().replace("offload: {mode: auto, interfaces: [eth0]}\n", ""))
    told = facts(rautactl("explain", "GET", "/users", "-H", API).out)
    assert told["adds"] == "x-forwarded-for, x-forwarded-host, x-forwarded-proto"
    assert told["tier"] == "3"


@pytest.mark.parametrize("mode", ["require", "optional"])
def test_a_listener_that_asks_for_certificates(mode: str, rautactl: Callable[..., Any], example: Path) -> None:
    tls = f"{{certificates: [{{cert: a.crt, key: {{file: a.key}}}}], clients: {{ca: ca.crt, mode: {mode}}}}}"
    web = f'web: {{address: "0.0.0.0:8443", tls: {tls}, forwarded: [client-cert]}}'
    example.write_text(example.read_text().replace('web: {address: "0.0.0.0:8080"}', web))
    words = ("explain", "GET", "https://api.example.com:8443/users")
    told = facts(rautactl(*words).out)
    assert told["listener"].startswith(f"web, https with client certificates ({mode}) on 0.0.0.0:8443 ")
    assert told["adds"] == "client-cert"
    document = rautactl(*words, "--json").document["listener"]
    assert (document["clients"], document["crl"]) == (mode, None)
    example.write_text(example.read_text().replace("ca: ca.crt, ", "ca: ca.crt, crl: ca.crl, "))
    told = facts(rautactl(*words).out)
    crl = f"{example.parent}/ca.crl"
    assert f" with client certificates ({mode}; none revoked by {crl}) on " in told["listener"]
    assert rautactl(*words, "--json").document["listener"]["crl"] == crl


def test_what_comes_before_http_is_told(rautactl: Callable[..., Any], example: Path) -> None:
    more = "proxy_protocol: {from: [10.0.0.0/8]}, passthrough: [{names: [db.test, '*.db.test'], service: users}]"
    more += ", tls: {certificates: [{cert: a.crt, key: {file: a.key}}]}"
    listener = f'web: {{address: "0.0.0.0:8080", {more}}}'
    example.write_text(example.read_text().replace('web: {address: "0.0.0.0:8080"}', listener))
    words = ("explain", "GET", "/users", "-H", API)
    told = facts(rautactl(*words).out)
    assert told["listener"].startswith("web, https on 0.0.0.0:8080 ")
    assert told["PROXY"] == "a header is needed from 10.0.0.0/8; none from others"
    assert told["passes"] == "TLS for db.test, *.db.test to users"
    found = rautactl(*words, "--json").document
    assert found["listener"]["proxy_protocol"] == {"from": ["10.0.0.0/8"], "mode": "require"}
    assert found["listener"]["passthrough"] == [{"names": ["db.test", "*.db.test"], "service": "users"}]
    assert {"proxy_protocol", "passthrough"} <= {why["code"] for why in found["why_no_lower"]}


def test_another_file(rautactl: Callable[..., Any], example: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text('version: 1\nlisteners: {web: {address: ":80"}}\nroutes: [{name: all, respond: {status: 204}}]\n')
    assert facts(rautactl("explain", "GET", "/", "--config", str(other)).out)["route"] == "all"
    other.write_text("version: 2\n")
    ended = rautactl("explain", "GET", "/", "--config", str(other), "--json")
    assert ended.code == 2
    assert str(other) in ended.document["error"]["message"]
    assert ended.document["error"]["problems"]


def test_a_route_to_an_application(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "asgi.yaml"
    file.write_text('version: 1\nlisteners: {web: {address: ":80"}}\nroutes: [{name: all, asgi: "shop.web:app"}]\n')
    told = facts(rautactl("explain", "GET", "/", "--config", str(file)).out)
    assert told["answer"] == "asgi shop.web:app"
    document = rautactl("explain", "GET", "/", "--config", str(file), "--json").document
    assert document["route"]["asgi"] == "shop.web:app"
    assert "applications run in tier 3" in rautactl("routes", str(file)).out


def test_many_routes_stay_readable(rautactl: Callable[..., Any], example: Path) -> None:
    routes = "".join(f"  - {{name: r{i}, match: {{path: {{exact: /p/{i}}}}}, service: users}}\n" for i in range(2000))
    example.write_text(example.read_text() + routes)
    ended = rautactl("explain", "GET", "/p/1999")
    assert ended.code == 0
    assert len(ended.out.splitlines()) < 25
    assert "1999 of other paths" in ended.out


def test_a_call_of_grpc(rautactl: Callable[..., Any]) -> None:
    file = str(Path(__file__).parents[2] / "examples/grpc.yaml")
    ended = rautactl("explain", "POST", "/helloworld.Greeter/SayHello", "--config", file)
    assert "prefix /helloworld.Greeter, POST" in ended.out
    told = facts(ended.out)
    assert (told["route"], told["tier"]) == ("greeter", "3")
    routes = rautactl("routes", file, "--json").document["routes"]
    assert {route["tier"] for route in routes} == {3}
    assert all("protocol" in str(route["why_no_lower"]) for route in routes)
    assert facts(rautactl("explain", "GET", "/helloworld.Greeter/SayHello", "--config", file).out).get("route") is None


PASSING = """\
version: 1
listeners:
  web: {address: "0.0.0.0:80"}
  websecure:
    address: "0.0.0.0:443"
    passthrough:
      - {names: [db.test, "*.in.test"], service: db}
      - {names: [gone.test], service: gone}
    tls: {certificates: [{cert: a.crt, key: {file: a.key}}]}
  asking:
    address: "0.0.0.0:8443"
    tls: {certificates: [{cert: a.crt, key: {file: a.key}}], clients: {ca: ca.crt}}
  pure: {address: "0.0.0.0:9443", passthrough: [{names: [db.test], service: db}]}
services:
  db:
    backends: [{address: "10.0.7.1:443"}, {address: "10.0.7.2:443"}]
    proxy_protocol: v2
    health: tcp
    timeouts: {idle: 1h}
  gone: {backends: [{address: "10.0.7.3:443", weight: 0}]}
  users: {backends: [{address: "10.0.8.1:80"}]}
routes:
  - {name: users, service: users}
"""


@pytest.fixture
def passing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rauta.yaml").write_text(PASSING)


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("https://DB.test./x",), "db.test"),
        (("https://a.in.test/",), "a.in.test"),
        (("https://db.test/", "-H", "Host: www.test"), "db.test"),  # SNI is the URL's, as curl has it
        (("/", "-H", "Host: db.test", "--listener", "websecure"), "db.test"),
        (("https://db.test:9443/%00",), "db.test"),  # nobody looks at the request
    ],
)
def test_a_connection_that_goes_through(rautactl: Callable[..., Any], words: tuple[str, ...], name: str) -> None:
    ended = rautactl("explain", "GET", *words, "--client", "192.0.2.7:4000")
    assert (ended.code, ended.err) == (0, "")
    told = facts(ended.out)
    assert told["SNI"].startswith(f"{name} (")
    assert told["verdict"].startswith("the connection goes through as it is")
    assert (told["service"], told["tier"], told["PROXY"]) == ("db", "3", "v2")
    assert told["backend"].startswith(("10.0.7.1:443, for this client", "10.0.7.2:443, for this client"))
    assert told["time-outs"] == "connect 5s, idle 1h"
    assert not {"route", "answer", "adds", "host"} & told.keys()
    found = rautactl("explain", "GET", *words, "--client", "192.0.2.7:4000", "--json").document
    assert found["passthrough"] == {"name": name, "service": "db"}
    assert (found["claimed"], found["route"], found["answer"], found["forwarded"]) == (False, None, None, [])
    assert found["service"]["backend"] in told["backend"]
    assert found["timeouts"] == {"connect": 5.0, "response": None, "idle": 3600.0, "request": None}
    assert (found["tier"], [why["code"] for why in found["why_no_lower"]]) == (3, ["passthrough"])


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (
            ("https://www.test/", "-H", "Host: db.test"),
            "421 misdirected: connections for 'db.test' go to service 'db' as they are, and this is one for 'www.test'",
        ),
        (
            ("https://127.0.0.1/", "-H", "Host: db.test"),
            "421 misdirected: connections for 'db.test' go to service 'db' as they are, and this is one for no name",
        ),
        (
            ("https://a.test:8443/", "-H", "Host: b.test"),
            "421 misdirected: the TLS handshake was for 'a.test', and clients are asked for certificates",
        ),
        (
            ("https://[::1]:8443/", "-H", "Host: b.test"),
            "421 misdirected: the TLS handshake named no host (SNI)",
        ),
        (
            ("https://www.test:9443/",),
            "404 unknown_host: nothing is passed through for 'www.test', and the listener has no `tls`: the client",
        ),
        (
            ("https://127.0.0.1:9443/",),
            "404 unknown_host: the client asks for no name (SNI), and the listener has no `tls`",
        ),
    ],
)
def test_a_name_that_is_not_for_the_connection(
    rautactl: Callable[..., Any], words: tuple[str, ...], answer: str
) -> None:
    ended = rautactl("explain", "GET", *words)
    assert (ended.code, ended.err) == (3, "")
    assert facts(ended.out)["answer"].startswith(answer)
    found = rautactl("explain", "GET", *words, "--json").document
    assert (found["passthrough"], found["claimed"], found["tier"]) == (None, False, None)
    assert answer.startswith(f"{found['answer']['status']} {found['answer']['reason']}: ")


@pytest.mark.usefixtures("passing")
@pytest.mark.parametrize(
    ("url", "listener", "answer"),
    [
        ("http://www.test:443/", "websecure", "400 plain_on_tls: listener 'websecure' expects TLS, and gets plain"),
        ("http://db.test:443/", "websecure", "400 plain_on_tls: "),  # there is no name before TLS
        ("http://a.test:8443/", "asking", "400 plain_on_tls: "),
        ("http://db.test:9443/", "pure", "400 plain_on_tls: "),
        ("https://www.test:80/", "web", "400 tls_on_plain: listener 'web' has no `tls`, and gets it"),
    ],
)
def test_a_port_of_the_other_scheme(rautactl: Callable[..., Any], url: str, listener: str, answer: str) -> None:
    ended = rautactl("explain", "GET", url)
    assert (ended.code, ended.err) == (3, "")
    told = facts(ended.out)
    assert told["answer"].startswith(answer)
    assert told["listener"].startswith(f"{listener}, ")
    assert not {"SNI", "host", "verdict", "backend"} & told.keys()
    found = rautactl("explain", "GET", url, "--json").document
    assert (found["listener"]["name"], found["claimed"], found["request"]["host"]) == (listener, False, None)
    assert f"{found['answer']['status']} {found['answer']['reason']}: " in told["answer"]


@pytest.mark.usefixtures("passing")
def test_where_names_do_not_matter_routes_do(rautactl: Callable[..., Any]) -> None:
    for words in (
        ("https://www.test/",),
        ("http://db.test/",),  # in plain text there are no connections by name
        ("https://127.0.0.1:8443/", "-H", "Host: [::1]"),
        ("https://a.test:8443/",),
    ):
        assert facts(rautactl("explain", "GET", *words).out)["route"] == "users"


@pytest.mark.usefixtures("passing")
def test_a_connection_that_no_backend_gets(rautactl: Callable[..., Any]) -> None:
    ended = rautactl("explain", "GET", "https://gone.test/")
    assert ended.code == 0
    told = facts(ended.out)
    assert told["answer"] == "503 no_backend: all backends of service 'gone' have weight 0"
    assert "backend" not in told


CALL = ("-H", "Content-Type: application/grpc+proto")


@pytest.mark.parametrize(
    ("words", "answer", "status"),
    [
        (("POST", "/a.B/C", "-H", API, *CALL), "404 no_route", "12 UNIMPLEMENTED"),
        (("POST", "/a.B/C", *CALL), "404 unknown_host", "12 UNIMPLEMENTED"),
        (("POST", "/idle", "-H", API, *CALL), "503 no_backend", "14 UNAVAILABLE"),
        (("POST", "/a.B/C", "-H", API), "404 no_route", None),
        (("POST", "/a.B/C", "-H", API, "-H", "Content-Type: application/grpc-web"), "404 no_route", None),
        (("POST", "/../C", "-H", API, *CALL), "400 bad_path", None),
        (("TRACE", "/a.B/C", "-H", API, *CALL), "405 method_not_allowed", None),
        (("OPTIONS", "*", "-H", API, *CALL), "200 options", None),
        (("POST", "/users", "-H", API, *CALL), None, None),
    ],
)
def test_what_a_call_of_grpc_gets(
    words: tuple[str, ...], answer: str | None, status: str | None, rautactl: Callable[..., Any], example: Path
) -> None:
    text = example.read_text().replace(
        "  turns:\n", '  idle: {backends: [{address: "10.0.9.2:80", weight: 0}]}\n  turns:\n'
    )
    route = "  - {name: idle, match: {hosts: [api.example.com], path: {exact: /idle}}, service: idle}\n"
    example.write_text(text + route)
    told = facts(rautactl("explain", *words).out)
    assert (answer is None) is ("answer" not in told)
    if answer is not None:
        assert told["answer"].startswith(f"{answer}: ")
        found = rautactl("explain", *words, "--json").document["answer"]["grpc"]
        assert found == (None if status is None else {"status": int(status.split()[0]), "name": status.split()[1]})
        said = (
            None
            if status is None
            else f"{status}, with HTTP status 200 in the place of {answer[:3]}, as this is a call"
        )
        assert told.get("gRPC") == said


@pytest.mark.usefixtures("passing")
def test_a_call_that_is_misdirected(rautactl: Callable[..., Any]) -> None:
    told = facts(rautactl("explain", "POST", "https://www.test/a.B/C", "-H", "Host: db.test", *CALL).out)
    assert told["gRPC"].startswith("2 UNKNOWN, with HTTP status 200 in the place of 421")


def test_the_page_of_grpc_shows_what_it_says(rautactl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    found = re.search(
        r"```text\n\$ rautactl (.*?)\n\.\.\.\n(.*?)```", (root / "docs" / "grpc.md").read_text(), re.DOTALL
    )
    assert found is not None
    assert rautactl(*shlex.split(found[1])).out.endswith(found[2])
