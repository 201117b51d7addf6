"""Commands to a gateway that runs: `status`, `stats`, `services`, `dump`, `reload`, `reopen`, `drain`, and `offload
detach`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rauta.ctl.client import AdminSocket, ask
from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output
from rauta.ctl.tables import Cell, Style


def command(output: Output, *, socket: AdminSocket, name: str) -> int:
    """Let the gateway do something. Which one it is does not go without saying where nobody has named it."""
    if socket.guessed and not output.json:
        output.line(f"the gateway at {socket}:")
        output.flush()
    answer = ask(socket, "POST", f"/v1/{name}")
    if output.json:
        output.document(answer)
    else:
        for warning in answer.get("warnings", ()):
            output.line(f"warning: {warning}", Style.WARN)
        output.line(str(answer["text"]))
    return EXIT_OK


def status(output: Output, *, socket: AdminSocket) -> int:
    """What runs."""
    answer = ask(socket, "GET", "/v1/status")
    if output.json:
        output.document({"status": answer})
        return EXIT_OK
    last = answer["reloads"]["last"]
    state = "draining" if answer["draining"] else "ready" if answer["ready"] else "starting"
    workers = ", ".join(f"{worker['slot']}: pid {worker['pid']} {worker['stage']}" for worker in answer["workers"])
    offload = answer["offload"] or {"reason": "none"}
    attached = [f"{row['name']} ({row['hook']}, {row['mode']})" for row in offload.get("interfaces", ())]
    output.facts(
        [
            ("gateway", f"rauta {answer['version']}, {state}, since {when(answer['started'])}"),
            ("configuration", f"{answer['source']}, generation {answer['generation']}"),
            ("workers", workers),
            *([("HTTP/2", f"frames by {answer['http2']}")] if "http2" in answer else []),
            ("restarts", str(answer["restarts"])),
            ("offload", offload["reason"]),
            *([("programs on", ", ".join(attached))] if attached else []),
            ("reloads", f"{answer['reloads']['succeeded']} done, {answer['reloads']['failed']} failed"),
            *([("last reload", f"{when(last['time'])}: {last['text']}")] if last else []),
        ]
    )
    return EXIT_OK


def services(output: Output, *, socket: AdminSocket) -> int:
    """Backends and their health."""
    answer = ask(socket, "GET", "/v1/services")
    if output.json:
        output.document(answer)
        return EXIT_OK
    rows = []
    for service in answer["services"]:
        for backend in service["backends"]:
            health = backend["health"]
            style = {"healthy": Style.GOOD, "unhealthy": Style.BAD}.get(health, Style.PLAIN)
            why = backend.get("failure") or backend.get("name_failure") or ", ".join(backend.get("addresses", ()))
            rows.append((service["name"], backend["address"], str(backend["weight"]), Cell(health, style), why))
    output.table(("service", "backend", "weight", "health", "notes"), rows)
    failing = [cell for service in answer["services"] if (cell := _failing(service)) is not None]
    if failing:
        output.line()
    for cell in failing:
        output.line(cell.text, cell.style)
    return EXIT_OK


def _failing(service: Mapping[str, Any]) -> Cell | None:
    """How many of a service's backends get no requests since their checks fail; None if all get some. Those of weight 0
    get none anyway."""
    used = [backend for backend in service["backends"] if backend["weight"]]
    count = sum(backend["health"] == "unhealthy" for backend in used)
    if not count:
        return None
    if count < len(used):
        return Cell(f"{service['name']}: failing {count} of {len(used)}, the rest gets their requests", Style.WARN)
    return Cell(f"{service['name']}: failing {count} of {count}, requests are answered 503 (no_backend)", Style.BAD)


def stats(output: Output, *, socket: AdminSocket) -> int:
    """Counters by route and service."""
    answer = ask(socket, "GET", "/v1/stats")
    if output.json:
        output.document(answer)
        return EXIT_OK
    classes = ("2xx", "3xx", "4xx", "5xx")
    rows = [
        (
            row["listener"],
            row["route"] or "(none)",
            row["service"] or "-",
            str(row["requests"]),
            _some(sum(count for tier, count in row["tiers"].items() if tier != "3")),
            *(str(row["classes"].get(name, 0)) for name in classes),
            _time(row["p50"]),
            _time(row["p99"]),
        )
        for row in answer["routes"]
    ]
    output.table(("listener", "route", "service", "requests", "in kernel", *classes, "p50", "p99"), rows)
    if answer["failures"]:
        output.line()
        output.table(("failures", "count"), [(name, str(count)) for name, count in answer["failures"].items()])
    return EXIT_OK


def dump(output: Output, *, socket: AdminSocket) -> int:
    """The configuration that is served, as a file of version 1, in JSON."""
    output.raw_json(ask(socket, "GET", "/v1/config"))
    return EXIT_OK


def _some(count: int) -> str:
    return str(count) if count else ""  # a column of empty cells is left out


def _time(seconds: Any) -> str:
    return "-" if seconds is None else f"<= {seconds * 1000:g} ms"


def when(unix: float) -> str:
    """`2026-11-29 14:00:00 UTC`."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
