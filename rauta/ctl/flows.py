"""`rautactl offload flows`: the connections that the kernel has, read from its maps; rauta need not run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from rauta.ctl.errors import EXIT_FAILURE, EXIT_OK, ControlError
from rauta.ctl.output import Output
from rauta.offload import OffloadError
from rauta.offload.bcc import flows

MOST: Final = 1000  # rows that are printed; --json has all


def run(output: Output) -> int:
    """A row for each connection. Raises ControlError."""
    try:
        found = sorted(flows.read_flows(), key=lambda entry: (entry.listener, entry.client))
    except OffloadError as error:
        raise ControlError(str(error), code=EXIT_FAILURE) from error
    if output.json:
        output.document({"flows": [asdict(entry) for entry in found]})
        return EXIT_OK
    if not found:
        output.line("no connection")
        return EXIT_OK
    output.table(
        ("client", "listener", "state", "service", "backend", "parked", "last request", "requests", "bytes"),
        [_row(entry) for entry in found[:MOST]],
    )
    if len(found) > MOST:
        output.line(f"... and {len(found) - MOST} more; --json lists all")
    return EXIT_OK


def _row(entry: flows.FlowEntry) -> tuple[str, ...]:
    request = f"{entry.method} {entry.route} {entry.code or ''}".strip() if entry.requests else "-"
    return (
        entry.client,
        entry.listener or entry.address,
        entry.state,
        entry.service or "-",
        entry.backend or "-",
        ", ".join(entry.parked) or "-",
        request,
        str(entry.requests),
        str(entry.bytes),
    )
