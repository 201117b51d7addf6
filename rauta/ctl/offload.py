"""`rautactl offload`: what the kernel of a running gateway does and holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rauta.ctl.client import AdminSocket, ask
from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output
from rauta.ctl.tables import Cell, Row, Style

FULL: Final = 0.9  # from here on a map's fill is worth a colour

# What events are about, by how their names begin; the first that fits counts.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "hits": ("hit_",),
    "misses": ("miss_",),
    "binds": ("bound_", "backend_", "refused"),
    "hand-overs": ("local_", "handed_over"),
    "drops": ("drop_",),
    "others": ("",),
}


def run(output: Output, *, socket: AdminSocket) -> int:
    """What the kernel does, or why it does nothing."""
    answer = ask(socket, "GET", "/v1/offload")
    if output.json:
        output.document({"offload": answer})
        return EXIT_OK
    if not answer["live"]:
        output.line(answer["reason"])
        return EXIT_OK
    if answer["time"] is None:
        output.line(f"{answer['reason']}; it is busy and has not told yet what it counts")
        return EXIT_OK
    events = grouped(answer["events"])
    output.facts([("offload", answer["reason"]), *_facts(answer, events)])
    tables: tuple[tuple[Sequence[str], Sequence[Row]], ...] = (
        (
            ("interface", "hook", "mode", "why"),
            [(row["name"], row["hook"], row["mode"], row.get("why", "")) for row in answer["interfaces"]],
        ),
        (("map", "entries", "size", "full"), [*_maps(answer["maps"])]),
        (("route", "service", "tier", "hook", "requests", "packets", "bytes"), [*_requests(answer["requests"])]),
        *(((group, "count"), [*_events(counts)]) for group, counts in events.items()),
    )
    for header, rows in tables:
        if rows:
            output.line()
            output.table(header, rows)
    return EXIT_OK


def grouped(events: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Events by what they are about."""
    found: dict[str, dict[str, int]] = {group: {} for group in GROUPS}
    for name, count in events.items():
        group = next(group for group, beginnings in GROUPS.items() if name.startswith(beginnings))
        found[group][name] = count
    return found


def _facts(answer: Mapping[str, Any], events: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    first, second = (sum(row["requests"] for row in answer["requests"] if row["tier"] == tier) for tier in (1, 2))
    sums = {group: sum(counts.values()) for group, counts in events.items()}
    handed_over = answer["events"].get("local_assigned", 0)
    yield "requests", f"tier 1: {first}, tier 2: {second}, missed (tier 3 serves them): {sums['misses']}"
    yield "connections", f"bound to a backend now: {answer['flows']}, handed over to tier 3: {handed_over}"
    yield "segments", f"dropped (TCP sends them again): {sums['drops']}"


def _maps(maps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, Cell]]:
    for row in maps:
        share = row["used"] / row["size"] if row["size"] else 0.0
        style = Style.BAD if share >= FULL else Style.PLAIN
        yield row["name"], str(row["used"]), str(row["size"]), Cell(f"{share:.1%}", style)


def _requests(requests: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in requests:
        counts = (str(row[name]) for name in ("requests", "packets", "bytes"))
        yield row["route"], row["service"], str(row["tier"]), row["hook"], *counts


def _events(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Those that have happened, the most frequent first."""
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count:
            yield name, str(count)
