"""The demo's requests, what each should show, and whether it did."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from peers import Answer, Stage, curl, read_log

MANY = 200  # requests of a row that shows a distribution
# Of 200 at 90:10 green gets 20 in the mean, deviation 4.2; outside of 5 to 40 is one run in ten thousand.
_TENTH = range(5, 41)
# At 50:50 each gets 100, deviation 7.1.
_HALF = range(65, 136)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kind of request. Empty `backends`: none must see it. `shares`: how many of many each backend may get."""

    shows: str
    method: str = "GET"
    path: str
    status: int = 200
    route: str | None = None
    backends: frozenset[str] = frozenset()
    headers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()  # of curl
    body: str | None = None
    received: str | None = None  # the path that the backend must have seen, if not the one that was sent
    location: str | None = None
    reason: str | None = None
    shares: dict[str, range] = field(default_factory=dict)


BLUE, GREEN = frozenset({"blue"}), frozenset({"green"})

ROWS = (
    Row(shows="exact path", path="/api/users", route="users", backends=BLUE),
    Row(shows="prefix", path="/orders/7/items", route="orders", backends=BLUE),
    Row(shows="HTTP/2", path="/orders/8", options=("--http2-prior-knowledge",), route="orders", backends=BLUE),
    Row(shows="... by elements", path="/ordersX", status=404, reason="no_route"),
    Row(shows="regex", path="/users/42", route="user-by-id", backends=GREEN),
    Row(shows="header", path="/orders/7", headers=("X-Canary: yes",), route="canary", backends=GREEN),
    Row(shows="method", method="POST", path="/orders", body="item=tea", route="new-orders", backends=GREEN),
    Row(shows="dot segments", path="/users/../orders/7", received="/orders/7", route="orders", backends=BLUE),
    Row(shows="rewrite", path="/v2/orders/7", received="/orders/7", route="orders-v2", backends=GREEN),
    Row(shows="redirect", path="/old/7", status=301, route="moved", location="/orders/7"),
    Row(shows="fixed answer", path="/healthz", route="health"),
    Row(shows="two backends", path="/shared", route="shared", shares={"blue": _HALF, "green": _HALF}),
    Row(shows="weights 90:10", path="/shop", route="shop", shares={"blue": range(160, 196), "green": _TENTH}),
    Row(shows="dead backend", path="/broken", status=502, route="dead", reason="upstream_refused"),
    Row(shows="no route", path="/nowhere", status=404, reason="no_route"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A row as it came out. Route, tier and backend are the access log's; `wrong` is what was not as it should be."""

    row: Row
    request: str
    route: str
    tier: str
    backend: str
    status: str
    milliseconds: float
    wrong: tuple[str, ...]


def run(stage: Stage, rows: tuple[Row, ...] = ROWS) -> Iterator[Result]:
    """Send everything, then read the log once, and match each answer with its line. Raises DemoError."""
    answers = []
    for number, row in enumerate(rows):
        times = MANY if row.shares else 1
        url = f"{stage.url}{row.path}?demo={number}"
        answers.append(curl(url, row.method, row.headers, row.body, times, row.options))
    log = read_log(stage.log, sum(map(len, answers)))
    for number, (row, got) in enumerate(zip(rows, answers, strict=True)):
        yield _result(stage, row, got, log.get(str(number), []))


def _result(stage: Stage, row: Row, answers: list[Answer], entries: list[dict[str, object]]) -> Result:
    addresses = Counter(str(entry["backend"]) for entry in entries if entry["backend"] is not None)
    backends = Counter({stage.names.get(address, address): count for address, count in addresses.items()})
    statuses = Counter(answer.status for answer in answers)
    return Result(
        row=row,
        request=" ".join([row.method, row.path, *row.headers, *([f"x {len(answers)}"] if len(answers) > 1 else [])]),
        route=_one(entries, "route"),
        tier=_one(entries, "tier"),
        backend=_tell(row, backends, _one(entries, "reason")),
        status=", ".join(map(str, statuses)),
        milliseconds=statistics.median(answer.seconds for answer in answers) * 1000,
        wrong=tuple(_complaints(row, answers, entries, backends)),
    )


def _one(entries: list[dict[str, object]], key: str) -> str:
    values = {str(entry[key]) for entry in entries if entry[key] is not None}
    return ", ".join(sorted(values)) or "-"


def _tell(row: Row, backends: Counter[str], reason: str) -> str:
    if row.shares:
        return ", ".join(f"{name} {backends[name]}" for name in sorted(backends))
    names = ", ".join(backends) or "-"
    return names if reason == "-" else f"{names} ({reason})" if backends else f"({reason})"


def _complaints(
    row: Row, answers: list[Answer], entries: list[dict[str, object]], backends: Counter[str]
) -> Iterator[str]:
    if len(entries) != len(answers):
        yield f"{len(answers)} requests, but {len(entries)} lines in the access log"
    if any(answer.status != row.status for answer in answers):
        yield f"status should be {row.status}"
    if any(entry["status"] != row.status for entry in entries):
        yield f"the access log should say status {row.status}"
    if any(entry["route"] != row.route for entry in entries):
        yield f"route should be {row.route or 'none'}"
    if any(entry["reason"] != row.reason for entry in entries):
        yield f"reason should be {row.reason or 'none'}"
    if row.location is not None and any(not _leads_to(answer.location, row.location) for answer in answers):
        yield f"should lead to {row.location}, not {answers[0].location or 'nowhere'}"
    yield from _about_backends(row, answers, backends)


def _leads_to(location: str, path: str) -> bool:
    """Whether a redirect goes to that path of the same gateway (curl resolves it)."""
    return location.startswith("http://127.0.0.1:") and f"/{location.split('/', 3)[3]}".partition("?")[0] == path


def _about_backends(row: Row, answers: list[Answer], backends: Counter[str]) -> Iterator[str]:
    for name, share in row.shares.items():
        if backends[name] not in share:
            yield f"{name} should get {share.start} to {share.stop - 1} of {len(answers)}"
    if not row.backends and not row.shares:
        return
    if row.backends and set(backends) != row.backends:
        yield f"backend should be {' or '.join(sorted(row.backends))}"
    # A backend answers "NAME METHOD PATH?QUERY": who it really was, and what it really got.
    seen = [answer.body.partition("?")[0].split(" ") for answer in answers]
    if Counter(words[0] for words in seen) != backends:
        yield f"the access log names {dict(backends)}, but {dict(Counter(words[0] for words in seen))} answered"
    if any(words[1:] != [row.method, row.received or row.path] for words in seen):
        yield f"the backend should get {row.method} {row.received or row.path}, not {' '.join(seen[0][1:])}"
