"""The rule of the allow-list: a setting is refused unless it has its default or the list says how it is honoured.

The list itself is in `honoured`. A field or a class that is added to the model later is on no list, so whatever
uses it stays in tier 3 until somebody lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Final

from rauta.offload.capabilities import Capabilities
from rauta.offload.reasons import Reason
from rauta.routing.model import Configuration


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
    """How the refusal of something that is not on the list is told: reason code, and a clause that says why."""

    reason: Reason
    why: str


AllowList = Mapping[type, Mapping[str, Honoured]]
Wordings = Mapping[tuple[type, str], Wording]
"""By class and field; the field "" stands for the class as a whole."""

_GENERIC: Final = Wording(Reason.SETTING, "the kernel tiers do not know this setting")
_MAX_SHOWN: Final = 80  # characters of a value in a message


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
                yield scope.finding(wording.reason, f"{_difference(name, item, default)}: {wording.why}")
            continue
        if entry.check is not None:
            yield from entry.check(item, scope)
        if entry.inside and item is not None:
            for inner in item if isinstance(item, tuple) else (item,):
                yield from findings(inner, scope, allowed, wordings)


def _difference(name: str, value: Any, default: Any) -> str:
    """`timeouts.response is 30.0 (default 60.0)`: down to the fields that differ."""
    if is_dataclass(value) and type(value) is type(default):
        inner = [
            _difference(f"{name}.{field.name}", getattr(value, field.name), getattr(default, field.name))
            for field in fields(value)
            if getattr(value, field.name) != getattr(default, field.name)
        ]
        return ", ".join(inner)
    if default is MISSING or default is None or default in ((), frozenset()):
        return f"{name} is {_shown(value)}"
    return f"{name} is {_shown(value)} (default {_shown(default)})"


def _shown(value: Any) -> str:
    """A value for a person: as in the file where that is short, never the repr of nested objects."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple | frozenset):
        shown = [_shown(item) for item in value]
        text = ", ".join(shown if isinstance(value, tuple) else sorted(shown))
    elif is_dataclass(value) and type(value).__str__ is object.__str__:
        text = "set"  # the class or the field was named already; details may hold paths of keys
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
