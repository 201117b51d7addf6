"""Properties of path normalisation; examples stand in docs/routing.md."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rauta.routing.errors import RequestError
from rauta.routing.paths import check_query, normalise_path, prefix_matches
from rauta.routing.request import parse_target

# Text that is dense in what normalisation looks at, and text that is anything at all.
PIECES = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "a",
        "Z",
        "~",
        "-",
        "%2e",
        "%2E",
        "%2f",
        "%5C",
        "%41",
        "%25",
        "%00",
        "%",
        "%zz",
        "%7f",
        ";",
        "é",
    ]
)
DENSE = st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces))
ANYTHING = st.text(st.characters(max_codepoint=255), max_size=40).map(lambda text: "/" + text)
PATHS = st.one_of(DENSE, ANYTHING)


def normalised(path: str) -> str | None:
    try:
        return normalise_path(path)
    except RequestError:
        return None


@given(PATHS)
@example("/%2E%2E%2F")
@example("/%252e%252e/")
def test_normalising_twice_is_normalising_once(path: str) -> None:
    once = normalised(path)
    if once is not None:
        assert normalise_path(once) == once


@given(PATHS)
def test_what_comes_out_is_safe(path: str) -> None:
    once = normalised(path)
    if once is not None:
        assert once.startswith("/")
        assert not {".", ".."} & set(once.split("/"))
        assert re.fullmatch(r"(?:[!$&-;=@-\[\]-z|~]|%[0-9A-F]{2})*", once.upper().replace("%00", "\0"))


@given(PATHS)
def test_it_still_names_the_same_bytes(path: str) -> None:
    """Decoding commutes with normalising where no segment is removed: nothing is decoded twice or not at all."""
    once = normalised(path)
    if once is not None and not {b".", b".."} & set(unquote_to_bytes(path).split(b"/")):
        assert unquote_to_bytes(once) == unquote_to_bytes(path)


@given(st.lists(st.sampled_from(["a", "b", ".", "..", "%2e", "%2E."]), min_size=1, max_size=8))
def test_dot_segments_agree_with_another_implementation(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    decoded = path.replace("%2e", ".").replace("%2E", ".")
    depth, escapes = 0, False
    for segment in decoded.split("/")[1:]:
        depth += {".": 0, "..": -1}.get(segment, 1)
        escapes = escapes or depth < 0
    if escapes:
        assert normalised(path) is None
    else:
        trailing = decoded.split("/")[-1] in (".", "..")
        expected = posixpath.normpath(decoded)
        assert normalise_path(path) == (expected if expected == "/" else expected + "/" * trailing)


@given(PATHS)
def test_a_path_that_nothing_changes_goes_on_byte_for_byte(path: str) -> None:
    once = normalised(path)
    needs_change = re.search(
        r"%(?:2[Dd]|2[Ee]|[46][1-9A-Fa-f]|[57][0-9Aa]|3[0-9]|5[Ff]|7[Ee]|.?[a-f])|/\.{1,2}(?:/|$)", path
    )
    if once is not None and not needs_change:
        assert once == path


@pytest.mark.parametrize("path", ["/a%2fb", "/a%5Cb", "/%2F"])
def test_encoded_slashes_can_be_refused(path: str) -> None:
    assert normalise_path(path) == path.upper().replace("A", "a").replace("B", "b")
    with pytest.raises(RequestError) as caught:
        normalise_path(path, reject_encoded_slash=True)
    assert caught.value.reason == "encoded_slash"


@pytest.mark.parametrize("path", ["/a%252fb", "/a/b", "/%2e"])
def test_other_escapes_stay_allowed_then(path: str) -> None:
    assert normalise_path(path, reject_encoded_slash=True)


@pytest.mark.parametrize("char", [*map(chr, range(0x21)), "\x7f", "\x80", "\xff", "#", "<", ">", '"', "{", "}"])
def test_no_such_byte_in_path_or_query(char: str) -> None:
    with pytest.raises(RequestError):
        normalise_path(f"/a{char}b")
    with pytest.raises(RequestError):
        check_query(f"a={char}b")


@given(PATHS, PATHS)
def test_prefixes_go_element_by_element(prefix: str, path: str) -> None:
    key, full = prefix.rstrip("/"), path
    elements, wanted = full.split("/")[1:], key.split("/")[1:]
    assert prefix_matches(key, full) == (elements[: len(wanted)] == wanted)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/a?b=c?d", ("/a", "b=c?d", None)),
        ("GET", "/a?", ("/a", "", None)),
        ("GET", "http://Ex.test:80/a/../b?q", ("/b", "q", "Ex.test:80")),
        ("GET", "HTTPS://ex.test", ("/", None, "ex.test")),
        ("GET", "http://ex.test?q=1", ("/", "q=1", "ex.test")),
        ("OPTIONS", "*", ("*", None, None)),
        ("OPTIONS", "http://ex.test", ("*", None, "ex.test")),
        ("GET", "//ex.test/a", ("//ex.test/a", None, None)),
    ],
)
def test_targets(method: str, target: str, expected: tuple[str, str | None, str | None]) -> None:
    found = parse_target(method, target)
    assert (found.path, found.query, found.authority) == expected


@pytest.mark.parametrize(
    "target", ["*", "", "a", "ex.test:80", "ftp://ex.test/", "http:///a", "http:/a", "http://", "/a?b#c"]
)
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_target("GET", target)
    assert caught.value.status == 400
