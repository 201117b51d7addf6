"""Properties of hosts; examples stand in docs/routing.md."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.routing.errors import ModelError, RequestError
from rauta.routing.hosts import HostKind, HostPattern, normalise_host
from rauta.routing.index import HostIndex
from rauta.routing.request import host_of

LABELS = st.sampled_from(["a", "b", "ab", "x-y", "com", "_s"])
HOSTS = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.builds(HostPattern, HOSTS, st.sampled_from(HostKind))


def specificity(pattern: HostPattern) -> tuple[int, int, int]:
    """Exact, then the longest wildcard, then on equal names the one that matches fewer hosts."""
    return (pattern.kind is HostKind.EXACT, pattern.name.count("."), pattern.kind is HostKind.ONE_LABEL)


@given(st.lists(PATTERNS, max_size=8, unique=True), HOSTS, st.booleans())
def test_the_index_finds_the_most_specific_pattern(patterns: list[HostPattern], host: str, with_any: bool) -> None:
    entries: dict[HostPattern | None, object] = {pattern: pattern for pattern in patterns}
    if with_any:
        entries[None] = "any"
    matching = [pattern for pattern in patterns if pattern.matches(host)]
    expected = max(matching, key=specificity) if matching else "any" if with_any else None
    assert HostIndex(entries).get(host) == expected


@given(st.text(st.characters(max_codepoint=255), max_size=30) | HOSTS)
def test_normalising_twice_is_normalising_once(value: str) -> None:
    try:
        host = normalise_host(value)
    except RequestError:
        return
    assert normalise_host(host) == host
    assert host == host.lower()
    assert not host or normalise_host(host + ".:80") == host or host.startswith("[")


@pytest.mark.parametrize(
    ("authority", "fields", "http10", "host"),
    [
        (None, ["a.test"], False, "a.test"),
        (None, [], True, ""),
        ("B.test:80", ["a.test"], False, "b.test"),
        ("b.test", [], True, "b.test"),
    ],
)
def test_host_of(authority: str | None, fields: list[str], http10: bool, host: str) -> None:
    assert host_of(authority, fields, http10=http10) == host


@pytest.mark.parametrize(
    ("authority", "fields", "http10"),
    [
        (None, [], False),
        ("b.test", [], False),  # RFC 9112 3.2: Host must be there also with absolute-form
        (None, ["a.test", "a.test"], False),
        (None, ["a.test", "b.test"], True),
        ("b.test", ["bad host"], False),
        ("user@b.test", ["b.test"], False),
    ],
)
def test_host_of_refuses(authority: str | None, fields: list[str], http10: bool) -> None:
    with pytest.raises(RequestError) as caught:
        host_of(authority, fields, http10=http10)
    assert caught.value.reason == "bad_host"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("example.com:80", "ports belong to listeners"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*", "is not a host name"),
        ("a.*.com", "is not a host name"),
        ("*.[::1]", "is not a host name"),
        ("", "is not a host name"),
        ("http://a", "is not a host name"),
    ],
)
def test_patterns_that_are_none(text: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint):
        HostPattern.parse(text)


def test_patterns_are_normalised() -> None:
    assert str(HostPattern.parse("API.Example.com.")) == "api.example.com"
    assert str(HostPattern.parse("*.Example.com")) == "*.example.com"
