"""The format as a whole: the golden file, what of the model it reaches, and what is generated from it."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rauta.config import generate, load
from rauta.config.compose import Composer
from rauta.config.composite import Either, ListOf, MapOf, OneOrMany
from rauta.config.errors import Problems
from rauta.config.format import INCLUDED, ROOT, objects
from rauta.config.nodes import Mapping, Node, Sequence, plain
from rauta.config.plugins import PluginType
from rauta.config.reader import INVALID, Reader
from rauta.config.scalars import Choice
from rauta.config.schema import REQUIRED, Field, Object, Type
from rauta.config.source import Allowance
from rauta.routing.hosts import HostKind
from rauta.routing.model import Configuration

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[2] / "docs"
ALL = [(declared, field) for declared in objects() for field in declared.fields]


def params(pairs: list[tuple[Object, Field]]) -> list[Any]:
    return [pytest.param(declared, field, id=f"{declared.name}.{field.key}") for declared, field in pairs]


# What of the model no file can say, and why.
UNREACHABLE = {HostKind.ONE_LABEL: "the wildcard of a Kubernetes Ingress; in a file '*.' has any depth"}


def node_of(text: str) -> Node:
    node = Composer("test", Allowance()).compose(text)
    if node is None:
        raise ValueError("empty")
    return node


def dump(value: Any) -> Any:
    """A model as JSON: readable, and independent of where the checkout is."""
    if dataclasses.is_dataclass(value):
        named = {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"": type(value).__name__, **named}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, frozenset):
        return sorted(dump(item) for item in value)
    if isinstance(value, tuple):
        return [dump(item) for item in value]
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value)
    return value.replace(str(GOLDEN), ".") if isinstance(value, str) else value


@pytest.fixture
def golden(plugins: None) -> Configuration:
    return load(GOLDEN / "v1.yaml", check_files=False).configuration


def test_golden_file_means_what_is_written_beside_it(golden: Configuration) -> None:
    assert dump(golden) == json.loads((GOLDEN / "v1.json").read_text())


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def changed(value: Any, frozen: Any, place: str) -> Iterator[str]:
    """Where a model is not what it was: fields that are new since then must have their defaults."""
    if dataclasses.is_dataclass(value) and isinstance(frozen, dict):
        if frozen[""] != type(value).__name__:
            yield f"{place}: {frozen['']} became {type(value).__name__}"
            return
        fields = {field.name: field for field in dataclasses.fields(value)}
        yield from (f"{place}.{name} is gone" for name in frozen.keys() - {"", *fields})
        for name, field in fields.items():
            inner = getattr(value, name)
            if name in frozen:
                yield from changed(inner, frozen[name], f"{place}.{name}")
            elif inner != default_of(field):
                yield f"{place}.{name} is new, and {inner!r} instead of its default"
    elif isinstance(value, tuple) and isinstance(frozen, list) and len(value) == len(frozen):
        for position, (inner, old) in enumerate(zip(value, frozen, strict=True)):
            yield from changed(inner, old, f"{place}[{position}]")
    elif dump(value) != frozen:
        yield f"{place}: {frozen!r} became {dump(value)!r}"


# Never edit these files, nor what is beside them under their name: they stand for the files that people have. A test
# that fails here says that rauta would break those.
@pytest.mark.parametrize("name", ["frozen-0.1"])
def test_files_of_released_versions_mean_what_they_always_meant(plugins: None, name: str) -> None:
    loaded = load(GOLDEN / f"{name}.yaml", check_files=False)
    assert [*changed(loaded.configuration, json.loads((GOLDEN / f"{name}.json").read_text()), name)] == []


def test_a_change_of_meaning_is_seen(golden: Configuration) -> None:
    frozen = dump(golden)
    assert [*changed(golden, frozen, "v1")] == []
    del frozen["access_log"]  # as if it were new: what the file says of it is not the default
    frozen["services"][0]["backends"][1]["weight"] = 3
    frozen["routes"][0]["colour"] = "blue"
    frozen["routes"][4]["action"][""] = "Redirect"
    frozen["listeners"][1]["forwarded"] = ["FORWARDED"]
    assert {problem.split()[0].rstrip(":") for problem in changed(golden, frozen, "v1")} == {
        "v1.access_log",
        "v1.services[0].backends[1].weight",
        "v1.routes[0].colour",
        "v1.routes[4].action",
        "v1.listeners[1].forwarded",
    }


def used_keys(kind: Type, node: Node) -> Iterator[tuple[str, str]]:
    match kind, node:
        case (Object(), Mapping()):
            for field in kind.fields:
                if field.key in node.items:
                    yield kind.name, field.key
                    yield from used_keys(field.type, node.items[field.key])
        case (MapOf(), Mapping()):
            for child in node.items.values():
                yield from used_keys(kind.item, child)
        case (ListOf() | OneOrMany(), Sequence()):
            for child in node.items:
                yield from used_keys(kind.item, child)
        case (OneOrMany(), Mapping()):
            yield from used_keys(kind.item, node)
        case (PluginType(), Mapping()):
            yield from used_keys(kind.declared, node)
        case (Either(), _):
            yield from used_keys(next(option for option in kind.options if option.accepts(node)), node)


def test_golden_file_uses_every_key() -> None:
    used = {*used_keys(ROOT, node_of((GOLDEN / "v1.yaml").read_text()))}
    used |= {*used_keys(INCLUDED, node_of((GOLDEN / "v1.d/10-more.yaml").read_text()))}
    assert {(declared.name, field.key) for declared in objects() for field in declared.fields} == used


def model_types(hint: Any, found: set[Any]) -> None:
    """All dataclasses and enumerations that a type can hold."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        if hint in found:
            return
        if issubclass(hint, Enum) or dataclasses.is_dataclass(hint):
            found.add(hint)
        if dataclasses.is_dataclass(hint):
            for inner in typing.get_type_hints(hint).values():
                model_types(inner, found)
        return
    for inner in typing.get_args(hint):
        model_types(inner, found)


