"""The strict grammar, row by row and beside h11: nothing passes here that h11 refuses, and both read the same."""

from __future__ import annotations

import re
import tracemalloc

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rauta.proxy.http1 import grammar
from rauta.proxy.http1.fields import KEEP, kind_of
from rauta.proxy.http1.grammar import (
    MalformedError,
    check_partial,
    not_a_status_line,
    parse_request,
    parse_response,
    parse_trailers,
)
from rauta.proxy.messages import CHUNKED, NO_BODY, UNTIL_CLOSE
from rauta.proxy.reasons import REASONS
from rauta.routing.errors import RequestError
from support.corpus import REQUESTS, RESPONSES, Response, Row


def head_of(data: bytes) -> bytes | None:
    end = data.find(b"\r\n\r\n")
    return None if end < 0 else data[: end + 2]


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_requests_of_the_corpus(row: Row) -> None:
    head = head_of(row.data)
    if head is None or row.data[:1] in b"\r\n" or len(head) > 65_536:
        return  # told apart by the connection, over sockets
    with pytest.raises(RequestError) as caught:
        parse_request(head)
    assert caught.value.reason == row.reason
    assert REASONS[row.reason].status == row.status


@pytest.mark.parametrize("row", RESPONSES, ids=lambda row: row.name)
def test_responses_of_the_corpus(row: Response) -> None:
    head = head_of(row.data)
    if head is None or "101" in row.name or "endless" in row.name or len(head) > 65_536:
        return  # told apart by the connection, over sockets
    with pytest.raises(MalformedError):
        parse_response(head, "GET")


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_h11_and_we(row: Row) -> None:
    """Rows that h11 lets pass are rows in which we are stricter on purpose; this pins which ones they are."""
    accepted = h11_accepts(row.data)
    assert not accepted or row.name in STRICTER, row.name


STRICTER = {
    # h11 reads LF as CR LF and folds lines, and knows no limit on fields, no targets, no Host syntax.
    "TRACE", "CONNECT", "CONNECT with a path", "two leading CRLF", "leading bare LF", "too many fields",
    "space before the colon", "tab before the colon",
    "lines ending in LF", "first line ending in LF", "head ending in LF LF", "folded field", "folded field with tab",
    "asterisk with GET", "asterisk with POST", "relative target", "authority form", "other scheme",
    "javascript scheme", "file scheme", "query only", "fragment", "fragment in the query", "angle bracket",
    "quotation mark", "brace", "angle bracket in the query", "quotation mark in the query", "backslash",
    "encoded NUL", "bad escape", "cut escape", "raw UTF-8", "above the root", "encoded, above the root",
    "list of Hosts", "Host with a path", "Host with user", "Host with a bad port", "Host with a high port",
    "Host with a space", "Host with high bytes", "Host with a bad bracket", "absolute form with user",
    "absolute form without host", "two equal CL", "CL as a list", "CL and TE", "TE and CL", "TE in HTTP/1.0",
    "other expectation", "two expectations", "too large", "target too long", "value with an escape",
    "value with DEL", "version 0.9", "version 1.2", "version 2.0", "version 3.0", "HTTP/2 preface with other bytes",
    "folded Transfer-Encoding", "value with bare LF", "value with bare LF and a field", "DEL", "escape character",
    "two TE", "CL with other digits", "CL huge", "two Hosts in HTTP/1.0",
}  # fmt: skip


def h11_accepts(data: bytes) -> bool:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(data)
        return isinstance(connection.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


# Bytes that matter to HTTP, more often than others.
INTERESTING = st.sampled_from([*b'\r\n \t:;,\x00/*?#%.GET0159abcHost-_"\\\x7f\x80\xff\x0b\x1b'])
NOISE = st.lists(INTERESTING, max_size=6).map(bytes)
SEEDS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nA:b\r\nC: d \r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-A\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 10\r\nConnection: close\r\n\r\n",
        b"OPTIONS https://b:8443 HTTP/1.1\r\nHost: b:8443\r\n\r\n",
        b"GET HTTPS://[::1]:1/x?y HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
)
# Values that mean something, put where another one stands: noise alone hardly ever makes one.
WORDS = st.sampled_from(
    [
        *(
            b"GET",
            b"OPTIONS",
            b"TRACE",
            b"CONNECT",
            b"HTTP/1.0",
            b"HTTP/1.1",
            b"*",
            b"http://b",
            b"https://b/",
            b"//",
            b"a:1",
        ),
        *(b"Upgrade", b"Connection", b"Max-Forwards", b"Keep-Alive", b"Transfer-Encoding", b"Content-Length", b"Host"),
        *(
            b"h2c",
            b"websocket",
            b"close",
            b"chunked",
            b"identity",
            b"0",
            b"-1",
            b"trailers",
            b"100-continue",
            b"timeout=0",
        ),
    ]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: st.SearchStrategy[bytes] = SEEDS) -> bytes:
    """A good message with a few bytes and words put in, taken out or replaced."""
    data = draw(seeds)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        width = draw(st.integers(0, 3))
        data = data[:at] + draw(NOISE) + data[at + width :]
    for _ in range(draw(st.integers(0, 2))):
        start, end = draw(st.sampled_from([found.span() for found in re.finditer(rb"[^ \r\n:,]+", data)] or [(0, 0)]))
        data = data[:start] + draw(WORDS) + data[end:]
    return data


