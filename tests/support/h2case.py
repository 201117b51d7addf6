"""What a case of RFC 9113 or RFC 7541 is: the sentence, what is sent, and what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from support.h2client import RST_STREAM, frame
from support.h2wire import BEGIN, END_STREAM, Wire, get, headers, post, request, word

Step = bytes | Callable[[Wire], Awaitable[object]]


@dataclass(frozen=True)
class Ends:
    """A connection error: GOAWAY with one of these codes (none: only the end), then the connection is closed."""

    codes: tuple[str, ...]
    reason: str | None = "bad_frame"  # in the log; None: nothing is wrong
    streams: tuple[int, ...] = ()  # are answered with 200 before


@dataclass(frozen=True)
class Resets:
    """A stream error: RST_STREAM with this code, or an answer of 4xx where that `may` be; the connection goes on."""

    stream: int
    code: str
    may_answer: bool = False
    streams: tuple[int, ...] = ()  # are answered with 200


@dataclass(frozen=True)
class Serves:
    """No error at all: these streams are answered with 200."""

    streams: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One case. `rule` gives it its section and its sentence."""

    expected: Ends | Resets | Serves
    steps: tuple[Step, ...]
    begin: bytes = BEGIN
    section: str = ""
    must: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """For pytest."""
        return f"{self.section}: {self.name}"


def rule(section: str, must: str, cases: dict[str, Case]) -> list[Case]:
    """The cases of one sentence."""
    return [replace(case, section=section, must=must, name=name) for name, case in cases.items()]


def ends(codes: str, *steps: Step, reason: str = "bad_frame", begin: bytes = BEGIN) -> Case:
    """A connection error; `codes` are those that the RFC names, with spaces between."""
    return Case(Ends(tuple(codes.split()), reason), steps, begin)


def leaves(*steps: Step, streams: tuple[int, ...] = ()) -> Case:
    """The connection ends because nothing is left to do."""
    return Case(Ends(("NO_ERROR",), None, streams), steps)


def resets(code: str, *steps: Step, stream: int = 1) -> Case:
    """A stream error."""
    return Case(Resets(stream, code), steps)


def malformed(*steps: Step, stream: int = 1, streams: tuple[int, ...] = ()) -> Case:
    """A malformed request. RFC 9113 8.1.1: "MUST be treated as a stream error of type PROTOCOL_ERROR", and "a server
    MAY send an HTTP response prior to closing or resetting the stream"."""
    return Case(Resets(stream, "PROTOCOL_ERROR", True, streams), steps)


def serves(*steps: Step, streams: tuple[int, ...] = (), begin: bytes = BEGIN) -> Case:
    """Nothing is wrong."""
    return Case(Serves(streams), steps, begin)


def answered(stream: int) -> Step:
    """Wait for the whole of an answer, or a reset."""
    return lambda wire: wire.answered(stream)


def reset(stream: int) -> Step:
    """Wait until the other side has reset a stream."""
    return lambda wire: wire.until(lambda: wire.streams[stream].reset is not None)


async def settled(wire: Wire) -> None:
    """Wait until all that was sent has had its effect."""
    await wire.settled()


# --- what many cases begin with -----------------------------------------------------------------------------

HEAD = request()
BEGUN = headers(1, HEAD[:3], END_STREAM)  # a field block whose second half is missing
HELD = get(1, "/held")  # half-closed (remote): the request is complete, and its backend takes its time
OPEN = post(1, "/held")
ANSWERED: tuple[Step, ...] = (get(1), answered(1))
CANCELLED: tuple[Step, ...] = (HELD, frame(RST_STREAM, 0, 1, word(8)))
REFUSED: tuple[Step, ...] = (post(1, "/none"), reset(1))  # the answer needs no body, so rauta resets the stream
