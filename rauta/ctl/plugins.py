"""`rautactl plugins`: what is installed, without importing any of it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output
from rauta.routing.balancers import BUILT_IN
from rauta.routing.plugins import BALANCERS, MATCHERS

OFFLOADS: Final = "rauta.offloads"
_KINDS: Final = {MATCHERS: "matcher", BALANCERS: "balancer", OFFLOADS: "offload"}


@dataclass(frozen=True, slots=True)
class Installed:
    """A plugin. Built-ins have no entry point: `group` and `value` are empty."""

    kind: str
    name: str
    package: str
    version: str
    group: str
    value: str


def installed() -> list[Installed]:
    """All plugins, by kind and name; of each kind the built-in ones first."""
    found: list[Installed] = []
    for group, kind in _KINDS.items():
        if group == BALANCERS:
            found.extend(Installed(kind, name, "rauta", _own_version(), "", "") for name in BUILT_IN)
        found.extend(sorted((_of(kind, point) for point in entry_points(group=group)), key=lambda one: one.name))
    return found


def _of(kind: str, point: EntryPoint) -> Installed:
    package = point.dist
    name, version = (package.name, package.version) if package is not None else ("", "")
    return Installed(kind, point.name, name, version, point.group, point.value)


def _own_version() -> str:
    import rauta

    return str(rauta.__version__)


def run(output: Output) -> int:
    """A table, or a JSON list of objects with the same columns."""
    found = installed()
    if output.json:
        output.document(
            {
                "plugins": [
                    {
                        "kind": one.kind,
                        "name": one.name,
                        "package": one.package or None,
                        "version": one.version or None,
                        "group": one.group or None,
                        "value": one.value or None,
                        "built_in": not one.group,
                    }
                    for one in found
                ]
            }
        )
        return EXIT_OK
    rows = [(one.kind, one.name, one.package, one.version, one.group or "(built in)", one.value) for one in found]
    output.table(("kind", "name", "package", "version", "group", "object"), rows)
    return EXIT_OK
