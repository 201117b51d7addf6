"""Tables from raw rounds: medians, and ratios with a bootstrap interval; goals, and whether they are met."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Rounds = dict[tuple[str, str], list[dict[str, Any]]]
NOT_MEASURED = ("not measured", "")


@dataclass(frozen=True, slots=True)
class Goal:
    """Of a case: our rate, or that of our variant `of`, is at least `least` times that of `than`."""

    case: str
    than: str
    least: float
    remark: str = ""
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Of a case: the median of what our rounds hold under `key` is below `most`."""

    case: str
    key: str
    most: float
    unit: str
    what: str


def goals(rounds: Rounds, wanted: Iterable[Goal | Limit], us: str = "rauta") -> str:
    """Markdown: each goal, what was seen, and whether it is met: a ratio misses it if its interval lies below."""
    lines = ["| goal | seen (95 %) | |", "|---|---|---|"]
    for goal in wanted:
        ours = rounds.get((goal.case, us), [])
        if isinstance(goal, Limit):
            text = f"{goal.what} under {goal.most:g} {goal.unit}"
            seen, met = _below(goal, [item[goal.key] for item in ours])
        else:
            text = f"at least {goal.least:g} times {goal.than}{goal.remark}"
            ours = rounds.get((goal.case, goal.of or us), [])
            theirs = rounds.get((goal.case, goal.than), [])
            seen, met = _at_least(goal, [item["rate"] for item in ours], [item["rate"] for item in theirs])
        lines.append(f"| {goal.case}: {text} | {seen} | {met} |")
    return "\n".join([*lines, ""])


def _at_least(goal: Goal, ours: Sequence[float], theirs: Sequence[float]) -> tuple[str, str]:
    if not ours or len(ours) != len(theirs):
        return NOT_MEASURED
    middle, low, high = ratio(ours, theirs)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})", "met" if high >= goal.least else "missed"


def _below(limit: Limit, values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return NOT_MEASURED
    middle = statistics.median(values)
    seen = f"{middle:.1f} {limit.unit} (all rounds: {min(values):.1f} to {max(values):.1f})"
    return seen, "met" if middle < limit.most else "missed"


def downloads(rounds: Rounds) -> str:
    """Markdown: per case of a download a table of all peers."""
    lines: list[str] = []
    for case in dict.fromkeys(case for case, _ in rounds):
        lines += [
            f"**{case}**",
            "",
            f"| | {' | '.join(name for name, _ in _OF_DOWNLOADS.values())} | failed |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for (name, peer), items in rounds.items():
            if name == case:
                middle = {key: statistics.median(item[key] for item in items) for key in _OF_DOWNLOADS}
                cells = [form.format(middle[key]) for key, (_, form) in _OF_DOWNLOADS.items()]
                lines.append(f"| {peer} | {' | '.join(cells)} | {sum(item['failures'] for item in items)} |")
        lines.append("")
    return "\n".join(lines)


_OF_DOWNLOADS = {
    "rate": ("MiB/s", "{:,.0f}"),
    "p50": ("small: p50, ms", "{:.1f}"),
    "p99": ("p99", "{:.1f}"),
    "worst": ("largest", "{:.1f}"),
    "client": ("client's share at p99", "{:.1f}"),
    "busy": ("client, of a CPU", "{:.2f}"),
    "memory": ("memory more, MiB", "{:.1f}"),
    "cpu": ("CPU, s", "{:.1f}"),
}


def grouped(rounds: Iterable[dict[str, Any]]) -> Rounds:
    """By case and peer, in the order of the runs."""
    found: Rounds = {}
    for item in rounds:
        found.setdefault((item["case"], item["peer"]), []).append(item)
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The median of the rounds' ratios, and its 95 % bootstrap interval."""
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(pairs, k=len(pairs))) for _ in range(2000))
    return statistics.median(pairs), medians[50], medians[-51]


def tables(rounds: Rounds, us: str = "rauta") -> str:
    """Markdown: per case a table of all peers."""
    lines: list[str] = []
    for case in dict.fromkeys(case for case, _ in rounds):
        lines += [
            f"**{case}**",
            "",
            "| | requests/s | of direct | rauta to it | 95 % | median latency, us | added | CPU, us/request | failed |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        direct = rounds.get((case, "direct"), [])
        ours = [item["rate"] for item in rounds.get((case, us), [])]
        for (name, peer), items in rounds.items():
            if name == case:
                lines.append(_row(peer, items, direct, ours))
        lines.append("")
    return "\n".join(lines)


def _row(peer: str, items: list[dict[str, Any]], direct: list[dict[str, Any]], ours: list[float]) -> str:
    rates = [item["rate"] for item in items]
    middle, low, high = ratio(ours, rates) if len(ours) == len(rates) else (0.0, 0.0, 0.0)
    latency = statistics.median(item["latency"] for item in items)
    added = statistics.median(item["latency"] - base["latency"] for item, base in zip(items, direct, strict=False))
    cells = [
        peer,
        f"{statistics.median(rates):,.0f}",
        f"{statistics.median(a / b['rate'] for a, b in zip(rates, direct, strict=False)):.2f}",
        f"{middle:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{latency:.0f}",
        f"{added:.0f}",
        f"{statistics.median(item['cpu'] for item in items):.1f}",
        str(sum(item["failures"] for item in items)),
    ]
    return f"| {' | '.join(cells)} |"
