"""The grammar of HTTP/1.1 heads, strict: what two parsers could read differently is refused (RFC 9112).

Rules, in the order in which they are checked:

* The first line is exactly `token SP target SP HTTP/d.d`; each further one is `token ":" OWS value OWS`; every line
  ends in CR LF. The version is 1.1 or 1.0. NUL, other control characters, bare CR or LF, a space before the colon
  and folded lines are no part of that grammar.
* At most one Content-Length, one run of digits. Transfer-Encoding is exactly `chunked`, once, in HTTP/1.1 only and
  never beside Content-Length.
* Host exactly once (HTTP/1.0: at most once).

A head is split at CR LF, and each line must match its regular expression as a whole. The same match gives the parts,
so what is checked and what is parsed cannot differ. All quantifiers are possessive: time is linear in the head.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from typing import Final

from rauta.proxy import mismatch
from rauta.proxy.http1.fields import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    EXPECT,
    FORWARDED,
    HOST,
    KEEP,
    KEEP_ALIVE,
    TRANSFER_ENCODING,
    UPGRADE,
    kind_of,
    may_trail,
)
from rauta.proxy.messages import (
    CHUNKED,
    NO_BODY,
    NONE_NAMED,
    UNTIL_CLOSE,
    Field,
    Glimpse,
    RequestHead,
    ResponseHead,
)
from rauta.routing.defaults import MAX_HEADER_FIELDS
from rauta.routing.errors import RequestError
from rauta.routing.request import Target, host_of, parse_target

HEAD_END: Final = b"\r\n\r\n"

_TCHAR: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 5.6.2
_TEXT: Final = r"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 5.5 field-content, and 9112 4 reason-phrase
# Targets are checked by routing; here only that they are one visible word.
_REQUEST_LINE: Final = re.compile(rf"({_TCHAR}++) ([\x21-\x7e\x80-\xff]++) HTTP/([0-9]\.[0-9])")
# RFC 9112 4: "A server MUST send the space that separates the status-code from the reason-phrase even when the
# reason-phrase is absent"; many do not, and nothing else can be meant. Status codes are 100 to 599 (RFC 9110 15).
_STATUS_LINE: Final = re.compile(rf"HTTP/(1\.[01]) ([1-5][0-9][0-9])(?: ({_TEXT}*+))?")
_NAME: Final = re.compile(rf"{_TCHAR}++")
_FIELD: Final = re.compile(rf"({_TCHAR}++):[ \t]*+({_TEXT}*+)")
_TOKEN: Final = re.compile(rf"{_TCHAR}++(?:/{_TCHAR}++)?")  # RFC 9110 7.8: protocol, perhaps with a version
# 18 digits: below 2**63, whatever the next parser counts with.
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_VERSIONS: Final = frozenset({"1.1", "1.0"})
_NEVER_SERVED: Final = frozenset({"CONNECT", "TRACE"})
# In a head that has not ended yet: what can no longer become a valid one.
_BROKEN: Final = re.compile(rb"\x00|(?<!\r)\n|\r(?!\n|\Z)")

_MAX_LOGGED: Final = 80


class MalformedError(RequestError):
    """A message that is not understood in exactly one way. `reason` is a name in `rauta.proxy.reasons`."""


def _cut(text: str) -> str:
    """For messages: the beginning, without what may be a secret (query, value of a field)."""
    return repr(text.partition("?")[0].partition(":")[0][:_MAX_LOGGED])


_Values = tuple[str, ...]


# --- fields ---------------------------------------------------------------------------------------------


# A line that has been parsed is remembered: most lines of most messages have been seen before (User-Agent, Accept,
# Server, Content-Type...), and looking one up costs a tenth of parsing it. Lines that are longer are not kept, and
# when there are too many all are forgotten; so one side of the traffic costs a megabyte at most.
_MAX_KNOWN: Final = 4096
_MAX_KNOWN_LENGTH: Final = 128
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})  # gone with their message


class _Lines:
    """Field lines of one direction, parsed: the field and its kind."""

    __slots__ = ("_changed", "known")

    def __init__(self, changed: dict[int, int]) -> None:
        self._changed = changed
        self.known: dict[str, tuple[Field, int]] = {}

    def parse(self, line: str) -> tuple[Field, int]:
        """A line that is not known. Raises MalformedError."""
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _bad_field(line)
        # RFC 9112 5.1: "OWS occurring before the first non-whitespace octet of the field line value, or after the
        # last non-whitespace octet of the field line value, is excluded by parsers"
        name, value = found[1], found[2].rstrip(" \t")
        kind = kind_of(name)
        entry = ((name, value), self._changed.get(kind, kind))
        if len(line) <= _MAX_KNOWN_LENGTH and name.lower() not in _SECRET:
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[line] = entry
        return entry


_REQUESTS: Final = _Lines({DATE: KEEP})
_RESPONSES: Final = _Lines({HOST: KEEP, EXPECT: KEEP, FORWARDED: KEEP})  # no meaning there: not ours to change


def _split(data: bytes) -> list[str]:
    """The lines of a head that ends in CR LF. Raises MalformedError: head_too_large."""
    lines = data.decode("latin-1").split("\r\n")
    lines.pop()  # what is behind the last CR LF: nothing
    if len(lines) > MAX_HEADER_FIELDS + 1:
        raise MalformedError("head_too_large", f"more than {MAX_HEADER_FIELDS} header fields")
    return lines


def _bad_field(line: str) -> MalformedError:
    """Say what is wrong with a line that is no field."""
    name, colon, _ = line.partition(":")
    token = name.rstrip(" \t")
    # Only a name is quoted. What has none may be the rest of a value, or of a body, and this text is logged.
    named = colon and _NAME.fullmatch(token)
    field = f"the header field {token[:_MAX_LOGGED]!r}" if named else "a header field"
    if "\n" in line or "\r" in line:
        # RFC 9112 2.2: "A recipient of such a bare CR MUST consider that element to be invalid"
        return MalformedError("bad_line_end", f"bare CR or LF in {field}")
    if line[:1] in (" ", "\t"):
        # RFC 9112 5.2: "A server that receives an obs-fold in a request message ... MUST either reject the message by
        # sending a 400 ... or replace"
        return MalformedError("bad_field", "folded header line")
    if not colon:
        return MalformedError("bad_field", "header line without a colon")
    if name[-1:] in (" ", "\t"):
        # RFC 9112 5.1: "A server MUST reject, with a response status code of 400 (Bad Request), any received request
        # message that contains whitespace between a header field name and colon."
        return MalformedError("bad_field", f"space before the colon of {field}")
    # RFC 9110 5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous"
    return MalformedError("bad_field", f"invalid character in the {'value' if named else 'name'} of {field}")


def parse_trailers(block: bytes) -> list[Field]:
    """The trailer section of a chunked body (lines that each end in CR LF), without those that are not passed on.

    Raises MalformedError.
    """
    fields = [_REQUESTS.parse(line)[0] for line in _split(block)]
    return [field for field in fields if may_trail(field[0])]


_PERSISTENCE: Final = frozenset({"close", "keep-alive", ""})


def _split_options(values: _Values) -> tuple[bool, bool, frozenset[str]]:
    """The connection options (RFC 9110 7.6.1): whether `close` and `keep-alive` are among them, and the others, in
    lower case."""
    options = frozenset(option.strip(" \t").lower() for value in values for option in value.split(","))
    return "close" in options, "keep-alive" in options, options - _PERSISTENCE


# Nearly all are "keep-alive" or "close". Long ones are not remembered: 256 times a head's worth of options is 0.4 GB.
_known_options: Final = lru_cache(maxsize=256)(_split_options)


def _options(values: _Values) -> tuple[bool, bool, frozenset[str]]:
    short = len(values) == 1 and len(values[0]) <= _MAX_KNOWN_LENGTH
    return _known_options(values) if short else _split_options(values)


def _without(fields: list[Field], named: frozenset[str]) -> list[Field]:
    """RFC 9110 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is forwarded
    and, for each connection-option in this field, remove any header or trailer field(s) from the message with the
    same name as the connection-option"."""
    return [field for field in fields if field[0].lower() not in named]


