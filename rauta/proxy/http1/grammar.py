"""The grammar of HTTP/1.1 heads, strict: what two parsers could read differently is refused (RFC 9112).

Rules, in the order in which they are checked:

* The first line is exactly `token SP target SP HTTP/d.d`; each further one is `token ":" OWS value OWS`; every line
  ends in CR LF. The version is 1.1 or 1.0. NUL, other control characters, bare CR or LF, a space before the colon
  and folded lines are no part of that grammar.
* At most one Content-Length, one run of digits. Transfer-Encoding is exactly `chunked`, once, in HTTP/1.1 only and
  never beside Content-Length.
* Host exactly once (HTTP/1.0: at most once).

The whole head is one regular expression over all lines: a head that it does not cover to the last byte is refused,
so what is checked and what is parsed cannot differ. All quantifiers are possessive: time is linear in the head.
"""

from __future__ import annotations

import re
from typing import Final

from rauta.proxy.http1.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARDED,
    HOST,
    KEEP,
    KINDS,
    TRANSFER_ENCODING,
    kind_of,
    may_trail,
)
from rauta.proxy.messages import CHUNKED, NO_BODY, UNTIL_CLOSE, Field, RequestHead, ResponseHead
from rauta.routing.defaults import MAX_HEADER_FIELDS
from rauta.routing.errors import RequestError
from rauta.routing.request import host_of, parse_target

HEAD_END: Final = b"\r\n\r\n"

_TCHAR: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 5.6.2
_TEXT: Final = r"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 5.5 field-content, and 9112 4 reason-phrase
# Targets are checked by routing; here only that they are one visible word.
_REQUEST_LINE: Final = re.compile(rf"({_TCHAR}++) ([\x21-\x7e\x80-\xff]++) HTTP/([0-9]\.[0-9])(?=\r\n)")
# RFC 9112 4: "A server MUST send the space that separates the status-code from the reason-phrase even when the
# reason-phrase is absent"; many do not, and nothing else can be meant. Status codes are 100 to 599 (RFC 9110 15).
_STATUS_LINE: Final = re.compile(rf"HTTP/(1\.[01]) ([1-5][0-9][0-9])(?: ({_TEXT}*+))?(?=\r\n)")
_FIELD: Final = re.compile(rf"\r\n({_TCHAR}++):[ \t]*+({_TEXT}*+)(?=\r\n)")
# 18 digits: below 2**63, whatever the next parser counts with.
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
# In a head that has not ended yet: what can no longer become a valid one.
_BROKEN: Final = re.compile(rb"\x00|(?<!\r)\n|\r(?!\n|\Z)")

_MAX_LOGGED: Final = 80


class MalformedError(RequestError):
    """A message that is not understood in exactly one way. `reason` is a name in `rauta.proxy.reasons`."""


def _cut(text: str) -> str:
    """For messages: the beginning, without what may be a secret (query, value of a field)."""
    return repr(text.partition("?")[0].partition(":")[0][:_MAX_LOGGED])


# --- fields ---------------------------------------------------------------------------------------------


def parse_fields(text: str, at: int) -> list[Field]:
    """All fields of `text` from the CR LF at `at` to its end, which is the CR LF of the last line.

    Raises MalformedError: bad_field, bad_line_end, head_too_large.
    """
    lines = text.count("\r\n", at) - 1
    if lines > MAX_HEADER_FIELDS:
        raise MalformedError("head_too_large", f"more than {MAX_HEADER_FIELDS} header fields")
    pairs: list[Field] = _FIELD.findall(text, at)
    # Each match takes one line, from its CR LF to the next; fewer matches than lines: some line is no field.
    if len(pairs) != lines:
        raise _bad_field(text[at + 2 :])
    if " \r\n" in text or "\t\r\n" in text:
        # RFC 9112 5.1: "OWS occurring before the first non-whitespace octet of the field line value, or after the
        # last non-whitespace octet of the field line value, is excluded by parsers"
        return [(name, value.rstrip(" \t")) for name, value in pairs]
    return pairs


def _bad_field(block: str) -> MalformedError:
    """Say what is wrong with the first bad line of a block of fields."""
    for line in block.split("\r\n"):
        if "\n" in line or "\r" in line:
            # RFC 9112 2.2: "A recipient of such a bare CR MUST consider that element to be invalid"
            return MalformedError("bad_line_end", f"bare CR or LF in the header line {_cut(line)}")
        if line[:1] in (" ", "\t"):
            # RFC 9112 5.2: "A server that receives an obs-fold in a request message ... MUST either reject the
            # message by sending a 400 ... or replace"
            return MalformedError("bad_field", f"folded header line {_cut(line)}")
        name, colon, _ = line.partition(":")
        if not colon:
            return MalformedError("bad_field", f"header line without a colon: {_cut(line)}")
        if name[-1:] in (" ", "\t"):
            # RFC 9112 5.1: "A server MUST reject, with a response status code of 400 (Bad Request), any received
            # request message that contains whitespace between a header field name and colon."
            return MalformedError("bad_field", f"space before the colon in the header line {_cut(line)}")
        if _FIELD.match(f"\r\n{line}\r\n") is None:
            # RFC 9110 5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous"
            return MalformedError("bad_field", f"invalid character in the header line {_cut(line)}")
    return MalformedError("bad_field", "malformed header fields")


