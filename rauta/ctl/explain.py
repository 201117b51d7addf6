"""`rautactl explain`: what happens to a request, and why."""

from __future__ import annotations

from typing import Any

from rauta.ctl import availability, describe, effective, files
from rauta.ctl.availability import Availability
from rauta.ctl.decide import Asked, Decision, decide, shown
from rauta.ctl.errors import EXIT_OK, EXIT_UNCLAIMED
from rauta.ctl.output import Output
from rauta.ctl.probe import Probe
from rauta.ctl.tables import Cell, Style
from rauta.routing import grpc
from rauta.routing.model import Configuration, Forward, Route
from rauta.routing.services import BackendProtocol, BalancerKey, Service, ServiceLimits
from rauta.routing.settings import Listener, Requirement
from rauta.routing.units import duration

Facts = list[tuple[str, Cell | str]]


def run(output: Output, *, file: str | None, probe: Probe, everything: bool) -> int:
    """Explain one request of a configuration."""
    configuration = files.load(file).configuration
    offload = availability.of(configuration)
    table = files.table_of(configuration)
    try:
        decision = decide(table, probe, offload.capabilities)
    finally:
        table.close()
    if output.json:
        output.document(_document(configuration, decision, offload, everything=everything))
    else:
        _tell(output, configuration, decision, offload, everything=everything)
    return EXIT_OK if decision.claimed or decision.passes else EXIT_UNCLAIMED


# --- for a person ---------------------------------------------------------------------------------------


def _tell(
    output: Output, configuration: Configuration, decision: Decision, offload: Availability, *, everything: bool
) -> None:
    output.facts(_request_facts(decision))
    if decision.owned:
        output.line()
        rows = [_row(one) for one in shown(decision, everything=everything)]
        if rows:
            output.table(("#", "route", "match", "verdict"), rows)
        if not everything:
            _tell_rest(output, decision)
    output.line()
    output.facts(_answer_facts(configuration, decision, offload))


def _asked(listener: Listener) -> str | None:
    """Whether clients are asked for certificates, and how."""
    clients = None if listener.tls is None else listener.tls.clients
    return None if clients is None else clients.mode.value


def _revocation_lists(listener: Listener) -> str | None:
    """The file of those for clients' certificates."""
    clients = None if listener.tls is None else listener.tls.clients
    return None if clients is None else clients.crl


def _before_http(listener: Listener) -> Facts:
    """What becomes of a connection before TLS and HTTP."""
    found: Facts = []
    if listener.proxy_protocol is not None:
        told = ", ".join(map(str, listener.proxy_protocol.sources)) or "all who may connect to the socket"
        wanted = "is needed" if listener.proxy_protocol.mode is Requirement.REQUIRE else "may be"
        found.append(("PROXY", f"a header {wanted} from {told}; none from others"))
    for item in listener.passthrough:
        found.append(("passes", f"TLS for {', '.join(item.names)} to {item.service}"))
    return found


def _request_facts(decision: Decision) -> Facts:
    probe, listener = decision.probe, decision.listener
    address, port = probe.client
    client = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    scheme = listener.scheme
    asked = _asked(listener)
    if asked is not None:
        revoked = _revocation_lists(listener)
        scheme += f" with client certificates ({asked}{'' if revoked is None else f'; none revoked by {revoked}'})"
    found: Facts = [
        ("request", f"{probe.method} {probe.target}"),
        ("client", client if probe.client_given else f"{client} (the default; --client names another)"),
        ("listener", f"{listener.name}, {scheme} on {listener.address} ({decision.listener_why})"),
        *_before_http(listener),
    ]
    if probe.is_tls(listener) and (listener.passthrough or asked is not None):
        found.append(("SNI", _name_text(probe)))
    request = decision.request
    if request is None:
        return found
    host = request.host or "(none)"
    host += "" if probe.host_given else " (the default; -H 'Host: NAME' names another)"
    if decision.owned:
        host += f", owned by the routes of {decision.owner or 'any host'}"
    found.append(("host", host))
    if request.path != probe.target.partition("?")[0]:
        found.append(("path", f"{request.path} (normalised; this is what is matched and sent)"))
    return found


def _name_text(probe: Probe) -> str:
    whose = "Host's, as the URL is a path" if probe.authority is None else "the URL's"
    return f"{probe.server_name} ({whose})" if probe.server_name else f"no name is asked for ({whose} host is none)"


def _row(one: Asked) -> tuple[Cell | str, ...]:
    style = Style.GOOD if one.claimed else Style.PLAIN if one.fits else Style.FAINT
    rule = one.rule
    return str(one.place), Cell(rule.route.name, style), describe.conditions(rule.match), Cell(one.verdict, style)