def reached(value: Any, found: set[Any]) -> None:
    """All fields that have another value than their default, and all members of enumerations."""
    if isinstance(value, Enum):
        found.add(value)
    elif isinstance(value, tuple | frozenset):
        for item in value:
            reached(item, found)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if inner != default_of(field):
                found.add((type(value), field.name))
            reached(inner, found)


def test_every_field_of_the_model_can_be_said_in_a_file(golden: Configuration) -> None:
    declared: set[Any] = set()
    model_types(Configuration, declared)
    wanted: set[Any] = set()
    for kind in declared:
        wanted |= {*kind} if issubclass(kind, Enum) else {(kind, field.name) for field in dataclasses.fields(kind)}
    found: set[Any] = set()
    reached(golden, found)
    for kind in (field.type for declared_object in objects() for field in declared_object.fields):
        for part in (kind, *kind.parts()):
            if isinstance(part, Choice):
                found |= {*part.values.values()}
    assert wanted - found == {*UNREACHABLE}


# --- generated ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"), [("config.md", generate.reference), ("rauta.schema.json", generate.schema_text)]
)
def test_generated_files_are_current(name: str, text: Any) -> None:
    assert (DOCS / name).read_text() == text(), "run: python -m rauta.config.generate"


def test_generate_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"config.md", "rauta.schema.json"}
    assert generate.main([str(tmp_path / "absent")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err


def decode(kind: Type, text: str) -> tuple[Any, list[str]]:
    problems = Problems()
    value = kind.decode(node_of(text), Reader("test", Path("/etc/rauta"), problems, {}))
    return value, [str(problem) for problem in problems.first]


@pytest.mark.parametrize(("declared", "field"), params([pair for pair in ALL if pair[1].key != "settings"]))
def test_examples_of_the_reference_are_right(declared: Object, field: Field) -> None:
    value, problems = decode(field.type, field.example)
    assert (value is INVALID, problems) == (False, [])


@pytest.mark.parametrize(("declared", "field"), params([pair for pair in ALL if generate.default_text(*pair)]))
def test_defaults_of_the_reference_are_those_of_the_model(declared: Object, field: Field) -> None:
    text = generate.default_text(declared, field)
    assert text is not None
    default = declared.default_of[field.key]
    assert default is not REQUIRED
    assert decode(field.type, text) == (default, [])


# --- JSON Schema ----------------------------------------------------------------------------------------

SCHEMA = generate.json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
INCLUDED_VALIDATOR = jsonschema.Draft202012Validator({**SCHEMA, "$ref": "#/$defs/included_file"})


def test_no_two_objects_have_one_name() -> None:
    """The reference and the schema know them by that."""
    found: dict[str, set[int]] = {}

    def walk(part: Type) -> None:
        if isinstance(part, Object):
            if id(part) in found.setdefault(part.name, set()):
                return
            found[part.name].add(id(part))
        for inner in part.parts():
            walk(inner)

    walk(ROOT)
    assert [name for name, those in found.items() if len(those) > 1] == []


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_schema_takes_the_golden_files() -> None:
    VALIDATOR.validate(plain(node_of((GOLDEN / "v1.yaml").read_text())))
    INCLUDED_VALIDATOR.validate(plain(node_of((GOLDEN / "v1.d/10-more.yaml").read_text())))


@pytest.mark.parametrize(("declared", "field"), params(ALL))
def test_schema_takes_every_example(declared: Object, field: Field) -> None:
    for name in ("examples", "default"):
        part = SCHEMA["$defs"][declared.name.replace(" ", "_")]["properties"][field.key]
        for value in part.get(name, []) if name == "examples" else [part[name]] if name in part else []:
            jsonschema.Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}).validate(value)


