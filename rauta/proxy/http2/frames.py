"""What the connections here need of a library that knows frames, HPACK and windows.

No I/O: bytes in, events out; calls in, bytes out. `over_h2` is the reference, `over_ngh2` the fast one; both are tested
alike, and the fast one is used where it is installed (decision 163).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NamedTuple, cast

from rauta.proxy.http2.heads import Raw
from rauta.proxy.http2.library import library

# RFC 9113 7
ERRORS: Final = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
    "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
NO_ERROR: Final = 0
PROTOCOL_ERROR: Final = 1
INTERNAL_ERROR: Final = 2
FRAME_SIZE_ERROR: Final = 6
REFUSED_STREAM: Final = 7
CANCEL: Final = 8
COMPRESSION_ERROR: Final = 9
ENHANCE_YOUR_CALM: Final = 11

FRAME: Final = 16_384  # bytes of a frame's payload; RFC 9113 4.2: the least that an endpoint may offer
STREAMS: Final = 100  # at the same time on one connection (RFC 9113 6.5.2 asks for no fewer)
STREAM_WINDOW: Final = 65_535  # bytes that a stream may send before its backend has taken any
WIDER: Final = 1 << 21  # by so many bytes may the windows of a connection's streams be wider than that, all together
CONNECTION_WINDOW: Final = 1 << 20  # the same of all streams together, beyond what slow ones hold: see `credit`


class Head(NamedTuple):
    """A request, or the final response to one, begins."""

    stream: int
    fields: Sequence[Raw]
    ended: bool


class Interim(NamedTuple):
    """A 1xx response."""

    stream: int
    fields: Sequence[Raw]


class Data(NamedTuple):
    """A piece of the body; `size` with padding, which is of the window too."""

    stream: int
    data: bytes
    size: int


class End(NamedTuple):
    """The message is complete."""

    stream: int
    trailers: Sequence[Raw]


class Reset(NamedTuple):
    """The peer has given the stream up."""

    stream: int
    code: int


class Fault(NamedTuple):
    """A stream error (RFC 9113 5.4.2) of the peer. The stream has been reset."""

    stream: int
    why: str


EVERY: Final = -1  # of Room: the windows of all streams have been changed


class Room(NamedTuple):
    """The peer takes more of a stream; 0: of the connection."""

    stream: int


class Control(NamedTuple):
    """A frame that costs its sender nothing and us an answer."""

    kind: str


class Goodbye(NamedTuple):
    """The peer opens no more streams, and takes none beyond `last`."""

    code: int
    last: int


class Noticed(NamedTuple):
    """The round trip of `Frames.notice` is over."""


Event = Head | Interim | Data | End | Reset | Fault | Room | Control | Goodbye | Noticed


def code_name(code: int) -> str:
    """An error code for people."""
    return ERRORS[code] if code < len(ERRORS) else f"code {code:#x}"


class BrokenError(Exception):
    """The peer has broken the protocol, so that the connection cannot go on. What tells it why is among the bytes to be
    sent already."""


class Frames(ABC):
    """One side of one connection. Heads, bodies and trailers go out in the order of the calls."""

    __slots__ = ()

    @property
    @abstractmethod
    def streams(self) -> int:
        """How many streams of ours may be open at a time, by the peer's settings and by what is enough."""

    @property
    @abstractmethod
    def connects(self) -> bool:
        """Whether the peer takes CONNECT with a `:protocol` (RFC 8441 3), as far as it has said so."""

    @abstractmethod
    def open(self) -> int:
        """The number for a new stream, to be used at once; 0: there are no more (RFC 9113 5.1.1: "a client that is
        unable to establish a new stream identifier can establish a new connection for new streams")."""

    @abstractmethod
    def receive(self, data: bytes) -> list[Event]:
        """What the bytes bring. Raises BrokenError."""

    @abstractmethod
    def take(self) -> bytes:
        """What is to be sent."""

    @abstractmethod
    def send_head(self, stream: int, fields: list[Raw], *, end: bool) -> bool:
        """A head, final or interim, or trailers (with `end`). False: the stream is no more, or is not to be."""

    @abstractmethod
    def room(self, stream: int) -> int:
        """How many bytes of a body may be sent in one frame now."""

    @property
    @abstractmethod
    def shared_room(self) -> int:
        """How many bytes of bodies the connection's window has room for, whatever the streams' have."""

    @abstractmethod
    def send_data(self, stream: int, data: bytes, *, end: bool) -> bool:
        """A piece of a body, within `room`. False: the stream is no more."""

    @abstractmethod
    def credit(self, size: int, stream: int | None) -> None:
        """The peer may send that much more: on a stream, whose backend has taken it; on the connection (None), as soon
        as it has come. So a stream that is slow stops itself and no other."""

    @abstractmethod
    def widen(self, stream: int, window: int, by: int) -> None:
        """So large is the stream's window from now on, which is `by` bytes more than before."""

    @abstractmethod
    def reset(self, stream: int, code: int) -> None:
        """Give a stream up."""

    @abstractmethod
    def notice(self) -> None:
        """Ask the peer for no more streams. Those that it begins before it reads this are taken like any other;
        `Noticed` comes behind them, if the peer answers."""

    @abstractmethod
    def goaway(self, code: int) -> None:
        """No more streams than those that are known; these go on (RFC 9113 6.8). Said once, but for an error."""


NOTICE_PING: Final = b"goingoff"  # opaque, 8 bytes (RFC 9113 6.7)


def notice_frames() -> bytes:
    """RFC 9113 6.8: "A server that is attempting to gracefully shut down a connection SHOULD send an initial GOAWAY
    frame with the last stream identifier set to 2^31-1 and a NO_ERROR code", and the next one after "at least one
    round-trip time": that of the PING, which comes first, as to some clients (h2) GOAWAY is the last frame of all."""
    return b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + NOTICE_PING + goaway_frame((1 << 31) - 1, NO_ERROR)


def goaway_frame(last: int, code: int) -> bytes:
    """RFC 9113 6.8."""
    return b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last.to_bytes(4, "big") + code.to_bytes(4, "big")


def make(*, head_limit: int, window: int = STREAM_WINDOW, client: bool = False) -> Frames:
    """One side of a new connection; `client`: ours opens the streams. Heads are at most `head_limit` bytes, and a
    stream may bring `window` bytes that are not credited yet."""
    module = import_module(f"rauta.proxy.http2.over_{library()}")
    return cast(Frames, module.Connection(head_limit=head_limit, window=window, client=client))
