"""Filters, upgrades, time-outs and limits of a route, as they are shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl import effective
from rauta.routing.filters import Filter, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.model import Forward, Redirect, Route, WeightedService
from rauta.routing.services import (
    Backend,
    BackendProtocol,
    BackendTls,
    HealthCheck,
    HealthKind,
    LimitOverrides,
    Service,
    ServiceLimits,
    TimeoutOverrides,
    Timeouts,
)
from rauta.routing.settings import Address, Certificate, Secret
from support.tls import Authority

FORWARD = Forward(services=(WeightedService(name="s"),))
SERVICE = Service(
    name="s",
    backends=(Backend(address=Address("10.0.0.1", 80)),),
    timeouts=Timeouts(connect=1, idle=90),
    limits=ServiceLimits(body=10 << 20, waiting=5),
)

FILE = """\
version: 1
listeners: {web: {address: "127.0.0.1:8080", filters: [{request_id: {}}]}}
services:
  s:
    backends: [{address: "10.0.0.1:80"}]
    limits: {body: 10MiB}
    health: {path: /healthz}
    proxy_protocol: v2
routes:
- name: plain
  match: {path: {prefix: /plain}}
  service: s
- name: own
  match: {path: {prefix: /own}}
  service: s
  filters: [{rewrite: {path: {prefix: /v2}}}, {request_headers: {set: {Authorization: Basic c2VjcmV0}}}]
  upgrades: []
  limits: {body: 1MiB}
  timeouts: {response: 5s}
