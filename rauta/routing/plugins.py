"""The two plugin points of routing, and how plugins are found.

A plugin is a class that a package names in the entry point group `rauta.matchers` or `rauta.balancers`. Its
attribute `Settings` is a frozen dataclass that describes its keys in the file (None: it takes none). It is
imported only when the file names it, built once per worker and generation, and closed when the last request
of the old table is done. Building it has no side effects beyond its own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from rauta.routing.errors import RautaError
from rauta.routing.request import RequestView
from rauta.routing.services import Backend

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

MATCHERS: Final = "rauta.matchers"
BALANCERS: Final = "rauta.balancers"

Load = Callable[[Backend], int]
"""Requests in flight at a backend, as this worker sees them."""


@runtime_checkable
class Matcher(Protocol):
    """A condition on requests; it counts as one header match."""

    Settings: ClassVar[type | None]

    def __init__(self, settings: Any) -> None: ...

    def match(self, request: RequestView) -> bool:
        """Pure and synchronous. Raising is answered 500 with `plugin_error`, never taken for "no match"."""

    def close(self) -> None:
        """The table that used this matcher has drained."""


@runtime_checkable
class Balancer(Protocol):
    """Chooses the backend of a request."""

    Settings: ClassVar[type | None]

    def __init__(self, settings: Any) -> None: ...

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """One of `candidates`: not empty, all of them usable, with weights above 0. `key` is the client's 64-bit
        hash. Pure and synchronous; raising is answered 500 with `plugin_error`."""

    def close(self) -> None:
        """The table that used this balancer has drained."""


class PluginError(RautaError):
    """A plugin is missing or cannot be imported or built."""


def available(group: str) -> dict[str, EntryPoint]:
    """The installed plugins of a group by name, not imported."""
    from importlib.metadata import entry_points  # 20 ms that only files with plugins need

    return {point.name: point for point in entry_points(group=group)}


def load_class(group: str, name: str) -> type[Any]:
    """Import a plugin. Raises PluginError that names it, its package and what is wrong."""
    points = available(group)
    point = points.get(name)
    if point is None:
        known = ", ".join(sorted(points)) or "none is installed"
        raise PluginError(f"there is no plugin {name!r} in {group!r}; known: {known}")
    try:
        found = point.load()
    except Exception as error:  # foreign code: whatever it raises is its failure, told as such
        raise PluginError(f"plugin {name!r} ({point.value}) cannot be imported: {error!r}") from error
    if not isinstance(found, type) or not hasattr(found, "Settings"):
        raise PluginError(f"plugin {name!r} ({point.value}) is not a class with an attribute Settings")
    return found


def build(group: str, name: str, settings: Any) -> Any:
    """Import and build a plugin. Raises PluginError."""
    cls = load_class(group, name)
    try:
        return cls(settings)
    except Exception as error:
        raise PluginError(f"plugin {name!r} cannot be built: {error!r}") from error
