"""Which workers do not move any more. Each writes the time into its column about once a second, on its loop; one that
does not, hangs: it serves nobody, and would keep its share of the connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rauta.routing.defaults import HANG_TIMEOUT
from rauta.runtime import segment

LOOK_INTERVAL: Final = 5.0  # seconds between two looks


class Hearts:
    """Looks at the columns of all slots. Times are seconds of the monotonic clock, which workers share."""

    __slots__ = ("_columns", "_looked")

    def __init__(self, memory: Sequence[int], now: float) -> None:
        self._columns = segment.columns(memory)
        self._looked = now

    def silent(self, now: float, started: Mapping[int, float]) -> dict[int, float]:
        """For how long the slots' workers have not moved, of those for which it is too long. `started` has the slots to
        look at, and since when their workers run.

        After a pause of the caller itself there are none: what stopped it (a frozen container, a suspended machine) has
        stopped the workers too, and they may not have had their turn yet.
        """
        before, self._looked = self._looked, now
        if now - before > 2 * LOOK_INTERVAL:
            return {}
        last = {slot: max(segment.heartbeat(self._columns[slot]) / 1000, since) for slot, since in started.items()}
        return {slot: now - moved for slot, moved in last.items() if now - moved > HANG_TIMEOUT}
