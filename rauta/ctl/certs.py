"""`rautactl certs`: the certificates that a running gateway serves, with the revocation lists for its clients, or those
that the files of a configuration hold."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rauta.ctl.client import AdminSocket, ask
from rauta.ctl.errors import EXIT_OK, ControlError
from rauta.ctl.live import when
from rauta.ctl.output import Output
from rauta.ctl.tables import Cell, Style

if TYPE_CHECKING:
    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts
    from rauta.routing.settings import Certificate

_LISTS = ("listener", "revocation list", "state", "issuer", "revoked", "this update", "next update")
_HEADER = ("listener", "certificate", "state", "names", "key", "not before", "not after", "issuer", "sha-256")


def served(output: Output, *, socket: AdminSocket) -> int:
    """What a gateway serves, also where its files say something else by now."""
    return _tell(output, ask(socket, "GET", "/v1/certificates"))


def held(output: Output, *, file: str) -> int:
    """What the files of a configuration hold. Keys are not read. Raises ControlError."""
    from rauta.config.inventory import inventory
    from rauta.config.secrets import SecretError
    from rauta.ctl import files

    listeners = files.load(file).configuration.listeners
    try:
        facts = {
            listener.name: tuple(map(_facts, listener.tls.certificates))
            for listener in listeners
            if listener.tls is not None
        }
        lists = {
            listener.name: _lists(listener.tls.clients.ca, listener.tls.clients.crl)
            for listener in listeners
            if listener.tls is not None and listener.tls.clients is not None and listener.tls.clients.crl is not None
        }
    except (SecretError, ValueError) as error:
        files.load(file, thorough=True)  # says all that is wrong, and where
        raise ControlError(f"{file}: {error}") from None
    return _tell(output, inventory(listeners, facts, lists, time.time()))


def _facts(certificate: Certificate) -> Facts:
    from rauta.config.secrets import read_file
    from rauta.config.x509 import facts_of

    return facts_of(read_file(certificate.cert, ("cert",)))


def _lists(ca: str, crl: str) -> tuple[RevocationList, ...]:
    from rauta.config.revocation import read_revocations
    from rauta.config.secrets import read_file

    return read_revocations(crl, ca, read_file(ca, ("ca",))).lists


def _tell(output: Output, found: dict[str, Any]) -> int:
    if output.json:
        output.document(found)
        return EXIT_OK
    rows = [
        (
            listener["name"],
            one["file"],
            _state(one),
            ", ".join(one["names"]),
            f"{one['key']['kind']} {one['key']['bits']}",
            when(one["not_before"]),
            when(one["not_after"]),
            one["issuer"],
            one["fingerprint"],
        )
        for listener in found["listeners"]
        for one in listener["certificates"]
    ]
    if rows:
        output.records(_HEADER, rows)
    else:
        output.line("no listener terminates TLS")
    lists = [
        (
            listener["name"],
            one["file"],
            _state_of_list(one),
            one["issuer"],
            str(one["revoked"]),
            when(one["this_update"]),
            "never" if one["next_update"] is None else when(one["next_update"]),
        )
        for listener in found["listeners"]
        for one in listener["revocation_lists"]
    ]
    if lists:
        output.line()
        output.records(_LISTS, lists)
    return EXIT_OK


def _state(one: dict[str, Any]) -> Cell:
    """`good, 29 days left`; `EXPIRES SOON, 3 days left, SHADOWED`: what clients hold against it is in capitals."""
    warnings = one["warnings"]
    style = Style.GOOD if not warnings else Style.WARN if set(warnings) <= {"expires_soon", "shadowed"} else Style.BAD
    days = one["days_left"]
    left = f"{_days(days)} left" if days >= 0 else f"{_days(-days - 1)} ago"
    marks = [warning.replace("_", " ").upper() for warning in warnings]
    if "expired" in warnings:
        text = ", ".join([f"EXPIRED {left}", *(mark for mark in marks if mark != "EXPIRED")])
    else:
        text = ", ".join([*(marks or ["good"]), left])
    return Cell(text, style)


def _state_of_list(one: dict[str, Any]) -> Cell:
    """`good`, `EXPIRED`, `NOT YET VALID`."""
    marks = [warning.replace("_", " ").upper() for warning in one["warnings"]]
    return Cell(", ".join(marks), Style.BAD) if marks else Cell("good", Style.GOOD)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
