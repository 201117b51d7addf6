"""The chunked transfer coding (RFC 9112 7.1), strict and bounded."""

from __future__ import annotations

import re
from typing import Final

from rauta.proxy.http1.grammar import MalformedError, check_line_ends, parse_trailers
from rauta.proxy.messages import Field

_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
# RFC 9112 7.1: chunk-size = 1*HEXDIG; 15 digits stay below 2**63. RFC 9112 7.1.1: chunk-ext = *( BWS ";" BWS
# chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ). "A recipient MUST ignore unrecognized chunk extensions".
_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+(?:%b|%b))?+)*+)" % (_NAME, _NAME, _QUOTED)
)

# RFC 9112 7.1.1: "A server ought to limit the total length of chunk extensions received in a request".
_MAX_SIZE_LINE: Final = 256
_MAX_EXTENSIONS: Final = 16 * 1024  # of one body
_MAX_TRAILERS: Final = 16 * 1024

# What one connection may have decoded in a turn of the loop (1.5 us each), before the others have theirs: a read brings
# up to 256 KiB, which can be 40,000 chunks.
CHUNKS_PER_TURN: Final = 256

_SIZE_LINE, _DATA, _DATA_END, _TRAILERS, _DONE = range(5)


class ChunkDecoder:
    """Bytes of a chunked body in, its content out. `done` once the last line was seen; then `trailers` is set."""

    __slots__ = ("_extensions", "_left", "_line", "_named", "_state", "done", "trailers")

    def __init__(self, named: frozenset[str] = frozenset()) -> None:
        self._named = named  # connection options: RFC 9110 7.6.1 removes trailers of these names too
        self._state = _SIZE_LINE
        self._left = 0
        self._line = b""  # the beginning of a size line, line end or trailer section that has not ended yet
        self._extensions = 0
        self.done = False
        self.trailers: list[Field] = []

    def feed(self, data: bytes, at: int = 0, most: int | None = None) -> tuple[bytes, int]:
        """Decode from position `at`, no more than `most` chunks: the content found, and the position behind what was
        taken. That is the end of `data` unless `done` or there were `most` chunks.

        Raises MalformedError (bad_chunk).
        """
        if self._line:
            data, skipped = self._line + data[at:], len(self._line) - at
            self._line, at = b"", 0
        else:
            skipped = 0
        parts: list[bytes] = []
        size = len(data)
        while at < size and not self.done and len(parts) != most:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                parts.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _SIZE_LINE:
                at = self._size_line(data, at)
            elif self._state == _DATA_END:
                at = self._data_end(data, at)
            else:
                at = self._trailers(data, at)
        return (parts[0] if len(parts) == 1 else b"".join(parts)), at - skipped

    def _size_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + _MAX_SIZE_LINE + 2)
        if end < 0:
            return self._keep(data, at, _MAX_SIZE_LINE, "chunk size line")
        found = _SIZE.fullmatch(data, at, end)
        if found is None:
            # Not quoted, here and below: it may be anything from the body, and this text is logged.
            raise MalformedError("bad_chunk", "malformed chunk size line")
        if found.end(2) != found.start(2):
            self._extensions += found.end(2) - found.start(2)
            if self._extensions > _MAX_EXTENSIONS:
                raise MalformedError("bad_chunk", "too many chunk extensions")
        self._left = int(found[1], 16)
        self._state = _DATA if self._left else _TRAILERS
        return end + 2

    def _data_end(self, data: bytes, at: int) -> int:
        mark = data[at : at + 2]
        if mark == b"\r\n":
            self._state = _SIZE_LINE
        elif mark == b"\r":
            self._line = mark
        else:
            raise MalformedError("bad_chunk", "no CR LF behind a chunk")
        return at + len(mark)

    def _trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + _MAX_TRAILERS + 4)
        if end < 0:
            return self._keep(data, at, _MAX_TRAILERS, "trailer section")
        try:
            trailers = parse_trailers(data[at : end + 2])
        except MalformedError as error:
            what = "too many fields" if error.reason == "head_too_large" else "malformed"
            raise MalformedError("bad_chunk", f"trailer section: {what}") from None
        self.trailers = [field for field in trailers if field[0].lower() not in self._named]
        self.done = True
        return end + 4

    def _keep(self, data: bytes, at: int, limit: int, what: str) -> int:
        """Keep an unfinished line for the next feed."""
        self._line = data[at:]
        if len(self._line) > limit + 2:
            raise MalformedError("bad_chunk", f"{what} longer than {limit} bytes")
        try:
            check_line_ends(self._line, 0)
        except MalformedError:
            raise MalformedError("bad_chunk", f"bare CR or LF in a {what}") from None
        return len(data)


def encode_chunk(data: bytes) -> list[bytes]:
    """A chunk, as buffers to be written one after the other; `data` is not empty and not copied."""
    return [b"%x\r\n" % len(data), data, b"\r\n"]


LAST_CHUNK: Final = b"0\r\n\r\n"


def encode_last_chunk(trailers: list[Field]) -> bytes:
    """The end of a chunked body, with the trailer section."""
    if not trailers:
        return LAST_CHUNK
    return ("0\r\n" + "".join([f"{name}: {value}\r\n" for name, value in trailers]) + "\r\n").encode("latin-1")
