"""Cases of RFC 9113, section 8, and of RFC 7541: messages, and the field blocks that bring them."""

from __future__ import annotations

from support.h2case import answered, ends, malformed, reset, rule, serves
from support.h2client import CONTINUATION, RST_STREAM, frame
from support.h2wire import (
    END_HEADERS,
    GOOD,
    PADDED,
    Field,
    block,
    data,
    get,
    headers,
    post,
    request,
    word,
)

METHOD, SCHEME, PATH, AUTHORITY = GOOD
TRAILER: Field = ("x", "1")
# :method: GET, :scheme: http, :path: /, each by its index, and :authority: a, which becomes the index 62.
RAW = b"\x82\x86\x84\x41\x01a"
FIRST_DYNAMIC = b"\xbe"


def head(*fields: Field) -> bytes:
    """A whole request of these fields."""
    return headers(1, block(*fields))


def more(*fields: Field) -> bytes:
    """A whole request with more fields than it needs."""
    return head(*GOOD, *fields)


def trailers(*fields: Field, stream: int = 1) -> bytes:
    """The end of a request."""
    return headers(stream, block(*fields))


def raw(octets: bytes) -> bytes:
    """A request whose field block goes on with these octets."""
    return headers(1, RAW + octets)


FRAMING = [
    *rule(
        "8.1",
        "An endpoint that receives a HEADERS frame without the END_STREAM flag set after receiving the HEADERS frame "
        "that opens a request ... MUST treat the corresponding request or response as malformed.",
        {
            "trailers that end nothing": malformed(post(1), headers(1, block(TRAILER), END_HEADERS)),
            "the same behind DATA": malformed(post(1), data(1, b"hi", 0), headers(1, block(TRAILER), END_HEADERS)),
            "a second request": malformed(post(1), headers(1, request(), END_HEADERS)),
        },
    ),
    *rule(
        "8.1",
        "Trailers MUST NOT include pseudo-header fields. An endpoint that receives pseudo-header fields in trailers "
        "MUST treat the request or response as malformed.",
        {
            ":path": malformed(post(1), data(1, b"hi", 0), trailers(PATH)),
            ":status": malformed(post(1), trailers((":status", "200"))),
            "a request as trailers": malformed(post(1), data(1, b"hi", 0), headers(1, request())),
        },
    ),
    *rule(
        "8.1",
        "optionally, one HEADERS frame ... containing the trailer section",
        {
            "trailers": serves(post(1), data(1, b"hi", 0), trailers(TRAILER), streams=(1,)),
            "no DATA": serves(post(1), trailers(TRAILER), streams=(1,)),
            "none in them": serves(post(1), data(1, b"hi", 0), headers(1, b""), streams=(1,)),
        },
    ),
    *rule(
        "8.1.1",
        "A request or response is also malformed if the value of a content-length header field does not equal the sum"
        " of the DATA frame payload lengths that form the content",
        {
            "less": malformed(post(1, "/", ("content-length", "5")), data(1, b"hi")),
            "more": malformed(post(1, "/", ("content-length", "1")), data(1, b"hi")),
            "more, and more to come": malformed(post(1, "/", ("content-length", "1")), data(1, b"hi", 0)),
            "more, in two pieces": malformed(post(1, "/", ("content-length", "2")), data(1, b"hi", 0), data(1, b"x")),
            "more than none": malformed(post(1, "/", ("content-length", "0")), data(1, b"x")),
            "less, in empty DATA": malformed(post(1, "/", ("content-length", "5")), data(1, b"")),
            "less, and trailers": malformed(
                post(1, "/", ("content-length", "5")), data(1, b"hi", 0), trailers(TRAILER)
            ),
            "no DATA at all": malformed(get(1, "/", ("content-length", "5"))),
            "no DATA, and trailers": malformed(post(1, "/", ("content-length", "5")), trailers(TRAILER)),
            "padding does not count": serves(
                post(1, "/", ("content-length", "2")), data(1, b"\x03hi\x00\x00\x00", 1 | PADDED), streams=(1,)
            ),
            "none, and none": serves(get(1, "/", ("content-length", "0")), streams=(1,)),
            "none, in empty DATA": serves(post(1, "/", ("content-length", "0")), data(1, b""), streams=(1,)),
        },
    ),
    *rule(
        "8.1.1",
        "Intermediaries that process HTTP requests or responses ... MUST NOT forward a malformed request or response."
        " (RFC 9110 8.6: the value of Content-Length is 1*DIGIT.)",
        {
            "a sign": malformed(more(("content-length", "+0"))),
            "no number": malformed(more(("content-length", "none"))),
            "nothing": malformed(more(("content-length", ""))),
            "two of them": malformed(post(1, "/", ("content-length", "2"), ("content-length", "3")), data(1, b"hi")),
            "beyond any integer": malformed(post(1, "/", ("content-length", "9" * 5000)), data(1, b"hi")),
        },
    ),
]

