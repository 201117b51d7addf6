"""What clients hold against a listener's certificates, now or soon, and which of them no client gets; what backends
hold against ours; and what OpenSSL holds against revocation lists."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts

DAY: Final = 86_400.0
SOON: Final = 14 * DAY  # before its end a certificate is warned about; ACME clients renew a month before


class CertificateWarning(Enum):
    """Stable names, also for programs (docs/rautactl.md)."""

    EXPIRED = "expired"
    EXPIRES_SOON = "expires_soon"
    NOT_YET_VALID = "not_yet_valid"
    NO_NAMES = "no_names"
    SHADOWED = "shadowed"


def days_left(not_after: float, now: float) -> int:
    """Whole days until then, negative once it is over."""
    return math.floor((not_after - now) / DAY)


def warnings_of(certificates: Sequence[Facts | None], now: float) -> list[list[CertificateWarning]]:
    """Those of each of a listener's certificates, which are in its order; None: it cannot be read. `now` is seconds
    since 1970."""
    found: list[list[CertificateWarning]] = []
    covered: set[tuple[str, str]] = set()
    for position, facts in enumerate(certificates):
        if facts is None:
            found.append([])
            continue
        wanted = {(name, facts.key) for name in facts.names}
        found.append([*_of_one(facts, now, shadowed=position > 0 and wanted <= covered)])
        covered |= wanted
    return found


def warnings_of_ours(facts: Facts, now: float) -> list[CertificateWarning]:
    """Those of a certificate that backends are shown. They do not ask for its names."""
    return [found for found in _of_one(facts, now, shadowed=False) if found is not CertificateWarning.NO_NAMES]


def warnings_of_list(one: RevocationList, now: float) -> list[CertificateWarning]:
    """While there is any, OpenSSL refuses whatever its issuer has signed; RFC 5280 6.3.3 leaves that open."""
    found = []
    if one.next_update is not None and now >= one.next_update:
        found.append(CertificateWarning.EXPIRED)
    if now < one.this_update:
        found.append(CertificateWarning.NOT_YET_VALID)
    return found


def _of_one(facts: Facts, now: float, *, shadowed: bool) -> Iterator[CertificateWarning]:
    if now >= facts.not_after:
        yield CertificateWarning.EXPIRED
    elif now + SOON >= facts.not_after:
        yield CertificateWarning.EXPIRES_SOON
    if now < facts.not_before:
        yield CertificateWarning.NOT_YET_VALID
    if not facts.names:
        yield CertificateWarning.NO_NAMES
    elif shadowed:
        yield CertificateWarning.SHADOWED
