"""A client's frames before the library has them: RFC 9113, sections 3 to 6, where `h2` is more lenient than that, or
ends a connection for what concerns a stream, or names another code.

No I/O: bytes in, frames out. What is not worth the library's time (PRIORITY, extensions) ends here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from h2.errors import ErrorCodes

FRAME: Final = 16_384  # bytes of a frame's payload; RFC 9113 4.2: the least that an endpoint may offer
GREATEST: Final = 2**31 - 1
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
_HEADER: Final = 9  # bytes
_ACK, _END_HEADERS, _PADDED, _PRIORITIZED = 0x1, 0x4, 0x8, 0x20

# RFC 9113 6.5.2: bounds of settings, and the code for what is beyond.
_BOUNDS: Final = {
    0x2: (0, 1, ErrorCodes.PROTOCOL_ERROR),
    0x4: (0, GREATEST, ErrorCodes.FLOW_CONTROL_ERROR),
    0x5: (FRAME, 2**24 - 1, ErrorCodes.PROTOCOL_ERROR),
}
# 6.5.2: "An endpoint that receives a SETTINGS frame with any unknown or unsupported identifier MUST ignore that
# setting".
_KNOWN: Final = frozenset((1, 2, 3, 4, 5, 6, 8))
_SETTING: Final = 6  # bytes
MAX_SETTINGS: Final = 32  # of one frame; as nghttp2 has it (CVE-2020-11080)


class InspectionError(Exception):
    """A connection error (RFC 9113 5.4.1), with its code."""

    def __init__(self, code: ErrorCodes, why: str) -> None:
        super().__init__(why)
        self.code = int(code)


class Frame(NamedTuple):
    """A frame that the library may have; or not, if it is `wrong`: a stream error (RFC 9113 5.4.2)."""

    kind: int
    stream: int
    octets: bytes
    wrong: tuple[int, str] | None = None  # the code, and why


def _broken(why: str, code: ErrorCodes = ErrorCodes.PROTOCOL_ERROR) -> InspectionError:
    return InspectionError(code, why)


def _only_known(frame: bytearray) -> None:
    """Leave of a SETTINGS frame what the library knows: it keeps what has no meaning for ever, and looks through it at
    each SETTINGS frame. Raises InspectionError."""
    size = len(frame) - _HEADER
    if size % _SETTING:
        return  # the library knows
    if size > MAX_SETTINGS * _SETTING:
        raise _broken(f"SETTINGS with {size // _SETTING} entries", ErrorCodes.ENHANCE_YOUR_CALM)
    entries = [bytes(frame[at : at + _SETTING]) for at in range(_HEADER, len(frame), _SETTING)]
    known = [entry for entry in entries if int.from_bytes(entry[:2], "big") in _KNOWN]
    if len(known) < len(entries):
        frame[_HEADER:] = b"".join(known)
        frame[:3] = (len(frame) - _HEADER).to_bytes(3, "big")


class Inspector:
    """The frames of one connection."""

    __slots__ = ("_at", "_block", "_buffer", "_highest", "_of_client", "_preface", "_settings")

    def __init__(self, *, of_client: bool = True) -> None:
        self._of_client = of_client
        self._buffer = bytearray()
        self._at = 0  # what is before has been taken
        self._preface = PREFACE if of_client else b""  # what is missing of it
        self._settings = False  # the first frame has come
        self._block = 0  # the stream whose field block has begun and not ended
        self._highest = 0  # of the streams that the client has opened

    def feed(self, data: bytes) -> None:
        """Bytes have come. Raises InspectionError."""
        if self._preface:
            size = min(len(self._preface), len(data))
            if data[:size] != self._preface[:size]:
                raise _broken("the connection preface is none")
            self._preface = self._preface[size:]
            data = data[size:]
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += data

    def next(self) -> Frame | None:
        """The next frame that is to be looked at; None: more has to come. Raises InspectionError."""
        while (frame := self._frame()) is not None:
            if frame[3] == SETTINGS:
                _only_known(frame)
            if not self._of_client:
                return Frame(frame[3], int.from_bytes(frame[5:_HEADER], "big") & GREATEST, bytes(frame))
            if (found := self._inspected(frame)) is not None:
                return found
        return None

    def _frame(self) -> bytearray | None:
        buffer, at = self._buffer, self._at
        size = len(buffer) - at
        if size < 3:
            return None
        # Before the rest has come: 16 MiB, for a length that means "GET".
        length = int.from_bytes(buffer[at : at + 3], "big")
        if length > FRAME:
            raise _broken(f"a frame of {length} bytes", ErrorCodes.FRAME_SIZE_ERROR)
        if size < _HEADER + length:
            return None
        self._at = at + _HEADER + length
        return buffer[at : self._at]

    def _inspected(self, frame: bytearray) -> Frame | None:
        kind, flags = frame[3], frame[4]
        stream = int.from_bytes(frame[5:_HEADER], "big") & GREATEST
        if not self._settings:
            # 3.4: "This sequence MUST be followed by a SETTINGS frame".
            if kind != SETTINGS or flags & _ACK:
                raise _broken(f"a frame of type {kind} before SETTINGS")
            self._settings = True
        if self._block:
            # 6.2: "MUST treat the receipt of any other type of frame or a frame on a different stream as a connection
            # error"; 5.5 says the same of extension frames.
            if kind != CONTINUATION or stream != self._block:
                raise _broken(f"a frame of type {kind} within the field block of stream {self._block}")
        elif kind == CONTINUATION:
            raise _broken("CONTINUATION, and nothing to continue")  # 6.10
        if kind > CONTINUATION:
            return None  # 4.1: "MUST ignore and discard frames of unknown types"
        wrong = _INSPECT[kind](self, frame, flags, stream) if kind in _INSPECT else None
        if kind == PRIORITY and stream and wrong is None:
            return None
        return Frame(kind, stream, bytes(frame), wrong)

    def _is_idle(self, stream: int) -> bool:
        return stream > self._highest or stream % 2 == 0  # nothing is pushed, so those of ours are

    def _headers(self, frame: bytearray, flags: int, stream: int) -> None:
        if not flags & _END_HEADERS:
            self._block = stream
        if stream % 2:
            self._highest = max(self._highest, stream)
        at = _HEADER + bool(flags & _PADDED)
        if flags & _PRIORITIZED and len(frame) >= at + 5:
            frame[at : at + 4] = bytes(4)  # 5.3.2: deprecated, and not to be an error here
            if flags & _PADDED and frame[_HEADER] > len(frame) - at - 5:
                raise _broken("padding longer than the frame")  # 6.2

    def _continuation(self, frame: bytearray, flags: int, stream: int) -> None:
        if flags & _END_HEADERS:
            self._block = 0

    def _priority(self, frame: bytearray, flags: int, stream: int) -> tuple[int, str] | None:
        # 6.3: "a length other than 5 octets MUST be treated as a stream error of type FRAME_SIZE_ERROR".
        size = len(frame) - _HEADER
        if not stream or size == 5 or self._is_idle(stream):
            return None
        return int(ErrorCodes.FRAME_SIZE_ERROR), f"PRIORITY of {size} bytes"

    def _rst_stream(self, frame: bytearray, flags: int, stream: int) -> None:
        # 6.4: "identifying an idle stream ... MUST treat this as a connection error of type PROTOCOL_ERROR".
        if self._is_idle(stream):
            raise _broken(f"RST_STREAM of stream {stream}, which is not open")

    def _setting(self, frame: bytearray, flags: int, stream: int) -> None:
        if flags & _ACK and len(frame) > _HEADER:
            raise _broken("SETTINGS that acknowledge and set", ErrorCodes.FRAME_SIZE_ERROR)  # 6.5
        # 6.5.3: "MUST be processed in the order they appear", so that a second value hides no first one.
        for at in range(_HEADER, len(frame) - 5, 6):
            number, value = int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 6], "big")
            if number in _BOUNDS:
                least, most, code = _BOUNDS[number]
                if not least <= value <= most:
                    raise _broken(f"the setting {number} is {value}", code)

    def _push_promise(self, frame: bytearray, flags: int, stream: int) -> None:
        raise _broken("PUSH_PROMISE of a client")  # 8.4: "A client cannot push."

    def _goaway(self, frame: bytearray, flags: int, stream: int) -> None:
        if stream:
            raise _broken(f"GOAWAY on stream {stream}")  # 6.8
        if len(frame) < _HEADER + 8:
            raise _broken(f"GOAWAY of {len(frame) - _HEADER} bytes", ErrorCodes.FRAME_SIZE_ERROR)  # 4.2

    def _window_update(self, frame: bytearray, flags: int, stream: int) -> tuple[int, str] | None:
        if len(frame) != _HEADER + 4:
            return None  # the library knows
        frame[_HEADER] &= 0x7F  # reserved: 4.1: "MUST be ignored when receiving"
        # 6.9: "an increment of 0 as a stream error of type PROTOCOL_ERROR".
        if stream and not self._is_idle(stream) and not any(frame[_HEADER:]):
            return int(ErrorCodes.PROTOCOL_ERROR), "WINDOW_UPDATE of nothing"
        return None


_INSPECT: Final = {
    HEADERS: Inspector._headers,  # noqa: SLF001 - of this module
    PRIORITY: Inspector._priority,  # noqa: SLF001
    RST_STREAM: Inspector._rst_stream,  # noqa: SLF001
    SETTINGS: Inspector._setting,  # noqa: SLF001
    PUSH_PROMISE: Inspector._push_promise,  # noqa: SLF001
    GOAWAY: Inspector._goaway,  # noqa: SLF001
    WINDOW_UPDATE: Inspector._window_update,  # noqa: SLF001
    CONTINUATION: Inspector._continuation,  # noqa: SLF001
}