FIELDS = [
    *rule(
        "8.2.1",
        "A field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff",
        {
            "upper case": malformed(more(("X-Up", "1"))),
            "upper case at the end": malformed(more(("x-uP", "1"))),
            "a space": malformed(more(("x y", "1"))),
            "NUL in a name": malformed(more(("x\x00", "1"))),
            "DEL": malformed(more(("x\x7f", "1"))),
            "beyond ASCII": malformed(more((b"\xc3\xa4", "1"))),
            "a line end": malformed(more(("x: 1\r\ny", "1"))),
            "upper case in trailers": malformed(post(1), data(1, b"hi", 0), trailers(("X-Up", "1"))),
        },
    ),
    *rule(
        "8.2.1",
        "With the exception of pseudo-header fields, field names MUST NOT include a colon",
        {
            "within": malformed(more(("x:y", "1"))),
            "at the end": malformed(more(("x:", "1"))),
            "no name at all (RFC 9110 5.1)": malformed(more(("", "1"))),
        },
    ),
    *rule(
        "8.2.1",
        "A field value MUST NOT contain the zero value, line feed, or carriage return at any position.",
        {
            "NUL": malformed(more(("x", "a\x00b"))),
            "line feed": malformed(more(("x", "a\nb"))),
            "carriage return": malformed(more(("x", "a\rb"))),
            "a field of its own": malformed(more(("x", "a\r\nhost: b"))),
            "of a pseudo-header field": malformed(head(METHOD, SCHEME, (":path", "/\n"), AUTHORITY)),
            "a field of its own in trailers": malformed(post(1), data(1, b"hi", 0), trailers(("x", "a\r\nb: c"))),
        },
    ),
    *rule(
        "8.2.1",
        "A field value MUST NOT start or end with an ASCII whitespace character (0x20 or 0x09).",
        {
            "a space before": malformed(more(("x", " a"))),
            "a space behind": malformed(more(("x", "a "))),
            "a tab before": malformed(more(("x", "\ta"))),
            "a tab behind": malformed(more(("x", "a\t"))),
            "nothing else": malformed(more(("x", " "))),
            "within, and an empty one": serves(more(("x", "a \tb"), ("y", "")), streams=(1,)),
        },
    ),
    *rule(
        "8.2.2",
        "Any message containing connection-specific header fields MUST be treated as malformed.",
        {
            "Connection": malformed(more(("connection", "close"))),
            "Proxy-Connection": malformed(more(("proxy-connection", "keep-alive"))),
            "Keep-Alive": malformed(more(("keep-alive", "timeout=5"))),
            "Transfer-Encoding": malformed(
                post(1, "/", ("transfer-encoding", "chunked")), data(1, b"2\r\nhi\r\n0\r\n\r\n")
            ),
            "Upgrade": malformed(more(("upgrade", "h2c"))),
            "in trailers": malformed(post(1), data(1, b"hi", 0), trailers(("connection", "x"))),
            "Transfer-Encoding in trailers": malformed(
                post(1), data(1, b"hi", 0), trailers(("transfer-encoding", "chunked"))
            ),
        },
    ),
    *rule(
        "8.2.2",
        "the TE header field, which MAY be present in an HTTP/2 request; when it is, it MUST NOT contain any value "
        "other than trailers",
        {
            "gzip": malformed(more(("te", "gzip"))),
            "trailers, and gzip": malformed(more(("te", "trailers, gzip"))),
            "trailers": serves(more(("te", "trailers")), streams=(1,)),
        },
    ),
]

