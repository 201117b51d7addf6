"""`rautactl certs`: the certificates that a running gateway serves and shows to backends, with its revocation lists, or
those that the files of a configuration hold."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rauta.ctl.client import AdminSocket, ask
from rauta.ctl.errors import EXIT_OK, ControlError
from rauta.ctl.live import when
from rauta.ctl.output import Output
from rauta.ctl.tables import Cell, Style

if TYPE_CHECKING:
    from rauta.config.inventory import Contents
    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Certificate

_HEADER = (
    "listener",
    "service",
    "certificate",
    "state",
    "names",
    "key",
    "not before",
    "not after",
    "issuer",
    "sha-256",
)
_LISTS = ("listener", "service", "revocation list", "state", "issuer", "about", "revoked", "this update", "next update")


def served(output: Output, *, socket: AdminSocket) -> int:
    """What a gateway serves, also where its files say something else by now."""
    return _tell(output, ask(socket, "GET", "/v1/certificates"))


def held(output: Output, *, file: str) -> int:
    """What the files of a configuration hold. Keys are not read. Raises ControlError."""
    from rauta.config.inventory import inventory
    from rauta.config.secrets import SecretError
    from rauta.ctl import files

    configuration = files.load(file).configuration
    try:
        contents = _contents(configuration)
    except (SecretError, ValueError) as error:
        files.load(file, thorough=True)  # says all that is wrong, and where
        raise ControlError(f"{file}: {error}") from None
    return _tell(output, inventory(configuration.listeners, configuration.services, contents, time.time()))


def _contents(configuration: Configuration) -> Contents:
    """Raises SecretError, ValueError."""
    from rauta.config.inventory import Contents

    terminating = {listener.name: listener.tls for listener in configuration.listeners if listener.tls is not None}
    clients = {name: tls.clients for name, tls in terminating.items() if tls.clients is not None}
    ours = {tls for service in configuration.services for _, tls in service.tls_settings()}
    return Contents(
        served={name: tuple(map(_facts, tls.certificates)) for name, tls in terminating.items()},
        for_clients={name: _lists(one.ca, one.crl) for name, one in clients.items()},
        shown={tls: _facts(tls.certificate) for tls in ours if tls.certificate is not None},
        for_backends={tls: _lists(tls.ca, tls.crl) for tls in ours},
    )


def _facts(certificate: Certificate) -> Facts:
    from rauta.config.secrets import read_file
    from rauta.config.x509 import facts_of

    return facts_of(read_file(certificate.cert, ("cert",)))


def _lists(ca: str | None, crl: str | None) -> tuple[RevocationList, ...]:
    if ca is None or crl is None:
        return ()
    from rauta.config.revocation import read_revocations
    from rauta.config.secrets import read_file

    return read_revocations(crl, ca, read_file(ca, ("ca",))).lists


def _tell(output: Output, found: dict[str, Any]) -> int:
    if output.json:
        output.document(found)
        return EXIT_OK
    places = [(listener["name"], "", listener) for listener in found["listeners"]]
    places += [("", service["name"], service) for service in found["services"]]
    rows = [_row(listener, service, one) for listener, service, place in places for one in place["certificates"]]
    lists = [
        _row_of_list(listener, service, one) for listener, service, place in places for one in place["revocation_lists"]
    ]
    if rows:
        output.records(_HEADER, rows)
    else:
        output.line("no listener terminates TLS, and no service has a certificate for its backends")
    if lists:
        output.line()
        output.records(_LISTS, lists)
    return EXIT_OK


def _row(listener: str, service: str, one: dict[str, Any]) -> tuple[Cell | str, ...]:
    return (
        listener,
        service,
        one["file"],
        _state(one),
        ", ".join(one["names"]),
        f"{one['key']['kind']} {one['key']['bits']}",
        when(one["not_before"]),
        when(one["not_after"]),
        one["issuer"],
        one["fingerprint"],
    )


def _row_of_list(listener: str, service: str, one: dict[str, Any]) -> tuple[Cell | str, ...]:
    return (
        listener,
        service,
        one["file"],
        _state_of_list(one),
        one["issuer"],
        one["scope"] or "",
        str(one["revoked"]),
        when(one["this_update"]),
        "never" if one["next_update"] is None else when(one["next_update"]),
    )


def _state(one: dict[str, Any]) -> Cell:
    """`good, 29 days left`; `EXPIRES SOON, 3 days left, SHADOWED`: what is held against it is in capitals."""
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
