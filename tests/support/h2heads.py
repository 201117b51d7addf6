"""Field sections of requests that are no good."""

from __future__ import annotations

GOOD = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
STATUS = {
    "a path without a slash": ([*GOOD[:2], (":path", "x"), GOOD[3]], 400),
    "no path": ([*GOOD[:2], GOOD[3]], 400),
    "an empty path": ([*GOOD[:2], (":path", ""), GOOD[3]], 400),
    "a space in the path": ([*GOOD[:2], (":path", "/a b"), GOOD[3]], 400),
    "a fragment": ([*GOOD[:2], (":path", "/#a"), GOOD[3]], 400),
    "no authority": ([*GOOD[:3]], 400),
    "a bad authority": ([*GOOD[:3], (":authority", "a b")], 400),
    "another Host": ([*GOOD, ("host", "b")], 400),
    "TRACE": ([(":method", "TRACE"), *GOOD[1:]], 405),
    "a Content-Length that is none": ([*GOOD, ("content-length", "+5")], 400),
    "a Content-Length without a body": ([*GOOD, ("content-length", "5")], 400),
    "an unknown expectation": ([*GOOD, ("expect", "more")], 417),
    "dots above the root": ([*GOOD[:2], (":path", "/../a"), GOOD[3]], 400),
}
# What could become two fields, or another request, on its way.
BROKEN = {
    "upper case": [*GOOD, ("X-Upper", "1")],
    "a line feed in a value": [*GOOD, ("x", "a\nb")],
    "a line end and a field in a value": [*GOOD, ("x", "a\r\nhost: b")],
    "a NUL in a value": [*GOOD, ("x", "a\x00b")],
    "a space around a value": [*GOOD, ("x", " a")],
    "a space in a name": [*GOOD, ("x y", "a")],
    "a colon in a name": [*GOOD, ("x:y", "a")],
    "Connection": [*GOOD, ("connection", "close")],
    "Transfer-Encoding": [*GOOD, ("transfer-encoding", "chunked")],
    "Upgrade": [*GOOD, ("upgrade", "websocket")],
    "Keep-Alive": [*GOOD, ("keep-alive", "1")],
    "Proxy-Connection": [*GOOD, ("proxy-connection", "close")],
    "TE but trailers": [*GOOD, ("te", "gzip")],
    "two methods": [GOOD[0], *GOOD],
    "two paths": [*GOOD, (":path", "/b")],
    "an unknown pseudo-header": [*GOOD, (":what", "1")],
    "a pseudo-header of responses": [*GOOD, (":status", "200")],
    "a pseudo-header at the end": [*GOOD[:3], ("x", "1"), GOOD[3]],
    "no method": GOOD[1:],
    "no scheme": [GOOD[0], *GOOD[2:]],
    "a method with a space": [(":method", "GET /b HTTP/1.1\r\nx:"), *GOOD[1:]],
    "a line end in the path": [*GOOD[:2], (":path", "/a HTTP/1.1\r\nhost: b\r\n\r\n"), GOOD[3]],
    "a field in the path": [*GOOD[:2], (":path", "/a HTTP/1.1\r\nx: 1"), GOOD[3]],
    "a line end in the authority": [*GOOD[:3], (":authority", "a\r\nx: 1")],
    "two Content-Lengths": [*GOOD, ("content-length", "1"), ("content-length", "2")],
}

# Heads of responses that no client may get: see also the tables of frames.
BROKEN_ANSWERS: dict[str, list[tuple[str, str]]] = {
    "no status": [("x", "y")],
    "a status of letters": [(":status", "abc")],
    "a long status": [(":status", "2000")],
    "101": [(":status", "101")],
    "an upper-case name": [(":status", "200"), ("X-A", "y")],
    "a name with a space": [(":status", "200"), ("x a", "y")],
    "a value with a line break": [(":status", "200"), ("x", "a\r\nb: c")],
    "a value with NUL": [(":status", "200"), ("x", "a\0b")],
    "connection": [(":status", "200"), ("connection", "close")],
    "transfer-encoding": [(":status", "200"), ("transfer-encoding", "chunked")],
    "two lengths": [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
    "a length that is none": [(":status", "200"), ("content-length", "1x")],
    "a length and no body": [(":status", "200"), ("content-length", "5")],
    "an unknown pseudo-header": [(":status", "200"), (":x", "y")],
    "a pseudo-header behind a field": [("x", "y"), (":status", "200")],
    "a request's pseudo-header": [(":status", "200"), (":path", "/")],
}
