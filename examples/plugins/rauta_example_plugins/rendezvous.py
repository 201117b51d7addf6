"""`rendezvous`: weighted rendezvous hashing (Thaler and Ravishankar 1998), if wanted with bounded loads.

Every backend draws a number from its own hash of the client, stretched by its weight; the lowest wins. When a backend
goes, only its own clients move, to backends in proportion to weight; when it comes back, exactly they return. Unlike
with Maglev no other client ever moves. The price is one hash per backend and request: fine for dozens of backends.

With `bound` c, a backend that has c times its fair share of the requests in flight is passed over, and the client goes
to its second choice (Mirrokni, Thorup, Zadimoghaddam 2018): affinity, but no hot spots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rauta.api import Backend, Load

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousSettings:
    """Keys of `settings` in the file."""

    bound: float | None = field(
        default=None, metadata={"doc": "most requests in flight at a backend, as a multiple of its fair share"}
    )

    def __post_init__(self) -> None:
        if self.bound is not None and not 1 < self.bound <= 100:
            raise ValueError(f"bound {self.bound:g} is out of range: above 1 (1.25 is usual) to 100")


class Rendezvous:
    """The same client goes to the same backend. `key` of rauta's `balancer` says what makes it the same."""

    Settings: ClassVar[type | None] = RendezvousSettings
    __slots__ = ("_bound", "_seeds")

    def __init__(self, settings: RendezvousSettings) -> None:
        self._bound = settings.bound
        self._seeds: dict[str, int] = {}

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """The backend with the lowest draw that has room. rauta gives only usable backends, with weights above 0."""
        if self._bound is None:
            return min(candidates, key=lambda backend: self._draw(backend, key))
        in_flight = {backend: load(backend) for backend in candidates}
        total = sum(in_flight.values()) + 1  # with this request
        per_weight = self._bound * total / sum(backend.weight for backend in candidates)
        for backend in sorted(candidates, key=lambda backend: self._draw(backend, key)):
            if in_flight[backend] < math.ceil(per_weight * backend.weight):
                return backend
        # Cannot be: the rooms add up to more than all requests. Loads are another's code, though.
        return min(candidates, key=lambda backend: in_flight[backend] / backend.weight)

    def _draw(self, backend: Backend, key: int) -> float:
        """An exponential variate with the weight as its rate: the chance to be the lowest is the share of weight."""
        uniform = (_mix(key ^ self._seed(str(backend.address))) + 0.5) / 2**64
        return -math.log(uniform) / backend.weight

    def _seed(self, identity: str) -> int:
        seed = self._seeds.get(identity)
        if seed is None:
            digest = blake2b(identity.encode(), digest_size=8, person=b"rendezvous").digest()
            seed = self._seeds[identity] = int.from_bytes(digest, "little")
        return seed

    def close(self) -> None:
        """The last request of the old table is done."""
        self._seeds.clear()


def _mix(value: int) -> int:
    """SplitMix64's finaliser: 64 bits in, 64 well-mixed bits out."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
