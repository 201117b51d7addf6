"""Heads: fields by name, for routes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.messages import NO_BODY, Field, RequestHead
from rauta.routing.request import FieldList


def head_of(fields: list[Field]) -> tuple[RequestHead, list[int]]:
    calls: list[int] = []

    def received() -> list[Field]:
        calls.append(1)
        return fields

    head = RequestHead("GET", "/", None, "a", "a", "1.1", NO_BODY)
    head.received = received
    return head, calls


NAMES = st.sampled_from(["x-a", "X-A", "cookie", "Cookie", "b"])


@given(st.lists(st.tuples(NAMES, st.sampled_from(["", "1", "2, 3"])), max_size=6))
def test_fields_by_name_are_what_routing_specifies(fields: list[Field]) -> None:
    head, _ = head_of(fields)
    for name in ("x-a", "cookie", "b", "c"):
        assert head.get(name) == FieldList(fields).get(name)


def test_fields_are_read_once_and_only_if_asked() -> None:
    head, calls = head_of([("X-A", "1")])
    assert calls == []
    for _ in range(50):
        assert head.get("x-a") == "1"
        assert head.get("missing") is None
    assert calls == [1]