def _tell_rest(output: Output, decision: Decision) -> None:
    others = sum(1 for one in decision.asked if not one.fits)
    parts = []
    if others:
        parts.append(f"{others} of other paths")
    if decision.not_asked:
        parts.append(f"{len(decision.not_asked)} behind, not asked")
    if parts:
        output.line(f"not listed of this host's rules: {'; '.join(parts)} (--all lists them)", Style.FAINT)


def _answer_facts(configuration: Configuration, decision: Decision, offload: Availability) -> Facts:
    found: Facts = []
    answer = decision.answer
    if decision.passes:
        text = "the connection goes through as it is: TLS ends at the backend, and no route is asked"
        found.append(("verdict", Cell(text, Style.GOOD)))
    if decision.route is not None:
        found.append(("route", Cell(decision.route.name, Style.GOOD)))
    found.extend(_service_facts(decision))
    if answer is not None:
        style = Style.PLAIN if answer.status < 400 else Style.BAD
        found.append(("answer", Cell(f"{answer.status} {answer.reason}: {answer.message}", style)))
        found.extend(_grpc_facts(decision))
    elif decision.route is not None and decision.service is None:
        found.append(("answer", describe.action(decision.route.action)))
    if decision.claimed or decision.passes:
        found.extend(_tier_facts(decision, offload))
    if decision.route is not None and decision.service is not None:
        fields = sorted(field.value for field in configuration.forwarded_of(decision.listener, decision.route))
        found.append(("adds", ", ".join(fields) or "no forwarded fields"))
    if decision.route is not None:
        found.extend(_settings_facts(decision, decision.route))
    elif decision.service is not None:
        found.extend(_passed_facts(decision.service))
    return found


def _grpc_facts(decision: Decision) -> Facts:
    status, answer = decision.grpc_status, decision.answer
    if status is None or answer is None:
        return []
    text = f"{status} {grpc.NAMES[status]}, with HTTP status 200 in the place of {answer.status}, as this is a call"
    return [("gRPC", Cell(text, Style.BAD))]


def _passed_facts(service: Service) -> Facts:
    """What of a service's settings counts for connections that go through."""
    timeouts, limits = service.timeouts, service.limits
    found: Facts = [("time-outs", f"connect {duration(timeouts.connect)}, idle {duration(timeouts.idle)}")]
    if limits.connections != ServiceLimits().connections:
        found.append(("limits", f"{limits.connections} connections per worker and backend"))
    return [*found, *_backend_facts(service)]


def _backend_facts(service: Service) -> Facts:
    found: Facts = []
    if service.health is not None:
        found.append(("health", effective.health_text(service.health)))
    if service.proxy_protocol is not None:
        found.append(("PROXY", service.proxy_protocol.value))
    return found


def _settings_facts(decision: Decision, route: Route) -> Facts:
    """Filters and time-outs; what else is not as by default."""
    found: Facts = []
    filters = (*decision.listener.filters, *route.filters)
    found.extend(("filters" if first else "", effective.filter_text(item)) for first, item in _numbered(filters))
    service = decision.service
    if service is None:
        return found
    if route.upgrades != effective.DEFAULT_UPGRADES:
        found.append(("upgrades", effective.upgrades_text(route.upgrades)))
    found.append(("time-outs", effective.timeouts_text(effective.timeouts_of(route, service))))
    if limits := effective.limits_text(effective.limits_of(route, service)):
        found.append(("limits", limits))
    return [*found, *_backend_facts(service)]


def _service_facts(decision: Decision) -> Facts:
    service, route = decision.service, decision.route
    if service is None:
        return []
    found: Facts = []
    name = service.name
    if route is not None and isinstance(route.action, Forward) and len(route.action.services) > 1:
        name += f", for this client ({describe.shares(route.action)})"
    found.append(("service", name))
    if decision.backend is not None:
        found.append(("backend", _backend_text(service, str(decision.backend.address), fixed=decision.fixed)))
    if not decision.passes and (service.tls is not None or service.protocol is not BackendProtocol.HTTP1):
        found.append(("spoken to", effective.protocol_text(service)))
    if service.tls is not None:
        found.append(("TLS", effective.tls_text(service.tls)))
    return found


def _backend_text(service: Service, backend: str, *, fixed: bool) -> str:
    kind = service.balancer.kind.name
    used = [one for one in service.backends if one.weight]
    if len(used) == 1:
        return backend
    everyone = f"of {len(used)}: {describe.backends(service)}"
    if fixed:
        key = "address" if service.balancer.key is BalancerKey.ADDRESS else "address and port"
        return f"{backend}, for this client ({kind} by {key}, {everyone})"
    return f"one {everyone} ({kind}; {backend} if it were asked first and nothing in flight)"