def parse_trailers(block: str) -> list[Field]:
    """The trailer section of a chunked body (lines that each end in CR LF), without those that are not passed on.

    Raises MalformedError.
    """
    return [field for field in parse_fields("\r\n" + block, 0) if may_trail(field[0])] if block else []


def _options(values: list[str]) -> set[str]:
    """The connection options, in lower case (RFC 9110 7.6.1)."""
    return {option.strip(" \t").lower() for value in values for option in value.split(",")}


def _without(fields: list[Field], named: set[str]) -> list[Field]:
    """RFC 9110 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded
    and, for each connection-option in this field, remove any header or trailer field(s) from the message with the
    same name as the connection-option"."""
    return [field for field in fields if field[0].lower() not in named]


def _content_length(values: list[str]) -> int:
    # RFC 9112 6.3: "If a message is received without Transfer-Encoding and with an invalid Content-Length header
    # field, then the message framing is invalid and the recipient MUST treat it as an unrecoverable error". Equal
    # repeated values could be folded into one; other parsers take the first or the last, so they are refused too.
    if len(values) > 1:
        raise MalformedError("bad_framing", "more than one Content-Length")
    if not _DIGITS.fullmatch(values[0]):
        raise MalformedError("bad_framing", f"invalid Content-Length {_cut(values[0])}")
    return int(values[0])


def _check_coding(values: list[str], lengths: list[str], version: str) -> None:
    """Transfer-Encoding is there: it must be the one thing that all parsers agree upon."""
    if version != "1.1":
        # RFC 9112 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header
        # field MUST treat the message as if the framing is faulty"
        raise MalformedError("bad_framing", "Transfer-Encoding in an HTTP/1.0 message")
    if lengths:
        # RFC 9112 6.3: "Such a message might indicate an attempt to perform request smuggling ... and ought to be
        # handled as an error"
        raise MalformedError("bad_framing", "both Transfer-Encoding and Content-Length")
    if len(values) > 1:
        raise MalformedError("bad_framing", "more than one Transfer-Encoding")
    if values[0].lower() != "chunked":
        # RFC 9112 6.1: "A server that receives a request message with a transfer coding it does not understand
        # SHOULD respond with 501 (Not Implemented)."
        raise MalformedError("unsupported_coding", f"transfer coding {_cut(values[0])}")


# --- requests -------------------------------------------------------------------------------------------


def _bad_request_line(text: str) -> MalformedError:
    line = text.partition("\r\n")[0]
    if line.startswith("\x16\x03"):
        return MalformedError("tls_on_plain", "received TLS on a plain HTTP port")
    if "\n" in line or "\r" in line:
        return MalformedError("bad_line_end", f"bare CR or LF in the request line {_cut(line)}")
    return MalformedError("bad_request_line", f"malformed request line {_cut(line)}")


def check_line_ends(data: bytes | bytearray, new: int) -> None:
    """Refuse a head that has not ended and has a bad line end already. `new`: the position of the bytes not yet
    checked. Raises MalformedError."""
    if _BROKEN.search(data, max(0, new - 2)) is not None:
        raise MalformedError("bad_line_end", "bare CR, bare LF or NUL in the head")


def check_partial(data: bytes | bytearray, new: int) -> None:
    """Refuse a request head that has not ended and cannot become valid, instead of waiting for its end.

    `data` is what has arrived, `new` the position of the bytes not yet checked. Raises MalformedError.
    """
    if data[:1] == b"\x16":
        raise MalformedError("tls_on_plain", "received TLS on a plain HTTP port")
    check_line_ends(data, new)
    line_end = data.find(b"\r\n", 2)
    if line_end >= max(2, new - 1):  # the first line has just become complete: HTTP/0.9 ends here
        first = data[: line_end + 2].decode("latin-1").removeprefix("\r\n")
        if first:
            _request_line(first)


def _request_line(text: str) -> re.Match[str]:
    line = _REQUEST_LINE.match(text)
    if line is None:
        raise _bad_request_line(text)
    if line[3] not in ("1.1", "1.0"):
        raise MalformedError("bad_version", f"HTTP version {line[3]}")
    return line


_REQUEST_ONLY: Final = frozenset({HOST, EXPECT})


