"""Cases of RFC 9113, section 6, each type of frame, and the limits of section 10."""

from __future__ import annotations

from support.h2case import (
    ANSWERED,
    BEGUN,
    CANCELLED,
    HEAD,
    HELD,
    OPEN,
    REFUSED,
    answered,
    ends,
    leaves,
    resets,
    rule,
    serves,
    settled,
)
from support.h2client import (
    CONTINUATION,
    GOAWAY,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from support.h2wire import (
    ACK,
    FRAME_SIZE,
    GREATEST,
    LARGEST,
    PADDED,
    PRIORITIZED,
    PUSH,
    RESERVED,
    WINDOW,
    block,
    data,
    get,
    goaway,
    headers,
    post,
    request,
    settings,
    word,
)

BODIES = [
    *rule(
        "6.1",
        "If a DATA frame is received whose Stream Identifier field is 0x00, the recipient MUST respond with a "
        "connection error of type PROTOCOL_ERROR.",
        {"DATA": ends("PROTOCOL_ERROR", data(0, b"x"))},
    ),
    *rule(
        "6.1",
        "If a DATA frame is received whose stream is not in the open or half-closed (local) state, the recipient MUST"
        " respond with a stream error of type STREAM_CLOSED.",
        {
            "answered": resets("STREAM_CLOSED", *ANSWERED, data(1, b"x")),
            "cancelled": resets("STREAM_CLOSED", *CANCELLED, data(1, b"x")),
            "skipped": resets("STREAM_CLOSED", get(5), answered(5), data(3, b"x"), stream=3),
        },
    ),
    *rule(
        "6.1",
        "If the length of the padding is the length of the frame payload or greater, the recipient MUST treat this as"
        " a connection error of type PROTOCOL_ERROR.",
        {
            "the length of the payload": ends("PROTOCOL_ERROR", OPEN, data(1, b"\x05" + bytes(4), PADDED)),
            "greater": ends("PROTOCOL_ERROR", OPEN, data(1, b"\xff" + bytes(4), PADDED)),
            "all but the payload's first byte": serves(post(1), data(1, b"\x04" + bytes(4), 1 | PADDED), streams=(1,)),
            "none": serves(post(1), data(1, b"\x00hi", 1 | PADDED), streams=(1,)),
        },
    ),
]

HEADS = [
    *rule(
        "6.2",
        "A HEADERS frame without the END_HEADERS flag set MUST be followed by a CONTINUATION frame for the same "
        "stream. A receiver MUST treat the receipt of any other type of frame or a frame on a different stream as a "
        "connection error of type PROTOCOL_ERROR.",
        {
            "DATA": ends("PROTOCOL_ERROR", BEGUN, data(1, b"x")),
            "HEADERS of another stream": ends("PROTOCOL_ERROR", BEGUN, get(3)),
            "HEADERS of the same stream": ends("PROTOCOL_ERROR", BEGUN, get(1)),
            "PRIORITY": ends("PROTOCOL_ERROR", BEGUN, frame(PRIORITY, 0, 1, bytes(5))),
            "RST_STREAM": ends("PROTOCOL_ERROR", BEGUN, frame(RST_STREAM, 0, 1, word(8))),
            "SETTINGS": ends("PROTOCOL_ERROR", BEGUN, settings()),
            "PING": ends("PROTOCOL_ERROR", BEGUN, frame(PING, 0, 0, bytes(8))),
            "GOAWAY": ends("PROTOCOL_ERROR", BEGUN, goaway(0)),
            "WINDOW_UPDATE": ends("PROTOCOL_ERROR", BEGUN, frame(WINDOW_UPDATE, 0, 0, word(1))),
            "CONTINUATION of another stream": ends("PROTOCOL_ERROR", BEGUN, frame(CONTINUATION, 4, 3, HEAD[3:])),
        },
    ),
    *rule(
        "6.2",
        "a HEADERS frame with the END_STREAM flag set can be followed by CONTINUATION frames on the same stream",
        {
            "one": serves(BEGUN, frame(CONTINUATION, 4, 1, HEAD[3:]), streams=(1,)),
            "one, and nothing before": serves(headers(1, b"", 1), frame(CONTINUATION, 4, 1, HEAD), streams=(1,)),
            "one, and nothing in it": serves(headers(1, HEAD, 1), frame(CONTINUATION, 4, 1), streams=(1,)),
            "one for each byte": serves(
                headers(1, b"", 1),
                *(frame(CONTINUATION, 0, 1, HEAD[at : at + 1]) for at in range(len(HEAD))),
                frame(CONTINUATION, 4, 1),
                streams=(1,),
            ),
            "padding and priority": serves(
                headers(1, b"\x03" + word(0) + b"\x07" + HEAD[:3] + bytes(3), 1 | PADDED | PRIORITIZED),
                frame(CONTINUATION, 4, 1, HEAD[3:]),
                streams=(1,),
            ),
        },
    ),
    *rule(
        "6.2",
        "If a HEADERS frame is received whose Stream Identifier field is 0x00, the recipient MUST respond with a "
        "connection error of type PROTOCOL_ERROR.",
        {"HEADERS": ends("PROTOCOL_ERROR", headers(0, HEAD))},
    ),
    *rule(
        "6.2",
        "If the length of the padding is the length of the frame payload or greater, the recipient MUST treat this as"
        " a connection error of type PROTOCOL_ERROR.",
        {
            "the length of the payload": ends("PROTOCOL_ERROR", headers(1, bytes([len(HEAD) + 1]) + HEAD, 5 | PADDED)),
            "greater": ends("PROTOCOL_ERROR", headers(1, b"\xff" + HEAD, 5 | PADDED)),
            "more than priority leaves": ends(  # 4.2 has a code for it, too
                "PROTOCOL_ERROR FRAME_SIZE_ERROR",
                headers(1, bytes([len(HEAD) + 1]) + bytes(5) + HEAD, 5 | PADDED | PRIORITIZED),
            ),
        },
    ),
    *rule(
        "6.3",
        "If a PRIORITY frame is received with a stream identifier of 0x00, the recipient MUST respond with a "
        "connection error of type PROTOCOL_ERROR.",
        {"PRIORITY": ends("PROTOCOL_ERROR", frame(PRIORITY, 0, 0, bytes(5)))},
    ),
    *rule(
        "6.3",
        "The PRIORITY frame can be sent on a stream in any state, including idle or closed.",
        {
            "idle": serves(frame(PRIORITY, 0, 7, word(5) + b"\x10")),
            "a stream of ours": serves(frame(PRIORITY, 0, 2, word(1) + b"\x10")),
            "open": serves(post(1), frame(PRIORITY, 0, 1, word(3) + b"\x10"), data(1, b"hi"), streams=(1,)),
            "closed": serves(*ANSWERED, frame(PRIORITY, 0, 1, word(3) + b"\x10")),
        },
    ),
    *rule(
        "6.3",
        "A PRIORITY frame with a length other than 5 octets MUST be treated as a stream error of type "
        "FRAME_SIZE_ERROR.",
        {
            "4 octets": resets("FRAME_SIZE_ERROR", HELD, frame(PRIORITY, 0, 1, bytes(4))),
            "6 octets": resets("FRAME_SIZE_ERROR", HELD, frame(PRIORITY, 0, 1, bytes(6))),
        },
    ),
]

CONTROL = [
    *rule(
        "6.4",
        "If a RST_STREAM frame is received with a stream identifier of 0x00, the recipient MUST treat this as a "
        "connection error of type PROTOCOL_ERROR.",
        {"RST_STREAM": ends("PROTOCOL_ERROR", frame(RST_STREAM, 0, 0, word(8)))},
    ),
    *rule(
        "6.4",
        "If a RST_STREAM frame identifying an idle stream is received, the recipient MUST treat this as a connection "
        "error of type PROTOCOL_ERROR.",
        {
            "the first stream": ends("PROTOCOL_ERROR", frame(RST_STREAM, 0, 1, word(8))),
            "above the last one": ends("PROTOCOL_ERROR", HELD, frame(RST_STREAM, 0, 3, word(8))),
            "a stream of ours": ends("PROTOCOL_ERROR", get(5, "/held"), frame(RST_STREAM, 0, 2, word(8))),
            "none, though a lower one has ended since": serves(
                post(1), get(3, "/held"), headers(1, block(("x", "1"))), frame(RST_STREAM, 0, 3, word(8)), streams=(1,)
            ),
        },
    ),
    *rule(
        "6.4",
        "A RST_STREAM frame with a length other than 4 octets MUST be treated as a connection error of type "
        "FRAME_SIZE_ERROR.",
        {
            "3 octets": ends("FRAME_SIZE_ERROR", HELD, frame(RST_STREAM, 0, 1, bytes(3))),
            "5 octets": ends("FRAME_SIZE_ERROR", HELD, frame(RST_STREAM, 0, 1, bytes(5))),
        },
    ),
    *rule(
        "6.5",
        "Receipt of a SETTINGS frame with the ACK flag set and a length field value other than 0 MUST be treated as a"
        " connection error of type FRAME_SIZE_ERROR.",
        {
            "a setting": ends("FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, b"\x00\x03\x00\x00\x00\x01")),
            "one octet": ends("FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, b"x")),
        },
    ),
    *rule(
        "6.5",
        "If an endpoint receives a SETTINGS frame whose Stream Identifier field is anything other than 0x00, the "
        "endpoint MUST respond with a connection error of type PROTOCOL_ERROR.",
        {
            "SETTINGS": ends("PROTOCOL_ERROR", HELD, frame(SETTINGS, 0, 1)),
            "an acknowledgement": ends("PROTOCOL_ERROR", frame(SETTINGS, ACK, 1)),
        },
    ),
    *rule(
        "6.5",
        "A SETTINGS frame with a length other than a multiple of 6 octets MUST be treated as a connection error of "
        "type FRAME_SIZE_ERROR.",
        {
            "5 octets": ends("FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, bytes(5))),
            "7 octets": ends("FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x01\x00")),
        },
    ),
    *rule(
        "6.5.2",
        "SETTINGS_ENABLE_PUSH: ... Any value other than 0 or 1 MUST be treated as a connection error of type "
        "PROTOCOL_ERROR.",
        {
            "2": ends("PROTOCOL_ERROR", settings((PUSH, 2))),
            "0 and 1": serves(settings((PUSH, 0)), settings((PUSH, 1))),
        },
    ),
    *rule(
        "6.5.2",
        "SETTINGS_INITIAL_WINDOW_SIZE: ... Values above the maximum flow-control window size of 2^31-1 MUST be "
        "treated as a connection error of type FLOW_CONTROL_ERROR.",
        {
            "2^31": ends("FLOW_CONTROL_ERROR", settings((WINDOW, 2**31))),
            "2^31-1": serves(settings((WINDOW, GREATEST))),
        },
    ),
    *rule(
        "6.5.2",
        "SETTINGS_MAX_FRAME_SIZE: ... Values outside this range MUST be treated as a connection error of type "
        "PROTOCOL_ERROR.",
        {
            "2^14-1": ends("PROTOCOL_ERROR", settings((FRAME_SIZE, LARGEST - 1))),
            "2^24": ends("PROTOCOL_ERROR", settings((FRAME_SIZE, 2**24))),
            "its bounds": serves(settings((FRAME_SIZE, 2**24 - 1), (FRAME_SIZE, LARGEST))),
        },
    ),
    *rule(
        "6.5.3",
        "The values in the SETTINGS frame MUST be processed in the order they appear",
        {
            "a bad one, and then a good one": ends("FLOW_CONTROL_ERROR", settings((WINDOW, 2**31), (WINDOW, 1000))),
            "a good one, and then a bad one": ends("FLOW_CONTROL_ERROR", settings((WINDOW, 1), (WINDOW, 2**31))),
        },
    ),
    *rule(
        "8.4",
        "A client cannot push. Thus, servers MUST treat the receipt of a PUSH_PROMISE frame as a connection error of "
        "type PROTOCOL_ERROR.",
        {
            "on an open stream": ends("PROTOCOL_ERROR", OPEN, frame(PUSH_PROMISE, 4, 1, word(2) + HEAD)),
            "on an idle stream": ends("PROTOCOL_ERROR", frame(PUSH_PROMISE, 4, 1, word(2) + HEAD)),
            "on the connection": ends("PROTOCOL_ERROR", frame(PUSH_PROMISE, 4, 0, word(2) + HEAD)),
            "of a stream of the client": ends("PROTOCOL_ERROR", OPEN, frame(PUSH_PROMISE, 4, 1, word(3) + HEAD)),
            "on a stream that was reset": ends("PROTOCOL_ERROR", *REFUSED, frame(PUSH_PROMISE, 4, 1, word(2) + HEAD)),
            "in two pieces": ends(
                "PROTOCOL_ERROR",
                OPEN,
                frame(PUSH_PROMISE, 0, 1, word(2) + HEAD[:3]),
                frame(CONTINUATION, 4, 1, HEAD[3:]),
            ),
        },
    ),
    *rule(
        "6.7",
        "If a PING frame is received with a Stream Identifier field value other than 0x00, the recipient MUST respond"
        " with a connection error of type PROTOCOL_ERROR.",
        {"PING": ends("PROTOCOL_ERROR", HELD, frame(PING, 0, 1, bytes(8)))},
    ),
    *rule(
        "6.7",
        "Receipt of a PING frame with a length field value other than 8 MUST be treated as a connection error of type"
        " FRAME_SIZE_ERROR.",
        {
            "7 octets": ends("FRAME_SIZE_ERROR", frame(PING, 0, 0, bytes(7))),
            "9 octets": ends("FRAME_SIZE_ERROR", frame(PING, 0, 0, bytes(9))),
            "an answer of 4 octets": ends("FRAME_SIZE_ERROR", frame(PING, ACK, 0, bytes(4))),
        },
    ),
    *rule(
        "6.8",
        "An endpoint MUST treat a GOAWAY frame with a stream identifier other than 0x00 as a connection error of type"
        " PROTOCOL_ERROR.",
        {"GOAWAY": ends("PROTOCOL_ERROR", HELD, frame(GOAWAY, 0, 1, bytes(8)))},
    ),
    *rule(
        "6.8",
        "Activity on streams numbered lower than or equal to the last stream identifier might still complete "
        "successfully.",
        {
            "nothing is left": leaves(goaway(0, b"that is why")),
            "a request is half sent": leaves(post(1), goaway(0), data(1, b"hi"), streams=(1,)),
            "an answer is to come": leaves(get(1), settled, goaway(0), streams=(1,)),
        },
    ),
]

CREDIT = [
    *rule(
        "6.9",
        "A receiver MUST treat the receipt of a WINDOW_UPDATE frame with a flow-control window increment of 0 as a "
        "stream error of type PROTOCOL_ERROR; errors on the connection flow-control window MUST be treated as a "
        "connection error",
        {
            "of a stream": resets("PROTOCOL_ERROR", HELD, frame(WINDOW_UPDATE, 0, 1, word(0))),
            "of the connection": ends("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 0, word(0))),
            "with the reserved bit": ends("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 0, word(RESERVED))),
        },
    ),
    *rule(
        "6.9",
        "a receiver could receive a WINDOW_UPDATE frame on a stream in a half-closed (remote) or closed state. A "
        "receiver MUST NOT treat this as an error",
        {
            "answered": serves(*ANSWERED, frame(WINDOW_UPDATE, 0, 1, word(1))),
            "answered, and too much": serves(*ANSWERED, frame(WINDOW_UPDATE, 0, 1, word(GREATEST))),
            "cancelled": serves(*CANCELLED, frame(WINDOW_UPDATE, 0, 1, word(1))),
            "forgotten": serves(*ANSWERED, get(3), answered(3), frame(WINDOW_UPDATE, 0, 1, word(1))),
        },
    ),
    *rule(
        "6.9",
        "A WINDOW_UPDATE frame with a length other than 4 octets MUST be treated as a connection error of type "
        "FRAME_SIZE_ERROR.",
        {
            "3 octets": ends("FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, bytes(3))),
            "5 octets of a stream": ends("FRAME_SIZE_ERROR", HELD, frame(WINDOW_UPDATE, 0, 1, bytes(5))),
        },
    ),
    *rule(
        "6.9.1",
        "The sender MUST NOT send a flow-controlled frame with a length that exceeds the space available in either of"
        " the flow-control windows advertised by the receiver.",
        {"more than a stream's window at once": ends("FLOW_CONTROL_ERROR", OPEN + data(1, bytes(LARGEST), 0) * 8)},
    ),
    *rule(
        "6.9.1",
        "If a sender receives a WINDOW_UPDATE that causes a flow-control window to exceed this maximum, it MUST "
        "terminate either the stream or the connection, as appropriate. For streams, the sender sends a RST_STREAM "
        "with an error code of FLOW_CONTROL_ERROR; for the connection, a GOAWAY frame",
        {
            "of a stream": resets("FLOW_CONTROL_ERROR", HELD, frame(WINDOW_UPDATE, 0, 1, word(GREATEST))),
            "of the connection": ends("FLOW_CONTROL_ERROR", frame(WINDOW_UPDATE, 0, 0, word(GREATEST))),
            "of the connection, in two steps": ends(
                "FLOW_CONTROL_ERROR",
                frame(WINDOW_UPDATE, 0, 0, word(GREATEST - 65_535)),
                frame(WINDOW_UPDATE, 0, 0, word(1)),
            ),
            "neither": serves(
                post(1),
                frame(WINDOW_UPDATE, 0, 0, word(GREATEST - 65_535)),
                frame(WINDOW_UPDATE, 0, 1, word(GREATEST - 65_535)),
                data(1, b"hi"),
                streams=(1,),
            ),
        },
    ),
    *rule(
        "6.9.2",
        "An endpoint MUST treat a change to SETTINGS_INITIAL_WINDOW_SIZE that causes any flow-control window to "
        "exceed the maximum size as a connection error of type FLOW_CONTROL_ERROR.",
        {
            "of a stream that has the greatest": ends(
                "FLOW_CONTROL_ERROR",
                HELD,
                frame(WINDOW_UPDATE, 0, 1, word(GREATEST - 65_535)),
                settings((WINDOW, 65_536)),
            ),
            "of one that has a little more": ends(
                "FLOW_CONTROL_ERROR", HELD, frame(WINDOW_UPDATE, 0, 1, word(1)), settings((WINDOW, GREATEST))
            ),
        },
    ),
]

PIECES = [
    *rule(
        "6.10",
        "If the END_HEADERS flag is not set, this frame MUST be followed by another CONTINUATION frame. A receiver "
        "MUST treat the receipt of any other type of frame or a frame on a different stream as a connection error of "
        "type PROTOCOL_ERROR.",
        {
            "DATA": ends("PROTOCOL_ERROR", BEGUN, frame(CONTINUATION, 0, 1, HEAD[3:]), data(1, b"x")),
            "PING": ends("PROTOCOL_ERROR", BEGUN, frame(CONTINUATION, 0, 1, HEAD[3:]), frame(PING, 0, 0, bytes(8))),
            "CONTINUATION of another stream": ends(
                "PROTOCOL_ERROR", BEGUN, frame(CONTINUATION, 0, 1), frame(CONTINUATION, 4, 3, HEAD[3:])
            ),
            "within trailers": ends("PROTOCOL_ERROR", OPEN, headers(1, block(("x", "1")), 1), data(1, b"x")),
        },
    ),
    *rule(
        "6.10",
        "If a CONTINUATION frame is received with a Stream Identifier field of 0x00, the recipient MUST respond with "
        "a connection error of type PROTOCOL_ERROR.",
        {
            "alone": ends("PROTOCOL_ERROR", frame(CONTINUATION, 4, 0, HEAD)),
            "behind HEADERS": ends("PROTOCOL_ERROR", BEGUN, frame(CONTINUATION, 4, 0, HEAD[3:])),
        },
    ),
    *rule(
        "6.10",
        "A CONTINUATION frame MUST be preceded by a HEADERS, PUSH_PROMISE or CONTINUATION frame without the "
        "END_HEADERS flag set. A recipient that observes violation of this rule MUST respond with a connection error "
        "of type PROTOCOL_ERROR.",
        {
            "on an idle stream": ends("PROTOCOL_ERROR", frame(CONTINUATION, 4, 1, HEAD)),
            "behind the whole head": ends("PROTOCOL_ERROR", OPEN, frame(CONTINUATION, 4, 1, block(("x", "1")))),
            "behind the whole request": ends("PROTOCOL_ERROR", HELD, frame(CONTINUATION, 4, 1, block(("x", "1")))),
            "behind DATA": ends("PROTOCOL_ERROR", OPEN, data(1, b"x", 0), frame(CONTINUATION, 4, 1, block(("x", "1")))),
            "on an answered stream": ends("PROTOCOL_ERROR", *ANSWERED, frame(CONTINUATION, 4, 1, block(("x", "1")))),
            "on a cancelled stream": ends("PROTOCOL_ERROR", *CANCELLED, frame(CONTINUATION, 4, 1, block(("x", "1")))),
            "behind the last CONTINUATION": ends(
                "PROTOCOL_ERROR",
                headers(1, request("/held")[:3], 1),
                frame(CONTINUATION, 4, 1, request("/held")[3:]),
                frame(CONTINUATION, 4, 1),
            ),
        },
    ),
    *rule(
        "10.5",
        "An endpoint that doesn't monitor use of these features exposes itself to a risk of denial of service. ... "
        "MAY treat activity that is suspicious as a connection error of type ENHANCE_YOUR_CALM.",
        {
            "CONTINUATION without end": ends(
                "ENHANCE_YOUR_CALM PROTOCOL_ERROR", headers(1, b"", 1) + frame(CONTINUATION, 0, 1) * 100
            ),
            "a field section larger than the limit": ends(
                "ENHANCE_YOUR_CALM COMPRESSION_ERROR",
                headers(1, HEAD + b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 100),
            ),
        },
    ),
]

CASES = [*BODIES, *HEADS, *CONTROL, *CREDIT, *PIECES]
