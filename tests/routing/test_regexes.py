"""The regex budget, the linear-time engine behind it, and the literal prefixes that the index relies on."""

from __future__ import annotations

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rauta.routing import regexes
from rauta.routing.errors import ModelError
from rauta.routing.regexes import (
    Budget,
    Pattern,
    RegexTimeoutError,
    check_pattern,
    is_linear,
    literal_prefix,
    pattern_of,
)

HOSTILE = "(a|aa)+$"
ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "/",
        r"\.",
        ".",
        "[ab]",
        "[^/]",
        "[a-b-]",
        r"[\d_]",
        r"\d",
        r"\w",
        r"\W",
        "(ab)",
        "(a|b)",
        "(?:/a)",
        "-",
        r"\b",
        r"\x61",
    ]
)
SUFFIXES = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{0,1}", "{1,}", "*?"])
PIECES = st.tuples(ATOMS, SUFFIXES).map(lambda piece: piece[0] + (piece[1] if piece[0] != r"\b" else ""))
# What the engines read differently, or what changes the meaning of what stands before it.
ODD = st.sampled_from(
    [
        "{,2}",
        "(?#x)",
        "(?i)",
        "(?i:a)",
        r"\s",
        r"\S",
        r"\pL",
        r"\p{L}",
        "++",
        "^",
        "$",
        r"\Z",
        r"\A",
        "[[:alpha:]]",
        "[]a]",
        "[a--b]",
        "[a&&b]",
        "{e}",
        "{",
        "}",
        r"\Qa\E",
        r"\K",
        "(?>a)",
        "(?R)",
        r"\N",
        r"\h",
        r"\0",
        "\\",
        "(",
        ")",
        "[",
        "|",
        "*",
        "(?x)",
        r"\C",
        r"\v",
    ]
)
PATTERNS = st.one_of(
    st.lists(PIECES, min_size=1, max_size=6).map("".join),
    st.tuples(st.lists(PIECES, max_size=3).map("".join), st.lists(PIECES, max_size=3).map("".join)).map("|".join),
)
ANY_PATTERNS = st.lists(PIECES | ODD, min_size=1, max_size=6).map("".join) | st.text(
    "ab/.-[](){}?*+|\\^$,:#iPs<>=!1", max_size=12
)
SUBJECTS = st.text("ab/.-1", max_size=8) | st.text("aA/\n\t\v _\x85\xb5\xe9\u017f\u212a", max_size=6)


def test_a_hostile_path_is_decided_by_the_linear_engine() -> None:
    pattern, budget = Pattern(HOSTILE), Budget()
    assert not pattern.linear
    assert not pattern.matches("a" * 60 + "!", budget)
    assert pattern.linear
    assert budget.left <= 0
    assert pattern.matches("a" * 60, Budget())
    assert not pattern.matches("a" * 60_000 + "!", Budget()), "and this ends: backtracking would not in our time"


def test_one_budget_serves_all_patterns_of_a_request() -> None:
    budget = Budget(0.002)
    slow, other = Pattern(HOSTILE), Pattern("/a")
    slow.matches("a" * 60 + "!", budget)
    assert other.matches("/a", budget)
    assert other.linear, "nothing was left for it, so the linear engine decided"


def test_without_a_linear_engine_it_is_an_error_and_then_a_small_budget() -> None:
    pattern = Pattern(r"((a|aa)+)\1c")
    hostile = "a" * 60 + "!"
    with pytest.raises(RegexTimeoutError):
        pattern.matches(hostile, Budget())
    budget = Budget()
    with pytest.raises(RegexTimeoutError):
        pattern.matches(hostile, budget)
    assert budget.left > regexes.REGEX_BUDGET / 2, "the second time it got the small budget"
    assert pattern.matches("aac", Budget()), "honest requests are still decided"


def test_what_a_pattern_learned_survives_a_reload() -> None:
    first = pattern_of("(b|bb)+$")
    first.matches("b" * 60 + "!", Budget())
    assert pattern_of("(b|bb)+$") is first
    assert first.linear


def allowed(pattern: str) -> bool:
    try:
        check_pattern(pattern, where="regex")
    except ModelError:
        return False
    return True


@given(PATTERNS)
def test_what_is_built_from_the_dialect_is_allowed(pattern: str) -> None:
    assert allowed(pattern)