- {name: moved, match: {path: {prefix: /old}}, redirect: {scheme: https}, filters: [{response_headers: {remove: [A]}}]}
"""


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (RequestHeaders(set=(("A", "1"), ("B", "2")), add=(("C", "3"), ("C", "4")), remove=("D",)),
         "request headers: remove D, set A and B, add C"),
        (ResponseHeaders(remove=("D",)), "response headers: remove D"),
        (Rewrite(host="a.test", prefix="/v2"), "rewrite host to a.test, prefix to /v2"),
        (Rewrite(path="/b"), "rewrite path to /b"),
        (Rewrite(regex="/a/(.*)", substitution=r"/b/\1"), r"rewrite path /a/(.*) to /b/\1"),
        (RequestId(), "request id in X-Request-Id"),
        (RequestId(header="X-Id", accept=True), "request id in X-Id, the client's if it sends one"),
    ],
)  # fmt: skip
def test_filters_as_text(item: Filter, text: str) -> None:
    assert effective.filter_text(item) == text


@pytest.mark.parametrize(
    ("item", "document"),
    [
        (ResponseHeaders(set=(("A", "1"),)), {"response_headers": {"set": ["A"], "add": [], "remove": []}}),
        (Rewrite(path="/b"), {"rewrite": {"host": None, "path": {"full": "/b"}}}),
        (Rewrite(prefix="/b"), {"rewrite": {"host": None, "path": {"prefix": "/b"}}}),
        (Rewrite(host="a.test"), {"rewrite": {"host": "a.test", "path": None}}),
        (Rewrite(regex="/a", substitution="/b"),
         {"rewrite": {"host": None, "path": {"regex": "/a", "substitution": "/b"}}}),
        (RequestId(), {"request_id": {"header": "X-Request-Id", "accept": False}}),
    ],
)  # fmt: skip
def test_filters_as_json(item: Filter, document: dict[str, Any]) -> None:
    assert effective.filter_document(item) == document


def test_a_route_overrides_its_service() -> None:
    route = Route(name="r", action=FORWARD, timeouts=TimeoutOverrides(idle=5, request=7), limits=LimitOverrides(body=0))
    assert effective.timeouts_of(route, SERVICE) == Timeouts(connect=1, idle=5, request=7)
    assert effective.limits_of(route, SERVICE) == ServiceLimits(body=0, waiting=5)
    plain = Route(name="r", action=FORWARD)
    assert effective.timeouts_of(plain, SERVICE) == SERVICE.timeouts
    assert effective.limits_of(plain, SERVICE) == SERVICE.limits


def test_limits_as_text() -> None:
    assert effective.limits_text(ServiceLimits()) == ""
    assert effective.limits_text(ServiceLimits(body=0, connections=9, waiting=8)) == (
        "bodies up to 0B, 9 connections per worker and backend, 8 requests that wait for one"
    )


def test_health_checks() -> None:
    assert effective.health_text(HealthCheck(path="/a", interval=0.5)) == "GET /a every 500ms"
    assert effective.health_text(HealthCheck(kind=HealthKind.TCP)) == "TCP connect every 5s"
    of_one = HealthCheck(kind=HealthKind.GRPC, service="a.B", host="a.test")
    assert effective.health_text(of_one) == "gRPC check of a.B every 5s"
    assert effective.health_text(HealthCheck(kind=HealthKind.GRPC)) == "gRPC check of the server every 5s"
    secure = HealthCheck(path="/a", tls=BackendTls(name="a.test", verify=False))
    how = "not verified: anybody may be the backend; asked for as a.test"
    assert effective.health_text(secure) == f"GET /a over TLS, {how}, every 5s"
    assert effective.health_document(secure)["tls"]["name"] == "a.test"
    assert effective.health_document(of_one)["tls"] is None
    told = effective.health_document(of_one)
    assert (told["kind"], told["service"], told["host"], told["path"]) == ("grpc", "a.B", "a.test", None)
    assert effective.health_document(HealthCheck())["service"] is None
    assert effective.health_document(HealthCheck(kind=HealthKind.TCP))["statuses"] is None
    assert effective.health_document(HealthCheck())["statuses"] == [[200, 399]]


def test_what_a_route_says_for_itself() -> None:
    assert effective.own_settings(Route(name="r", action=FORWARD)) == ""
    assert effective.own_settings(Route(name="r", action=Redirect(scheme="https"), upgrades=frozenset())) == ""
    route = Route(
        name="r",
        action=FORWARD,
        filters=(RequestId(),),
        upgrades=frozenset({"websocket", "irc"}),
        limits=LimitOverrides(body=1024),
        timeouts=TimeoutOverrides(connect=0.1),
    )
    assert effective.own_settings(route) == (
        "request id in X-Request-Id; upgrades irc, websocket; bodies up to 1KiB; connect 100ms"
    )


OURS = Certificate(cert="ours.crt", key=Secret(file="ours.key"))


@pytest.mark.parametrize(
    ("tls", "protocol", "spoken", "verified"),
    [
        (None, BackendProtocol.HTTP1, "HTTP/1.1", None),
        (None, BackendProtocol.HTTP2, "HTTP/2 by prior knowledge", None),
        (BackendTls(), BackendProtocol.HTTP1, "HTTP/1.1",
         "verified by the CAs of the system, as the host of its address"),
        (BackendTls(ca="ca.pem", name="a.test", certificate=OURS), BackendProtocol.HTTP2, "HTTP/2",
         "verified by ca.pem, as a.test, with our certificate ours.crt"),
        (BackendTls(verify=False), BackendProtocol.AUTO, "HTTP/2 or HTTP/1.1, as the backend chooses",
         "not verified: anybody may be the backend; asked for as the host of its address"),
    ],
)  # fmt: skip
def test_how_backends_are_spoken_to(
    tls: BackendTls | None, protocol: BackendProtocol, spoken: str, verified: str | None
) -> None:
    assert effective.protocol_text(replace(SERVICE, tls=tls, protocol=protocol)) == spoken
    assert (None if tls is None else effective.tls_text(tls)) == verified


def test_explain_tells_how_backends_are_spoken_to(file: Path, rautactl: Callable[..., Any]) -> None:
    ca = Authority(file.parent, "test")
    ca.revoke()
    tls = "{ca: test.crt, crl: test.crl, name: users.internal}"
    file.write_text(FILE.replace("proxy_protocol: v2", f"protocol: http2\n    tls: {tls}"))
    lines = [line.split("  ", 1) for line in rautactl("explain", "GET", "/plain").out.splitlines()]
    told = {parts[0]: parts[1].strip() for parts in lines if len(parts) == 2}
    assert told["spoken to"] == "HTTP/2"
    assert told["TLS"] == f"verified by {ca.cert}, as users.internal, unless revoked by {file.parent}/test.crl"
    service = rautactl("explain", "GET", "/plain", "--json").document["service"]
    assert service["protocol"] == "http2"
    assert service["tls"] == {
        "ca": str(ca.cert), "name": "users.internal", "certificate": None, "verify": True,
        "crl": f"{file.parent}/test.crl",
    }  # fmt: skip
    file.write_text(FILE)
    assert "spoken to" not in rautactl("explain", "GET", "/plain").out
    service = rautactl("explain", "GET", "/plain", "--json").document["service"]
    assert (service["protocol"], service["tls"]) == ("http1", None)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rauta.yaml"
    path.write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return path


def test_explain_tells_what_holds_for_the_request(file: Path, rautactl: Callable[..., Any]) -> None:
    lines = rautactl("explain", "GET", "/own/x").out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("filters"))
    assert [line.split(maxsplit=1) for line in lines[start:] if not line.startswith(" ")] == [
        ["filters", "request id in X-Request-Id"],
        ["upgrades", "none"],
        ["time-outs", "connect 5s, response 5s, idle 60s, request 24h"],
        ["limits", "bodies up to 1MiB"],
        ["health", "GET /healthz every 5s"],
        ["PROXY", "v2"],
    ]
    assert [line.strip() for line in lines[start:] if line.startswith(" ")] == [
        "rewrite prefix to /v2",
        "request headers: set Authorization",
    ]
    assert "c2VjcmV0" not in "".join(lines)


def test_explain_tells_only_the_time_outs_where_all_else_is_as_by_default(
    file: Path, rautactl: Callable[..., Any]
) -> None:
    services = 'services: {s: {backends: [{address: "10.0.0.1:80"}]}}'
    file.write_text(
        f'version: 1\nlisteners: {{web: {{address: ":80"}}}}\n{services}\nroutes: [{{name: r, service: s}}]\n'
    )
    lines = rautactl("explain", "GET", "/").out.splitlines()
    assert lines[-2].startswith("adds")
    assert lines[-1].split(maxsplit=1) == ["time-outs", "connect 5s, response 60s, idle 60s, request 24h"]


def test_explain_of_an_answer_of_rautas_own(file: Path, rautactl: Callable[..., Any]) -> None:
    lines = rautactl("explain", "GET", "/old").out.splitlines()
    assert lines[-2].split(maxsplit=1) == ["filters", "request id in X-Request-Id"]
    assert lines[-1].strip() == "response headers: remove A"
    document = rautactl("explain", "GET", "/old", "--json").document
    assert (document["upgrades"], document["timeouts"], document["limits"]) == ([], None, None)
    assert [*map(list, document["filters"])] == [["request_id"], ["response_headers"]]


def test_explain_as_json(file: Path, rautactl: Callable[..., Any]) -> None:
    document = rautactl("explain", "GET", "/own/x", "--json").document
    assert [*map(list, document["filters"])] == [["request_id"], ["rewrite"], ["request_headers"]]
    assert document["upgrades"] == []
    assert document["timeouts"] == {"connect": 5.0, "response": 5.0, "idle": 60.0, "request": 86400.0}
    assert document["limits"] == {"body": 1 << 20, "connections": 1024, "waiting": 1024}
    assert document["service"]["proxy_protocol"] == "v2"
    assert document["service"]["health"]["path"] == "/healthz"
    assert "c2VjcmV0" not in json.dumps(document)
    unclaimed = rautactl("explain", "GET", "/nowhere", "--json").document
    assert (unclaimed["filters"], unclaimed["timeouts"]) == ([], None)


def test_routes_show_their_own_settings(file: Path, rautactl: Callable[..., Any]) -> None:
    header, plain, own, moved, *_ = rautactl("routes").out.splitlines()
    column = header.index("SETTINGS")
    assert plain[column:].startswith(" ")
    assert own[column:].startswith(
        "rewrite prefix to /v2; request headers: set Authorization; upgrades none; bodies up to 1MiB; response 5s  "
    )
    assert moved[column:].startswith("response headers: remove A  ")


def test_routes_as_json(file: Path, rautactl: Callable[..., Any]) -> None:
    plain, own, moved = rautactl("routes", "--json").document["routes"]
    assert (plain["filters"], plain["upgrades"]) == ([], ["websocket"])
    assert own["effective"] == [
        {
            "service": "s",
            "timeouts": {"connect": 5.0, "response": 5.0, "idle": 60.0, "request": 86400.0},
            "limits": {"body": 1 << 20, "connections": 1024, "waiting": 1024},
        }
    ]
    assert moved["effective"] == []
