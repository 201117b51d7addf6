"""Cases of RFC 9113, sections 3 to 5: the connection, the form of frames, and streams."""

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
    reset,
    resets,
    rule,
    serves,
)
from support.h2client import (
    CONTINUATION,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from support.h2wire import (
    END_HEADERS,
    END_STREAM,
    GREATEST,
    LARGEST,
    PADDED,
    PRIORITIZED,
    RESERVED,
    STREAMS,
    UNKNOWN,
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

PREFACES = [
    *rule(
        "3.4",
        "This sequence MUST be followed by a SETTINGS frame, which MAY be empty.",
        {
            "PING comes first": ends("PROTOCOL_ERROR", begin=PREFACE + frame(PING, 0, 0, bytes(8))),
            "HEADERS come first": ends("PROTOCOL_ERROR", begin=PREFACE + HELD),
            "WINDOW_UPDATE comes first": ends("PROTOCOL_ERROR", begin=PREFACE + frame(WINDOW_UPDATE, 0, 0, word(1))),
            "an unknown frame comes first": ends("PROTOCOL_ERROR", begin=PREFACE + frame(UNKNOWN, 0, 0)),
            "it has settings": serves(begin=PREFACE + settings((WINDOW, 65_536), (STREAMS, 0))),
        },
    ),
    *rule(
        "3.4",
        "Clients and servers MUST treat an invalid connection preface as a connection error of type PROTOCOL_ERROR. A"
        " GOAWAY frame MAY be omitted in this case.",
        {
            "it changes at its end": ends("", begin=PREFACE[:18] + b"XX\r\n\r\n", reason="bad_version"),
            "another version": ends("", begin=PREFACE.replace(b"2.0", b"2.1"), reason="bad_version"),
        },
    ),
    *rule(
        "3.4",
        "clients are permitted to send additional frames to the server immediately after sending the client "
        "connection preface",
        {"a request at once": serves(begin=PREFACE + settings() + get(1), streams=(1,))},
    ),
]

FORMAT = [
    *rule(
        "4.1",
        "Implementations MUST ignore and discard frames of unknown types.",
        {
            "on the connection": serves(frame(UNKNOWN, 0xFF, 0, b"what")),
            "on an idle stream": serves(frame(UNKNOWN, 0, 1, b"what"), get(1), streams=(1,)),
            "within a request": serves(post(1), frame(UNKNOWN, 1, 1, b"what"), data(1, b"hi"), streams=(1,)),
            "on a closed stream": serves(*ANSWERED, frame(UNKNOWN, 0, 1, bytes(LARGEST))),
            "ALTSVC of a client": serves(frame(0xA, 0, 0, b"\x00\x01ah2=x"), frame(0xA, 0, 1, b"\x00\x00h2=x")),
            "ALTSVC that breaks off": serves(frame(0xA, 0, 0, b"\x00")),
            "PRIORITY_UPDATE": serves(frame(0x10, 0, 0, word(1) + b"u=1")),
        },
    ),
    *rule(
        "4.1",
        "Unused flags MUST be ignored on receipt",
        {
            "flags of HEADERS": serves(headers(1, HEAD, END_STREAM | END_HEADERS | 0xD2), streams=(1,)),
            "flags of DATA": serves(post(1), data(1, b"hi", END_STREAM | 0xF6), streams=(1,)),
            "flags of PRIORITY": serves(frame(PRIORITY, 0xFF, 1, bytes(5))),
            "flags of RST_STREAM": serves(HELD, frame(RST_STREAM, 0xFF, 1, word(8))),
            "flags of SETTINGS": serves(frame(SETTINGS, 0xFE, 0, b"\x00\x03\x00\x00\x00\x01")),
            "flags of PING": serves(frame(PING, 0xFE, 0, bytes(8))),
            "flags of WINDOW_UPDATE": serves(frame(WINDOW_UPDATE, 0xFF, 0, word(1))),
            "flags of CONTINUATION": serves(BEGUN, frame(CONTINUATION, 0xFF, 1, HEAD[3:]), streams=(1,)),
        },
    ),
    *rule(
        "4.1",
        "Reserved: ... the bit MUST remain unset when sending and MUST be ignored when receiving.",
        {
            "the bit of HEADERS": serves(frame(HEADERS, 5, RESERVED | 1, HEAD), streams=(1,)),
            "the bit of PING": serves(frame(PING, 0, RESERVED, bytes(8))),
            "the bit of an increment": serves(frame(WINDOW_UPDATE, 0, 0, word(RESERVED | 1))),
        },
    ),
    *rule(
        "4.2",
        "An endpoint MUST send an error code of FRAME_SIZE_ERROR if a frame exceeds the size defined in "
        "SETTINGS_MAX_FRAME_SIZE",
        {
            "too much DATA": ends("FRAME_SIZE_ERROR", OPEN, data(1, bytes(LARGEST + 1))),
            "too large HEADERS": ends("FRAME_SIZE_ERROR", headers(1, HEAD + bytes(LARGEST))),
            "CONTINUATION": ends("FRAME_SIZE_ERROR", BEGUN, frame(CONTINUATION, 4, 1, HEAD[3:] + bytes(LARGEST))),
            "an unknown frame": ends("FRAME_SIZE_ERROR", frame(UNKNOWN, 0, 0, bytes(LARGEST + 1))),
            "SETTINGS": ends("FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, b"\x00\x99\x00\x00\x00\x00" * 2731)),
            "the rest does not come": ends("FRAME_SIZE_ERROR", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
            "a second preface": ends("FRAME_SIZE_ERROR", PREFACE),
        },
    ),
    *rule(
        "4.2",
        "All implementations MUST be capable of receiving and minimally processing frames up to 2^14 octets in length",
        {
            "the largest DATA": serves(post(1), data(1, bytes(LARGEST)), streams=(1,)),
            "the largest HEADERS": serves(
                headers(1, request("/", ("x", "v" * (LARGEST - len(request("/", ("x", "v" * 9000))) + 9000)))),
                streams=(1,),
            ),
        },
    ),
    *rule(
        "4.2",
        "An endpoint MUST send an error code of FRAME_SIZE_ERROR if a frame ... is too small to contain mandatory "
        "frame data.",
        {
            "HEADERS without a Pad Length": ends("FRAME_SIZE_ERROR", headers(1, b"", 5 | PADDED)),
            "HEADERS without a weight": ends("FRAME_SIZE_ERROR", headers(1, bytes(4), 5 | PRIORITIZED)),
            "DATA without a Pad Length": ends("FRAME_SIZE_ERROR", OPEN, data(1, b"", PADDED)),
            "GOAWAY without a code": ends("FRAME_SIZE_ERROR", frame(GOAWAY, 0, 0, bytes(7))),
        },
    ),
]

STATES = [
    *rule(
        "5.1",
        "Receiving any frame other than HEADERS or PRIORITY on a stream in [the idle] state MUST be treated as a "
        "connection error of type PROTOCOL_ERROR.",
        {
            "DATA on an idle stream": ends("PROTOCOL_ERROR", data(1, b"x")),
            "WINDOW_UPDATE on an idle stream": ends("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 1, word(1))),
            "DATA on a stream above the last one": ends("PROTOCOL_ERROR", HELD, data(3, b"x")),
            "DATA on a stream of ours": ends("PROTOCOL_ERROR", data(2, b"x")),
            "WINDOW_UPDATE on a stream of ours": ends("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 2, word(1))),
        },
    ),
    *rule(
        "5.1",
        "If an endpoint receives additional frames, other than WINDOW_UPDATE, PRIORITY, or RST_STREAM, for a stream "
        "that is [half-closed (remote)], it MUST respond with a stream error of type STREAM_CLOSED.",
        {
            "DATA behind the end": resets("STREAM_CLOSED", HELD, data(1, b"x")),
            "empty DATA behind the end": resets("STREAM_CLOSED", HELD, data(1, b"")),
            "HEADERS behind the end": resets("STREAM_CLOSED", HELD, headers(1, block(("x", "1")))),
            "DATA behind trailers": resets("STREAM_CLOSED", OPEN, headers(1, block(("x", "1"))), data(1, b"x")),
            "DATA behind the last DATA": resets("STREAM_CLOSED", OPEN, data(1, b"x"), data(1, b"x")),
            "what may come": serves(
                HELD, frame(WINDOW_UPDATE, 0, 1, word(1)), frame(PRIORITY, 0, 1, bytes(5)), CANCELLED[1]
            ),
        },
    ),
    *rule(
        "5.1",
        "An endpoint MAY treat receipt of any other type of frame on a closed stream as a connection error of type "
        "STREAM_CLOSED",
        {
            # 5.1.1 would have PROTOCOL_ERROR: "Stream identifiers cannot be reused."
            "HEADERS behind the answer": ends("STREAM_CLOSED PROTOCOL_ERROR", *ANSWERED, get(1)),
            "HEADERS behind RST_STREAM": resets("STREAM_CLOSED", *CANCELLED, headers(1, HEAD)),
            "HEADERS long after RST_STREAM": resets("STREAM_CLOSED", *CANCELLED, get(3), answered(3), headers(1, HEAD)),
        },
    ),
    *rule(
        "5.1",
        "An endpoint that sends a RST_STREAM frame on a stream that is in the open ... state could receive any type "
        "of frame. ... An endpoint MUST minimally process and then discard any frames it receives in this state. This"
        " means updating header compression state for HEADERS",
        {
            "DATA behind our RST_STREAM": serves(*REFUSED, data(1, b"x", 0), data(1, b"x")),
            "trailers behind it": serves(*REFUSED, headers(1, block(("x", "1")))),
            "trailers, whose field is used again": serves(
                *REFUSED, headers(1, b"\x40\x04x-by\x01y"), headers(3, b"\x82\x86\x84\x01\x01a\xbe"), streams=(3,)
            ),
            "RST_STREAM behind it": serves(*REFUSED, frame(RST_STREAM, 0, 1, word(8))),
            "WINDOW_UPDATE behind it": serves(*REFUSED, frame(WINDOW_UPDATE, 0, 1, word(1))),
        },
    ),
    *rule(
        "5.1.1",
        "Streams initiated by a client MUST use odd-numbered stream identifiers; ... An endpoint that receives an "
        "unexpected stream identifier MUST respond with a connection error of type PROTOCOL_ERROR.",
        {
            "an even one": ends("PROTOCOL_ERROR", headers(2, HEAD)),
            "one that was skipped": ends("PROTOCOL_ERROR", get(5), answered(5), headers(3, HEAD)),
        },
    ),
    *rule(
        "5.1.1",
        "an endpoint may skip a stream identifier, with the effect being that the skipped stream is immediately closed",
        {
            "it is skipped": serves(get(101), get(1001), streams=(101, 1001)),
            "the last one of all": serves(get(GREATEST), streams=(GREATEST,)),
        },
    ),
    *rule(
        "5.1.2",
        "An endpoint that receives a HEADERS frame that causes its advertised concurrent stream limit to be exceeded "
        "MUST treat this as a stream error of type PROTOCOL_ERROR or REFUSED_STREAM.",
        {
            "one too many": resets(
                "REFUSED_STREAM",
                b"".join(get(number, "/held") for number in range(1, 202, 2)),
                reset(201),
                frame(RST_STREAM, 0, 1, word(8)),
                stream=201,
            ),
        },
    ),
    *rule(
        "5.3.2",
        "This update to HTTP/2 deprecates the priority signaling defined in RFC 7540",
        {
            "a stream that depends on itself": serves(frame(PRIORITY, 0, 1, word(1) + b"\x00"), get(1), streams=(1,)),
            "the same in HEADERS": serves(headers(1, word(1) + b"\x00" + HEAD, 5 | PRIORITIZED), streams=(1,)),
            "an exclusive one": serves(headers(1, word(RESERVED | 9) + b"\xff" + HEAD, 5 | PRIORITIZED), streams=(1,)),
        },
    ),
    *rule(
        "5.4.2",
        "To avoid looping, an endpoint MUST NOT send a RST_STREAM in response to a RST_STREAM frame.",
        {
            "an open stream": serves(OPEN, frame(RST_STREAM, 0, 1, word(8))),
            "a closed one": serves(*ANSWERED, frame(RST_STREAM, 0, 1, word(8))),
            "twice": serves(*CANCELLED, frame(RST_STREAM, 0, 1, word(8)), frame(RST_STREAM, 0, 1, word(0))),
        },
    ),
    *rule(
        "5.5",
        "Implementations MUST ignore unknown or unsupported values in all extensible protocol elements. ... However, "
        "extension frames that appear in the middle of a field block are not permitted; these MUST be treated as a "
        "connection error of type PROTOCOL_ERROR.",
        {
            "a frame within a field block": ends("PROTOCOL_ERROR", BEGUN, frame(UNKNOWN, 0, 1)),
            "the same on the connection": ends("PROTOCOL_ERROR", BEGUN, frame(UNKNOWN, 0, 0)),
            "a setting": serves(settings((0x99, 1), (0xFFFF, GREATEST), (0, 0))),
            "a code in RST_STREAM": serves(HELD, frame(RST_STREAM, 0, 1, word(0xFFFFFFFF))),
            "a code in GOAWAY": leaves(goaway(0xFFFFFFFF)),
        },
    ),
]

CASES = [*PREFACES, *FORMAT, *STATES]