@given(mutated())
@example(b"GET / HTTP/1.1\r\nHost: a\r\n x: 1\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nbad x: 1\r\n\r\n")
def test_nothing_passes_that_h11_refuses(data: bytes) -> None:
    head = head_of(data)
    if head is None:
        return
    try:
        ours = parse_request(head)
    except RequestError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + b"\r\n")
    theirs = connection.next_event()
    assert isinstance(theirs, h11.Request), data
    assert theirs.method.decode() == ours.method
    assert theirs.http_version.decode() == ours.version
    # Every field that goes on is one that h11 has read, in its order and with its value.
    read = [(name.lower(), value) for name, value in theirs.headers]
    ours_kept = [(name.lower().encode(), value.encode("latin-1")) for name, value in ours.fields]
    assert [field for field in read if field in ours_kept] == ours_kept
    lengths = [value for name, value in read if name == b"content-length"]
    assert [b"%d" % ours.length] == [b"%d" % int(value) for value in lengths] if ours.length >= 0 else not lengths
    assert (ours.length == CHUNKED) == any(name == b"transfer-encoding" for name, _ in read)


@given(mutated())
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: y\r\nUpgrade: x\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nUpgrade: y\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x, y\r\n\r\n")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n\r\n")
@example(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
def test_an_upgrade_is_offered_only_where_h11_sees_one(data: bytes) -> None:
    head = head_of(data)
    if head is None:
        return
    try:
        ours = parse_request(head)
    except RequestError:
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + b"\r\n")
    theirs = connection.next_event()
    assert isinstance(theirs, h11.Request), data
    if ours.upgrade is not None:
        assert theirs.http_version == b"1.1"
        assert isinstance(connection.next_event(), h11.EndOfMessage)  # it has no body
        assert connection.next_event() is h11.PAUSED
        assert [value.lower() for name, value in theirs.headers if name == b"upgrade"] == [ours.upgrade.encode()]
        options = b",".join(value for name, value in theirs.headers if name == b"connection")
        assert b"upgrade" in [option.strip(b" \t").lower() for option in options.split(b",")]
        assert b"," not in ours.upgrade.encode()
    absolute = re.match(rb"(?i)(https?)://", theirs.target)
    assert ours.scheme == (None if absolute is None else absolute[1].decode().lower())
    forwards = [value.decode("latin-1") for name, value in theirs.headers if name == b"max-forwards"]
    if "max-forwards" not in ours.named:
        assert ours.get("max-forwards") == (", ".join(forwards) if forwards else None)


@given(mutated())
def test_a_partial_head_is_never_refused_if_the_whole_is_good(data: bytes) -> None:
    head = head_of(data)
    if head is None:
        return
    try:
        parse_request(head)
    except RequestError:
        return
    whole = head + b"\r\n"
    for end in range(1, len(whole)):
        check_partial(whole[:end], 0)
        check_partial(whole[:end], end - 1)


RESPONSE_SEEDS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5, max=9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nConnection: X\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 103\r\nLink: a\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nDate: x\r\n\r\n",
    ]
)