def _tier_facts(decision: Decision, offload: Availability) -> Facts:
    tier = decision.tier
    found: Facts = [("tier", f"{tier.number}" if offload.available or tier.number == 3 else _planned(tier.number))]
    found.extend(("why no lower" if first else "", why.message) for first, why in _numbered(tier.why))
    if not offload.available and tier.number < 3:
        found.append(("why 3", offload.why))
    return found


def _numbered(items: tuple[Any, ...]) -> list[tuple[bool, Any]]:
    return [(number == 0, item) for number, item in enumerate(items)]


def _planned(number: int) -> str:
    return f"3 for now, {number} in the plan"


# --- for a program --------------------------------------------------------------------------------------


def _document(
    configuration: Configuration, decision: Decision, offload: Availability, *, everything: bool
) -> dict[str, Any]:
    probe, request = decision.probe, decision.request
    answer, route, service = decision.answer, decision.route, decision.service
    return {
        "claimed": decision.claimed,
        "request": {
            "method": probe.method,
            "target": probe.target,
            "host": None if request is None else request.host,
            "path": None if request is None else request.path,
            "query": None if request is None else request.query,
            "client": {"address": probe.client[0], "port": probe.client[1], "default": not probe.client_given},
        },
        "listener": {
            "name": decision.listener.name,
            "address": str(decision.listener.address),
            "tls": decision.listener.tls is not None,
            "clients": _asked(decision.listener),
            "crl": _revocation_lists(decision.listener),
            "proxy_protocol": _sources(decision.listener),
            "passthrough": [{"names": [*one.names], "service": one.service} for one in decision.listener.passthrough],
            "why": decision.listener_why,
        },
        "host": {"known": decision.owned, "owner": None if decision.owner is None else str(decision.owner)},
        "rules": [_rule(one) for one in shown(decision, everything=everything)],
        "rules_total": len(decision.asked) + len(decision.not_asked),
        "passthrough": {"name": probe.server_name, "service": service.name} if decision.passes and service else None,
        "answer": None
        if answer is None
        else {"status": answer.status, "reason": answer.reason, "message": answer.message, "grpc": _grpc(decision)},
        "route": None if route is None else {"name": route.name, **describe.action_document(route.action)},
        "service": None if service is None else _service(decision, service),
        "tier": decision.tier.number if decision.claimed or decision.passes else None,
        "why_no_lower": [{"code": why.code, "message": why.message} for why in decision.tier.why],
        "offload": offload.document(),
        "forwarded": []
        if decision.passes
        else sorted(field.value for field in configuration.forwarded_of(decision.listener, route)),
        **_settings(decision),
    }


def _grpc(decision: Decision) -> dict[str, Any] | None:
    status = decision.grpc_status
    return None if status is None else {"status": status, "name": grpc.NAMES[status]}


def _sources(listener: Listener) -> dict[str, Any] | None:
    accepted = listener.proxy_protocol
    return None if accepted is None else {"from": [*map(str, accepted.sources)], "mode": accepted.mode.value}


def _settings(decision: Decision) -> dict[str, Any]:
    route, service = decision.route, decision.service
    found: dict[str, Any] = {"filters": [], "upgrades": [], "timeouts": None, "limits": None}
    if route is None:
        if service is not None:  # its connections alone
            timeouts = {"connect": service.timeouts.connect, "idle": service.timeouts.idle}
            found["timeouts"] = dict.fromkeys(effective.timeouts_document(service.timeouts)) | timeouts
            found["limits"] = {"body": None, "connections": service.limits.connections, "waiting": None}
        return found
    found["filters"] = [effective.filter_document(item) for item in (*decision.listener.filters, *route.filters)]
    if service is not None:
        found["upgrades"] = sorted(route.upgrades)
        found["timeouts"] = effective.timeouts_document(effective.timeouts_of(route, service))
        found["limits"] = effective.limits_document(effective.limits_of(route, service))
    return found


def _rule(one: Asked) -> dict[str, Any]:
    return {
        "place": one.place,
        "route": one.rule.route.name,
        "match": describe.match_document(one.rule.match),
        "claimed": one.claimed,
        "verdict": one.verdict,
    }


def _service(decision: Decision, service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "balancer": service.balancer.kind.name,
        "key": None if service.balancer.key is None else service.balancer.key.value,
        "backend": None if decision.backend is None else str(decision.backend.address),
        "backend_fixed": decision.fixed,
        "health": None if service.health is None else effective.health_document(service.health),
        "proxy_protocol": None if service.proxy_protocol is None else service.proxy_protocol.value,
        "protocol": service.protocol.value,
        "tls": None if service.tls is None else effective.tls_document(service.tls),
        "backends": [{"address": str(one.address), "weight": one.weight} for one in service.backends],
    }
