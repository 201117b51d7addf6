"""The file format: the matches of routes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from rauta.config.composite import ListOf
from rauta.config.format_common import PATH, REGEX, TCHARS
from rauta.config.plugins import PluginType, plugin_fields
from rauta.config.scalars import Boolean, Parsed, Text
from rauta.config.schema import Field, Object, switched
from rauta.routing import model, services
from rauta.routing.errors import ModelError
from rauta.routing.hosts import HostPattern
from rauta.routing.plugins import MATCHERS

_PATH_KINDS: Final = {kind.value: kind for kind in model.PathKind}  # a look-up by value costs three times this one


def _build_path(**values: str) -> model.PathMatch:
    [(kind, value)] = values.items()
    return model.PathMatch(_PATH_KINDS[kind], value)


_path_match = Object(
    name="path",
    doc="A condition on the path.",
    fields=(
        Field(key="exact", type=PATH, doc="The whole path; a trailing slash matters.", example="/api/users"),
        Field(
            key="prefix",
            type=PATH,
            doc="The path and everything below it, element by element: `/a` matches `/a/b` and not `/ab`.",
            example="/orders",
        ),
        Field(
            key="regex",
            type=Text("a regular expression"),
            doc=f"The whole path, case-sensitive, ASCII; see {REGEX}.",
            example='"/users/[0-9]+"',
        ),
    ),
    model=model.PathMatch,
    build=_build_path,
    one_of=("exact", "prefix", "regex"),
    instead="{prefix: %s}",
    share=True,
)

_VALUE_KINDS: Final = ("exact", "prefix", "regex", "present")


def _kind_of(values: dict[str, Any]) -> tuple[model.ValueKind, str]:
    [(kind, value)] = values.items()
    if kind == "present":
        return (model.ValueKind.PRESENT if value else model.ValueKind.ABSENT), ""
    return model.ValueKind(kind), value


def _build_header(name: str, **values: Any) -> model.ValueMatch:
    return model.header_match(name, *_kind_of(values))


def _build_query(name: str, **values: Any) -> model.ValueMatch:
    return model.ValueMatch(name, *_kind_of(values))


def _value_fields(what: str) -> tuple[Field, ...]:
    return (
        Field(key="name", type=Text(f"the name of a {what}"), doc=f"The {what}'s name.", example="x-tenant"),
        Field(key="exact", type=Text(), doc="The whole value.", example="blue"),
        Field(key="prefix", type=Text(), doc="How the value starts.", example="Bearer "),
        Field(
            key="regex",
            type=Text("a regular expression"),
            doc=f"The whole value, case-sensitive, ASCII; see {REGEX}.",
            example='"v[0-9]+"',
        ),
        Field(key="present", type=Boolean(), doc="Whether it is there at all, whatever its value.", example="false"),
    )


_header = Object(
    name="header",
    doc="A condition on a header field; several fields of one name count as one list.",
    fields=_value_fields("header field"),
    model=model.ValueMatch,
    build=_build_header,
    one_of=_VALUE_KINDS,
    share=True,
)

_query = Object(
    name="query",
    doc="A condition on a query parameter.",
    fields=_value_fields("query parameter"),
    model=model.ValueMatch,
    build=_build_query,
    one_of=_VALUE_KINDS,
    share=True,
)

_matcher = PluginType(
    MATCHERS,
    Object(
        name="matcher",
        doc="A condition of a plugin; it counts as one header match.",
        fields=plugin_fields("matcher", example="internal"),
        model=services.Plugin,
    ),
)

_SERVICE: Final = "^[A-Za-z_][A-Za-z0-9_]*(?:[.][A-Za-z_][A-Za-z0-9_]*)*$"
_METHOD: Final = "^[A-Za-z_][A-Za-z0-9_]*$"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcMatch:
    """A gRPC method, by its own name and that of its service with the package."""

    service: str | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        if self.service is None and self.method is None:
            raise ModelError.at((), "write a service, a method or both")
        # A method may go into a regular expression, and neither may change where the other begins.
        if self.service is not None and not re.fullmatch(_SERVICE, self.service):
            what = "a name with its package, as in helloworld.Greeter: letters, digits, _ and single dots"
            raise ModelError.at("service", f"{self.service[:80]!r} is no gRPC service: {what}")
        if self.method is not None and not re.fullmatch(_METHOD, self.method):
            what = "a name, as in SayHello: letters, digits and _"
            raise ModelError.at("method", f"{self.method[:80]!r} is no gRPC method: {what}")

    @property
    def path(self) -> model.PathMatch:
        """Requests have the path `/Service/Method`."""
        if self.service is None:
            return model.PathMatch.regex(f"/[^/]+/{self.method}")
        if self.method is None:
            return model.PathMatch.prefix(f"/{self.service}")
        return model.PathMatch.exact(f"/{self.service}/{self.method}")


_grpc_match = Object(
    name="grpc",
    doc="A condition on the method that a gRPC client calls.",
    fields=(
        Field(
            key="service",
            type=Text("the name of a gRPC service", pattern=_SERVICE),
            doc="The service, with its package.",
            example="helloworld.Greeter",
            absent="any service",
        ),
        Field(
            key="method",
            type=Text("the name of a gRPC method", pattern=_METHOD),
            doc="The method. Without a service it is matched as a regular expression.",
            example="SayHello",
            absent="any method",
        ),
    ),
    model=GrpcMatch,
    instead="{service: %s}",
    meant=switched("{service: helloworld.Greeter}"),
    share=True,
)

_POST: Final = frozenset({"POST"})
ANY_PATH: Final = model.PathMatch.prefix("/")


def _build_match(**values: Any) -> model.Match:
    grpc = values.pop("grpc", None)
    if grpc is not None:
        for key in ("path", "methods"):
            if key in values:
                raise ModelError.at(key, "the match has grpc, which means a path and the method POST: remove this key")
        values |= {"path": grpc.path, "methods": _POST}
    values.setdefault("path", ANY_PATH)
    return model.Match(**values)


MATCH: Final = Object(
    name="match",
    doc="Conditions that must all hold.",
    fields=(
        Field(
            key="hosts",
            type=ListOf(
                Parsed("a host", HostPattern.parse), unique=True, share=True, empty="leave it out for any host"
            ),
            doc="Any of these. `*.example.com` matches any depth below `example.com`, and not itself.",
            example='[api.example.com, "*.example.org"]',
            absent="any host",
        ),
        Field(key="path", type=_path_match, doc="The path.", example="{prefix: /orders}", absent="any path"),
        Field(
            key="grpc",
            type=_grpc_match,
            doc="The gRPC method, in place of a path and methods.",
            example="{service: helloworld.Greeter, method: SayHello}",
            absent="none",
        ),
        Field(
            key="methods",
            type=ListOf(
                Text("a method", pattern=TCHARS),
                collect=frozenset,
                unique=True,
                share=True,
                empty="leave it out for any method",
            ),
            doc="Any of these, in upper case.",
            example="[GET, HEAD]",
            absent="any method",
        ),
        Field(
            key="headers",
            type=ListOf(_header),
            doc="Conditions on header fields.",
            example="[{name: x-tenant, exact: blue}]",
            absent="none",
        ),
        Field(
            key="query",
            type=ListOf(_query),
            doc="Conditions on query parameters.",
            example="[{name: debug, present: true}]",
            absent="none",
        ),
        Field(key="plugins", type=ListOf(_matcher), doc="Conditions of plugins.", example="[]", absent="none"),
    ),
    model=model.Match,
    build=_build_match,
    hints={
        "host": "write hosts: [...]",
        "method": "write methods: [...]",
        "prefix": "write path: {prefix: ...}",
        "exact": "write path: {exact: ...}",
        "regex": "write path: {regex: ...}",
    },
)
