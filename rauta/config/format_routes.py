"""The file format: routes and their actions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from rauta.config.composite import ListOf, OneOrMany
from rauta.config.format_common import FORWARDED, NAME, PATH, PROTOCOL, WEIGHT
from rauta.config.format_filters import FILTERS, in_file
from rauta.config.format_matches import ANY_PATH, MATCH
from rauta.config.format_services import LIMIT_BODY, TIMEOUT_DOCS
from rauta.config.nodes import shorten
from rauta.config.scalars import Choice, Duration, Integer, Parsed, Size, Text
from rauta.config.schema import Field, Object
from rauta.routing import model, services
from rauta.routing.errors import ModelError, Problem

_port: Final = Integer("a port", least=1, most=65535)

_timeout_overrides = Object(
    name="route timeouts",
    doc="What a route changes of its services' time-outs.",
    fields=tuple(
        Field(key=key, type=Duration(), doc=doc, example=example, absent="the service's")
        for key, (doc, example) in TIMEOUT_DOCS.items()
    ),
    model=services.TimeoutOverrides,
    share=True,
)

_limit_overrides = Object(
    name="route limits",
    doc="What a route changes of its services' limits.",
    fields=(Field(key="body", type=Size(), doc=LIMIT_BODY[0], example=LIMIT_BODY[1], absent="the service's"),),
    model=services.LimitOverrides,
    hints=dict.fromkeys(("connections", "waiting"), "it belongs into the limits of a service"),
    share=True,
)

_weighted_service = Object(
    name="weighted service",
    doc="A service's share of a route's connections.",
    fields=(
        Field(key="name", type=NAME, doc="The service.", example="users"),
        Field(key="weight", type=WEIGHT, doc="Its share; 0 gets none.", example="90"),
    ),
    model=model.WeightedService,
    instead="{name: %s}",
    share=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RedirectPath:
    full: str | None = None
    prefix: str | None = None


_redirect_path = Object(
    name="redirect path",
    doc="The new path.",
    fields=(
        Field(key="full", type=PATH, doc="The whole new path.", example="/moved"),
        Field(key="prefix", type=PATH, doc="What replaces the prefix that the route matched.", example="/new"),
    ),
    model=_RedirectPath,
    one_of=("full", "prefix"),
    instead="{full: %s}",
)


def _build_redirect(path: _RedirectPath | None = None, **values: Any) -> model.Redirect:
    if path is None:
        return model.Redirect(**values)
    try:
        return model.Redirect(path=path.full, prefix=path.prefix, **values)
    except ModelError as error:
        # The model's field for a new prefix is `prefix`; in the file it is `path.prefix`.
        raise ModelError(*(p.under("path") if p.where == ("prefix",) else p for p in error.problems)) from None


_redirect = Object(
    name="redirect",
    doc="An answer that sends the client elsewhere. What is left out stays as it was in the request.",
    fields=(
        Field(
            key="status", type=Integer(only=(301, 302, 303, 307, 308)), doc="301, 302, 303, 307 or 308.", example="301"
        ),
        Field(
            key="scheme", type=Choice(("http", "https")), doc="The new scheme.", example="https", absent="as requested"
        ),
        Field(key="host", type=Text("a host"), doc="The new host.", example="www.example.com", absent="as requested"),
        Field(
            key="port",
            type=_port,
            doc="The new port.",
            example="8443",
            absent="as requested; dropped with a new scheme or host",
        ),
        Field(key="path", type=_redirect_path, doc="The new path.", example="{full: /moved}", absent="as requested"),
    ),
    model=model.Redirect,
    build=_build_redirect,
)

_respond = Object(
    name="respond",
    doc="A fixed answer.",
    fields=(
        Field(key="status", type=Integer(least=200, most=599), doc="The status: 200 to 599.", example="503"),
        Field(key="body", type=Text(), doc="The body, sent as UTF-8.", example='"Back soon.\\n"'),
        Field(key="content_type", type=Text(), doc="The Content-Type field.", example="application/json"),
    ),
    model=model.Respond,
)

ACTIONS: Final = ("service", "services", "redirect", "respond", "asgi")


@lru_cache(maxsize=4096)  # most routes name one of few services, and may share the object
def _forward_to(name: str) -> model.Forward:
    return model.Forward(services=(model.WeightedService(name=name),))


def _application_meant(text: str) -> str | None:
    """What to write instead of `shop.web.app` or `shop/web.py:app`."""
    path, colon, attribute = text.partition(":")
    if colon and "/" in path:
        module = path.removeprefix("./").removesuffix(".py").replace("/", ".")
        return f"{shorten(text)} names a file, not a module: write {shorten(f'{module}:{attribute}')}"
    module, dot, attribute = text.rpartition(".")
    if not dot or ":" in text:
        return None
    return f"{shorten(text)} is not module:attribute: write {shorten(f'{module}:{attribute}')}"


def _application(text: str) -> model.Asgi:
    try:
        return model.Asgi(app=text)
    except ModelError as error:
        raise ModelError(*(Problem((), problem.message) for problem in error.problems)) from None


_EVERYTHING: Final = (model.Match(path=ANY_PATH),)


def _build_route(
    service: str | None = None,
    services: tuple[model.WeightedService, ...] = (),
    redirect: model.Redirect | None = None,
    respond: model.Respond | None = None,
    asgi: model.Asgi | None = None,
    **values: Any,
) -> model.Route:
    values.setdefault("matches", _EVERYTHING)
    values.setdefault("timeouts", _SAME_TIMEOUTS)
    values.setdefault("limits", _SAME_LIMITS)
    action: model.Action | None = redirect or respond or asgi
    if action is None:
        action = model.Forward(services=services) if service is None else _forward_to(service)
    try:
        return model.Route(action=action, **values)
    except ModelError as error:
        raise ModelError(*map(_in_file, error.problems)) from None


def _in_file(problem: Problem) -> Problem:
    """A problem of a route with its place in the file, where a rewrite is one of the keys of a filter."""
    match problem.where:
        case ("filters", int() as position, *rest) if rest:
            return in_file(Problem(tuple(rest), problem.message)).under("filters", position, "rewrite")
        case _:
            return problem


_SAME_TIMEOUTS: Final = services.TimeoutOverrides()
_SAME_LIMITS: Final = services.LimitOverrides()

ROUTE: Final = Object(
    name="route",
    doc="What to do with some requests.",
    fields=(
        Field(key="name", type=NAME, doc="Unique; in logs and metrics.", example="orders"),
        Field(
            key="listeners",
            type=ListOf(NAME, unique=True, share=True, empty="leave it out for all listeners"),
            doc="Names of the listeners it serves.",
            example="[web]",
            absent="all listeners",
        ),
        Field(
            key="match",
            type=OneOrMany(MATCH, empty="leave it out to match everything"),
            attribute="matches",
            doc="One match, or a list of which any is enough.",
            example="{path: {prefix: /orders}}",
            absent="everything",
        ),
        Field(key="service", type=NAME, doc="Forward to this service.", example="users"),
        Field(
            key="services",
            type=ListOf(_weighted_service, empty="name a service"),
            doc="Forward to one of these services, by weight.",
            example="[{name: users, weight: 90}, {name: canary, weight: 10}]",
        ),
        Field(key="redirect", type=_redirect, doc="Answer with a redirect.", example="{scheme: https, status: 308}"),
        Field(key="respond", type=_respond, doc="Answer with a fixed response.", example="{status: 404}"),
        Field(
            key="asgi",
            type=Parsed(
                "an application such as shop.web:app",
                _application,
                pattern=f"^{model.APPLICATION}$",
                hint=_application_meant,
            ),
            doc="Let an ASGI 3 application answer, in each worker's own event loop: `module:attribute`, which the "
            "Python that runs rauta can import.",
            example='"shop.web:app"',
        ),
        Field(
            key="priority",
            type=Integer(least=-1_000_000, most=1_000_000),
            doc="Higher goes first among the routes of one host; usually the most specific match should decide.",
            example="10",
        ),
        Field(
            key="timeouts",
            type=_timeout_overrides,
            doc="Other time-outs than the service's.",
            example="{response: 5m}",
            absent="the service's",
        ),
        Field(
            key="limits",
            type=_limit_overrides,
            doc="Other limits than the service's.",
            example="{body: 1GiB}",
            absent="the service's",
        ),
        Field(
            key="forwarded",
            type=FORWARDED,
            doc="As on a listener, for this route.",
            example="[]",
            absent="the listener's",
        ),
        Field(
            key="filters",
            type=FILTERS,
            doc="Changes of its requests and responses, in order, after the filters of the listener. They do not "
            "change which route it is.",
            example="[{rewrite: {path: {prefix: /v2}}}]",
            absent="none",
        ),
        Field(
            key="upgrades",
            type=ListOf(Text("a protocol", pattern=PROTOCOL), collect=frozenset, unique=True, share=True),
            doc="Protocols that a client may switch to (`Upgrade`), after which bytes are passed on as they come. "
            "`name/version` is another protocol than `name`. `[]`: none.",
            example="[websocket]",
        ),
    ),
    model=model.Route,
    build=_build_route,
    one_of=ACTIONS,
    hints={
        "path": "write match: {path: ...}",
        "hosts": "write match: {hosts: ...}",
        "host": "write match: {hosts: [...]}",
        "methods": "write match: {methods: ...}",
        "backends": "backends belong to a service",
        "health": "health checks belong to a service",
        "rewrite": "write filters: [{rewrite: ...}]",
        "rewrites": "write filters: [{rewrite: ...}]",
        "headers": "write match: {headers: ...}, or filters: [{request_headers: ...}]",
        "request_headers": "write filters: [{request_headers: ...}]",
        "response_headers": "write filters: [{response_headers: ...}]",
        "request_id": "write filters: [{request_id: {}}]",
        "websocket": "write upgrades: [websocket]",
        "app": "write asgi: module:attribute",
        "application": "write asgi: module:attribute",
    },
)
