"""Heads between HTTP/2 and the seam, without the library: it refuses much of this itself, and another one might not."""

from __future__ import annotations

import pytest

from rauta.proxy.http2.heads import request_head, response_fields, response_head, trailer_fields
from rauta.proxy.messages import CHUNKED, NO_BODY, ResponseHead
from rauta.routing.errors import RequestError
from support.h2heads import BROKEN, BROKEN_ANSWERS, GOOD, STATUS


def raw(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


@pytest.mark.parametrize("what", [*BROKEN, *STATUS])
async def test_what_is_no_good_is_refused(what: str) -> None:
    fields = BROKEN[what] if what in BROKEN else STATUS[what][0]
    with pytest.raises(RequestError):
        request_head(raw(fields), ended=True, scheme="http")


@pytest.mark.parametrize(
    ("more", "ended", "length"),
    [
        ([], True, NO_BODY),
        ([], False, CHUNKED),
        ([("content-length", "5")], False, 5),
        ([("content-length", "0")], True, 0),
    ],
)
async def test_the_length_of_a_body(more: list[tuple[str, str]], ended: bool, length: int) -> None:
    head = request_head(raw([*GOOD, *more]), ended=ended, scheme="http")
    assert (head.length, head.has_body, head.version) == (length, not ended, "2.0")


async def test_the_scheme_is_told_only_where_it_differs() -> None:
    assert request_head(raw(GOOD), ended=True, scheme="http").scheme is None
    assert request_head(raw(GOOD), ended=True, scheme="https").scheme == "http"


async def test_nothing_of_a_connection_is_in_a_response() -> None:
    head = ResponseHead(200, "OK", [("Connection", "close"), ("X-A", "1"), ("Keep-Alive", "5")], 7)
    assert response_fields(head) == [(b":status", b"200"), (b"x-a", b"1"), (b"content-length", b"7")]


async def test_trailers_are_those_that_may_trail() -> None:
    assert trailer_fields(raw([("x", "1"), ("content-length", "5"), ("host", "a")])) == [("x", "1")]
    with pytest.raises(RequestError):
        trailer_fields(raw([("x", "a\r\nb: c")]))


async def test_crumbs_become_one_cookie() -> None:
    head = request_head(raw([*GOOD, ("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")]), ended=True, scheme="http")
    assert [value for name, value in head.fields if name == "cookie"] == ["a=1; b=2"]


@pytest.mark.parametrize("name", BROKEN_ANSWERS)
async def test_an_answer_that_is_no_good_is_refused_whatever_the_library_lets_through(name: str) -> None:
    with pytest.raises(RequestError):
        response_head(raw(BROKEN_ANSWERS[name]), method="GET", ended=True)