@lru_cache(maxsize=1024)
def _content_length(values: _Values) -> int:
    # RFC 9112 6.3: "If a message is received without Transfer-Encoding and with an invalid Content-Length header
    # field, then the message framing is invalid and the recipient MUST treat it as an unrecoverable error". Equal
    # repeated values could be folded into one; other parsers take the first or the last, so they are refused too.
    if len(values) > 1:
        raise MalformedError("bad_framing", "more than one Content-Length")
    if not _DIGITS.fullmatch(values[0]):
        raise MalformedError("bad_framing", f"invalid Content-Length {_cut(values[0])}")
    return int(values[0])


def _check_coding(values: _Values, has_length: bool, version: str) -> None:
    """Transfer-Encoding is there: it must be the one thing that all parsers agree upon."""
    if version != "1.1":
        # RFC 9112 6.1: "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header
        # field MUST treat the message as if the framing is faulty"
        raise MalformedError("bad_framing", "Transfer-Encoding in an HTTP/1.0 message")
    if has_length:
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


_PATH_START: Final = re.compile(rf"{_TCHAR}++ /")


def _bad_request_line(line: str) -> MalformedError:
    if line.startswith("\x16\x03"):
        return MalformedError("tls_on_plain", "received TLS on a plain HTTP port")
    # Not quoted unless it begins as one: it may be the rest of a body that was longer than announced.
    seen = f" {_cut(line)}" if _PATH_START.match(line) else ""
    if "\n" in line or "\r" in line:
        return MalformedError("bad_line_end", f"bare CR or LF in the request line{seen}")
    return MalformedError("bad_request_line", f"malformed request line{seen}")


