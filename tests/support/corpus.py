"""Messages that no gateway may pass on: smuggling, splitting, and plain nonsense. One row, one idea."""

from __future__ import annotations

from typing import NamedTuple

HOST = b"Host: test\r\n"


class Row(NamedTuple):
    """A message and what becomes of it: the status of the answer and its reason."""

    name: str
    data: bytes
    status: int
    reason: str


def _get(fields: bytes = b"", line: bytes = b"GET / HTTP/1.1\r\n") -> bytes:
    return line + HOST + fields + b"\r\n"


def _post(fields: bytes, body: bytes = b"0\r\n\r\n", line: bytes = b"POST / HTTP/1.1\r\n") -> bytes:
    return line + HOST + fields + b"\r\n" + body


TE = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


def _chunked(body: bytes) -> bytes:
    return _post(TE, body + SMUGGLED)


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + b"\r\n"


REQUESTS: tuple[Row, ...] = (
    # --- the request line (RFC 9112 3) ---
    Row("HTTP/0.9", b"GET /\r\n", 400, "bad_request_line"),
    Row("HTTP/0.9 with fields", b"GET /\r\nHost: test\r\n\r\n", 400, "bad_request_line"),
    Row("no target", _line(b"GET HTTP/1.1"), 400, "bad_request_line"),
    Row("two spaces before the target", _line(b"GET  / HTTP/1.1"), 400, "bad_request_line"),
    Row("two spaces before the version", _line(b"GET /  HTTP/1.1"), 400, "bad_request_line"),
    Row("tab instead of space", _line(b"GET\t/ HTTP/1.1"), 400, "bad_request_line"),
    Row("leading space", _line(b" GET / HTTP/1.1"), 400, "bad_request_line"),
    Row("trailing space", _line(b"GET / HTTP/1.1 "), 400, "bad_request_line"),
    Row("space in the target", _line(b"GET /a b HTTP/1.1"), 400, "bad_request_line"),
    Row("method with a colon", _line(b"GE:T / HTTP/1.1"), 400, "bad_request_line"),
    Row("method with a slash", _line(b"G/T / HTTP/1.1"), 400, "bad_request_line"),
    Row("method with high bytes", _line(b"G\xc3\xa9T / HTTP/1.1"), 400, "bad_request_line"),
    Row("empty method", _line(b" / HTTP/1.1"), 400, "bad_request_line"),
    Row("lower-case protocol", _line(b"GET / http/1.1"), 400, "bad_request_line"),
    Row("other protocol", _line(b"GET / HTTQ/1.1"), 400, "bad_request_line"),
    Row("version without minor", _line(b"GET / HTTP/1"), 400, "bad_request_line"),
    Row("version with two digits", _line(b"GET / HTTP/1.11"), 400, "bad_request_line"),
    Row("version with leading zero", _line(b"GET / HTTP/01.1"), 400, "bad_request_line"),
    Row("version with a sign", _line(b"GET / HTTP/1.-1"), 400, "bad_request_line"),
    Row("version 0.9", _line(b"GET / HTTP/0.9"), 505, "bad_version"),
    Row("version 1.2", _line(b"GET / HTTP/1.2"), 505, "bad_version"),
    Row("version 2.0", _line(b"GET / HTTP/2.0"), 505, "bad_version"),
    Row("version 3.0", _line(b"GET / HTTP/3.0"), 505, "bad_version"),
    Row("HTTP/2 preface with other bytes", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", 505, "bad_version"),
    Row("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400, "tls_on_plain"),
    Row("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400, "bad_request_line"),
    Row("garbage", b"\x00\x01\x02\x03\r\n\r\n", 400, "bad_request_line"),
    Row("leading bare LF", b"\n" + _get(), 400, "bad_line_end"),
    Row("leading bare CR", b"\r" + _get(), 400, "bad_line_end"),
    Row("two leading CRLF", b"\r\n\r\n" + _get(), 400, "bad_request_line"),
    # --- the target (RFC 9112 3.2) ---
    Row("asterisk with GET", _line(b"GET * HTTP/1.1"), 400, "bad_target"),
    Row("asterisk with POST", _line(b"POST * HTTP/1.1"), 400, "bad_target"),
    Row("relative target", _line(b"GET path HTTP/1.1"), 400, "bad_target"),
    Row("authority form", _line(b"GET test:80 HTTP/1.1"), 400, "bad_target"),
    Row("other scheme", _line(b"GET ftp://test/ HTTP/1.1"), 400, "bad_target"),
    Row("javascript scheme", _line(b"GET javascript:alert(1) HTTP/1.1"), 400, "bad_target"),
    Row("file scheme", _line(b"GET file:///etc/passwd HTTP/1.1"), 400, "bad_target"),
    Row("query only", _line(b"GET ?x HTTP/1.1"), 400, "bad_target"),
    Row("fragment", _line(b"GET /#x HTTP/1.1"), 400, "bad_path"),
    Row("fragment in the query", _line(b"GET /?a#x HTTP/1.1"), 400, "bad_query"),
    Row("angle bracket", _line(b"GET /<x HTTP/1.1"), 400, "bad_path"),
    Row("quotation mark", _line(b'GET /"x HTTP/1.1'), 400, "bad_path"),
    Row("brace", _line(b"GET /{x} HTTP/1.1"), 400, "bad_path"),
    Row("angle bracket in the query", _line(b"GET /?<x HTTP/1.1"), 400, "bad_query"),
    Row("quotation mark in the query", _line(b'GET /?"x HTTP/1.1'), 400, "bad_query"),
    Row("backslash", _line(b"GET /\\x HTTP/1.1"), 400, "bad_path"),
    Row("encoded NUL", _line(b"GET /%00 HTTP/1.1"), 400, "bad_path"),
    Row("bad escape", _line(b"GET /%zz HTTP/1.1"), 400, "bad_path"),
    Row("cut escape", _line(b"GET /%4 HTTP/1.1"), 400, "bad_path"),
    Row("raw UTF-8", _line(b"GET /\xc3\xa9 HTTP/1.1"), 400, "bad_path"),
    Row("DEL", _line(b"GET /\x7f HTTP/1.1"), 400, "bad_request_line"),
    Row("escape character", _line(b"GET /\x1b HTTP/1.1"), 400, "bad_request_line"),
    Row("NUL in the target", _line(b"GET /\x00 HTTP/1.1"), 400, "bad_request_line"),
    Row("above the root", _line(b"GET /../etc HTTP/1.1"), 400, "bad_path"),
    Row("encoded, above the root", _line(b"GET /a/%2e%2e/%2e%2e/etc HTTP/1.1"), 400, "bad_path"),
    Row("CONNECT", b"CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n", 405, "method_not_allowed"),
    Row("CONNECT with a path", _line(b"CONNECT / HTTP/1.1"), 405, "method_not_allowed"),
    Row("TRACE", _line(b"TRACE / HTTP/1.1"), 405, "method_not_allowed"),
    # --- Host (RFC 9112 3.2) ---
    Row("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    Row("two Hosts", _get(b"Host: other\r\n"), 400, "bad_host"),
    Row("two equal Hosts", _get(HOST), 400, "bad_host"),
    Row("two Hosts in HTTP/1.0", _get(HOST, b"GET / HTTP/1.0\r\n"), 400, "bad_host"),
    Row("list of Hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "bad_host"),
    Row("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_host"),
    Row("Host with user", b"GET / HTTP/1.1\r\nHost: u@test\r\n\r\n", 400, "bad_host"),
    Row("Host with a bad port", b"GET / HTTP/1.1\r\nHost: test:x\r\n\r\n", 400, "bad_host"),
    Row("Host with a high port", b"GET / HTTP/1.1\r\nHost: test:65536\r\n\r\n", 400, "bad_host"),
    Row("Host with a space", b"GET / HTTP/1.1\r\nHost: te st\r\n\r\n", 400, "bad_host"),
    Row("Host with high bytes", b"GET / HTTP/1.1\r\nHost: t\xe9st\r\n\r\n", 400, "bad_host"),
    Row("Host with a bad bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "bad_host"),
    Row("absolute form with user", b"GET http://u:p@test/ HTTP/1.1\r\nHost: test\r\n\r\n", 400, "bad_host"),
    Row("absolute form without host", b"GET http:///x HTTP/1.1\r\nHost: test\r\n\r\n", 400, "bad_host"),
    Row("absolute form without Host field", b"GET http://test/ HTTP/1.1\r\n\r\n", 400, "bad_host"),
    # --- fields (RFC 9112 5) ---
    Row("space before the colon", _get(b"X : 1\r\n"), 400, "bad_field"),
    Row("tab before the colon", _get(b"X\t: 1\r\n"), 400, "bad_field"),
    Row("space before CL's colon", _post(b"Content-Length : 5\r\n", b"hello"), 400, "bad_field"),
    Row("space before TE's colon", _post(b"Transfer-Encoding : chunked\r\n"), 400, "bad_field"),
    Row("folded field", _get(b"X: a\r\n b\r\n"), 400, "bad_field"),
    Row("folded field with tab", _get(b"X: a\r\n\tb\r\n"), 400, "bad_field"),
    Row("folded first field", b"GET / HTTP/1.1\r\n Host: test\r\n\r\n", 400, "bad_field"),
    Row("folded Transfer-Encoding", _post(b"Transfer-Encoding:\r\n chunked\r\n"), 400, "bad_field"),
    Row("no colon", _get(b"X\r\n"), 400, "bad_field"),
    Row("empty name", _get(b": x\r\n"), 400, "bad_field"),
    Row("name with a space", _get(b"X Y: 1\r\n"), 400, "bad_field"),
    Row("name with a bracket", _get(b"X[]: 1\r\n"), 400, "bad_field"),
    Row("name with high bytes", _get(b"X\xff: 1\r\n"), 400, "bad_field"),
    Row("name with NUL", _get(b"X\x00: 1\r\n"), 400, "bad_field"),
    Row("name with a vertical tab", _get(b"\x0bTransfer-Encoding: chunked\r\n"), 400, "bad_field"),
    Row("value with NUL", _get(b"X: a\x00b\r\n"), 400, "bad_field"),
    Row("value with an escape", _get(b"X: a\x1bb\r\n"), 400, "bad_field"),
    Row("value with DEL", _get(b"X: a\x7fb\r\n"), 400, "bad_field"),
    Row("value with bare CR", _get(b"X: a\rb\r\n"), 400, "bad_line_end"),
    Row("value with bare LF", _get(b"X: a\nb\r\n"), 400, "bad_line_end"),
    Row("value with bare LF and a field", _get(b"X: a\nTransfer-Encoding: chunked\r\n"), 400, "bad_line_end"),
    Row("value with two CR", _get(b"X: a\r\r\n"), 400, "bad_line_end"),
    Row("lines ending in LF", b"GET / HTTP/1.1\nHost: test\n\n", 400, "bad_line_end"),
    Row("first line ending in LF", b"GET / HTTP/1.1\nHost: test\r\n\r\n", 400, "bad_line_end"),
    Row("head ending in LF LF", b"GET / HTTP/1.1\r\nHost: test\n\n", 400, "bad_line_end"),
    Row("too many fields", _get(b"X: 1\r\n" * 201), 431, "head_too_large"),
    Row("too large", _get(b"X: " + b"a" * 70_000 + b"\r\n"), 431, "head_too_large"),
    Row("too large, never ending", b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, 431, "head_too_large"),
    Row("target too long", _line(b"GET /" + b"a" * 70_000 + b" HTTP/1.1"), 414, "target_too_long"),
    Row("target never ending", b"GET /" + b"a" * 70_000, 414, "target_too_long"),
    # --- framing (RFC 9112 6) ---
    Row("CL and TE", _post(b"Content-Length: 5\r\n" + TE), 400, "bad_framing"),
    Row("TE and CL", _post(TE + b"Content-Length: 5\r\n"), 400, "bad_framing"),
    Row("two CL", _post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello"), 400, "bad_framing"),
    Row("two equal CL", _post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL as a list", _post(b"Content-Length: 5, 5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with plus", _post(b"Content-Length: +5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with minus", _post(b"Content-Length: -5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL hexadecimal", _post(b"Content-Length: 0x5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with a point", _post(b"Content-Length: 5.0\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with a space", _post(b"Content-Length: 1 5\r\n", b"hello"), 400, "bad_framing"),
    Row("CL empty", _post(b"Content-Length:\r\n", b"hello"), 400, "bad_framing"),
    Row("CL huge", _post(b"Content-Length: 99999999999999999999\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with an underscore", _post(b"Content-Length: 1_0\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with other digits", _post(b"Content-Length: \xb2\r\n", b"hello"), 400, "bad_framing"),
    Row("CL with a quotation mark", _post(b'Content-Length: "5"\r\n', b"hello"), 400, "bad_framing"),
    Row("two TE", _post(TE + TE), 400, "bad_framing"),
    Row("TE chunked and identity", _post(TE + b"Transfer-Encoding: identity\r\n"), 400, "bad_framing"),
    Row("TE in HTTP/1.0", _post(TE, line=b"POST / HTTP/1.0\r\n"), 400, "bad_framing"),
    Row("TE identity", _post(b"Transfer-Encoding: identity\r\n"), 501, "unsupported_coding"),
    Row("TE gzip", _post(b"Transfer-Encoding: gzip\r\n"), 501, "unsupported_coding"),
    Row("TE gzip, chunked", _post(b"Transfer-Encoding: gzip, chunked\r\n"), 501, "unsupported_coding"),
    Row("TE chunked, gzip", _post(b"Transfer-Encoding: chunked, gzip\r\n"), 501, "unsupported_coding"),
    Row("TE chunked, chunked", _post(b"Transfer-Encoding: chunked, chunked\r\n"), 501, "unsupported_coding"),
    Row("TE xchunked", _post(b"Transfer-Encoding: xchunked\r\n"), 501, "unsupported_coding"),
    Row("TE with a parameter", _post(b"Transfer-Encoding: chunked;q=1\r\n"), 501, "unsupported_coding"),
    Row("TE with a quotation mark", _post(b'Transfer-Encoding: "chunked"\r\n'), 501, "unsupported_coding"),
    Row("TE with high bytes", _post(b"Transfer-Encoding: chunked\xa0\r\n"), 501, "unsupported_coding"),
    Row("TE with a comma", _post(b"Transfer-Encoding: ,chunked\r\n"), 501, "unsupported_coding"),
    Row("TE empty", _post(b"Transfer-Encoding:\r\n"), 501, "unsupported_coding"),
    Row("TE with a vertical tab", _post(b"Transfer-Encoding: \x0bchunked\r\n"), 400, "bad_field"),
    Row("other expectation", _post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 417, "bad_expectation"),
    Row("two expectations", _post(b"Expect: 100-continue, x\r\nContent-Length: 5\r\n", b""), 417, "bad_expectation"),
)

CHUNKED: tuple[Row, ...] = (
    # The head is good and goes on; the body is not, and its end never reaches the backend.
    Row("size with a sign", _chunked(b"+5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size with 0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("negative size", _chunked(b"-1\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("no size", _chunked(b"\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size of other letters", _chunked(b"g\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size with an underscore", _chunked(b"0_5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size too large", _chunked(b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size wraps 64 bits", _chunked(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("space before the size", _chunked(b" 5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("space behind the size", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size line ending in LF", _chunked(b"5\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("size line ending in CR", _chunked(b"5\rhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("chunk ending in LF", _chunked(b"5\r\nhello\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("chunk ending in CR", _chunked(b"5\r\nhello\r0\r\n\r\n"), 400, "bad_chunk"),
    Row("chunk longer than its size", _chunked(b"5\r\nhello!\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("chunk shorter than its size", _chunked(b"7\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("extension without a name", _chunked(b"5;\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("extension with bare LF", _chunked(b"5;a=\nb\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("extension with bare CR", _chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("extension with open quotation", _chunked(b'5;a="x\r\nhello\r\n0\r\n\r\n'), 400, "bad_chunk"),
    Row("long extension", _chunked(b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    Row("many extensions", _chunked((b"1;" + b"a" * 200 + b"\r\nx\r\n") * 100 + b"0\r\n\r\n"), 400, "bad_chunk"),
    Row("trailer without colon", _chunked(b"0\r\nnonsense\r\n\r\n"), 400, "bad_chunk"),
    Row("trailer folded", _chunked(b"0\r\nX: 1\r\n 2\r\n\r\n"), 400, "bad_chunk"),
    Row("trailer with bare LF", _chunked(b"0\r\nX: 1\n\r\n\r\n"), 400, "bad_chunk"),
    Row("trailer with a space before the colon", _chunked(b"0\r\nX : 1\r\n\r\n"), 400, "bad_chunk"),
    Row("trailers too long", _chunked(b"0\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"), 400, "bad_chunk"),
)

BODY = b"Content-Length: 5\r\n\r\nhello"


class Response(NamedTuple):
    """A response that no client may see as it is."""

    name: str
    data: bytes


RESPONSES: tuple[Response, ...] = tuple(
    Response(name, data)
    for name, data in {
        "no status line": b"hello\r\n\r\n",
        "garbage": b"\x00\x01\x02\r\n\r\n",
        "HTTP/0.9": b"<html>hello</html>",
        "version 2.0": b"HTTP/2.0 200 OK\r\n" + BODY,
        "version 1.2": b"HTTP/1.2 200 OK\r\n" + BODY,
        "lower-case protocol": b"http/1.1 200 OK\r\n" + BODY,
        "status 099": b"HTTP/1.1 099 OK\r\n" + BODY,
        "status 600": b"HTTP/1.1 600 OK\r\n" + BODY,
        "status of two digits": b"HTTP/1.1 20 OK\r\n" + BODY,
        "status of four digits": b"HTTP/1.1 2000 OK\r\n" + BODY,
        "status with a sign": b"HTTP/1.1 +20 OK\r\n" + BODY,
        "no status": b"HTTP/1.1 OK\r\n" + BODY,
        "two spaces": b"HTTP/1.1  200 OK\r\n" + BODY,
        "phrase with NUL": b"HTTP/1.1 200 O\x00K\r\n" + BODY,
        "phrase with bare CR": b"HTTP/1.1 200 O\rK\r\n" + BODY,
        "lines ending in LF": b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        "leading CRLF": b"\r\nHTTP/1.1 200 OK\r\n" + BODY,
        "space before the colon": b"HTTP/1.1 200 OK\r\nX : 1\r\n" + BODY,
        "folded field": b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n" + BODY,
        "field without colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n" + BODY,
        "value with bare LF": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n" + BODY,
        "value with bare CR": b"HTTP/1.1 200 OK\r\nX: a\rb\r\n" + BODY,
        "value with NUL": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n" + BODY,
        "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n" + BODY,
        "two equal CL": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + BODY,
        "CL as a list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        "CL with plus": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        "CL negative": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        "CL huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
        "CL and TE": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + BODY,
        "two TE": b"HTTP/1.1 200 OK\r\n" + TE + TE + b"\r\n0\r\n\r\n",
        "TE gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "TE identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n0\r\n\r\n",
        "204 with CL": b"HTTP/1.1 204 No Content\r\n" + BODY,
        "204 with TE": b"HTTP/1.1 204 No Content\r\n" + TE + b"\r\n0\r\n\r\n",
        "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "100 with CL": b"HTTP/1.1 100 Continue\r\n" + BODY,
        "endless 1xx": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50,
        "head too large": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n" + BODY,
        "head never ending": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
        "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 201 + BODY,
        "nothing at all": b"",
        "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    }.items()
)

CUT_RESPONSES: tuple[Response, ...] = tuple(
    # The head is good and goes out; what follows is not. The client must not take it for complete.
    Response(name, b"HTTP/1.1 200 OK\r\n" + data)
    for name, data in {
        "shorter than CL": b"Content-Length: 10\r\n\r\nhello",
        "chunked, no end": TE + b"\r\n5\r\nhello\r\n",
        "chunked, bad size": TE + b"\r\n5\r\nhello\r\nzz\r\n",
        "chunked, bad chunk end": TE + b"\r\n5\r\nhelloXX0\r\n\r\n",
        "chunked, size line ending in LF": TE + b"\r\n5\r\nhello\r\n0\n\r\n",
        "chunked, bad trailer": TE + b"\r\n5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
        "chunked, trailer cut": TE + b"\r\n5\r\nhello\r\n0\r\nX: 1\r\n",
    }.items()
)
