"""The file format, version 1: every key once, with its type, default, meaning and example.

Decoder, JSON Schema (`docs/rauta.schema.json`) and reference (`docs/config.md`) all come from here and the other
`format_` modules. Keys may be added, and errors may be given a meaning; anything else is a new version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from rauta.config.composite import Either, ListOf, MapOf
from rauta.config.format_gateway import ACCESS_LOG, ADMIN, LISTENER, OFFLOAD, SHUTDOWN
from rauta.config.format_routes import ROUTE
from rauta.config.format_services import SERVICE
from rauta.config.scalars import Integer, Text, Word
from rauta.config.schema import Field, Object, Type
from rauta.routing import settings

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """One decoded file: what of it is invalid is INVALID. Included files have the first three keys only."""

    listeners: Any = None
    services: Any = None
    routes: Any = None
    version: int = VERSION
    include: tuple[str, ...] = ()
    offload: settings.OffloadSettings | None = None
    access_log: settings.AccessLog | None = None
    workers: int | None = None
    admin: settings.AdminSettings | None = None
    shutdown: settings.Shutdown | None = None


GATEWAY: Final = ("offload", "access_log", "workers", "admin", "shutdown")
"""The keys about the gateway as a whole, which only the main file has."""

_SECTIONS: Final = (
    Field(
        key="listeners",
        type=MapOf(LISTENER),
        doc="Listeners by name; at least one in all files together.",
        example='{web: {address: "0.0.0.0:8080"}}',
        absent="none",
    ),
    Field(
        key="services",
        type=MapOf(SERVICE),
        doc="Services by name.",
        example='{users: {backends: [{address: "10.0.2.2:80"}]}}',
        absent="none",
    ),
    Field(
        key="routes",
        type=ListOf(ROUTE, keep=True, instead=None),
        doc="Routes. Their order decides only where [the rules](routing.md) leave a tie.",
        example="[{name: users, service: users}]",
        absent="none",
    ),
)

_BELONGS: Final = "it belongs into the file that includes this one"

INCLUDED: Final = Object(
    name="included file",
    doc="A file that another one includes.",
    fields=_SECTIONS,
    model=Sections,
    hints=dict.fromkeys(("version", "include", *GATEWAY), _BELONGS),
)

ROOT: Final = Object(
    name="file",
    doc="The configuration of a gateway.",
    fields=(
        Field(
            key="version",
            type=Integer("the version of the format, 1", least=VERSION, most=VERSION),
            doc="The version of this format: 1.",
            example="1",
        ),
        Field(
            key="include",
            type=ListOf(Text("a path or glob")),
            doc="Files with more listeners, services and routes, "
            "relative to this one: paths, or globs with `*`, `?` and `[...]`.",
            example='["conf.d/*.yaml"]',
            absent="none",
        ),
        *_SECTIONS,
        Field(
            key="offload",
            type=OFFLOAD,
            doc="The kernel tiers.",
            example="{mode: auto, interfaces: [eth0]}",
            absent="no kernel tiers",
        ),
        Field(key="access_log", type=ACCESS_LOG, doc="The access log.", example="{format: json}", absent="to stdout"),
        Field(
            key="workers",
            type=Either(Word("auto", None), Integer(least=1, most=256)),
            doc="Worker processes: 1 to 256. `auto`: one per usable CPU.",
            example="4",
            absent="auto",
        ),
        Field(key="admin", type=ADMIN, doc="The admin interface.", example="{}", absent="none"),
        Field(key="shutdown", type=SHUTDOWN, doc="How the gateway stops.", example="{delay: 5s}", absent="at once"),
    ),
    model=Sections,
    required=("version",),
)


def objects() -> list[Object]:
    """Every object of the format, in the order of the reference: each once, below the first that has it."""
    found: dict[str, Object] = {}

    def walk(part: Type) -> None:
        if isinstance(part, Object):
            if part.name in found:
                return
            found[part.name] = part
        for inner in part.parts():
            walk(inner)

    walk(ROOT)
    walk(INCLUDED)
    return list(found.values())
