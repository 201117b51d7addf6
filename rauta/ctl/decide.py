"""What happens to a request, worked out once for both forms of `explain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rauta.ctl import codes
from rauta.ctl.probe import Probe, choose_listener
from rauta.ctl.tiers import Tier, Tiers, Why
from rauta.offload import Capabilities, Reason
from rauta.routing import grpc
from rauta.routing.conditions import PluginFailedError
from rauta.routing.errors import RequestError
from rauta.routing.hosts import HostPattern, is_address
from rauta.routing.model import (
    Configuration,
    Match,
    PathKind,
    Route,
    nearest,
)
from rauta.routing.outcome import Hit, Miss, PluginFailed, RegexTimeout
from rauta.routing.paths import prefix_matches
from rauta.routing.precedence import Rule, rules_by_host
from rauta.routing.regexes import literal_prefix
from rauta.routing.request import RequestView
from rauta.routing.services import Backend, Service
from rauta.routing.settings import Listener, PassedNames
from rauta.routing.table import Consideration, Explanation, Table

NOT_ASKED: Final = "not asked: the request is settled"


@dataclass(frozen=True, slots=True)
class Answer:
    """What rauta itself answers, without a backend. `reason` is one of `codes.ANSWERS`; where there is no request yet,
    the status is that of the access log."""

    status: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A rule in its host's order, its place counted from 1. `fits` says whether its path might claim the request."""

    place: int
    rule: Rule
    claimed: bool
    fits: bool
    verdict: str


@dataclass(slots=True, kw_only=True)
class Decision:
    """All that is known of one request; what does not apply is None or empty. `passes`: there is none, its connection
    goes to the service as it is."""

    probe: Probe
    listener: Listener
    listener_why: str
    passes: bool = False
    request: RequestView | None = None
    owned: bool = False
    owner: HostPattern | None = None
    asked: tuple[Asked, ...] = ()
    not_asked: tuple[Asked, ...] = ()
    route: Route | None = None
    match: Match | None = None
    service: Service | None = None
    backend: Backend | None = None
    fixed: bool = False  # the same client always gets that backend
    answer: Answer | None = None
    tier: Tier = field(default_factory=lambda: Tier(3, ()))

    @property
    def claimed(self) -> bool:
        """Whether a route claims the request."""
        return self.route is not None and self.match is not None

    @property
    def grpc_status(self) -> int | None:
        """What a call of gRPC gets in the place of `answer`, with HTTP status 200. None: the answer as it is; who is
        refused before there is a request gets that, too."""
        if self.answer is None or self.request is None or self.answer.reason == "options":
            return None
        if not any(
            name.lower() == "content-type" and grpc.is_content_type(value) for name, value in self.probe.headers
        ):
            return None
        return grpc.status_of(self.answer.reason, self.answer.status)


def decide(table: Table, probe: Probe, capabilities: Capabilities) -> Decision:
    """Everything about one request; `capabilities` are those that its tier is planned for.

    Raises ControlError if it is not clear which listener is meant.
    """
    configuration = table.configuration
    listener, why = choose_listener(configuration, probe)
    decision = Decision(probe=probe, listener=listener, listener_why=why)
    decision.answer = _misspoken(listener, probe)
    if decision.answer is not None or (listener.passthrough and _passes(decision, table)):
        return decision
    # RFC 9110 9.3.6, 9.3.8: a gateway may refuse both; the listener does so before it looks at anything else.
    if probe.method in ("CONNECT", "TRACE"):
        decision.answer = Answer(405, "method_not_allowed", f"{probe.method} is not served")
        return decision
    try:
        request = decision.request = probe.request(listener)
    except RequestError as error:
        decision.answer = Answer(error.status, error.reason, str(error))
        return decision
    if astray := _astray(listener, probe.server_name, request.host):
        decision.answer = Answer(421, "misdirected", astray)
        return decision
    if request.path == "*":
        decision.answer = Answer(200, "options", "OPTIONS * is about the gateway, which answers by itself")
        return decision
    explanation = table.explain(listener.name, request)
    _note_rules(decision, configuration, request, explanation)
    _note_outcome(decision, table, request, explanation)
    if decision.claimed:
        _note_tier(decision, Tiers(configuration, capabilities), request)
    return decision


def _misspoken(listener: Listener, probe: Probe) -> Answer | None:
    """The answer to a client that speaks plain HTTP where TLS is expected, or the other way."""
    if probe.is_tls(listener) == (listener.scheme != "http"):
        return None
    if probe.is_tls(listener):
        message = f"listener {listener.name!r} has no `tls`, and gets it: the client understands no answer; ask http://"
        return Answer(400, "tls_on_plain", message)
    message = f"listener {listener.name!r} expects TLS, and gets plain HTTP: ask https://"
    return Answer(400, "plain_on_tls", message)


