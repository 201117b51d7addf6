"""The built-in balancers. They implement the same protocol as plugins (see `plugins.Balancer`).

Each is one worker's: round robin and least requests know only what their own worker does.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import randrange
from typing import Any, ClassVar, Final

from rauta.routing import maglev
from rauta.routing.plugins import Load
from rauta.routing.services import Backend


class _BuiltIn:
    Settings: ClassVar[type | None] = None
    __slots__ = ()

    def __init__(self, settings: Any = None) -> None:
        del settings  # the protocol's; built-ins have none

    def close(self) -> None:
        """Nothing is held."""


class Maglev(_BuiltIn):
    """The same client goes to the same backend, in every tier; few clients move when backends change."""

    __slots__ = ("_candidates", "_table")

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._candidates: Sequence[Backend] = ()
        self._table: maglev.SlotTable | None = None

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """By the client's hash; the table is built when first used and when the candidates change."""
        table = self._table
        # "is" first: the same tuple comes back with nearly every request.
        if table is None or (candidates is not self._candidates and candidates != self._candidates):
            table = self._table = maglev.build(candidates)
        self._candidates = candidates
        return table.pick(key)


class RoundRobin(_BuiltIn):
    """In turn, in proportion to weight and evenly spread (nginx's smooth weighted round robin)."""

    __slots__ = ("_credit", "_turn")

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._credit: dict[Backend, int] = {}
        self._turn = randrange(1 << 16)  # or all workers would begin with the first backend

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """The backend with the most credit; every turn earns each its weight and costs the chosen one the sum."""
        first = candidates[0].weight
        if all(backend.weight == first for backend in candidates):
            self._turn += 1
            return candidates[self._turn % len(candidates)]
        credit = {backend: self._credit.get(backend, 0) + backend.weight for backend in candidates}
        chosen = max(candidates, key=credit.__getitem__)
        credit[chosen] -= sum(backend.weight for backend in candidates)
        self._credit = credit
        return chosen


class LeastRequests(_BuiltIn):
    """The backend with the fewest requests in flight for its weight; ties in turn."""

    __slots__ = ("_turn",)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._turn = randrange(1 << 16)

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """The least (load + 1) / weight."""
        self._turn += 1
        start = self._turn % len(candidates)
        best, least = candidates[start], float("inf")
        for i in range(start, start + len(candidates)):
            backend = candidates[i % len(candidates)]
            cost = (load(backend) + 1) / backend.weight
            if cost < least:
                best, least = backend, cost
        return best


class RandomOfTwo(_BuiltIn):
    """The less loaded of two random backends (Mitzenmacher 2001): nearly as good as least requests, O(log n)."""

    __slots__ = ("_candidates", "_cumulative")

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self._candidates: Sequence[Backend] = ()
        self._cumulative: list[int] = []

    def pick(self, candidates: Sequence[Backend], key: int, load: Load) -> Backend:
        """Both are drawn by weight, so the loads are compared as they are."""
        if candidates is not self._candidates:
            self._candidates = candidates
            self._cumulative = list(accumulate(backend.weight for backend in candidates))
        total = self._cumulative[-1]
        one = bisect(self._cumulative, randrange(total))
        below = self._cumulative[one - 1] if one else 0
        rest = total - candidates[one].weight
        if not rest:
            return candidates[one]
        draw = randrange(rest)  # the second draw leaves the first backend's range out
        other = bisect(self._cumulative, draw if draw < below else draw + candidates[one].weight)
        return candidates[one] if load(candidates[one]) <= load(candidates[other]) else candidates[other]


BUILT_IN: Final[dict[str, type[Maglev | RoundRobin | LeastRequests | RandomOfTwo]]] = {
    "maglev": Maglev,
    "round_robin": RoundRobin,
    "least_requests": LeastRequests,
    "random_two": RandomOfTwo,
}
