"""Where nghttp2 answers what breaks the protocol otherwise than the tables say: none of it is less safe.

RFC 9113 5.4.1 lets an endpoint take any stream error for one of the connection, and 5.1 lets it ignore frames on
streams that it has closed."""

from __future__ import annotations

from support.h2case import Ends, Resets, Serves

_IGNORED = Serves(())
_WHOLE = Ends(("STREAM_CLOSED",))

OTHERWISE: dict[str, Ends | Resets | Serves] = {
    # Another code of the connection's error.
    "4.2: CONTINUATION": Ends(("COMPRESSION_ERROR",)),
    "4.2: HEADERS without a Pad Length": Ends(("PROTOCOL_ERROR",)),
    "4.2: DATA without a Pad Length": Ends(("PROTOCOL_ERROR",)),
    # An error of the connection, not of the stream.
    "5.1: DATA behind the end": _WHOLE,
    "5.1: empty DATA behind the end": _WHOLE,
    "5.1: HEADERS behind the end": _WHOLE,
    "5.1: DATA behind trailers": _WHOLE,
    "5.1: DATA behind the last DATA": _WHOLE,
    "5.1.2: one too many": Ends(("PROTOCOL_ERROR",)),
    "5.3.2: the same in HEADERS": Ends(("PROTOCOL_ERROR",)),
    "6.3: 4 octets": Ends(("FRAME_SIZE_ERROR",)),
    "6.3: 6 octets": Ends(("FRAME_SIZE_ERROR",)),
    "6.9: of a stream": Ends(("PROTOCOL_ERROR",)),
    "6.9.1: of a stream": Ends(("FLOW_CONTROL_ERROR",)),
    # Ignored.
    "5.1: HEADERS behind the answer": _IGNORED,
    "5.1: HEADERS behind RST_STREAM": _IGNORED,
    "5.1: HEADERS long after RST_STREAM": _IGNORED,
    "5.1.1: one that was skipped": _IGNORED,
    "6.1: answered": _IGNORED,
    "6.1: cancelled": _IGNORED,
    "6.1: skipped": _IGNORED,
    "6.3: PRIORITY": _IGNORED,
    "6.5.3: a bad one, and then a good one": _IGNORED,
}