def _request_line(line: str) -> tuple[str, str, str]:
    """Method, target and version."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise _bad_request_line(line)
    method, target, version = found.groups()
    if version not in _VERSIONS:
        raise MalformedError("bad_version", f"HTTP version {version}")
    return method, target, version


def _first_line(line: str, reject_encoded_slash: bool) -> tuple[str, str, Target, str | None]:
    """Method, version, the target taken apart, and the scheme if it is in absolute form."""
    method, target, version = _request_line(line)
    if method in _NEVER_SERVED:
        raise MalformedError("method_not_allowed", f"{method} is not served")
    parsed = parse_target(method, target, reject_encoded_slash=reject_encoded_slash)
    return method, version, parsed, None if parsed.authority is None else target.partition(":")[0].lower()


# Remembered as field lines are, with the same bounds; without those that have a query, which may hold secrets.
_known_first_line: Final = lru_cache(maxsize=_MAX_KNOWN)(_first_line)


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
        start = 2 if data[:2] == b"\r\n" else 0
        _request_line(data[start:line_end].decode("latin-1"))


def _sort(lines: list[str], of: _Lines) -> tuple[list[Field], dict[int, _Values]]:
    """What the lines behind the first one hold: the fields that are passed on, and the values of those that mean
    something here, by kind. Raises MalformedError."""
    kept: list[Field] = []
    ours: dict[int, _Values] = {}
    known = of.known
    for line in lines:
        field, kind = known.get(line) or of.parse(line)
        if kind:
            ours[kind] = (*ours[kind], field[1]) if kind in ours else (field[1],)
            if kind != DATE:
                continue
        kept.append(field)
    return kept, ours


def _seen_by_routes(lines: list[str], named: frozenset[str] = NONE_NAMED) -> list[Field]:
    """All fields but those that claim something about the client, for which nobody vouches, and those that are for the
    connection alone, which the backend does not get either."""
    entries = [_REQUESTS.known.get(line) or _REQUESTS.parse(line) for line in lines]
    return [field for field, kind in entries if kind < FORWARDED and (not named or field[0].lower() not in named)]


def parse_request(data: bytes, *, reject_encoded_slash: bool = False) -> RequestHead:
    """A request head: the request line and all field lines, each with its CR LF, without the empty line.

    Raises RequestError (mostly MalformedError) with a reason of `rauta.proxy.reasons`.
    """
    lines = _split(data)
    first = lines.pop(0)
    take_apart = _first_line if "?" in first or len(first) > _MAX_KNOWN_LENGTH else _known_first_line
    method, version, (path, query, authority), scheme = take_apart(first, reject_encoded_slash)
    kept, ours = _sort(lines, _REQUESTS)
    length = NO_BODY
    if TRANSFER_ENCODING in ours:
        _check_coding(ours[TRANSFER_ENCODING], CONTENT_LENGTH in ours, version)
        length = CHUNKED
    elif CONTENT_LENGTH in ours:
        length = _content_length(ours[CONTENT_LENGTH])
    hosts = ours.get(HOST, ())
    host = host_of(authority, hosts, http10=version == "1.0")
    if authority is None and hosts:
        authority = hosts[0]
    keep_alive = version == "1.1"
    named = NONE_NAMED
    if CONNECTION in ours:
        close, keep, named = _options(ours[CONNECTION])
        # RFC 9112 9.3: "If the close connection option is present, the connection will not persist"; in HTTP/1.0 it
        # persists only if keep-alive is.
        keep_alive = not close and (keep_alive or keep)
    head = RequestHead(method, path, query, host, authority, version, length)
    head.fields = kept
    head.received = partial(_seen_by_routes, lines)
    head.keep_alive = keep_alive
    head.scheme = scheme
    if named:
        head.fields, head.named = _without(kept, named), named
        head.received = partial(_seen_by_routes, lines, named)
        if UPGRADE in ours and "upgrade" in named and method == "GET" and version == "1.1" and length in (NO_BODY, 0):
            head.upgrade = _upgrade(ours[UPGRADE])
    if FORWARDED in ours:
        head.claims = partial(_claims, lines)
    if EXPECT in ours:
        head.expects = _expects(ours[EXPECT], version, length)
    return head


def _claims(lines: list[str]) -> list[Field]:
    """The fields that claim something about the client."""
    entries = [_REQUESTS.known.get(line) or _REQUESTS.parse(line) for line in lines]
    return [field for field, kind in entries if kind == FORWARDED]


def _upgrade(values: _Values) -> str | None:
    """The one protocol that is offered, in lower case; None if there are several: RFC 9110 7.8 lets the server choose,
    and nobody here could tell what a backend's choice means."""
    token = values[0].strip(" \t").lower()
    return token if len(values) == 1 and _TOKEN.fullmatch(token) else None


