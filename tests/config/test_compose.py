"""YAML: what is text and what is not, what is refused, and that hostile files end soon."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rauta.config import ConfigError
from rauta.config.compose import MAX_DEPTH, Composer
from rauta.config.nodes import Mapping, Node, Scalar, Sequence, describe, plain, resolve
from rauta.config.source import MAX_NODES, Allowance

LOADERS = [pytest.param(yaml.BaseLoader, id="python")]
if yaml.__with_libyaml__:
    LOADERS.append(pytest.param(yaml.CBaseLoader, id="libyaml"))

both = pytest.mark.parametrize("loader", LOADERS)


def compose(text: str, loader: Any = yaml.BaseLoader) -> tuple[Node | None, list[str]]:
    allowance = Allowance()
    node = Composer("f", allowance).compose(text, loader)
    return node, [str(problem) for problem in allowance.problems.first]


def refused(text: str, loader: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(text, loader)
    return str(caught.value)


# --- YAML 1.2.2, 10.3.2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(text, text) for text in ("on", "off", "yes", "no", "On", "y", "n", "tRue", "nuLL", "<<", "=")],
        *[(text, text) for text in ("12:30", "1_000", "0b11", "017a", "2024-01-01", "1.2.3", "1e", "0x", "0o8", "0xg")],
        *[(text, text) for text in ("+", "-", ".", "..", "-0x1")],
        *[(text, None) for text in ("", "~", "null", "Null", "NULL")],
        *[(text, True) for text in ("true", "True", "TRUE")],
        *[(text, False) for text in ("false", "False", "FALSE")],
        *[("0", 0), ("-12", -12), ("+3", 3), ("0o17", 15), ("0x1f", 31), ("0xAB", 171), ("017", 17), ("-0", 0)],
        *[("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0), ("1e3", 1000.0), ("12e-1", 1.2)],
        *[(".inf", float("inf")), ("-.INF", -float("inf"))],
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    resolved = resolve(text)
    assert (resolved, type(resolved)) == (value, type(value))


def test_not_a_number_is_a_number() -> None:
    value = resolve(".nan")
    assert isinstance(value, float)
    assert value != value


@both
def test_quoted_scalars_are_text(loader: Any) -> None:
    node, _ = compose(
        """{a: "1", b: 'true', c: "", d: |-\n  12\n}""".replace("{", "").replace("}", "").replace(", ", "\n"), loader
    )
    assert node is not None
    assert plain(node) == {"a": "1", "b": "true", "c": "", "d": "12"}


@both
def test_keys_are_text(loader: Any) -> None:
    node, problems = compose("{1: a, true: b, ~: c, <<: {d: e}}", loader)
    assert node is not None
    assert plain(node) == {"1": "a", "true": "b", "~": "c", "<<": {"d": "e"}}
    assert problems == []


def test_a_number_too_long_to_be_one_is_a_problem() -> None:
    _, problems = compose(f"a: {'9' * 5000}")
    assert problems == ["f:1: a: the number has 5000 digits; 40 are allowed"]


# --- places ---------------------------------------------------------------------------------------------


@both
def test_places_count_from_one_and_a_collection_has_its_keys_place(loader: Any) -> None:
    node, _ = compose("a: 1\nb:\n  c: [x,\n    y]\n", loader)
    assert isinstance(node, Mapping)
    a, b = node.items["a"], node.items["b"]
    assert (a.line, a.column) == (1, 4)
    assert (b.line, b.column) == (2, 1)
    assert node.mark_of("b") == (2, 1)
    assert isinstance(b, Mapping)
    c = b.items["c"]
    assert isinstance(c, Sequence)
    assert [(item.line, item.column) for item in c.items] == [(3, 7), (4, 5)]


def test_what_was_seen_is_described() -> None:
    node, _ = compose("[{}, [], ~, true, 1, 0x10, 1.5, text]")
    assert isinstance(node, Sequence)
    assert [describe(item) for item in node.items] == [
        "an object",
        "a list",
        "nothing (null)",
        "the boolean true",
        "the integer 1",
        "the integer 0x10",
        "the number 1.5",
        "the text 'text'",
    ]


_TAG_HINT = ": remove it (text that looks like a number is written in quotes)"


# --- refused --------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3", ["f:3: a: the key 'a' is there twice, first in line 1"]),
        ("r:\n- {x: {p: 1, p: {q: 2}}, y: 1}", ["f:2: r[0].x.p: the key 'p' is there twice, first in line 2"]),
        ('a: 1\n"a": [1, {b: c}]\nd: 4', ["f:2: a: the key 'a' is there twice, first in line 1"]),
        ("a: !!str 1", ["f:1: a: the tag '!!str' is not supported" + _TAG_HINT]),
        ("a: [1, !x {}]", ["f:1: a[1]: the tag '!x' is not supported" + _TAG_HINT]),
    ],
)
def test_problems_that_leave_the_structure_intact_are_collected(text: str, problems: list[str], loader: Any) -> None:
    assert compose(text, loader)[1] == problems


@both
def test_of_a_duplicate_the_first_value_stays(loader: Any) -> None:
    node, _ = compose("a: 1\na: {x: [1]}\nb: 2", loader)
    assert node is not None
    assert plain(node) == {"a": 1, "b": 2}
    assert isinstance(node, Mapping)
    assert node.mark_of("b") == (3, 1)


@both
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n---\nb: 2", "f:2: a second document starts here: write one per file and use 'include'"),
        ("%YAML 1.1\n---\na: 1", "f:1: the file is read as YAML 1.2, not 1.1: remove the line '%YAML 1.1'"),
        ("a: {{ b }}", "f:1: a: a key must be text, not an object: '{{ }}' of a template was not filled in?"),
        ("? [a]\n: b", "f:1: a key must be text, not a list"),
        ("a: *b", "f:1: a: '*b' refers to no anchor '&b' before it"),
        ("base: &base 1\na: *bsae", "f:2: a: '*bsae' refers to no anchor '&bsae' before it; did you mean '*base'?"),
        ("a: &a [1, *a]", "f:1: a[1]: '*a' stands inside what it refers to"),
        ("a: &a {b: {c: *a}}", "f:1: a.b.c: '*a' stands inside what it refers to"),
        ("a: &a [1]\n*a : 2", "f:2: a key must be text, and '*a' is not"),
        ("a:\n\tb: 1", "f:2: a tab stands where YAML allows only spaces: indent with spaces"),
    ],
)
def test_what_cannot_be_read_further_is_one_clear_message(text: str, message: str, loader: Any) -> None:
    assert refused(text, loader) == message


@both
@pytest.mark.parametrize(
    "text", ["a: [1, 2", "a: 'x", "a: b: c", "a: @x", "- a\nb: c", 'a: "\\q"', 'a: "\\ud800"', "&a", "*a", "!"]
)
def test_syntax_errors_are_one_line_with_a_place(text: str, loader: Any) -> None:
    try:
        compose(text, loader)
    except ConfigError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(("f:1: ", "f:2: "))


@both
def test_aliases_stand_for_what_they_name(loader: Any) -> None:
    node, problems = compose("a: &x {k: &y [1, 2]}\nb: *x\nc: *y\n&n name: v\nd: {*n : 1}", loader)
    assert node is not None
    assert plain(node) == {"a": {"k": [1, 2]}, "b": {"k": [1, 2]}, "c": [1, 2], "name": "v", "d": {"name": 1}}
    assert problems == []


# --- hostile --------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "[\n" * 100_000])
def test_depth_is_bounded(text: str, loader: Any) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError):
        compose(text, loader)
    assert time.monotonic() - started < 10


def test_depth_up_to_the_limit_is_read() -> None:
    assert compose("[" * MAX_DEPTH + "]" * MAX_DEPTH)[0] is not None
    assert (
        refused("[" * (MAX_DEPTH + 1), yaml.BaseLoader)
        == f"f:1: {'[0]' * MAX_DEPTH}: nested more than {MAX_DEPTH} levels deep"
    )


@both
def test_billion_laughs_are_counted_not_expanded(loader: Any) -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    message = refused("\n".join(lines), loader)
    assert f"more than {MAX_NODES} values, those that aliases stand for included" in message


def test_nodes_are_bounded_over_all_files() -> None:
    allowance = Allowance(nodes=6)
    Composer("one", allowance).compose("[1, 2]")
    with pytest.raises(ConfigError, match=r"two:1: \[2\]: more than"):
        Composer("two", allowance).compose("[1, 2, 3]")


# --- properties -----------------------------------------------------------------------------------------


def reference(node: Any) -> Any:
    """What PyYAML composed, as plain values; scalars by the function under test."""
    if isinstance(node, yaml.MappingNode):
        return {key.value: reference(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [reference(item) for item in node.value]
    return resolve(node.value) if node.style is None else node.value


_KEYS = st.text("abcdef", min_size=1, max_size=3)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=20,
)


@both
@given(value=_VALUES, flow=st.booleans())
@settings(max_examples=100, deadline=None)
def test_what_pyyaml_writes_is_read_as_pyyaml_composes_it(value: Any, flow: bool, loader: Any) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    node, problems = compose(text, loader)
    assert problems == []
    assert node is not None
    assert plain(node) == reference(yaml.compose(text, Loader=yaml.SafeLoader))


def test_libyaml_is_used_where_there_is_one() -> None:
    assert yaml.__with_libyaml__, "the wheels have it; without, loading takes many times as long"
    assert isinstance(Composer("f", Allowance()).compose("a"), Scalar)


def test_this_directory_is_where_the_golden_files_are() -> None:
    assert (Path(__file__).parent / "golden" / "v1.yaml").exists()
