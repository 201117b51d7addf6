"""The rule of the allow-list: a setting is refused unless it has its default or the list says how it is honoured.

The list itself is in `honoured`. A field or a class that is added to the model later is on no list, so whatever
uses it stays in tier 3 until somebody lists it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

from rauta.offload.capabilities import Capabilities
from rauta.offload.reasons import Reason
from rauta.routing.model import Configuration
from rauta.routing.services import LimitOverrides, Plugin, ServiceLimits, TimeoutOverrides, Timeouts
from rauta.routing.settings import ClientLimits, ClientTimeouts
from rauta.routing.units import duration, size


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that tier 3 alone honours. With `blocking` False it concerns some requests only."""

    reason: Reason
    message: str
    blocking: bool = True


@dataclass(frozen=True, slots=True)
class Scope:
    """What checks may look at besides the value. `subject` names the owner of the setting in messages, for example
    `service 'users'`; it is empty where the refusal names it already."""

    configuration: Configuration
    capabilities: Capabilities
    subject: str = ""

    def finding(self, reason: Reason, message: str, *, blocking: bool = True) -> Finding:
        """A finding about the owner."""
        return Finding(reason, f"{self.subject}: {message}" if self.subject else message, blocking)


Check = Callable[[Any, Scope], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Honoured:
    """The field is honoured, and how; where a value may be beyond the kernel, the check finds it.

    `inside`: it holds a dataclass instance, None, or a tuple of instances, whose own fields are looked at in turn.
    """

    how: str
    check: Check | None = None
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Wording:
    """How the refusal of something that is not on the list is told: reason code, and a clause that says why.

    `key` is the name in the file, where it is not the field's.
    """

    reason: Reason
    why: str
    key: str | None = None


AllowList = Mapping[type, Mapping[str, Honoured]]
Wordings = Mapping[tuple[type, str], Wording]
"""By class and field; the field "" stands for the class as a whole."""

_GENERIC: Final = Wording(Reason.SETTING, "the kernel tiers do not know this setting")
_MAX_SHOWN: Final = 80  # characters of a value in a message

UNITS: Final[Mapping[tuple[type, str], Callable[[Any], str]]] = {
    **{(cls, field.name): duration for cls in (ClientTimeouts, Timeouts, TimeoutOverrides) for field in fields(cls)},
    (ClientLimits, "head"): size,
    (ServiceLimits, "body"): size,
    (LimitOverrides, "body"): size,
}
"""How fields are shown that are written with a unit."""


_defaults: Final[dict[type, tuple[tuple[str, Any], ...]]] = {}  # the model has a few dozen classes


def _defaults_of(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Field names with their defaults; MISSING where a field has none."""
    found = _defaults.get(cls)
    if found is None:
        found = _defaults[cls] = tuple(
            (field.name, field.default_factory() if field.default_factory is not MISSING else field.default)
            for field in fields(cls)
        )
    return found


def findings(value: Any, scope: Scope, allowed: AllowList, wordings: Wordings) -> Iterator[Finding]:
    """What of a dataclass instance the kernel tiers do not honour."""
    cls = type(value)
    listed = allowed.get(cls)
    if listed is None:
        wording = wordings.get((cls, ""), _GENERIC)
        message = f"{cls.__name__}: {wording.why}" if wording is _GENERIC else wording.why
        yield scope.finding(wording.reason, message)
        return
    for name, default in _defaults_of(cls):
        item = getattr(value, name)
        entry = listed.get(name)
        if entry is None:
            if default is MISSING or (item is not default and item != default):
                wording = wordings.get((cls, name), _GENERIC)
                told = _difference(wording.key or name, item, default)
                yield scope.finding(wording.reason, f"{told}: {wording.why}")
            continue
        if entry.check is not None:
            yield from entry.check(item, scope)
        if entry.inside and item is not None:
            for inner in item if isinstance(item, tuple) else (item,):
                yield from findings(inner, scope, allowed, wordings)


def _difference(name: str, value: Any, default: Any, shown: Callable[[Any], str] | None = None) -> str:
    """`timeouts.response is 30s (default 60s)`: down to the fields that differ."""
    if is_dataclass(value) and type(value) is type(default):
        inner = [
            _difference(
                f"{name}.{field.name}",
                getattr(value, field.name),
                getattr(default, field.name),
                UNITS.get((type(value), field.name)),
            )
            for field in fields(value)
            if getattr(value, field.name) != getattr(default, field.name)
        ]
        return ", ".join(inner)
    shown = shown or _shown
    if default is MISSING or default is None or default in ((), frozenset()):
        return f"{name} is {shown(value)}"
    return f"{name} is {shown(value)} (default {shown(default)})"


def _shown(value: Any) -> str:
    """A value for a person: as in the file where that is short, never the repr of nested objects."""
    match value:
        case Enum():
            return str(value.value)
        case tuple() | frozenset():
            shown = [_item(item) for item in value]
            text = ", ".join(shown if isinstance(value, tuple) else sorted(shown)) or "empty"
        case _ if _is_opaque(value):
            text = "set"  # the class or the field was named already; details may hold paths of keys
        case _:
            text = str(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _is_opaque(value: Any) -> bool:
    return is_dataclass(value) and type(value).__str__ is object.__str__


def _item(value: Any) -> str:
    """One of several: a plugin by its name, another object by its class, as the file names it."""
    if isinstance(value, Plugin):
        return value.name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower() if _is_opaque(value) else _shown(value)
