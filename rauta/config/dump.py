"""A configuration as a file of version 1 would say it: what `rautactl dump` shows. Reading it gives the same again.

Defaults are left out. Secrets stay references: their values are in no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any, Final

from rauta.routing.filters import Filter, HeaderChanges, RequestHeaders, RequestId, ResponseHeaders, Rewrite
from rauta.routing.hosts import HostPattern
from rauta.routing.model import (
    Asgi,
    Configuration,
    Forward,
    Match,
    PathKind,
    PathMatch,
    Redirect,
    Respond,
    Route,
    ValueMatch,
)
from rauta.routing.services import Backend, BalancerSettings, HealthCheck, HealthKind, Plugin, Service
from rauta.routing.settings import Address, Listener, ProxySources, Secret

VERSION: Final = 1


def dump(configuration: Configuration) -> dict[str, Any]:
    """The document, of JSON's types."""
    document: dict[str, Any] = {"version": VERSION}
    document["listeners"] = {listener.name: _object(listener, skip=("name",)) for listener in configuration.listeners}
    document["services"] = {service.name: _service(service) for service in configuration.services}
    document["routes"] = [_route(route) for route in configuration.routes]
    for name in ("offload", "admin"):
        value = getattr(configuration, name)
        if value is not None:
            document[name] = _object(value)
    document |= _object(configuration, skip=("listeners", "services", "routes", "offload", "admin"))
    return document


def _object(value: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass that do not have their defaults."""
    found: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name not in skip and item != _default(field):
            found[field.name] = _value(field.name, item)
    return found


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else MISSING


def _value(name: str, item: Any) -> Any:
    special = _SPECIAL.get(type(item))
    if special is not None:
        return special(item)
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, frozenset):
        return sorted(_value(name, part) for part in item)
    if isinstance(item, tuple):
        return [_value(name, part) for part in item]
    if isinstance(item, float):
        return _duration(item)
    if isinstance(item, int) and not isinstance(item, bool) and name in ("head", "body"):
        return f"{item}B"
    if item is None or isinstance(item, str | int | bool):
        return item
    if hasattr(item, "__dataclass_fields__"):
        return _object(item)
    return str(item)  # networks


def _duration(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _service(service: Service) -> dict[str, Any]:
    found = _object(service, skip=("name",))
    found["backends"] = [_backend(backend) for backend in service.backends]
    return found


def _backend(backend: Backend) -> dict[str, Any]:
    return {"address": str(backend.address), **({} if backend.weight == 1 else {"weight": backend.weight})}


def _health(check: HealthCheck) -> Any:
    if check.kind is not HealthKind.HTTP:
        return {"kind": check.kind.value, **_object(check, skip=("kind",))}
    found = _object(check, skip=("statuses",))
    if check.statuses != HealthCheck().statuses:
        found["statuses"] = [low if low == high else f"{low}-{high}" for low, high in check.statuses]
    return {"kind": "http", **found}


def _route(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {"name": route.name}
    matches = [_match(match) for match in route.matches]
    if matches != [{}]:
        found["match"] = matches[0] if len(matches) == 1 else matches
    action = route.action
    if isinstance(action, Forward):
        if len(action.services) == 1 and action.services[0].weight == 1:
            found["service"] = action.services[0].name
        else:
            found["services"] = [{"name": share.name, "weight": share.weight} for share in action.services]
    elif isinstance(action, Redirect):
        found["redirect"] = _redirect(action)
    elif isinstance(action, Asgi):
        found["asgi"] = action.app
    else:
        found["respond"] = _object(action) or {"status": 200}
    return found | _object(route, skip=("name", "matches", "action"))


def _redirect(action: Redirect) -> dict[str, Any]:
    found = _object(action, skip=("path", "prefix"))
    if action.path is not None:
        found["path"] = {"full": action.path}
    elif action.prefix is not None:
        found["path"] = {"prefix": action.prefix}
    return found


def _match(match: Match) -> dict[str, Any]:
    found = _object(match, skip=("path",))
    if match.path != PathMatch.prefix("/"):
        found["path"] = {match.path.kind.value: match.path.value or "/"}
    return found


def _condition(condition: ValueMatch) -> dict[str, Any]:
    kind = condition.kind.value
    if kind in ("present", "absent"):
        return {"name": condition.name, "present": kind == "present"}
    return {"name": condition.name, kind: condition.value}


def _plugin(plugin: Plugin) -> dict[str, Any]:
    settings = {} if plugin.settings is None else {"settings": _settings(plugin.settings)}
    return {"name": plugin.name, **settings}


def _settings(value: Any) -> Any:
    """Settings of a plugin: their types are the plugin's, so numbers stay numbers."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_settings(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _settings(getattr(value, field.name)) for field in fields(value)}
    return value


def _balancer(settings: BalancerSettings) -> dict[str, Any]:
    return {**_plugin(settings.kind), **({} if settings.key is None else {"key": settings.key.value})}


def _changes(changes: HeaderChanges) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if changes.set:
        found["set"] = dict(changes.set)
    if changes.add:
        added: dict[str, list[str]] = {}
        for name, value in changes.add:
            added.setdefault(name, []).append(value)
        found["add"] = added
    if changes.remove:
        found["remove"] = list(changes.remove)
    return found


def _sources(accepted: ProxySources) -> dict[str, Any]:
    found = _object(accepted, skip=("sources",))
    return {"from": [str(network) for network in accepted.sources], **found} if accepted.sources else found


def _filter(item: Filter) -> dict[str, Any]:
    if isinstance(item, RequestHeaders):
        return {"request_headers": _changes(item)}
    if isinstance(item, ResponseHeaders):
        return {"response_headers": _changes(item)}
    if isinstance(item, RequestId):
        return {"request_id": _object(item)}
    found: dict[str, Any] = {} if item.host is None else {"host": item.host}
    if item.path is not None:
        found["path"] = {"full": item.path}
    elif item.prefix is not None:
        found["path"] = {"prefix": item.prefix}
    elif item.regex is not None:
        found["path"] = {"regex": item.regex, "substitution": item.substitution}
    return {"rewrite": found}


_SPECIAL: Final[dict[type, Callable[[Any], Any]]] = {
    Address: str,
    HostPattern: str,
    Secret: _object,
    HealthCheck: _health,
    ValueMatch: _condition,
    Plugin: _plugin,
    BalancerSettings: _balancer,
    RequestHeaders: _filter,
    ResponseHeaders: _filter,
    RequestId: _filter,
    Rewrite: _filter,
    Respond: _object,
    PathKind: lambda kind: kind.value,
    Listener: _object,
    ProxySources: _sources,
}
