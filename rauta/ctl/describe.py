"""Routes and their parts as text for a person, and as the stable JSON of `docs/rautactl.md`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rauta.ctl import effective
from rauta.routing.model import (
    Action,
    Asgi,
    Forward,
    Match,
    PathKind,
    Redirect,
    Respond,
    Route,
    ValueKind,
    ValueMatch,
)
from rauta.routing.services import Plugin, Service

if TYPE_CHECKING:
    from rauta.config import ConfigProblem
    from rauta.ctl.errors import ControlError

Document = dict[str, Any]


def listeners(route: Route) -> str:
    """Where a route is served: `web, websecure`, or `any`."""
    return ", ".join(route.listeners) or "any"


def hosts(match: Match) -> str:
    """The hosts that a match claims, or `any`."""
    return ", ".join(map(str, match.hosts)) or "any"


def conditions(match: Match) -> str:
    """Everything that a match asks for but the host: `exact /api/users, GET or HEAD, header x-version exact 2`."""
    parts = [str(match.path)]
    if match.methods:
        parts.append(" or ".join(sorted(match.methods)))
    parts.extend(f"header {header}" for header in match.headers)
    parts.extend(f"query {parameter}" for parameter in match.query)
    parts.extend(f"plugin {plugin.name}" for plugin in match.plugins)
    return ", ".join(parts)


def action(what: Action) -> str:
    """What a route does: `-> users`, `-> users 90%, canary 10%`, `redirect 301 to prefix /new`, `respond 200`,
    `asgi shop:app`."""
    if isinstance(what, Forward):
        return "-> " + shares(what)
    if isinstance(what, Redirect):
        return f"redirect {what.status} to {_destination(what)}"
    if isinstance(what, Asgi):
        return f"asgi {what.app}"
    return f"respond {what.status}"


def shares(forward: Forward) -> str:
    """A route's services with their shares: `users 90%, canary 10%`; the name alone where there is but one."""
    if len(forward.services) == 1:
        return forward.services[0].name
    return ", ".join(f"{name} {share}" for name, share in percentages((s.name, s.weight) for s in forward.services))


def percentages(weights: Iterable[tuple[str, int]]) -> list[tuple[str, str]]:
    """Weights as shares, to a tenth of a per cent."""
    pairs = list(weights)
    total = sum(weight for _, weight in pairs)
    return [(name, f"{round(100 * weight / total, 1):g}%" if total else "0%") for name, weight in pairs]


def _destination(redirect: Redirect) -> str:
    parts = [f"{key} {value}" for key, value in _redirect(redirect).items() if key != "status" and value is not None]
    return ", ".join(parts)


def backends(service: Service) -> str:
    """A service's backends with their shares, where these differ."""
    named = [(str(backend.address), backend.weight) for backend in service.backends]
    if len({weight for _, weight in named}) == 1:
        return ", ".join(name for name, _ in named)
    return ", ".join(f"{name} {share}" for name, share in percentages(named))


# --- JSON -----------------------------------------------------------------------------------------------


def problem_document(problem: ConfigProblem, severity: str = "error") -> Document:
    """One problem of a file."""
    return {
        "severity": severity,
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": problem.key,
        "message": problem.message,
    }


def failure_document(error: ControlError) -> Document:
    """What a command writes that cannot do what it was asked for."""
    problems = [problem_document(problem) for problem in error.problems]
    return {"error": {"message": str(error), "problems": problems, "more_problems": error.more}}


def route_document(route: Route) -> Document:
    """A route, without what the planner says of it."""
    return {
        "name": route.name,
        "listeners": list(route.listeners),
        "priority": route.priority,
        "matches": [match_document(match) for match in route.matches],
        "action": action_document(route.action),
        "filters": [effective.filter_document(item) for item in route.filters],
        "upgrades": sorted(route.upgrades),
    }


def match_document(match: Match) -> Document:
    """One of a route's matches; an empty list stands for any."""
    return {
        "hosts": [str(host) for host in match.hosts],
        "path": {match.path.kind.value: match.path.value or ("/" if match.path.kind is PathKind.PREFIX else "")},
        "methods": sorted(match.methods),
        "headers": [_value(header) for header in match.headers],
        "query": [_value(parameter) for parameter in match.query],
        "plugins": [_plugin(plugin) for plugin in match.plugins],
    }


def _value(condition: ValueMatch) -> Document:
    if condition.kind in (ValueKind.PRESENT, ValueKind.ABSENT):
        return {"name": condition.name, "present": condition.kind is ValueKind.PRESENT}
    return {"name": condition.name, condition.kind.value: condition.value}


def _plugin(plugin: Plugin) -> Document:
    return {"name": plugin.name}  # its settings may hold secrets, and only it knows which


def action_document(what: Action) -> Document:
    """An action, in the keys of the file."""
    if isinstance(what, Forward):
        return {"services": [{"name": share.name, "weight": share.weight} for share in what.services]}
    if isinstance(what, Redirect):
        return {"redirect": _redirect(what)}
    if isinstance(what, Asgi):
        return {"asgi": what.app}
    return {"respond": _respond(what)}


def _redirect(what: Redirect) -> Document:
    return {name: getattr(what, name) for name in ("status", "scheme", "host", "port", "path", "prefix")}


def _respond(what: Respond) -> Document:
    return {"status": what.status, "content_type": what.content_type, "length": len(what.body.encode())}