def _expects(values: _Values, version: str, length: int) -> bool:
    """Whether the client waits for 100 (Continue).

    RFC 9110 10.1.1: "A server that receives an Expect field value containing a member other than 100-continue MAY
    respond with a 417 (Expectation Failed)"; "A server that receives a 100-continue expectation in an HTTP/1.0
    request MUST ignore that expectation."
    """
    if len(values) > 1 or values[0].lower() != "100-continue":
        raise MalformedError("bad_expectation", f"expectation {_cut(', '.join(values))}")
    return version == "1.1" and length not in (0, NO_BODY)


# --- refused requests -----------------------------------------------------------------------------------

_REQUEST_START: Final = re.compile(rf"({_TCHAR}++) ([\x21-\x7e\x80-\xff]++)")


def glimpse(data: bytes) -> Glimpse:
    """What can be read of a request that was refused, for the log. `data` is its head, whole or the beginning of it;
    what follows does not matter."""
    text = data.removeprefix(b"\r\n").decode("latin-1")
    whole, end, _ = text.partition("\r\n\r\n")
    *lines, rest = (whole if end else text).split("\r\n")
    if end:
        lines.append(rest)  # else it is a line that has not ended
    found = _REQUEST_LINE.fullmatch(lines[0]) if lines else _REQUEST_START.fullmatch(rest)
    if found is None:
        return Glimpse()
    method, target = found[1], found[2]
    path: str | None = None
    query = authority = None
    try:
        path, query, authority = parse_target(method, target)
    except RequestError:
        if target[:1] == "/":  # any other form may hold a password (RFC 3986 3.2.1)
            path, mark, query = target.partition("#")[0].partition("?")
            query = query if mark else None
    return Glimpse(method, path, query, found[3] if lines else None, _glimpsed_host(authority, lines[1:]))