@given(mutated(RESPONSE_SEEDS))
def test_no_response_passes_that_h11_refuses(data: bytes) -> None:
    head = head_of(data)
    if head is None:
        return
    try:
        ours = parse_response(head, "GET")
    except MalformedError:
        return
    connection = h11.Connection(h11.CLIENT)
    offer = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    connection.send(h11.Request(method="GET", target="/", headers=offer))
    connection.send(h11.EndOfMessage())
    connection.receive_data(head + b"\r\n")
    theirs = connection.next_event()
    assert isinstance(theirs, h11.InformationalResponse if ours.status < 200 else h11.Response), data
    assert theirs.status_code == ours.status
    read = [(name.lower(), value) for name, value in theirs.headers]
    kept = [(name.lower().encode(), value.encode("latin-1")) for name, value in ours.fields]
    assert [field for field in read if field in kept] == kept
    assert not any(name in (b"connection", b"keep-alive", b"upgrade", b"transfer-encoding") for name, _ in kept)
    if ours.upgrade is not None:
        assert [value.lower() for name, value in theirs.headers if name == b"upgrade"] == [ours.upgrade.encode()]
    if ours.status >= 200:
        body = {CHUNKED: b"1\r\nx\r\n0\r\n\r\n", NO_BODY: b"", UNTIL_CLOSE: b"x"}.get(
            ours.length, b"x" * min(ours.length, 99)
        )
        connection.receive_data(body)
        if ours.length < 99:
            assert content_of(connection) == {CHUNKED: b"x"}.get(ours.length, body)


def content_of(connection: h11.Connection) -> bytes:
    """What h11 reads until the end of the message, or of what there is."""
    content = b""
    while isinstance(event := connection.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage) or event is h11.NEED_DATA
    return content


def test_lengths_of_responses() -> None:
    def length(head: str, method: str = "GET") -> int:
        return parse_response(head.encode(), method).length

    assert length("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n") == 7
    assert length("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n", "HEAD") == NO_BODY
    assert length("HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n") == CHUNKED
    assert length("HTTP/1.1 304 OK\r\nContent-Length: 7\r\n") == NO_BODY
    assert length("HTTP/1.1 204 OK\r\nContent-Length: 0\r\n") == NO_BODY
    assert length("HTTP/1.0 200 OK\r\n") == UNTIL_CLOSE
    assert not parse_response(b"HTTP/1.1 200 OK\r\n", "GET").keep_alive
    assert not parse_response(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", "GET").keep_alive
    assert parse_response(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n", "GET").keep_alive


def test_routes_do_not_see_what_clients_claim_to_be() -> None:
    head = parse_request(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX_Real_Ip: 1\r\nUpgrade: x\r\nB: 1\r\n"
    )
    assert head.get("x-forwarded-proto") is None
    assert head.get("x_real_ip") is None
    assert head.get("upgrade") == "x"
    assert head.get("host") == "a"
    assert head.fields == [("B", "1")]


def test_messages_show_no_secrets() -> None:
    for head in (
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic c2VjcmV0\x00\r\n",
        b"GET /?token=c2VjcmV0 HTTX/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie : c2VjcmV0\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a\nb=c2VjcmV0\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic\r\n c2VjcmV0\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n c2VjcmV0\n: x\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nc2VjcmV0\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n{c2VjcmV0}: 1\r\n",
        b"b&password=c2VjcmV0\r\nHost: a\r\n",
        b"b&password=c2VjcmV0\nHost: a\r\n",
        b"b c2VjcmV0 HTTP/1.1 x\r\nHost: a\r\n",
    ):
        with pytest.raises(MalformedError) as caught:
            parse_request(head)
        assert "c2Vj" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"X-A\t: 1", "space before the colon of the header field 'X-A'"),
        (b"X-A: \x00", "invalid character in the value of the header field 'X-A'"),
        (b"X A: 1", "invalid character in the name of a header field"),
        (b"X-A: 1\n2", "bare CR or LF in the header field 'X-A'"),
        (b"a" * 5000 + b": \x00", f"invalid character in the value of the header field {'a' * 80!r}"),
    ],
)
def test_messages_name_the_field(line: bytes, text: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"HTTP/1.1 20 OK c2VjcmV0", "malformed status line, which begins with 'HTTP/1.1 20'"),
        (b"HTTP/2.0 200 OK", "malformed status line, which begins with 'HTTP/2.0 200'"),
        (b"HTTP/1.1 200c2VjcmV0", "malformed status line, which begins with 'HTTP/1.1'"),
        (b"HTTP/1.1 200 c2VjcmV0\x1b[2J", "malformed status line, which begins with 'HTTP/1.1 200'"),
        (b"<html>c2VjcmV0", "no status line"),
        (b'{"token":"c2VjcmV0"}', "no status line"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "no status line, but TLS: does the service want `tls`?"),
        (b"\0\0\0\x04\0\0\0\0\0", "no status line, but HTTP/2: does the service want `protocol: http2`?"),
    ],
)
def test_what_is_no_status_line_is_described_and_not_quoted(line: bytes, text: str) -> None:
    assert not_a_status_line(line) == text
    with pytest.raises(MalformedError) as caught:
        parse_response(line + b"\r\n", "GET")
    assert str(caught.value) == text


