"""The certificates of listeners, and the revocation lists for those of clients, as programs see them: the answer of
`/v1/certificates` (docs/admin.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rauta.config.certificate_warnings import CertificateWarning, days_left, warnings_of, warnings_of_list

if TYPE_CHECKING:
    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts
    from rauta.routing.settings import Listener

Document = dict[str, Any]


def inventory(
    listeners: Iterable[Listener],
    facts: Mapping[str, Sequence[Facts]],
    lists: Mapping[str, Sequence[RevocationList]],
    now: float,
) -> Document:
    """What listeners that terminate TLS serve; `facts` are those of their certificates, by listener and in order, and
    `lists` those for their clients. `now` and the times are seconds since 1970; days left are whole ones, negative once
    it has expired."""
    return {
        "time": now,
        "listeners": [
            {
                "name": listener.name,
                "address": str(listener.address),
                "certificates": [
                    _document(certificate.cert, of_one, warnings, now)
                    for certificate, of_one, warnings in zip(
                        listener.tls.certificates,
                        facts[listener.name],
                        warnings_of(facts[listener.name], now),
                        strict=True,
                    )
                ],
                "revocation_lists": [
                    _list_document((listener.tls.clients and listener.tls.clients.crl) or "", one, now)
                    for one in lists.get(listener.name, ())
                ],
            }
            for listener in listeners
            if listener.tls is not None
        ],
    }


def _document(file: str, facts: Facts, warnings: Sequence[CertificateWarning], now: float) -> Document:
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


def _list_document(file: str, one: RevocationList, now: float) -> Document:
    return {
        "file": file,
        "issuer": one.issuer,
        "revoked": one.revoked,
        "this_update": one.this_update,
        "next_update": one.next_update,
        "warnings": [warning.value for warning in warnings_of_list(one, now)],
    }
