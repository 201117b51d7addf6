"""Requests to the kernel tiers: what each should show, and what the kernel counted and rauta logged of it."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from lab import BACKENDS, URL, Gateway, Host, Lab
from peers import DemoError, read_log
from rauta.offload.bcc.counting import read_events, read_requests
from rauta.offload.bcc.events import EVENTS
from rauta.offload.bcc.identities import Known

HEADINGS = ("shows", "request", "route", "tier", "counted", "backend", "status", "latency")
_FIGURES = "\x1e%{http_code}\x1f%{time_total}\x1f%{num_connects}\x1f%{local_port}\x1e"
# The counters that tell how a request was taken; the table names those that have moved.
_HITS = ("hit_first", "hit_first_2", "hit_next", "hit_next_2")
_TOLD = (
    *_HITS,
    "local_assigned",
    "handed_over_later",
    *(name for name in EVENTS if name.startswith("miss_")),
    "refused",
)
_numbers = count(1000)  # of requests, as their targets carry them

Kind = tuple[str, str, int, int]  # route, method, status, tier


# --- what the kernel counts -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """The kernel's counters: events by name, and answered requests by route, method, status and tier."""

    events: Counter[str]
    requests: Counter[Kind]

    def __sub__(self, before: Counts) -> Counts:
        return Counts(self.events - before.events, self.requests - before.requests)

    def told(self) -> str:
        """The events that say how requests were taken."""
        return ", ".join(f"{name} {self.events[name]}" for name in _TOLD if self.events[name]) or "-"


def read_counts(lab: Lab) -> Counts:
    """The counters as they are now, from the maps that are pinned: no process of rauta is asked."""
    requests: Counter[Kind] = Counter()
    for key, traffic in read_requests(lab.pins, Known.load(lab.names)).items():
        requests[key.route, key.method, key.code, key.tier] += traffic.requests
    return Counts(Counter(read_events(lab.pins, EVENTS)), requests)


# --- curl -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got. `connects`: whether a connection was made for it; `port`: the client's."""

    status: int
    body: str
    seconds: float
    connects: int
    port: int


def _curl(host: Host, requests: Sequence[Sequence[str]]) -> list[Answer]:
    """One curl for all requests: it keeps its connection as long as it can."""
    common = ["--silent", "--noproxy", "*", "--max-time", "10", "--write-out", _FIGURES]
    words: list[str] = []
    for request in requests:
        words += ["--next"] * bool(words) + [*common, *request]
    done = subprocess.run(host.command("curl", "-q", *words), capture_output=True, text=True, check=False)
    parts = done.stdout.split("\x1e")  # text RS status US time US connects US port RS, for each answer
    answers = []
    for text, figures in zip(parts[::2], parts[1::2], strict=False):
        status, seconds, connects, port = figures.split("\x1f")
        answers.append(Answer(int(status), text, float(seconds), int(connects), int(port)))
    if len(answers) != len(requests):
        raise DemoError(f"curl gave {len(answers)} answers to {len(requests)} requests (exit code {done.returncode})")
    return answers


def status(lab: Lab, path: str) -> int:
    """The status of a GET; 0 if there was no answer."""
    command = ["curl", "-q", "--silent", "--noproxy", "*", "--max-time", "10", "--output", "/dev/null"]
    words = lab.client.command(*command, "--write-out", "%{http_code}", URL + path)
    return int(subprocess.run(words, capture_output=True, text=True, check=False).stdout)


# --- rows -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request, or several on a connection each. `kept`: on the connection of the row before. `tiers` and `backends`
    are those that must be seen, each of them; `event` is the kernel's counter that must have moved."""

    shows: str
    method: str = "GET"
    path: str
    route: str
    times: int = 1
    kept: bool = False
    tiers: frozenset[int]
    event: str
    backends: frozenset[str]
    status: int = 200
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A row as it came out; `wrong` is what was not as it should be."""

    cells: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a row's requests: curl's answers, access log lines, what the kernel has counted for them, and
    all that it has counted meanwhile."""

    answers: list[Answer]
    entries: list[dict[str, object]]
    taken: Counter[Kind]
    counts: Counts

    @property
    def tiers(self) -> Counter[int]:
        """How many each tier has answered."""
        found = Counter({3: len(self.entries)})
        for (_, _, _, tier), times in self.taken.items():
            found[tier] += times
        return +found

    @property
    def routes(self) -> list[str]:
        """By what routes."""
        return sorted({route for route, *_ in self.taken} | {str(entry["route"]) for entry in self.entries})


