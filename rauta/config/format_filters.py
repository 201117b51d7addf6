"""The file format: filters, of listeners and routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rauta.config.composite import ListOf, Pairs
from rauta.config.format_common import PATH, REGEX
from rauta.config.scalars import Boolean, Text
from rauta.config.schema import Field, Object
from rauta.routing import filters
from rauta.routing.errors import ModelError, Problem

_name: Final = Text("the name of a header field")
_value: Final = Text("the value of a header field")


def _header_changes(what: str, model: type[filters.HeaderChanges], *, example: str) -> Object:
    return Object(
        name=f"{what} headers",
        doc=model.__doc__ or "",
        fields=(
            Field(
                key="set",
                type=Pairs(_value),
                doc="Fields by name, which replace those of the same name.",
                example=example,
                absent="none",
            ),
            Field(
                key="add",
                type=Pairs(_value, many=True),
                doc="Fields by name, each with a value or a list of them, besides those of the same name.",
                example="{X-Tag: a}",
                absent="none",
            ),
            Field(
                key="remove",
                type=ListOf(_name, unique=True),
                doc="Names of fields; it is done first.",
                example="[Cookie]",
                absent="none",
            ),
        ),
        model=model,
        share=True,
        hints={"append": "write add: {NAME: VALUE}", "delete": "write remove: [NAME]"},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _RewritePath:
    """The path of a rewrite as it is in the file."""

    full: str | None = None
    prefix: str | None = None
    regex: str | None = None
    substitution: str | None = None


_rewrite_path = Object(
    name="rewrite path",
    doc="The new path. The query is kept.",
    fields=(
        Field(key="full", type=PATH, doc="The whole new path.", example="/moved"),
        Field(key="prefix", type=PATH, doc="What replaces the prefix that the route matched.", example="/v2"),
        Field(
            key="regex",
            type=Text("a regular expression"),
            doc="The whole old path; one that it does not match stays. It may have no look-around and no "
            f"back-reference; see {REGEX}.",
            example='"/users/([0-9]+)"',
        ),
        Field(
            key="substitution",
            type=Text(),
            doc=r"With `regex`: the new path. `\1` to `\9` stand for what the groups matched, `\0` for all of it.",
            example=r'"/u/\\1"',
            absent="required with `regex`",
        ),
    ),
    model=_RewritePath,
    one_of=("full", "prefix", "regex"),
    instead="{full: %s}",
    share=True,
)

# Where the model's fields of a new path are in the file.
_IN_FILE: Final = {
    "path": ("path", "full"),
    "prefix": ("path", "prefix"),
    "regex": ("path", "regex"),
    "substitution": ("path", "substitution"),
}


def in_file(problem: Problem) -> Problem:
    """A problem that the model has with a Rewrite, with its place in the file."""
    match problem.where:
        case (str() as name, *rest) if name in _IN_FILE:
            return Problem((*_IN_FILE[name], *rest), problem.message)
        case _:
            return problem


def _build_rewrite(host: str | None = None, path: _RewritePath | None = None) -> filters.Rewrite:
    if path is None:
        return filters.Rewrite(host=host)
    try:
        return filters.Rewrite(
            host=host, path=path.full, prefix=path.prefix, regex=path.regex, substitution=path.substitution
        )
    except ModelError as error:
        raise ModelError(*map(in_file, error.problems)) from None


_rewrite = Object(
    name="rewrite",
    doc="Another host or path for the backend. What is left out stays as it was in the request.",
    fields=(
        Field(
            key="host",
            type=Text("a host"),
            doc="The Host field that the backend gets.",
            example="internal.example",
            absent="as requested",
        ),
        Field(
            key="path",
            type=_rewrite_path,
            doc="The path that the backend gets.",
            example="{prefix: /v2}",
            absent="as requested",
        ),
    ),
    model=filters.Rewrite,
    build=_build_rewrite,
    hints={
        "full": "write path: {full: ...}",
        "prefix": "write path: {prefix: ...}",
        "regex": "write path: {regex: ..., substitution: ...}",
        "substitution": "write path: {regex: ..., substitution: ...}",
    },
    share=True,
)

_request_id = Object(
    name="request id",
    doc="A random id (UUID 4) for each request: sent to the backend, returned to the client, and in the access log.",
    fields=(
        Field(key="header", type=_name, doc="The header field that carries it.", example="X-Correlation-Id"),
        Field(
            key="accept",
            type=Boolean(),
            doc="Keep the id that a client sends, if it is 1 to 128 visible ASCII characters.",
            example="true",
        ),
    ),
    model=filters.RequestId,
    share=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filter:
    """One item of a list of filters: exactly one of these is there."""

    request_headers: filters.RequestHeaders | None = None
    response_headers: filters.ResponseHeaders | None = None
    rewrite: filters.Rewrite | None = None
    request_id: filters.RequestId | None = None


def _build_filter(**values: Any) -> filters.Filter:
    [found] = values.values()
    return found  # type: ignore[no-any-return]


_filter = Object(
    name="filter",
    doc="One change of requests or responses.",
    fields=(
        Field(
            key="request_headers",
            type=_header_changes("request", filters.RequestHeaders, example="{X-Env: prod}"),
            doc="Change the header fields that the backend gets.",
            example="{set: {X-Env: prod}, remove: [Cookie]}",
        ),
        Field(
            key="response_headers",
            type=_header_changes(
                "response", filters.ResponseHeaders, example='{Strict-Transport-Security: "max-age=31536000"}'
            ),
            doc="Change the header fields that the client gets, also those of answers that rauta gives itself.",
            example='{set: {Strict-Transport-Security: "max-age=31536000"}}',
        ),
        Field(
            key="rewrite",
            type=_rewrite,
            doc="Another host or path for the backend; on routes only.",
            example="{path: {prefix: /v2}}",
        ),
        Field(
            key="request_id",
            type=_request_id,
            doc="Give each request an id. A route's replaces its listener's.",
            example="{}",
        ),
    ),
    model=_Filter,
    build=_build_filter,
    one_of=("request_headers", "response_headers", "rewrite", "request_id"),
    hints={
        "headers": "write request_headers or response_headers",
        "header": "write request_headers or response_headers",
        "redirect": "a redirect is an action of the route, beside its filters",
    },
)

FILTERS: Final = ListOf(_filter)
