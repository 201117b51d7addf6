"""The allow-list covers the model: every field of every class is changed once, and the outcome is what the list says.

A field that is added to the model is in none of the tables below, so this file is red until somebody decides.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from rauta.offload import Capabilities, Reason, plan
from rauta.offload.allow import UNITS, Honoured, Scope, findings
from rauta.offload.honoured import HONOURED, WORDINGS
from rauta.routing.filters import Filter, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import (
    Asgi,
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
)
from rauta.routing.services import (
    Backend,
    BackendProtocol,
    BackendTls,
    BalancerKey,
    BalancerSettings,
    HealthCheck,
    HealthKind,
    LimitOverrides,
    Plugin,
    ProxyProtocol,
    Service,
    ServiceLimits,
    TimeoutOverrides,
    Timeouts,
)
from rauta.routing.settings import (
    AccessLog,
    Address,
    AdminSettings,
    Certificate,
    ClientCertificates,
    ClientLimits,
    ClientTimeouts,
    EncodedSlash,
    Forwarded,
    Hook,
    Listener,
    LogFormat,
    OffloadMode,
    OffloadSettings,
    Passthrough,
    ProxySources,
    Requirement,
    Secret,
    Shutdown,
    Sysctls,
    TlsSettings,
)

LISTENER = Listener(name="web", address=Address("10.0.0.1", 80))
SERVICE = Service(
    name="s", backends=(Backend(address=Address("10.1.0.1", 80)), Backend(address=Address("10.1.0.2", 80)))
)
MATCH = Match(path=PathMatch.exact("/a"))
ROUTE = Route(name="r", action=Forward(services=(WeightedService(name="s"),)), matches=(MATCH,))
BASE = Configuration(listeners=(LISTENER,), services=(SERVICE,), routes=(ROUTE,), offload=OffloadSettings())


def listener(**changes: Any) -> Configuration:
    return replace(BASE, listeners=(replace(LISTENER, **changes),))


def service(**changes: Any) -> Configuration:
    return replace(BASE, services=(replace(SERVICE, **changes),))


def backend(**changes: Any) -> Configuration:
    return service(backends=(replace(SERVICE.backends[0], **changes), SERVICE.backends[1]))


def route(**changes: Any) -> Configuration:
    return replace(BASE, routes=(replace(ROUTE, **changes),))


def match(**changes: Any) -> Configuration:
    return route(matches=(replace(MATCH, **changes),))


def offload(**changes: Any) -> Configuration:
    return replace(BASE, offload=OffloadSettings(**changes))


def access_log(**changes: Any) -> Configuration:
    return replace(BASE, access_log=AccessLog(**changes))


def kind(plugin: Plugin) -> Configuration:
    return service(balancer=BalancerSettings(kind=plugin))


def admin(**changes: Any) -> Configuration:
    return replace(BASE, admin=AdminSettings(**changes))


def health(**changes: Any) -> Configuration:
    return service(health=HealthCheck(**changes))


def filtered(item: Filter) -> list[tuple[Configuration, Reason]]:
    on_route = (route(filters=(item,)), Reason.FILTERS)
    return [on_route] if isinstance(item, Rewrite) else [on_route, (listener(filters=(item,)), Reason.FILTERS)]


TLS = TlsSettings(certificates=(Certificate(cert="a.crt", key=Secret(file="a.key")),))
MTLS = replace(TLS, clients=ClientCertificates(ca="ca.crt", mode=Requirement.OPTIONAL))
XFF = frozenset({Forwarded.X_FORWARDED_FOR})
SOCKET = Address.unix("/run/a.sock")
NETWORK = ipaddress.ip_network("10.0.0.0/8")
SOURCES = ProxySources(sources=(NETWORK,))
PASSED = Passthrough(names=("a.test",), service="s")

# Every change keeps GET http://anything.test/a on the listener 10.0.0.1:80 a request of the route "r".
HONOURED_CHANGES: dict[tuple[type, str], list[Configuration]] = {
    (Configuration, "listeners"): [replace(BASE, listeners=(LISTENER, Listener(name="x", address=Address("::", 1))))],
    (Configuration, "services"): [replace(BASE, services=(SERVICE, replace(SERVICE, name="unused")))],
    (Configuration, "routes"): [replace(BASE, routes=(ROUTE, replace(ROUTE, name="second")))],
    (Configuration, "offload"): [offload(mode=OffloadMode.REQUIRE)],
    (Configuration, "access_log"): [access_log(to="stderr")],
    (Configuration, "workers"): [replace(BASE, workers=3)],
    (Service, "proxy_protocol"): [service(proxy_protocol=ProxyProtocol.V2)],
    (Configuration, "admin"): [admin()],
    (AdminSettings, "socket"): [admin(socket="/run/b.sock")],
    (AdminSettings, "address"): [admin(address=Address("127.0.0.1", 9901))],
    (AdminSettings, "token"): [admin(address=Address("10.0.0.1", 9901), token=Secret(env="TOKEN"))],
    (Configuration, "shutdown"): [replace(BASE, shutdown=Shutdown(delay=1))],
    (Shutdown, "delay"): [replace(BASE, shutdown=Shutdown(delay=1))],
    (Shutdown, "timeout"): [replace(BASE, shutdown=Shutdown(timeout=1))],
    (OffloadSettings, "mode"): [offload(mode=OffloadMode.REQUIRE)],
    (OffloadSettings, "interfaces"): [offload(interfaces=("eth0",))],
    (OffloadSettings, "hook"): [offload(hook=Hook.TC)],
    (OffloadSettings, "sysctls"): [offload(sysctls=Sysctls.ALLOW)],
    (AccessLog, "to"): [access_log(to="off"), access_log(to="access.log")],
    (AccessLog, "format"): [access_log(format=LogFormat.JSON)],
    (AccessLog, "require"): [access_log(require=False)],
    (Listener, "name"): [listener(name="other")],
    (Listener, "address"): [listener(address=Address("0.0.0.0", 80))],
    (Listener, "forwarded"): [listener(forwarded=frozenset())],
    (Listener, "encoded_slash"): [listener(encoded_slash=EncodedSlash.REJECT)],
    (Address, "host"): [listener(address=Address("10.0.0.2", 80)), backend(address=Address("10.1.0.9", 80))],
    (Address, "port"): [listener(address=Address("10.0.0.1", 81)), backend(address=Address("10.1.0.1", 81))],
    (Service, "name"): [
        Configuration(
            listeners=(LISTENER,),
            services=(replace(SERVICE, name="t"),),
            routes=(replace(ROUTE, action=Forward(services=(WeightedService(name="t"),))),),
            offload=OffloadSettings(),
        )
    ],
    (Service, "backends"): [service(backends=SERVICE.backends[:1])],
    (Service, "balancer"): [service(balancer=BalancerSettings(key=BalancerKey.ADDRESS))],
    (Service, "health"): [health()],
    (HealthCheck, "kind"): [health(kind=HealthKind.TCP)],  # of gRPC's kind: see below
    (HealthCheck, "path"): [health(path="/healthz")],
    (HealthCheck, "host"): [health(host="a.test")],
    (HealthCheck, "statuses"): [health(statuses=((200, 200),))],
    (HealthCheck, "tls"): [  # of a service that another listener passes TLS through to
        replace(
            BASE,
            services=(replace(SERVICE, health=HealthCheck(tls=BackendTls())),),
            listeners=(LISTENER, Listener(name="tls", address=Address("10.0.0.1", 443), passthrough=(PASSED,))),
        )
    ],
    (HealthCheck, "service"): [],  # only of gRPC's kind, which needs HTTP/2: see below
    (HealthCheck, "interval"): [health(interval=1)],
    (HealthCheck, "timeout"): [health(timeout=1)],
    (HealthCheck, "healthy"): [health(healthy=1)],
    (HealthCheck, "unhealthy"): [health(unhealthy=1)],
    (Backend, "address"): [backend(address=Address("10.1.0.9", 8080))],
    (Backend, "weight"): [backend(weight=0), backend(weight=7)],
    (BalancerSettings, "key"): [service(balancer=BalancerSettings(key=BalancerKey.ADDRESS))],
    (Route, "name"): [route(name="other")],
    (Route, "action"): [route(action=Forward(services=(WeightedService(name="s", weight=9),)))],
    (Route, "matches"): [route(matches=(MATCH, Match(path=PathMatch.prefix("/b"))))],
    (Route, "listeners"): [route(listeners=("web",))],
    (Route, "priority"): [route(priority=5)],
    (Route, "forwarded"): [route(forwarded=frozenset())],
    (Forward, "services"): [route(action=Forward(services=(WeightedService(name="s", weight=2),)))],
    (WeightedService, "name"): [],  # with (Service, "name")
    (WeightedService, "weight"): [route(action=Forward(services=(WeightedService(name="s", weight=9),)))],
    (Match, "hosts"): [match(hosts=(HostPattern("anything.test"),))],
    (Match, "path"): [match(path=PathMatch.prefix("/"))],
    (Match, "methods"): [match(methods=frozenset({"GET", "PROPFIND"}))],
    (HostPattern, "name"): [match(hosts=(HostPattern("anything.test"),))],
    (HostPattern, "kind"): [
        match(hosts=(HostPattern("test", HostKind.WILDCARD),)),
        match(hosts=(HostPattern("test", HostKind.ONE_LABEL),)),
    ],
    (PathMatch, "kind"): [match(path=PathMatch.prefix("/a"))],
    (PathMatch, "value"): [match(path=PathMatch.prefix("/"))],
}

REFUSED_CHANGES: dict[tuple[type, str], list[tuple[Configuration, Reason]]] = {
    (Configuration, "offload"): [
        (replace(BASE, offload=None), Reason.OFFLOAD_OFF),
        (offload(mode=OffloadMode.NONE), Reason.OFFLOAD_OFF),
    ],
    (AccessLog, "require"): [(access_log(require=True), Reason.ACCESS_LOG)],
    (Listener, "address"): [
        (listener(address=Address("fd00::1", 80)), Reason.IPV6),
        (listener(address=Address("127.0.0.1", 80)), Reason.LISTENER_ADDRESS),
    ],
    (Listener, "tls"): [(listener(tls=TLS, forwarded=frozenset()), Reason.TLS)],
    (Listener, "forwarded"): [
        (listener(forwarded=XFF), Reason.FORWARDED),
        (listener(forwarded=frozenset({Forwarded.CLIENT_CERT}), tls=MTLS), Reason.FORWARDED),
    ],
    (Listener, "timeouts"): [(listener(timeouts=ClientTimeouts(idle=1)), Reason.CLIENT_TIMEOUTS)],
    (Listener, "limits"): [(listener(limits=ClientLimits(head=1024)), Reason.CLIENT_LIMITS)],
    (ClientLimits, "connections"): [(listener(limits=ClientLimits(connections=9)), Reason.CLIENT_LIMITS)],
    (Listener, "trusted_proxies"): [(listener(trusted_proxies=(NETWORK,)), Reason.TRUSTED_PROXIES)],
    (Listener, "filters"): [(listener(filters=(RequestId(),)), Reason.FILTERS)],
    (Listener, "proxy_protocol"): [(listener(proxy_protocol=SOURCES), Reason.PROXY_PROTOCOL)],
    (ProxySources, "sources"): [(listener(proxy_protocol=SOURCES), Reason.PROXY_PROTOCOL)],
    (ProxySources, "mode"): [
        (listener(proxy_protocol=replace(SOURCES, mode=Requirement.OPTIONAL)), Reason.PROXY_PROTOCOL)
    ],
    (Listener, "passthrough"): [(listener(passthrough=(PASSED,)), Reason.PASSTHROUGH)],
    (Passthrough, "names"): [(listener(passthrough=(PASSED,)), Reason.PASSTHROUGH)],
    (Passthrough, "service"): [(listener(passthrough=(PASSED,)), Reason.PASSTHROUGH)],
    (Address, "path"): [(listener(address=SOCKET), Reason.UNIX), (backend(address=SOCKET), Reason.UNIX)],
    (TlsSettings, "certificates"): [(listener(tls=TLS), Reason.TLS)],
    (TlsSettings, "clients"): [(listener(tls=MTLS), Reason.TLS)],
    (ClientCertificates, "ca"): [(listener(tls=MTLS), Reason.TLS)],
    (ClientCertificates, "mode"): [(listener(tls=MTLS), Reason.TLS)],
    (ClientCertificates, "crl"): [
        (listener(tls=replace(MTLS, clients=ClientCertificates(ca="ca.crt", crl="ca.crl"))), Reason.TLS)
    ],
    (Certificate, "cert"): [(listener(tls=TLS), Reason.TLS)],
    (Certificate, "key"): [(listener(tls=TLS), Reason.TLS)],
    (Secret, "file"): [(listener(tls=TLS), Reason.TLS)],
    (Secret, "env"): [(listener(tls=TLS), Reason.TLS)],
    (ClientTimeouts, "head"): [(listener(timeouts=ClientTimeouts(head=1)), Reason.CLIENT_TIMEOUTS)],
    (ClientTimeouts, "idle"): [(listener(timeouts=ClientTimeouts(idle=1)), Reason.CLIENT_TIMEOUTS)],
    (ClientLimits, "head"): [(listener(limits=ClientLimits(head=1024)), Reason.CLIENT_LIMITS)],
    (Service, "backends"): [
        (service(backends=tuple(Backend(address=Address(f"10.1.0.{i}", 80)) for i in range(1, 34))), Reason.BACKENDS),
        (service(backends=(Backend(address=Address("10.1.0.1", 80), weight=0),)), Reason.NO_BACKEND),
    ],
    (Service, "timeouts"): [(service(timeouts=Timeouts(connect=1)), Reason.TIMEOUTS)],
    (Timeouts, "connect"): [(service(timeouts=Timeouts(connect=1)), Reason.TIMEOUTS)],
    (Timeouts, "response"): [(service(timeouts=Timeouts(response=1)), Reason.TIMEOUTS)],
    (Timeouts, "idle"): [(service(timeouts=Timeouts(idle=1)), Reason.TIMEOUTS)],
    (Timeouts, "request"): [(service(timeouts=Timeouts(request=1)), Reason.TIMEOUTS)],
    (Service, "limits"): [(service(limits=ServiceLimits(body=1)), Reason.LIMITS)],
    (ServiceLimits, "body"): [(service(limits=ServiceLimits(body=1)), Reason.LIMITS)],
    (ServiceLimits, "connections"): [(service(limits=ServiceLimits(connections=1)), Reason.LIMITS)],
    (ServiceLimits, "waiting"): [(service(limits=ServiceLimits(waiting=1)), Reason.LIMITS)],
    (Service, "proxy_protocol"): [(service(proxy_protocol=ProxyProtocol.V1), Reason.PROXY_PROTOCOL)],
    (Service, "tls"): [(service(tls=BackendTls()), Reason.BACKEND_TLS)],
    (Service, "protocol"): [
        (service(protocol=BackendProtocol.HTTP2), Reason.BACKEND_PROTOCOL),
        (service(protocol=BackendProtocol.AUTO, tls=BackendTls()), Reason.BACKEND_PROTOCOL),
    ],
    (BackendTls, "ca"): [(service(tls=BackendTls(ca="ca.crt")), Reason.BACKEND_TLS)],
    (BackendTls, "crl"): [(service(tls=BackendTls(ca="ca.crt", crl="ca.crl")), Reason.BACKEND_TLS)],
    (BackendTls, "name"): [(service(tls=BackendTls(name="a.test")), Reason.BACKEND_TLS)],
    (BackendTls, "certificate"): [
        (service(tls=BackendTls(certificate=TLS.certificates[0])), Reason.BACKEND_TLS),
    ],
    (BackendTls, "verify"): [(service(tls=BackendTls(verify=False)), Reason.BACKEND_TLS)],
    (Backend, "address"): [
        (backend(address=Address("users.internal", 80)), Reason.BACKEND_NAME),
        (backend(address=Address("fd00::1", 80)), Reason.IPV6),
        (backend(address=Address("127.0.0.1", 80)), Reason.BACKEND_ADDRESS),
        (backend(address=Address("0.0.0.0", 80)), Reason.BACKEND_ADDRESS),
        (backend(address=Address("224.0.0.1", 80)), Reason.BACKEND_ADDRESS),
        (backend(address=Address("255.255.255.255", 80)), Reason.BACKEND_ADDRESS),
        (backend(address=Address("10.0.0.1", 8080)), Reason.BACKEND_ADDRESS),  # the listener's
        (backend(address=Address("10.9.9.9", 80)), Reason.BACKEND_UNREACHABLE),  # see CAPABILITIES
    ],
    (BalancerSettings, "kind"): [(kind(Plugin(name="round_robin")), Reason.BALANCER)],
    (Plugin, "name"): [(kind(Plugin(name="least_requests")), Reason.BALANCER)],
    (Plugin, "settings"): [(kind(Plugin(name="maglev", settings={"a": 1})), Reason.BALANCER)],
    (Route, "action"): [
        (route(action=Redirect(host="b.test")), Reason.ACTION),
        (route(action=Respond()), Reason.ACTION),
        (route(action=Asgi(app="shop:app")), Reason.ACTION),
    ],
    (Route, "timeouts"): [(route(timeouts=TimeoutOverrides(idle=1)), Reason.TIMEOUTS)],
    (TimeoutOverrides, "connect"): [(route(timeouts=TimeoutOverrides(connect=1)), Reason.TIMEOUTS)],
    (TimeoutOverrides, "response"): [(route(timeouts=TimeoutOverrides(response=60)), Reason.TIMEOUTS)],
    (TimeoutOverrides, "idle"): [(route(timeouts=TimeoutOverrides(idle=1)), Reason.TIMEOUTS)],
    (TimeoutOverrides, "request"): [(route(timeouts=TimeoutOverrides(request=1)), Reason.TIMEOUTS)],
    (Route, "limits"): [(route(limits=LimitOverrides(body=1)), Reason.LIMITS)],
    (LimitOverrides, "body"): [(route(limits=LimitOverrides(body=1)), Reason.LIMITS)],
    (Route, "filters"): filtered(RequestId()),
    **{
        (cls, name): filtered(changes)
        for cls in (RequestHeaders, ResponseHeaders)
        for name, changes in (
            ("set", cls(set=(("X", "y"),))),
            ("add", cls(add=(("X", "y"),))),
            ("remove", cls(remove=("X",))),
        )
    },
    (Rewrite, "host"): filtered(Rewrite(host="b.test")),
    (Rewrite, "path"): filtered(Rewrite(path="/b")),
    (Rewrite, "prefix"): [
        (route(matches=(Match(path=PathMatch.prefix("/a")),), filters=(Rewrite(prefix="/b"),)), Reason.FILTERS)
    ],
    **{(Rewrite, name): filtered(Rewrite(regex="/a", substitution="/b")) for name in ("regex", "substitution")},
    (RequestId, "header"): filtered(RequestId(header="X-Id")),
    (RequestId, "accept"): filtered(RequestId(accept=True)),
    (Route, "upgrades"): [
        (route(upgrades=frozenset()), Reason.UPGRADES),
        (route(upgrades=frozenset({"websocket", "irc"})), Reason.UPGRADES),
    ],
    (Route, "forwarded"): [(route(forwarded=XFF), Reason.FORWARDED)],
    **{
        (Redirect, field.name): [(route(action=Redirect(host="b.test")), Reason.ACTION)]
        for field in dataclasses.fields(Redirect)
    },
    **{
        (Respond, field.name): [(route(action=Respond(status=404)), Reason.ACTION)]
        for field in dataclasses.fields(Respond)
    },
    (Asgi, "app"): [(route(action=Asgi(app="shop:app")), Reason.ACTION)],
    (Match, "path"): [(match(path=PathMatch.regex("/a")), Reason.REGEX)],
    (PathMatch, "kind"): [(match(path=PathMatch.regex("/a")), Reason.REGEX)],
    (PathMatch, "value"): [
        (match(path=PathMatch.exact("/a%2Fb")), Reason.PATH),
        (match(path=PathMatch.prefix("/a//b")), Reason.PATH),
        (match(path=PathMatch.exact("/" + "a" * 300)), Reason.PATH),
    ],
    (Match, "methods"): [(match(methods=frozenset({"PROPFIND"})), Reason.METHOD)],
    (Match, "headers"): [(match(headers=(ValueMatch("x", ValueKind.PRESENT),)), Reason.HEADERS)],
    (Match, "query"): [(match(query=(ValueMatch("x", ValueKind.PRESENT),)), Reason.QUERY)],
    (Match, "plugins"): [(match(plugins=(Plugin(name="p"),)), Reason.PLUGIN)],
    **{
        (ValueMatch, name): [(match(headers=(ValueMatch("x", ValueKind.EXACT, "1"),)), Reason.HEADERS)]
        for name in ("name", "kind", "value")
    },
    (HostPattern, "name"): [
        (match(hosts=(HostPattern("[::1]"),)), Reason.HOST),
        (match(hosts=(HostPattern("a." * 100 + "test"),)), Reason.HOST),
    ],
}

CAPABILITIES = Capabilities(unreachable={"10.9.9.9": "is behind lo, where no program runs"})


def model_classes() -> list[type]:
    """Every dataclass that a Configuration can hold, by the types of the fields."""
    found: dict[type, None] = {}

    def visit(hint: Any) -> None:
        for inner in typing.get_args(hint):
            visit(inner)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint not in found:
            found[hint] = None
            for inner in typing.get_type_hints(hint).values():
                visit(inner)

    visit(Configuration)
    return list(found)


def model_fields() -> Iterator[tuple[type, str]]:
    for cls in model_classes():
        for field in dataclasses.fields(cls):
            yield cls, field.name


def label(value: Any) -> str:
    return f"{value[0].__name__}.{value[1]}" if isinstance(value, tuple) and isinstance(value[0], type) else ""


def test_the_model_is_walked() -> None:
    assert len(model_classes()) >= 25
    assert {Configuration, Secret, ValueMatch, Redirect, HostPattern} <= set(model_classes())


@pytest.mark.parametrize("field", [*model_fields()], ids=label)
def test_every_field_of_the_model_is_decided_on(field: tuple[type, str]) -> None:
    cls, name = field
    if name in HONOURED.get(cls, {}):
        assert field in HONOURED_CHANGES, "the allow-list has it: say here how the kernel is seen to honour it"
    else:
        assert field in REFUSED_CHANGES, "a new field: list it in `honoured`, or change it here and see it refused"


def test_the_list_names_only_what_exists() -> None:
    known = {*model_fields(), *((cls, "") for cls in model_classes())}
    listed = {(cls, name) for cls, names in HONOURED.items() for name in names}
    assert listed <= known
    assert WORDINGS.keys() <= known
    assert not listed & WORDINGS.keys(), "a wording is for what is not on the list"


def only_listener(configuration: Configuration) -> str:
    return configuration.listeners[0].name


@pytest.mark.parametrize(
    ("field", "changed"),
    [(field, changed) for field, configurations in HONOURED_CHANGES.items() for changed in configurations],
    ids=label,
)
def test_what_is_on_the_list_is_honoured(field: tuple[type, str], changed: Configuration) -> None:
    made = plan(changed, CAPABILITIES)
    decision = made.decide(only_listener(changed), "anything.test", "GET", "/a")
    assert decision is not None, made.refusals
    assert decision.route.name == changed.routes[0].name


@pytest.mark.parametrize(
    ("field", "changed", "reason"),
    [(field, *rest) for field, changes in REFUSED_CHANGES.items() for rest in changes],
    ids=label,
)
def test_what_is_not_on_the_list_is_refused(field: tuple[type, str], changed: Configuration, reason: Reason) -> None:
    made = plan(changed, CAPABILITIES)
    assert not made.routes
    assert made.decide(only_listener(changed), "anything.test", "GET", "/a") is None
    assert reason in {refusal.reason for refusal in made.refusals["r"]}


def test_a_check_by_grpc_is_honoured_and_the_protocol_that_it_needs_is_not() -> None:
    check = HealthCheck(kind=HealthKind.GRPC, service="a.B")
    refusals = plan(service(health=check, protocol=BackendProtocol.HTTP2)).refusals["r"]
    assert [refusal.reason for refusal in refusals] == [Reason.BACKEND_PROTOCOL]


# --- the generic rule, for what the model does not have yet ---------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    known: int = 1
    added: int = 1
    required: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Later | None = None
    many: tuple[Later, ...] = ()


SCOPE = Scope(BASE, Capabilities(), "service 's'")
FULL: dict[type, dict[str, Honoured]] = {Later: {"known": Honoured(""), "required": Honoured("")}}


def test_a_field_that_is_not_listed_must_have_its_default() -> None:
    assert not [*findings(Later(known=5, required="x"), SCOPE, FULL, {})]
    (found,) = findings(Later(added=2, required="x"), SCOPE, FULL, {})
    assert found.reason is Reason.SETTING
    assert found.blocking
    assert found.message == "service 's': added is 2 (default 1): the kernel tiers do not know this setting"


def test_a_field_without_default_must_be_listed() -> None:
    (found,) = findings(Later(required="x"), SCOPE, {Later: {}}, {})
    assert found.message.startswith("service 's': required is x: ")


def test_a_class_that_is_not_listed_is_refused() -> None:
    (found,) = findings(Later(required="x"), SCOPE, {}, {})
    assert found.reason is Reason.SETTING
    outer = {Outer: {"inner": Honoured("", inside=True), "many": Honoured("", inside=True)}}
    assert not [*findings(Outer(), SCOPE, outer, {})]
    assert [*findings(Outer(inner=Later(required="x")), SCOPE, outer, {})]
    assert len([*findings(Outer(many=(Later(required="x"), Later(required="y"))), SCOPE, outer, {})]) == 2


def test_a_subclass_is_not_taken_for_its_base() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Encrypted(Backend):
        secret: str = ""

    changed = service(backends=(Encrypted(address=Address("10.1.0.1", 80)),))
    assert Reason.SETTING in {refusal.reason for refusal in plan(changed).refusals["r"]}


@pytest.mark.parametrize(
    "field",
    [
        (Listener, "encoded_slash"),
        (BalancerSettings, "key"),
        (HostPattern, "kind"),
        (PathMatch, "kind"),
        (HealthCheck, "kind"),
    ],
)
def test_a_value_that_an_enumeration_gains_is_refused(field: tuple[type, str]) -> None:
    check: Callable[..., Any] | None = HONOURED[field[0]][field[1]].check
    assert check is not None
    (found,) = check(types.SimpleNamespace(value="new"), SCOPE)
    assert found.reason is Reason.SETTING


def test_messages_name_the_field_and_its_default() -> None:
    (refusal,) = plan(service(timeouts=Timeouts(response=30))).refusals["r"]
    expected = (
        "service 's': timeouts.response is 30s (default 60s): time-outs of the kernel tiers are the backend's own"
    )
    assert refusal.message == expected


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (kind(Plugin(name="round_robin")), "service 's': balancer.name is round_robin (default maglev)"),
        (service(timeouts=Timeouts(connect=0.25, request=3600)),
         "service 's': timeouts.connect is 250ms (default 5s), timeouts.request is 1h (default 24h)"),
        (route(timeouts=TimeoutOverrides(idle=1.5)), "timeouts.idle is 1.5s"),
        (listener(limits=ClientLimits(head=32768, connections=9)),
         "listener 'web': limits.head is 32KiB (default 64KiB), limits.connections is 9 (default 32768)"),
        (service(limits=ServiceLimits(body=1500)), "service 's': limits.body is 1500B (default 1024GiB)"),
        (route(limits=LimitOverrides(body=0)), "limits.body is 0B"),
        (service(protocol=BackendProtocol.HTTP2), "service 's': protocol is http2 (default http1)"),
        (service(tls=BackendTls(ca="/etc/ca.crt")), "service 's': tls is set"),
        (listener(trusted_proxies=(NETWORK,)), "listener 'web': trusted_proxies is 10.0.0.0/8"),
        (listener(proxy_protocol=SOURCES), "listener 'web': proxy_protocol is set"),
        (listener(passthrough=(PASSED,)), "listener 'web': passthrough is passthrough"),
        (route(filters=(RequestId(), RequestHeaders(remove=("X",)))), "filters is request_id, request_headers"),
        (route(upgrades=frozenset()), "upgrades is empty (default websocket)"),
        (backend(address=SOCKET), "service 's': unix is /run/a.sock"),
        (match(plugins=(Plugin(name="p", settings={"secret": 1}),)), "plugins is p"),
    ],
)  # fmt: skip
def test_values_are_told_as_the_file_has_them(changed: Configuration, told: str) -> None:
    assert [refusal.message.rpartition(": ")[0] for refusal in plan(changed).refusals["r"]] == [told]


def test_every_duration_is_told_with_its_unit() -> None:
    floats = {(cls, name) for cls, name in model_fields() if typing.get_type_hints(cls)[name] in (float, float | None)}
    honoured = {(cls, name) for cls, names in HONOURED.items() for name in names}
    assert floats - honoured <= UNITS.keys()
