"""Certificates and revocation lists, as programs see them: the answer of `/v1/certificates` (docs/admin.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rauta.config.certificate_warnings import (
    CertificateWarning,
    days_left,
    warnings_of,
    warnings_of_list,
    warnings_of_ours,
)

if TYPE_CHECKING:
    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts
    from rauta.routing.services import BackendTls, Service
    from rauta.routing.settings import Listener

Document = dict[str, Any]
Ends = dict[tuple[str, str, str], float]
"""Seconds since 1970, by listener, service (one of the two is empty), and the third that the function says."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What the files say: certificates that are served, by listener and in order, and the lists for its clients;
    certificates that backends are shown, and the lists for backends, by settings of TLS."""

    served: Mapping[str, Sequence[Facts]] = field(default_factory=dict)
    for_clients: Mapping[str, Sequence[RevocationList]] = field(default_factory=dict)
    shown: Mapping[BackendTls, Facts] = field(default_factory=dict)
    for_backends: Mapping[BackendTls, Sequence[RevocationList]] = field(default_factory=dict)


def inventory(listeners: Iterable[Listener], services: Iterable[Service], contents: Contents, now: float) -> Document:
    """What listeners that terminate TLS serve, and what services show their backends and hold against them. `now` and
    the times are seconds since 1970; days left are whole ones, negative once it has expired."""
    found = (_of_service(service, contents, now) for service in services)
    return {
        "time": now,
        "listeners": [_of_listener(listener, contents, now) for listener in listeners if listener.tls is not None],
        "services": [one for one in found if one["certificates"] or one["revocation_lists"]],
    }


def ends_of_certificates(document: Mapping[str, Any]) -> Ends:
    """When they expire; the third is the file."""
    return {key: one["not_after"] for key, one in _each(document, "certificates", "file")}


def ends_of_lists(document: Mapping[str, Any]) -> Ends:
    """When they do, if ever, of several of an issuer the first; the third is the issuer."""
    found: dict[tuple[str, str, str], float] = {}
    for key, one in _each(document, "revocation_lists", "issuer"):
        end = one["next_update"]
        if end is not None:
            found[key] = min(end, found.get(key, end))
    return found


def _each(document: Mapping[str, Any], what: str, third: str) -> Iterator[tuple[tuple[str, str, str], Document]]:
    for listener in document["listeners"]:
        yield from (((listener["name"], "", one[third]), one) for one in listener[what])
    for service in document["services"]:
        yield from ((("", service["name"], one[third]), one) for one in service[what])


def _of_listener(listener: Listener, contents: Contents, now: float) -> Document:
    tls, facts = listener.tls, contents.served[listener.name]
    certificates = () if tls is None else tls.certificates
    clients = None if tls is None else tls.clients
    return {
        "name": listener.name,
        "address": str(listener.address),
        "certificates": [
            _certificate(certificate.cert, of_one, warnings, now)
            for certificate, of_one, warnings in zip(certificates, facts, warnings_of(facts, now), strict=True)
        ],
        "revocation_lists": [
            _list((clients and clients.crl) or "", one, now) for one in contents.for_clients.get(listener.name, ())
        ],
    }


def _of_service(service: Service, contents: Contents, now: float) -> Document:
    """Of its requests and of its health checks, which may have settings of their own."""
    settings = list(dict.fromkeys(tls for _, tls in service.tls_settings()))
    return {
        "name": service.name,
        "certificates": [
            _certificate(tls.certificate.cert, contents.shown[tls], warnings_of_ours(contents.shown[tls], now), now)
            for tls in settings
            if tls.certificate is not None
        ],
        "revocation_lists": [
            _list(tls.crl or "", one, now) for tls in settings for one in contents.for_backends.get(tls, ())
        ],
    }


def _certificate(file: str, facts: Facts, warnings: Sequence[CertificateWarning], now: float) -> Document:
    return {
        "file": file,
        "names": list(facts.names),
        "key": {"kind": facts.key, "bits": facts.bits},
        "issuer": facts.issuer,
        "fingerprint": facts.fingerprint,
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "days_left": days_left(facts.not_after, now),
        "warnings": [warning.value for warning in warnings],
    }


def _list(file: str, one: RevocationList, now: float) -> Document:
    return {
        "file": file,
        "issuer": one.issuer,
        "scope": one.scope,
        "revoked": one.revoked,
        "this_update": one.this_update,
        "next_update": one.next_update,
        "warnings": [warning.value for warning in warnings_of_list(one, now)],
    }
