"""What the kernel looks up is exactly what needs no normalising; everything else is passed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.offload.lookup import is_plain, longest, may_begin, plain_host
from rauta.routing.errors import RequestError
from rauta.routing.hosts import normalise_host
from rauta.routing.paths import normalise_path

BYTES = st.text(st.characters(max_codepoint=255), max_size=12)
PATHS = st.one_of(
    BYTES,
    BYTES.map("/".__add__),
    st.lists(st.sampled_from(["/", ".", "..", "a", "b1", "%41", "%2F", "~", ";", "|", "\\", "?", "#", "é"])).map(
        lambda parts: "/" + "".join(parts)
    ),
)
HOSTS = st.one_of(
    BYTES,
    st.lists(st.sampled_from(["a", "B", "0", "-", "_", ".", ":", "80", "[::1]", "\u212a", "K"]), max_size=8).map(
        "".join
    ),
)


@pytest.mark.parametrize(
    "path",
    ["/", "/a", "/a/", "/a/b.c", "/.a", "/..a", "/a..", "/...", "/.well-known/x", "/a.", "/!$&'()*+,-.:;=@[]^_`|~"],
)
def test_plain_paths(path: str) -> None:
    assert is_plain(path, 248)


@pytest.mark.parametrize(
    "path",
    ["", "*", "a", "//", "/a//b", "/a//", "/.", "/..", "/./a", "/a/../b", "/a/.", "/a/..", "/%41", "/%2F", "/a\\b"]
    + [f"/a{char}" for char in '"#<>{}? \t\0\x7f\x80é'],
)
def test_other_paths_are_passed(path: str) -> None:
    assert not is_plain(path, 248)


def test_a_path_is_plain_up_to_the_limit() -> None:
    assert is_plain("/" + "a" * 9, 10)
    assert not is_plain("/" + "a" * 10, 10)


@given(PATHS)
def test_a_path_is_plain_exactly_if_tier_3_takes_it_as_it_is(path: str) -> None:
    try:
        unchanged = normalise_path(path) == path
    except RequestError:
        unchanged = False
    # A path is cut at "?" before; escapes and "//" are what tier 3 takes and the kernel does not.
    assert is_plain(path, 1000) == (unchanged and not re.search(r"[%?]|//", path))


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("a", "a"),
        ("A.Example.COM", "a.example.com"),
        ("a.test:8080", "a.test"),
        ("a.test.:80", "a.test"),
        ("a.test:", "a.test"),
        ("10.0.0.1", "10.0.0.1"),
        ("x_y-z.test", "x_y-z.test"),
        ("", None),
        (".", None),
        ("a..b", None),
        (".a", None),
        ("-a", None),
        ("a-.b", None),
        ("a.-b", None),
        ("a-", None),
        ("a:0", None),
        ("a:65536", None),
        ("a:000080", None),
        ("a:8o", None),
        ("a:80:80", None),
        ("[::1]", None),
        ("a b", None),
        ("\u212aelvin.test", None),
    ],
)
def test_hosts(field: str, name: str | None) -> None:
    assert plain_host(field, 128) == name


def test_a_host_is_plain_up_to_the_limit() -> None:
    assert plain_host("a" * 10 + ".:80", 10) == "a" * 10
    assert plain_host("a" * 11, 10) is None


@given(HOSTS)
def test_a_host_is_plain_exactly_if_tier_3_takes_it_and_it_is_a_name(field: str) -> None:
    try:
        expected: str | None = normalise_host(field)
    except RequestError:
        expected = None
    if expected is not None and (not expected or expected.startswith("[")):
        expected = None
    assert plain_host(field, 255) == expected


def test_the_longest_key_answers() -> None:
    entries = {"": 0, "/a": 1, "/a/b/": 2}
    assert [longest(entries, text) for text in ("/b/", "/ab/", "/a/b", "/a/b/", "/a/b/c/")] == [0, 1, 1, 2, 2]
    assert longest({"/a": 1}, "/b/") is None


@pytest.mark.parametrize(
    ("literal", "may"),
    [
        ("", True),
        ("/", True),
        ("/a/", True),
        ("/a/.", True),
        ("a", False),
        ("/a%", False),
        ("/a//", False),
        ("/é", False),
    ],
)
def test_literal_prefixes_that_a_plain_path_may_have(literal: str, may: bool) -> None:
    assert may_begin(literal, 248) is may


def test_a_literal_prefix_longer_than_paths_is_never_begun() -> None:
    assert may_begin("/" + "a" * 9, 10)
    assert not may_begin("/" + "a" * 10, 10)