def run(lab: Lab, gateway: Gateway, rows: Sequence[Row]) -> list[Result]:
    """Send what goes over one connection, or over one for each request. Raises DemoError."""
    numbers = [next(_numbers) for _ in rows]
    before = read_counts(lab)
    answers = _curl(
        lab.client, [words for row, number in zip(rows, numbers, strict=True) for words in _words(row, number)]
    )
    counts = read_counts(lab) - before
    log = read_log(gateway.log, sum(row.times for row in rows) - counts.requests.total(), after=numbers[0] - 1)
    results, left = [], counts.requests.copy()
    for row, number in zip(rows, numbers, strict=True):
        entries = log.get(str(number), [])
        taken = _taken(row, left, row.times - len(entries))
        results.append(_result(row, _Found(answers[: row.times], entries, taken, counts)))
        answers = answers[row.times :]
    return results


def _words(row: Row, number: int) -> Iterator[list[str]]:
    """The row's part of curl's command line."""
    words = ["--request", row.method]
    if row.method == "POST":
        words += ["--data-binary", "item=tea"]
    if row.times > 1:
        words += ["--header", "Connection: close"]
    return ([*words, f"{URL}{row.path}?demo={number}"] for _ in range(row.times))


def _taken(row: Row, left: Counter[Kind], wanted: int) -> Counter[Kind]:
    """What the kernel has counted for those of the row's requests that are in no log: of all that is `left`, those with
    its method and status, each for one row only."""
    found: Counter[Kind] = Counter()
    for kind in sorted(left, key=lambda kind: kind[0] != row.route):
        if kind[1:3] == (row.method, row.status):
            taken = min(left[kind], wanted - found.total())
            found[kind] += taken
            left[kind] -= taken
    return +found


def _result(row: Row, found: _Found) -> Result:
    answers, entries = found.answers, found.entries
    backends = Counter(
        answer.body.split(" ")[0] for answer in answers if answer.body.split(" ")[0] in BACKENDS.values()
    )
    several = row.times > 1
    reasons = {str(entry["reason"]) for entry in entries if entry["reason"] is not None}
    names = ", ".join(f"{name} {backends[name]}" if several else name for name in sorted(backends))
    cells = (
        row.shows,
        f"{row.method} {row.path}" + (f" x {row.times}" if several else ""),
        ", ".join(found.routes) or "?",
        ", ".join(f"{tier}: {found.tiers[tier]}" if several else str(tier) for tier in sorted(found.tiers)) or "?",
        _event(row, found.counts),
        " ".join([*([names] if names else []), *(f"({reason})" for reason in sorted(reasons))]) or "-",
        ", ".join(str(status) for status in sorted({answer.status for answer in answers})),
        f"{sorted(answer.seconds for answer in answers)[row.times // 2] * 1000:.1f} ms",
    )
    return Result(cells=cells, wrong=tuple(_complaints(row, found, backends)))


def _event(row: Row, counts: Counts) -> str:
    return f"{row.event} {counts.events[row.event]}" if row.event else "-"


def _complaints(row: Row, found: _Found, backends: Counter[str]) -> Iterator[str]:
    told = f"the kernel counted {found.counts.told()}; the access log has {len(found.entries)} lines"
    if found.tiers.total() != row.times:
        yield f"{row.times} requests, but {found.tiers.total()} were counted or logged"
    if set(found.tiers) != row.tiers:
        yield f"tier should be {' and '.join(map(str, sorted(row.tiers)))}; {told}"
    if found.routes != [row.route]:
        yield f"route should be {row.route}"
    if row.event and not found.counts.events[row.event]:
        yield f"{row.event} should be counted; {told}"
    if any(answer.status != row.status for answer in found.answers):
        yield f"status should be {row.status}"
    if any(bool(answer.connects) == row.kept for answer in found.answers):
        yield f"should {'not ' if row.kept else ''}make a new connection"
    if row.reason is not None and any(entry["reason"] != row.reason for entry in found.entries):
        yield f"reason should be {row.reason}"
    if set(backends) != row.backends:
        yield f"backend should be {' and '.join(sorted(row.backends)) or 'none'}"
    # A backend answers "NAME METHOD PATH?QUERY": what it really got.
    seen = {tuple(answer.body.partition("?")[0].split(" ")[1:]) for answer in found.answers}
    if row.backends and seen != {(row.method, row.path)}:
        yield f"the backend should get {row.method} {row.path}"