def _passes(decision: Decision, table: Table) -> bool:
    """Whether all is said before there is a request: its connection goes through, or is refused."""
    listener, name = decision.listener, decision.probe.server_name
    found = PassedNames(listener.passthrough).service_of(name)
    if found is not None:
        decision.passes = True
        decision.service = next(one for one in table.configuration.services if one.name == found)
        decision.tier = Tier(3, (Why(Reason.PASSTHROUGH.value, codes.WHY[Reason.PASSTHROUGH.value]),))
        _note_backend(decision, table, decision.service)
        return True
    if listener.tls is not None:
        return False
    asked = f"nothing is passed through for {name!r}" if name else "the client asks for no name (SNI)"
    message = f"{asked}, and the listener has no `tls`: the client gets TLS's alert unrecognized_name"
    decision.answer = Answer(404, "unknown_host", message)
    return True


def _astray(listener: Listener, name: str, host: str) -> str | None:
    """Why a request must not be answered on a connection whose handshake was for `name`; as `proxy.dispatch`."""
    passed = PassedNames(listener.passthrough).service_of(host)
    if passed is not None:
        this = f"one for {name!r} (SNI)" if name else "one for no name (SNI)"
        return f"connections for {host!r} go to service {passed!r} as they are, and this is {this}"
    if listener.tls is None or listener.tls.clients is None:
        return None
    if name:
        return None if name == host else f"the TLS handshake was for {name!r}, and clients are asked for certificates"
    return None if not host or is_address(host) else "the TLS handshake named no host (SNI)"


def _note_rules(
    decision: Decision, configuration: Configuration, request: RequestView, explanation: Explanation
) -> None:
    decision.owned, decision.owner = explanation.owned, explanation.host
    if not explanation.owned:
        return
    considered = explanation.considered
    decision.asked = tuple(_asked(place, one, request.path) for place, one in enumerate(considered, 1))
    rules = rules_by_host(configuration, decision.listener.name)[explanation.host]
    rest = enumerate(rules[len(considered) :], len(considered) + 1)
    decision.not_asked = tuple(
        Asked(place, rule, False, path_may_fit(rule.match, request.path), NOT_ASKED) for place, rule in rest
    )


def _asked(place: int, one: Consideration, path: str) -> Asked:
    return Asked(place, one.rule, one.claimed, path_may_fit(one.rule.match, path), one.why)


def path_may_fit(match: Match, path: str) -> bool:
    """Whether the index of the table would ask the rule at all; of a regex it knows the literal prefix only."""
    value = match.path.value
    if match.path.kind is PathKind.EXACT:
        return path == value
    if match.path.kind is PathKind.PREFIX:
        return prefix_matches(value, path)
    return path.startswith(literal_prefix(value))


def _note_outcome(decision: Decision, table: Table, request: RequestView, explanation: Explanation) -> None:
    outcome = explanation.outcome
    if isinstance(outcome, Hit):
        decision.route, decision.match, decision.service = outcome.route, outcome.match, outcome.service
        if outcome.service is not None:
            _note_backend(decision, table, outcome.service)
    elif isinstance(outcome, Miss):
        decision.answer = Answer(404, outcome.reason, _miss(decision, table, request))
    elif isinstance(outcome, RegexTimeout):
        message = f"a regex of route {outcome.route.name!r} used up its budget, and no linear-time engine can decide it"
        decision.answer = Answer(503, outcome.reason, message)
    else:
        decision.answer = _plugin_answer(outcome)


def _miss(decision: Decision, table: Table, request: RequestView) -> str:
    if decision.owned:
        return "no route of this host claims the request"
    hosts = [str(host) for host in rules_by_host(table.configuration, decision.listener.name) if host is not None]
    if not hosts:
        return f"listener {decision.listener.name!r} has no routes"
    guess = nearest(request.host, hosts)
    known = f"did you mean {guess!r}?" if guess else f"known: {', '.join(hosts[:10])}"
    return f"no route of listener {decision.listener.name!r} has this host; {known}"


def _plugin_answer(outcome: PluginFailed) -> Answer:
    message = f"plugin {outcome.plugin!r} of route {outcome.route.name!r} failed: {outcome.error!r}"
    return Answer(500, outcome.reason, message)


def _note_backend(decision: Decision, table: Table, service: Service) -> None:
    try:
        decision.backend = table.pick(service, decision.probe.client, _idle)
    except PluginFailedError as error:
        decision.answer = Answer(500, "plugin_error", str(error))
        return
    # The others are in turn, by load or by chance; what a plugin does is not known.
    decision.fixed = service.balancer.kind.name == "maglev"
    if decision.backend is None:
        decision.answer = Answer(503, "no_backend", f"all backends of service {service.name!r} have weight 0")


def _idle(backend: Backend) -> int:
    """No requests in flight anywhere."""
    del backend
    return 0


def _note_tier(decision: Decision, tiers: Tiers, request: RequestView) -> None:
    path = decision.probe.target.partition("?")[0]
    claim = (decision.route, decision.match) if decision.route is not None and decision.match is not None else None
    decision.tier = tiers.of_request(decision.listener.name, request, path, decision.owner, claim)


def shown(decision: Decision, *, everything: bool) -> Iterator[Asked]:
    """The rules that are listed: those whose path might claim the request, or all."""
    for one in decision.asked:
        if everything or one.fits:
            yield one
    if everything:
        yield from decision.not_asked
