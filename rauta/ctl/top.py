"""`rautactl top`: the rates of requests by route and tier, from one second to the next.

Workers and kernel are read at different times (what the kernel counts is read twice a second at most), so each has an
interval of its own.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rauta.ctl.client import AdminSocket, ask
from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output

INTERVAL: Final = 1.0
TIERS: Final = ("1", "2", "3")
HEAD_LINES: Final = 8  # of a screen: what is above the rows, a line below them, and the cursor's

Place = tuple[str, str, str]  # listener, route, service
Rates = dict[Place, dict[str, float]]  # by tier


def run(output: Output, *, socket: AdminSocket, once: bool) -> int:
    """Until somebody presses q or Ctrl-C; or one interval."""
    last = ask(socket, "GET", "/v1/stats")
    with _Keys.opened() as keys:
        while not keys.ended(INTERVAL):
            now = ask(socket, "GET", "/v1/stats")
            found = rates(last, now)
            if output.json:
                output.document(_document(found, last, now))
                return EXIT_OK
            if not once:
                output.screen()
            _show(output, found, kernel=now["kernel_time"] is not None, limit=None if once else output.height)
            output.flush()
            if once:
                return EXIT_OK
            last = now
    return EXIT_OK


def rates(before: Mapping[str, Any], after: Mapping[str, Any]) -> Rates:
    """Requests per second between two answers of /v1/stats; routes without any are left out."""
    intervals = {tier: _interval(before, after, "time" if tier == "3" else "kernel_time") for tier in TIERS}
    known = {_place(row): row["tiers"] for row in before["routes"]}
    found: Rates = {}
    for row in after["routes"]:
        tiers = {}
        for tier, count in row["tiers"].items():
            earlier = known.get(_place(row), {}).get(tier, 0)
            # Fewer than before: it counts from 0 again.
            more = count if count < earlier else count - earlier
            if more and intervals[tier]:
                tiers[tier] = more / intervals[tier]
        if tiers:
            found[_place(row)] = tiers
    return found


def _place(row: Mapping[str, Any]) -> Place:
    return row["listener"], row["route"], row["service"]


def _interval(before: Mapping[str, Any], after: Mapping[str, Any], clock: str) -> float:
    """Seconds; 0: unknown, or nothing new has been read."""
    start, end = before[clock], after[clock]
    return 0.0 if start is None or end is None else max(0.0, end - start)


def _sums(found: Rates) -> dict[str, float]:
    return {tier: sum(tiers.get(tier, 0.0) for tiers in found.values()) for tier in TIERS}


def _show(output: Output, found: Rates, *, kernel: bool, limit: int | None) -> None:
    sums = _sums(found)
    total = sum(sums.values())
    output.line(f"{total:.1f} requests/s")
    for tier, rate in sums.items():
        if kernel or tier == "3":
            output.line(f"tier {tier}  {rate:.1f}/s, {rate / total if total else 0.0:.0%}")
    if not kernel:
        output.line("no kernel offload: rautactl offload says why")
    busiest = sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    shown = busiest if limit is None else busiest[: max(1, limit - HEAD_LINES)]
    if shown:
        output.line()
        header = ("listener", "route", "service", "total/s", *(f"tier {tier}" for tier in TIERS))
        output.table(header, [_row(place, tiers) for place, tiers in shown])
    if len(shown) < len(busiest):
        output.line(f"and {len(busiest) - len(shown)} more")


def _row(place: Place, tiers: Mapping[str, float]) -> tuple[str, ...]:
    listener, route, service = place
    cells = (f"{tiers[tier]:.1f}" if tier in tiers else "" for tier in TIERS)
    return listener, route or "(none)", service or "-", f"{sum(tiers.values()):.1f}", *cells


def _document(found: Rates, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    routes = [
        {"listener": listener, "route": route, "service": service, "tiers": tiers}
        for (listener, route, service), tiers in sorted(found.items())
    ]
    return {"seconds": _interval(before, after, "time"), "tiers": _sums(found), "routes": routes}


class _Keys:
    """Keys that a person presses; at anything but a terminal there are none."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[_Keys]:
        """Each key comes at once, and is not shown. Ctrl-C stays what it is."""
        if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
            yield cls(None)
            return
        import termios
        import tty

        fd = sys.stdin.fileno()
        before = termios.tcgetattr(fd)
        try:
            tty.setcbreak(fd)
            yield cls(fd)
        finally:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)

    def ended(self, seconds: float) -> bool:
        """Wait for so long; whether `q` was pressed, or the terminal is gone."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._fd is None:
                time.sleep(left)
            elif select.select([self._fd], [], [], left)[0] and os.read(self._fd, 1) in (b"q", b"Q", b""):
                return True
        return False
