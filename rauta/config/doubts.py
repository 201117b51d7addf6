"""What clients hold against a listener's certificates, now or soon, and which of them no client gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rauta.config.x509 import Facts

DAY: Final = 86_400.0
SOON: Final = 14 * DAY  # before its end a certificate is warned about; ACME clients renew a month before


class Doubt(Enum):
    """Stable names, also for programs (docs/rautactl.md)."""

    EXPIRED = "expired"
    SOON = "soon"
    NOT_YET_VALID = "not_yet_valid"
    NAMELESS = "nameless"
    SHADOWED = "shadowed"


def doubts(certificates: Sequence[Facts | None], now: float) -> list[list[Doubt]]:
    """Those of each of a listener's certificates, which are in its order; None: it cannot be read. `now` is seconds
    since 1970."""
    found: list[list[Doubt]] = []
    covered: set[tuple[str, str]] = set()
    for position, facts in enumerate(certificates):
        if facts is None:
            found.append([])
            continue
        wanted = {(name, facts.key) for name in facts.names}
        found.append([*_of_one(facts, now, shadowed=position > 0 and wanted <= covered)])
        covered |= wanted
    return found


def _of_one(facts: Facts, now: float, *, shadowed: bool) -> Iterator[Doubt]:
    if now >= facts.not_after:
        yield Doubt.EXPIRED
    elif now + SOON >= facts.not_after:
        yield Doubt.SOON
    if now < facts.not_before:
        yield Doubt.NOT_YET_VALID
    if not facts.names:
        yield Doubt.NAMELESS
    elif shadowed:
        yield Doubt.SHADOWED
