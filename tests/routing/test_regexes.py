"""The regex budget, the linear-time engine behind it, and the literal prefixes that the index relies on."""

from __future__ import annotations

from time import perf_counter

import pytest
import re2
from hypothesis import given
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
    ["a", "b", "/", r"\.", ".", "[ab]", "[^/]", r"\d", r"\w", "(ab)", "(a|b)", "(?:/a)", "-", "^", "$"]
)
SUFFIXES = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{0,1}", "*?"])
PIECES = st.tuples(ATOMS, SUFFIXES).map(lambda piece: piece[0] + (piece[1] if piece[0] not in "^$" else ""))
PATTERNS = st.one_of(
    st.lists(PIECES, min_size=1, max_size=6).map("".join),
    st.tuples(st.lists(PIECES, max_size=3).map("".join), st.lists(PIECES, max_size=3).map("".join)).map("|".join),
)
SUBJECTS = st.text("ab/.-1", max_size=8)


def test_a_hostile_path_is_decided_by_the_linear_engine() -> None:
    pattern, budget = Pattern(HOSTILE), Budget()
    assert not pattern.linear
    assert not pattern.matches("a" * 60 + "!", budget)
    assert pattern.linear
    assert budget.left <= 0
    assert pattern.matches("a" * 60, Budget())
    started = perf_counter()
    assert not pattern.matches("a" * 60_000 + "!", Budget())
    assert perf_counter() - started < 1, "backtracking would take longer than the universe has"


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


@given(PATTERNS, SUBJECTS)
def test_both_engines_agree(pattern: str, subject: str) -> None:
    fast = Pattern(pattern)
    slow = re2.compile(pattern)
    assert fast.matches(subject, Budget(1.0)) == (slow.fullmatch(subject) is not None)
    assert not fast.linear


@given(PATTERNS, SUBJECTS)
def test_every_match_starts_with_the_literal_prefix(pattern: str, subject: str) -> None:
    if Pattern(pattern).matches(subject, Budget(1.0)):
        assert subject.startswith(literal_prefix(pattern))


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
        ("(?i)/a", ""),
        ("/a(?i)b", ""),
        ("/a(?i:b)", ""),
        ("/a(?V1)b", ""),
        ("/a(?=b)b", "/a"),
        ("(?P<x>/a)", ""),
        ("/foo{e<=1}", "/fo"),
    ],
)
def test_literal_prefixes(pattern: str, literal: str) -> None:
    assert literal_prefix(pattern) == literal


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("/a(", "missing \\)"),
        ("/[a", "unterminated"),
        ("/ä", "not ASCII"),
        ("a" * 5000, "4096 are allowed"),
        ("*", "repeat"),
    ],
)
def test_bad_patterns(pattern: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        check_pattern(pattern, where="regex")
    assert caught.value.problems[0].where == ("regex",)


@pytest.mark.parametrize(("pattern", "linear"), [("/a+", True), (HOSTILE, True), ("/a(?!b)", False), (r"(a)\1", False)])
def test_what_the_linear_engine_can_take(pattern: str, linear: bool) -> None:
    assert is_linear(pattern) is linear
