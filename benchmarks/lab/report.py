"""Tables from raw rounds: medians, and ratios with a bootstrap interval."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

Rounds = dict[tuple[str, str], list[dict[str, Any]]]


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