CONTROL_DATA = [
    *rule(
        "8.3",
        "pseudo-header fields defined for responses MUST NOT appear in requests. ... Endpoints MUST treat a request "
        "or response that contains undefined or invalid pseudo-header fields as malformed.",
        {
            ":status": malformed(head(*GOOD, (":status", "200"))),
            "an interim :status": malformed(head((":status", "100"), *GOOD)),
            "one that nobody has defined": malformed(head(*GOOD, (":what", "1"))),
            "one without a name": malformed(head(*GOOD, (":", "1"))),
            ":protocol, which was not offered (RFC 8441 3)": malformed(
                head((":method", "CONNECT"), SCHEME, PATH, AUTHORITY, (":protocol", "websocket"))
            ),
        },
    ),
    *rule(
        "8.3",
        "Any request or response that contains a pseudo-header field that appears in a field block after a regular "
        "field line MUST be treated as malformed.",
        {
            "the last one": malformed(head(METHOD, SCHEME, PATH, TRAILER, AUTHORITY)),
            "all of them": malformed(head(TRAILER, *GOOD)),
            "behind a cookie": malformed(head(METHOD, SCHEME, PATH, ("cookie", "a=1"), AUTHORITY)),
        },
    ),
    *rule(
        "8.3",
        "A field block for an HTTP request or response that contains a repeated pseudo-header field name MUST be "
        "treated as malformed.",
        {
            ":method": malformed(head(METHOD, *GOOD)),
            ":scheme": malformed(head(SCHEME, *GOOD)),
            ":path": malformed(head(*GOOD, (":path", "/other"))),
            ":authority": malformed(head(*GOOD, (":authority", "b"))),
        },
    ),
    *rule(
        "8.3.1",
        "All HTTP/2 requests MUST include exactly one valid value for the :method, :scheme, and :path pseudo-header "
        "fields, unless they are CONNECT requests. An HTTP request that omits mandatory pseudo-header fields is "
        "malformed.",
        {
            "no :method": malformed(head(SCHEME, PATH, AUTHORITY)),
            "no :scheme": malformed(head(METHOD, PATH, AUTHORITY)),
            "no :path": malformed(head(METHOD, SCHEME, AUTHORITY)),
            "nothing at all": malformed(headers(1, b"")),
            "an empty :method": malformed(head((":method", ""), *GOOD[1:])),
            "a :method with a space": malformed(head((":method", "GET /x"), *GOOD[1:])),
            "an empty :scheme": malformed(head(METHOD, (":scheme", ""), PATH, AUTHORITY)),
            "a :path without a slash": malformed(head(METHOD, SCHEME, (":path", "x"), AUTHORITY)),
            "a :path with a space": malformed(head(METHOD, SCHEME, (":path", "/ HTTP/1.1"), AUTHORITY)),
        },
    ),
    *rule(
        "8.3.1",
        "This pseudo-header field MUST NOT be empty for http or https URIs ... The exceptions to this rule are: an "
        "OPTIONS request ...; these MUST include a :path pseudo-header field with a value of '*'",
        {
            "an empty :path": malformed(head(METHOD, SCHEME, (":path", ""), AUTHORITY)),
            "* of GET": malformed(head(METHOD, SCHEME, (":path", "*"), AUTHORITY)),
        },
    ),
    *rule(
        "8.3.1",
        ":authority MUST NOT include the deprecated userinfo subcomponent for http or https schemed URIs.",
        {"a user": malformed(head(METHOD, SCHEME, PATH, (":authority", "me@a")))},
    ),
    *rule(
        "8.3.1",
        "A server SHOULD treat a request as malformed if it contains a Host header field that identifies an entity "
        "that differs from the entity in the :authority pseudo-header field.",
        {
            "another": malformed(more(("host", "b"))),
            "two": malformed(more(("host", "a"), ("host", "b"))),
            "the same": serves(more(("host", "a")), streams=(1,)),
            "only that": serves(head(METHOD, SCHEME, PATH, ("host", "a")), streams=(1,)),
        },
    ),
    *rule(
        "8.5",
        "The :scheme and :path pseudo-header fields MUST be omitted. ... A CONNECT request that does not conform to "
        "these restrictions is malformed.",
        {
            ":scheme and :path": malformed(head((":method", "CONNECT"), SCHEME, PATH, AUTHORITY)),
            ":path": malformed(head((":method", "CONNECT"), PATH, AUTHORITY)),
            "no :authority": malformed(head((":method", "CONNECT"))),
            "no proxy for it": malformed(head((":method", "CONNECT"), (":authority", "a:443"))),
        },
    ),
]