MINIMAL = "version: 1\nlisteners: {web: {address: ':8080'}}\nservices: {s: {backends: [{address: 'a:1'}]}}\n"


@pytest.mark.parametrize(
    "wrong",
    [
        "version: 2",
        "listeners: {}",
        MINIMAL + "lissteners: {}",
        MINIMAL + "workers: 0",
        MINIMAL + "workers: many",
        MINIMAL + "routes: {}",
        MINIMAL + "routes: [{name: r}]",
        MINIMAL + "routes: [{service: s}]",
        MINIMAL + "routes: [{name: r, service: s, respond: {}}]",
        MINIMAL + "routes: [{name: r, service: s, match: []}]",
        MINIMAL + "routes: [{name: r, service: s, match: {path: /a}}]",
        MINIMAL + "routes: [{name: r, service: s, match: {path: {prefix: a}}}]",
        MINIMAL + "routes: [{name: r, service: s, match: {path: {prefix: /a, exact: /a}}}]",
        MINIMAL + "routes: [{name: r, service: s, match: {hosts: []}}]",
        MINIMAL + "routes: [{name: r, service: s, match: {headers: [{name: a, present: yes}]}}]",
        MINIMAL + "routes: [{name: r, service: s, timeouts: {connect: 5}}]",
        MINIMAL + "routes: [{name: r, service: s, timeouts: {connect: 5 s}}]",
        MINIMAL + "routes: [{name: r, service: s, forwarded: [X-Forwarded-For]}]",
        MINIMAL + "routes: [{name: r, redirect: {status: 304, scheme: https}}]",
        MINIMAL + "routes: [{name: '-', service: s}]",
        MINIMAL + "offload: {mode: on}",
        MINIMAL + "access_log: {require: off}",
        "version: 1\nlisteners: {web: {}}",
        "version: 1\nlisteners: {web: {address: example.com:80}}",
        "version: 1\nlisteners: {web: {address: ':80', limits: {head: 1000}}}",
        "version: 1\nlisteners: {'a b': {address: ':80'}}",
        "version: 1\nservices: {s: {backends: []}}",
        "version: 1\nservices: {s: {backends: [{address: 'http://a:1'}]}}",
        "version: 1\nservices: {s: {backends: [{address: 'a:1', weight: -1}]}}",
    ],
)
def test_schema_and_loader_refuse_alike(wrong: str, bad: Any) -> None:
    assert not VALIDATOR.is_valid(plain(node_of(wrong)))
    assert bad(wrong)


def test_schema_keeps_what_belongs_to_the_main_file_out_of_included_ones() -> None:
    assert INCLUDED_VALIDATOR.is_valid({"routes": []})
    assert not INCLUDED_VALIDATOR.is_valid({"version": 1, "routes": []})
