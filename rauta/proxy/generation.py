"""One routing table in use, and the requests that it has decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rauta.routing.services import Backend, Service
from rauta.routing.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping


class Generation:
    """A table, how many exchanges it has decided that are still in flight, and which backends it may use now.

    It outlives its replacement until the last of them has ended: only then are its plugins closed.
    """

    __slots__ = ("_retired", "_usable", "in_flight", "table")

    def __init__(self, table: Table, down: Mapping[str, frozenset[str]]) -> None:
        self.table = table
        self.in_flight = 0
        self._retired = False
        self._usable: dict[str, tuple[Backend, ...]] = {}
        for service in table.configuration.services:
            if addresses := down.get(service.name):
                self._set(service, addresses)

    def usable(self, service: str) -> Sequence[Backend] | None:
        """The backends that may get requests; None: all. The same object until that changes, as balancers want it."""
        return self._usable.get(service)

    def set_down(self, service: str, addresses: frozenset[str]) -> None:
        """These backends of a service must not get requests; a service that the table does not have is ignored."""
        for known in self.table.configuration.services:
            if known.name == service:
                self._set(known, addresses)

    def retire(self) -> None:
        """A successor decides from now on; the table closes with its last exchange."""
        self._retired = True
        self.ended()

    def ended(self) -> None:
        """To be called when `in_flight` has become 0."""
        if self._retired and not self.in_flight:
            self.table.close()

    def _set(self, service: Service, addresses: frozenset[str]) -> None:
        usable = tuple(backend for backend in service.backends if str(backend.address) not in addresses)
        if len(usable) == len(service.backends):
            self._usable.pop(service.name, None)
        else:
            self._usable[service.name] = usable