def _glimpsed_host(authority: str | None, lines: list[str]) -> str | None:
    fields = [line.partition(":") for line in lines]
    hosts = [value.strip(" \t") for name, _, value in fields if name.lower() == "host"]
    try:
        return host_of(authority, hosts, http10=True) or None
    except RequestError:
        return None


# --- responses ------------------------------------------------------------------------------------------


_STATUS_START: Final = re.compile(r"HTTP/[0-9.]{1,8}(?: [+-]?[0-9]{1,8}(?![^ ]))?")


def not_a_status_line(data: bytes | bytearray) -> str:
    """Say what came instead of a status line. No more is quoted than version and status: the rest may be anything from
    a body, and this text is logged."""
    if what := mismatch.spoken(data[:_MAX_LOGGED]) if data[:1] != b"H" else "":
        return f"no status line, but {mismatch.wants(what)}"
    found = _STATUS_START.match(data[:_MAX_LOGGED].decode("latin-1"))
    return "no status line" if found is None else f"malformed status line, which begins with {found[0]!r}"


def _status_line(line: str) -> tuple[str, int, str]:
    """Version, status and reason phrase."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise MalformedError("bad_request_line", not_a_status_line(line.encode("latin-1")))
    return found[1], int(found[2]), found[3] or ""


_known_status_line: Final = lru_cache(maxsize=64)(_status_line)


def parse_response(data: bytes, method: str) -> ResponseHead:
    """A response head, like `parse_request`; `method` is that of the request that it answers.

    Raises MalformedError; whatever its reason, the answer to the client is 502 `upstream_malformed`.
    """
    lines = _split(data)
    first = lines.pop(0)
    take_apart = _known_status_line if len(first) <= _MAX_KNOWN_LENGTH else _status_line
    version, status, phrase = take_apart(first)
    kept, ours = _sort(lines, _RESPONSES)
    declared = None
    coded = TRANSFER_ENCODING in ours
    if coded:
        _check_coding(ours[TRANSFER_ENCODING], CONTENT_LENGTH in ours, version)
    elif CONTENT_LENGTH in ours:
        declared = _content_length(ours[CONTENT_LENGTH])
    keep_alive = version == "1.1"
    named = NONE_NAMED
    if CONNECTION in ours:
        close, keep, named = _options(ours[CONNECTION])
        keep_alive = not close and (keep_alive or keep)
    length = _response_length(status, method, coded, declared)
    if length == UNTIL_CLOSE:
        keep_alive = False
    elif status == 204:
        declared = None  # RFC 9110 8.6: "A server MUST NOT send a Content-Length ... status code of ... 204"
    head = ResponseHead(status, phrase, kept, length, declared, keep_alive, DATE in ours)
    if named:
        head.fields, head.named = _without(kept, named), named
        head.dated = head.dated and "date" not in named
    if KEEP_ALIVE in ours:
        head.kept_for = _kept_for(ours[KEEP_ALIVE])
    if status == 101 and UPGRADE in ours and "upgrade" in named:
        head.upgrade = _upgrade(ours[UPGRADE])
    if status == 426 and UPGRADE in ours:
        # RFC 9110 15.5.22: "The server MUST send an Upgrade header field in a 426 response"
        head.fields.append(("Upgrade", ", ".join(ours[UPGRADE])))
    return head


# RFC 2068 19.7.1.1 has the field's form, and leaves the parameters open; Apache, Node and others send `timeout`.
_KEEP_ALIVE_TIMEOUT: Final = re.compile(r"(?:^|,)[ \t]*timeout[ \t]*=[ \t]*([0-9]{1,6})[ \t]*(?:,|$)", re.IGNORECASE)


def _kept_for(values: _Values) -> float | None:
    """Seconds for which the sender keeps an idle connection; None if it does not say. What is malformed says nothing:
    no standard tells what it means."""
    found = _KEEP_ALIVE_TIMEOUT.search(values[0])
    return None if found is None else float(found[1])


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