@settings(max_examples=400)
@given(PATTERNS | ANY_PATTERNS, SUBJECTS)
@example("(a|aa)+b{,2}", "aab")
@example("a$[^b]", "a\n")
@example("/ab(?#c)?c", "/ac")
@example(r"\s", "\v")
def test_both_engines_agree_and_every_match_starts_with_the_literal_prefix(pattern: str, subject: str) -> None:
    """Or a client could change what a route means, or pass a rule that the index does not find."""
    if not allowed(pattern):
        return
    fast = Pattern(pattern)
    found = fast.matches(subject, Budget(1.0))
    assert not found or subject.startswith(literal_prefix(pattern))
    if is_linear(pattern):
        assert found == (re2.compile(pattern).fullmatch(subject) is not None)


@given(st.text(max_size=30) | ANY_PATTERNS)
def test_any_text_is_a_pattern_or_a_model_error(pattern: str) -> None:
    allowed(pattern)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("(?i)/a", "flags and extensions"),
        ("(?V1)/a", "flags and extensions"),
        ("/a(?#x)?", "comments"),
        ("/a(?R)", "flags and extensions"),
        (r"/a\s", r"write a space or \[ \\t\]"),
        (r"/\pL", "Unicode properties"),
        ("/a{,2}", r"write \\\{"),
        ("/a{e<=1}", r"write \\\{"),
        ("/a}", r"write \\\}"),
        ("/a++", "repeats twice"),
        ("/a{2}{3}", "repeats twice"),
        ("*a", "nothing to repeat"),
        ("a|*b", "nothing to repeat"),
        ("/a{1001}", "more than 1000"),
        ("/a{3,2}", "at least more than at most"),
        ("/a^b", "first character"),
        ("/a$b", "last character"),
        ("(?:(?:a{1000}){1000}){1000}", "more than 10000 characters"),
        ("(?:abc[de]{100}){100}", "more than 10000 characters"),
        ("/(a", "group is not closed"),
        ("/a)", "no group to close"),
        ("/[a", "class is not closed"),
        ("/[]", "class is empty"),
        ("/[z-a]", "upside down"),
        (r"/[\w-z]", "range cannot begin"),
        ("/[[:alpha:]]", r"write \\\["),
        ("(" * 51 + "a" + ")" * 51, "more than 50 groups"),
        ("/\n", "not allowed"),
        ("/ä", "not ASCII"),
        ("a" * 5000, "4096 are allowed"),
        (r"(a)\2", "group"),
    ],
)
def test_what_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        check_pattern(pattern, where="regex")
    assert caught.value.problems[0].where == ("regex",)


@pytest.mark.parametrize(
    "pattern",
    [
        r"/a\$",
        r"^/a$",
        "/a{1000}",
        "/[-a]",
        "/[a-]",
        "/[^-a]",
        r"/[\]\-\[]",
        r"(a)\1",
        "(?P<x>a)(?P=x)",
        "(?<=/)a",
        "a|",
        "()",
        "/a=b&c",
        "(?:[0-9]{4}){100}",
    ],
)
def test_what_is_allowed(pattern: str) -> None:
    check_pattern(pattern, where="regex")


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("/users/[0-9]+", "/users/"),
        ("/users", "/users"),
        ("^/users$", "/users"),
        (r"/a\.b/.*", "/a.b/"),
        ("/ab?", "/a"),
        ("/ab*c", "/a"),
        ("/ab{0,2}", "/a"),
        ("/ab+c", "/ab"),
        (r"/a\d", "/a"),
        (r"/a\x41", "/a"),
        ("/a(b)", "/a"),
        ("/a|/b", ""),
        ("/a(x|y)", ""),
        ("/a(?=b)b", "/a"),
        ("(?P<x>/a)", ""),
    ],
)
def test_literal_prefixes(pattern: str, literal: str) -> None:
    assert literal_prefix(pattern) == literal


@pytest.mark.parametrize(("pattern", "linear"), [("/a+", True), (HOSTILE, True), ("/a(?!b)", False), (r"(a)\1", False)])
def test_what_the_linear_engine_can_take(pattern: str, linear: bool) -> None:
    assert is_linear(pattern) is linear
