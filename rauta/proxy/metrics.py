"""What a worker counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rauta.proxy.dataplane import DataPlane
    from rauta.proxy.exchange import Exchange


class WorkerMetrics(Protocol):
    """Where the data plane tells what happened."""

    def exchange(self, exchange: Exchange, duration: float) -> None:
        """An exchange has ended after `duration` seconds."""

    def refused(self, listener: str, reason: str) -> None:
        """A request or connection was refused before it became an exchange."""

    def accepted(self, listener: str) -> None:
        """A connection was accepted."""

    def tick(self, plane: DataPlane) -> None:
        """About once a second: what is there now."""