COMPRESSION = [
    *rule(
        "RFC 7541 6.1",
        "The index value of 0 is not used. It MUST be treated as a decoding error if found in an indexed header field"
        " representation.",
        {"0": ends("COMPRESSION_ERROR", raw(b"\x80"))},
    ),
    *rule(
        "RFC 7541 2.3.3",
        "Indices strictly greater than the sum of the lengths of both tables MUST be treated as a decoding error.",
        {
            "a field": ends("COMPRESSION_ERROR", raw(b"\xbf")),
            "a name, to be indexed": ends("COMPRESSION_ERROR", raw(b"\x7f\x00\x01x")),
            "a name, not to be indexed": ends("COMPRESSION_ERROR", raw(b"\x0f\x30\x01x")),
            "what was evicted": ends("COMPRESSION_ERROR", headers(1, RAW), headers(3, b"\x20\x82" + FIRST_DYNAMIC)),
            "an entry that does not fit": ends(
                "COMPRESSION_ERROR", raw(b"\x40\x01x\x7f\xe1\x1f" + bytes([97]) * 4192 + FIRST_DYNAMIC)
            ),
        },
    ),
    *rule(
        "RFC 7541 6.3",
        "The new maximum size MUST be lower than or equal to the limit determined by the protocol using HPACK. A "
        "value that exceeds this limit MUST be treated as a decoding error.",
        {
            "4097": ends("COMPRESSION_ERROR", headers(1, b"\x3f\xe2\x1f" + RAW)),
            "4097, and then less": ends("COMPRESSION_ERROR", headers(1, b"\x3f\xe2\x1f\x20" + RAW)),
            "4096": serves(
                headers(1, b"\x3f\xe1\x1f" + RAW), headers(3, b"\x82\x86\x84" + FIRST_DYNAMIC), streams=(1, 3)
            ),
            "0, and then 4096": serves(
                headers(1, b"\x20\x3f\xe1\x1f" + RAW), headers(3, b"\x82\x86\x84" + FIRST_DYNAMIC), streams=(1, 3)
            ),
        },
    ),
    *rule(
        "RFC 7541 4.2",
        "This dynamic table size update MUST occur at the beginning of the first header block following the change to"
        " the dynamic table size.",
        {
            "at the end": ends("COMPRESSION_ERROR", raw(b"\x20")),
            "within": ends("COMPRESSION_ERROR", headers(1, RAW[:1] + b"\x20" + RAW[1:])),
        },
    ),
    *rule(
        "RFC 7541 5.1",
        "Integer encodings that exceed implementation limits -- in value or octet length -- MUST be treated as "
        "decoding errors.",
        {
            "an index": ends("COMPRESSION_ERROR", raw(b"\xff" * 11 + b"\x7f")),
            "the length of a name": ends("COMPRESSION_ERROR", raw(b"\x00\x7f" + b"\xff" * 10 + b"\x7f")),
            "the length of a value": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x7f" + b"\xff" * 10 + b"\x7f")),
            "the size of the table": ends("COMPRESSION_ERROR", headers(1, b"\x3f" + b"\xff" * 10 + b"\x7f" + RAW)),
        },
    ),
    *rule(
        "4.3",
        "A decoding error in a field block MUST be treated as a connection error of type COMPRESSION_ERROR.",
        {
            "an index that breaks off": ends("COMPRESSION_ERROR", raw(b"\xff\x80")),
            "a name that breaks off": ends("COMPRESSION_ERROR", raw(b"\x00\x05x")),
            "no value": ends("COMPRESSION_ERROR", raw(b"\x00\x01x")),
            "a value that breaks off": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x05y")),
            "no name": ends("COMPRESSION_ERROR", raw(b"\x40")),
            "in CONTINUATION": ends(
                "COMPRESSION_ERROR", headers(1, RAW, 1), frame(CONTINUATION, END_HEADERS, 1, b"\x80")
            ),
            "in trailers": ends("COMPRESSION_ERROR", post(1, "/held"), headers(1, b"\x80")),
            "padding is no part of it": serves(headers(1, b"\x02" + RAW + b"\x80\x80", 5 | PADDED), streams=(1,)),
        },
    ),
    *rule(
        "4.3",
        "An endpoint receiving HEADERS, PUSH_PROMISE, or CONTINUATION frames needs to reassemble field blocks and "
        "perform decompression even if the frames are to be discarded.",
        {
            "trailers of a stream that was reset": ends(
                "COMPRESSION_ERROR", post(1, "/none"), reset(1), headers(1, b"\x80")
            ),
            "HEADERS of a stream that was cancelled": ends(
                "COMPRESSION_ERROR", get(1, "/held"), frame(RST_STREAM, 0, 1, word(8)), headers(1, b"\x80")
            ),
            "the fields of a malformed request": malformed(
                raw(b"\x40\x01X\x01y"), headers(3, RAW[:3] + b"\xbf"), streams=(3,)
            ),
        },
    ),
    *rule(
        "RFC 7541 5.2",
        "A padding strictly longer than 7 bits MUST be treated as a decoding error. A padding not corresponding to "
        "the most significant bits of the code for the EOS symbol MUST be treated as a decoding error. A "
        "Huffman-encoded string literal containing the EOS symbol MUST be treated as a decoding error.",
        {
            "11 bits": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x82\x1f\xff")),
            "8 bits, and nothing else": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x81\xff")),
            "zeroes": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x81\x18")),
            "one zero": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x81\x1e")),
            "EOS": ends("COMPRESSION_ERROR", raw(b"\x00\x01x\x84\xff\xff\xff\xff")),
            "EOS in a name": ends("COMPRESSION_ERROR", raw(b"\x00\x85\x1f\xff\xff\xff\xff\x01x")),
            "what is right": serves(raw(b"\x00\x01x\x81\x1f"), streams=(1,)),
        },
    ),
    *rule(
        "RFC 7541 2.2",
        "the dynamic table ... is a list of header fields maintained in first-in, first-out order",
        {
            "of an earlier request": serves(
                headers(1, RAW), answered(1), headers(3, RAW[:3] + FIRST_DYNAMIC), streams=(1, 3)
            ),
            "of the same one": serves(raw(b"\x40\x01x\x01y" + FIRST_DYNAMIC), streams=(1,)),
            "a field never to be indexed": serves(raw(b"\x10\x01x\x01y"), streams=(1,)),
        },
    ),
]

LATE = [
    *rule(
        "5.1",
        "An endpoint MUST minimally process and then discard any frames it receives in this state [after RST_STREAM]",
        {"the rest of a malformed request": malformed(post(1, "/", ("X-Up", "1")), data(1, b"hi", 0), data(1, b"hi"))},
    ),
    *rule(
        "5.4.2",
        "A stream error is an error related to a specific stream that does not affect processing of other streams.",
        {
            "a request behind it": malformed(more(("X-Up", "1")), get(3), streams=(3,)),
            "a request before it": malformed(
                post(1), headers(3, request("/", ("X-Up", "1"))), data(1, b"hi"), stream=3, streams=(1,)
            ),
        },
    ),
]

CASES = [*FRAMING, *FIELDS, *CONTROL_DATA, *COMPRESSION, *LATE]