class _Sorted:
    """The fields of one head, sorted by what is done with them."""

    __slots__ = ("codings", "connection", "expect", "hosts", "kept", "lengths", "seen")

    def __init__(self, pairs: list[Field], *, request: bool) -> None:
        self.kept: list[Field] = []
        self.seen = pairs
        self.hosts: list[str] = []
        self.connection: list[str] = []
        self.lengths: list[str] = []
        self.codings: list[str] = []
        self.expect: list[str] = []
        kinds, keep = KINDS, self.kept.append
        hidden = False
        for pair in pairs:
            name = pair[0]
            kind = kinds[name] if name in kinds else kind_of(name)
            if kind == KEEP:
                keep(pair)
            elif kind == HOST:
                self.hosts.append(pair[1])
            elif kind == CONTENT_LENGTH:
                self.lengths.append(pair[1])
            elif kind == CONNECTION:
                self.connection.append(pair[1])
            elif kind == TRANSFER_ENCODING:
                self.codings.append(pair[1])
            elif kind == EXPECT:
                self.expect.append(pair[1])
            elif kind >= FORWARDED:
                hidden = True
                if not request and kind == FORWARDED:
                    keep(pair)
            if not request and kind in _REQUEST_ONLY:
                keep(pair)  # they mean nothing in a response, so they are not ours to change
        if hidden and request:
            # Routes must not see what backends will not: nobody vouches for these fields.
            self.seen = [pair for pair in pairs if kinds.get(pair[0], KEEP) < FORWARDED]


def parse_request(text: str, *, reject_encoded_slash: bool = False) -> RequestHead:
    """A request head: the request line and all field lines, each with its CR LF, without the empty line.

    Raises RequestError (mostly MalformedError) with a reason of `rauta.proxy.reasons`.
    """
    line = _request_line(text)
    method, raw_target, version = line.groups()
    fields = _Sorted(parse_fields(text, line.end()), request=True)
    length = NO_BODY
    if fields.codings:
        _check_coding(fields.codings, fields.lengths, version)
        length = CHUNKED
    elif fields.lengths:
        length = _content_length(fields.lengths)
    if method in ("CONNECT", "TRACE"):
        raise MalformedError("method_not_allowed", f"{method} is not served")
    target = parse_target(method, raw_target, reject_encoded_slash=reject_encoded_slash)
    host = host_of(target.authority, fields.hosts, http10=version == "1.0")
    authority = target.authority
    if authority is None and fields.hosts:
        authority = fields.hosts[0]
    keep_alive = version == "1.1"
    kept = fields.kept
    if fields.connection:
        options = _options(fields.connection)
        # RFC 9112 9.3: "If the close connection option is present, the connection will not persist"; in HTTP/1.0 it
        # persists only if keep-alive is.
        keep_alive = "close" not in options and (keep_alive or "keep-alive" in options)
        if options - {"close", "keep-alive"}:
            kept = _without(kept, options)
    return RequestHead(
        method=method,
        path=target.path,
        query=target.query,
        host=host,
        authority=authority,
        version=version,
        fields=kept,
        received=fields.seen,
        length=length,
        keep_alive=keep_alive,
        expects=bool(fields.expect) and _expects(fields.expect, version, length),
    )


def _expects(values: list[str], version: str, length: int) -> bool:
    """Whether the client waits for 100 (Continue).

    RFC 9110 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY
    respond with a 417 (Expectation Failed)"; "A server that receives a 100-continue expectation in an HTTP/1.0
    request MUST ignore that expectation."
    """
    if [value.lower() for value in values] != ["100-continue"]:
        raise MalformedError("bad_expectation", f"expectation {_cut(', '.join(values))}")
    return version == "1.1" and length not in (0, NO_BODY)


# --- responses ------------------------------------------------------------------------------------------


def parse_response(text: str, method: str) -> ResponseHead:
    """A response head, like `parse_request`; `method` is that of the request that it answers.

    Raises MalformedError; whatever its reason, the answer to the client is 502 `upstream_malformed`.
    """
    line = _STATUS_LINE.match(text)
    if line is None:
        raise MalformedError("bad_request_line", f"malformed status line {_cut(text.partition(chr(13))[0])}")
    version, code, phrase = line.groups()
    status = int(code)
    fields = _Sorted(parse_fields(text, line.end()), request=False)
    declared = None
    if fields.codings:
        _check_coding(fields.codings, fields.lengths, version)
    elif fields.lengths:
        declared = _content_length(fields.lengths)
    keep_alive = version == "1.1"
    kept = fields.kept
    if fields.connection:
        options = _options(fields.connection)
        keep_alive = "close" not in options and (keep_alive or "keep-alive" in options)
        if options - {"close", "keep-alive"}:
            kept = _without(kept, options)
    length = _response_length(status, method, bool(fields.codings), declared)
    if length == UNTIL_CLOSE:
        keep_alive = False
    return ResponseHead(status, phrase or "", kept, length, declared=declared, keep_alive=keep_alive)


def _response_length(status: int, method: str, coded: bool, declared: int | None) -> int:
    """The body that follows a response head, in the order of RFC 9112 6.3."""
    if status < 200 or status == 204:
        # RFC 9112 6.1: "A server MUST NOT send a Transfer-Encoding header field in any response with a status code
        # of 1xx (Informational) or 204 (No Content)"; RFC 9110 8.6 says the same of Content-Length. Zero is harmless.
        if coded or declared:
            raise MalformedError("bad_framing", f"a {status} response with a body")
        return NO_BODY
    # "Any response to a HEAD request and any response with a 1xx, 204, or 304 status code is always terminated by
    # the first empty line after the header fields, regardless of the header fields present in the message"
    if method == "HEAD" or status == 304:
        return NO_BODY
    if coded:
        return CHUNKED
    return UNTIL_CLOSE if declared is None else declared