PIECES = st.sampled_from(
    [b"HTTP/1.1", b" ", b"200", b"\r\n", b"\n", b":", b"Set-Cookie", b"Content-Length", b"\x00", b"\t", b"5"]
)


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(PIECES, max_size=12).map(b"".join))
def test_of_a_response_no_values_are_quoted(before: bytes, behind: bytes) -> None:
    """Wherever a secret stands in what a backend sends, unless as the name or the framing of something."""
    for start in (b"", b"HTTP/1.1 200 OK\r\n"):
        data = start + before + b" \xe9c2VjcmV0= " + behind + b"\r\n"
        try:
            parse_response(data, "GET")
        except MalformedError as error:
            text = str(error)
            assert len(text) < 250
            assert text.isprintable()
            assert "c2Vj" not in text or text.startswith("invalid Content-Length")


def test_time_is_linear() -> None:
    """Quantifiers that could back-track would take minutes here."""
    for head in (
        b"GET / HTTP/1.1\r\nHost: a\r\nX:" + b" " * 60_000 + b"\r\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a" * 60_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"\t a" * 20_000 + b"\n\r\n",
        b"G" * 60_000 + b"\r\n",
    ):
        with pytest.raises(MalformedError):
            parse_request(head)


def test_remembered_lines_do_not_fill_memory() -> None:
    for number in range(10_000):
        head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX-%d: y\r\n" % number)
        assert head.fields == [(f"X-{number}", "y")]
    parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1000 + b"\r\n")
    assert len(grammar._REQUESTS.known) <= 4096
    assert max(map(len, grammar._REQUESTS.known)) <= 128


def test_a_line_means_the_same_the_second_time() -> None:
    data = b"POST / HTTP/1.1\r\nHost: a\r\nB: \t2 \r\nTransfer-Encoding: chunked\r\nConnection: B\r\nX_Real_IP: 1\r\n"
    first, second = parse_request(data), parse_request(data)
    assert (first.fields, first.length, first.host) == (second.fields, second.length, second.host) == ([], CHUNKED, "a")
    # A response's Host is not a request's Host.
    assert parse_response(b"HTTP/1.1 200 OK\r\nHost: a\r\nX-Forwarded-For: 1\r\n", "GET").fields == [
        ("Host", "a"),
        ("X-Forwarded-For", "1"),
    ]


@pytest.mark.parametrize(
    ("name", "kept"), [("X-A", True), ("X_A", True), ("Te", False), ("t_e", True), ("x-FORWARDED_x", False)]
)
def test_kinds(name: str, kept: bool) -> None:
    assert (kind_of(name) == KEEP) is kept


def test_trailers() -> None:
    assert parse_trailers(b"") == []
    assert parse_trailers(b"X-Sum: 1\r\nContent-Length: 5\r\nAuthorization: x\r\nX-Forwarded-For: y\r\n") == [
        ("X-Sum", "1")
    ]


@pytest.mark.parametrize("sign", [*"!#$%&'*+.^_`|~"])
def test_look_alikes(sign: str) -> None:
    assert kind_of(f"X{sign}Forwarded{sign}For") != KEEP
    assert kind_of(f"x-real{sign}ip") != KEEP
    assert kind_of(f"Content{sign}Length") != KEEP
    assert kind_of(f"X{sign}Other") == KEEP
    assert parse_trailers(f"Content{sign}Type: t\r\nSet{sign}Cookie: a\r\nX{sign}B: 1\r\n".encode()) == [
        (f"X{sign}B", "1")
    ]


def test_nothing_large_is_remembered() -> None:
    """A client that sends ever new options, and a backend with ever new phrases, must not fill the memory."""
    long = ",".join(f"a{number}" for number in range(2000))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            parse_request(f"GET / HTTP/1.1\r\nHost: a\r\nConnection: c{number},{long}\r\n".encode())
            parse_response(f"HTTP/1.1 200 {number}{long}\r\n".encode(), "GET")
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 500_000
