"""The offload of a run: chosen before anything else, live once the workers can take what the kernel passes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rauta.offload import NullOffload, OffloadError, plan, select, start
from rauta.runtime.errors import EXIT_FAILURE, StartError

if TYPE_CHECKING:
    from types import TracebackType

    from rauta.offload import Offload, Prepared
    from rauta.routing.model import Configuration
    from rauta.routing.settings import OffloadSettings


class Offloading:
    """A context: on entry the offload starts and takes the plan aside, on exit nothing of it is left.

    Once entered, `reason` is the line for the banner. Entering raises StartError if the configuration requires what
    this machine does not have.
    """

    __slots__ = ("_configuration", "_offload", "_prepared", "reason")

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._offload: Offload = NullOffload()
        self._prepared: Prepared | None = None
        self.reason = ""

    @property
    def name(self) -> str:
        """The name of the offload; `null` is the one that answers nothing."""
        return self._offload.name

    def __enter__(self) -> Offloading:
        try:
            self._offload, self.reason = start(self._configuration.offload)
        except OffloadError as error:
            raise StartError(str(error)) from error
        # A plan of 10,000 routes takes a second, and the null offload would not read it.
        if not isinstance(self._offload, NullOffload):
            try:
                self._prepared = self._offload.prepare(plan(self._configuration, self._offload.capabilities))
            except OffloadError as error:
                self._offload.stop(detach=True)
                raise StartError(f"offload {self.name!r}: {error}", code=EXIT_FAILURE) from error
        return self

    def commit(self) -> None:
        """All workers serve: the kernel may answer now. Raises StartError."""
        if self._prepared is None:
            return
        prepared, self._prepared = self._prepared, None
        try:
            self._offload.commit(prepared)
        except OffloadError as error:
            raise StartError(f"offload {self.name!r}: {error}", code=EXIT_FAILURE) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._prepared is not None:
            self._offload.abort(self._prepared)
        self._offload.stop(detach=True)


def check(settings: OffloadSettings | None) -> None:
    """Change nothing; raises StartError as entering would for what is missing."""
    try:
        select(settings)
    except OffloadError as error:
        raise StartError(str(error)) from error
