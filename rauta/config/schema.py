"""What a file format is declared with. From one declaration come the decoder (nodes to objects, every problem with its
line), the JSON Schema (draft 2020-12) and the reference documentation.

A type decodes a node to a value, or reports problems to the reader and returns INVALID: so one file shows all of
its problems at once. Scalars are in `scalars`, lists and the like in `composite`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from rauta.config.nodes import Mapping, Node, Scalar, Sequence, shorten
from rauta.config.reader import INVALID, Reader
from rauta.routing.errors import ModelError

Json = dict[str, Any]


class Type(ABC):
    """What a value may be."""

    label: str
    """As in "expected ..." and in the documentation."""
    plural: str | None = None
    """As in "a list of ...", where that is not the label and an s."""

    @abstractmethod
    def decode(self, node: Node, reader: Reader) -> Any:
        """The value, or INVALID after reporting why."""

    @abstractmethod
    def schema(self, defs: dict[str, Json]) -> Json:
        """JSON Schema; objects with a name put their own into `defs` and refer to it."""

    @abstractmethod
    def accepts(self, node: Node) -> bool:
        """Whether the node's kind is this type's, whatever its value."""

    def show(self, value: Any) -> str:
        """A value (a default) as it is written in a file."""
        return str(value)

    def parts(self) -> Iterable[Type]:
        """The types that this one is made of."""
        return ()


REQUIRED: Final = dataclasses.MISSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of an object. It is required unless its attribute of the model has a default.

    `attribute` is the keyword that the object is built with (None: the key itself); `example` is YAML text;
    `absent` says what the default means where that is not a value that could be written.
    """

    key: str
    type: Type
    doc: str
    example: str
    attribute: str | None = None
    absent: str | None = None


@dataclass(kw_only=True, eq=False)
class Object(Type):
    """A mapping with known keys, built into `build(**values)`: by default the model's dataclass itself."""

    name: str
    doc: str
    model: type[Any]
    fields: tuple[Field, ...]
    build: Callable[..., Any] | None = None
    one_of: tuple[str, ...] = ()
    """Keys of which exactly one must be there."""
    required: tuple[str, ...] = ()
    """Keys that must be there although the model has a default; those without one are added."""
    instead: str | None = None
    """What to write where a person wrote plain text: `{prefix: %s}`."""
    meant: dict[str, str] = dataclasses.field(default_factory=dict)
    """What to write instead of these words, in lower case, or of a list (`[]`); empty: nothing, without the key."""
    hints: dict[str, str] = dataclasses.field(default_factory=dict)
    """What to do instead of likely unknown keys."""
    share: bool = False
    """Whether equal objects become one."""

    def __post_init__(self) -> None:
        self.label = f"{_article(self.name)} {self.name} object"
        self._build: Callable[..., Any] = self.build or self.model
        self._by_key = {field.key: (field.type.decode, field.attribute or field.key) for field in self.fields}
        defaults = _defaults_of(self.model)
        self.default_of = {field.key: defaults.get(field.attribute or field.key, REQUIRED) for field in self.fields}
        self.required = tuple(
            field.key
            for field in self.fields
            if field.key in self.required
            or (field.key not in self.one_of and field.absent is None and self.default_of[field.key] is REQUIRED)
        )

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Mapping)

    def decode(self, node: Node, reader: Reader) -> Any:
        return self.decode_as(node, reader, {})

    def decode_as(self, node: Node, reader: Reader, given: dict[str, Any]) -> Any:
        """Decode, and build with `given` in addition (a name that is the key of the object)."""
        values, valid = self.partial_values(node, reader)
        if not valid:
            return INVALID
        if given:
            values.update(given)
        # The same values make an equal object: it is looked up before it would be built.
        same = (self, *values.items()) if self.share else None
        if same is not None and (found := reader.memo.get(same)) is not None:
            return found
        try:
            built = self._build(**values)
        except ModelError as error:
            reader.model_error(node, error)
            return INVALID
        if same is not None:
            reader.memo[same] = built
        return built

    def values_of(self, node: Node, reader: Reader) -> Any:
        """The decoded values by attribute, or INVALID."""
        values, valid = self.partial_values(node, reader)
        return values if valid else INVALID

    def partial_values(self, node: Node, reader: Reader) -> tuple[dict[str, Any], bool]:
        """The values that could be decoded, by attribute, and whether those are all."""
        if not isinstance(node, Mapping):
            reader.wrong_kind(node, self.label, self._instead_of(node, reader))
            return {}, False
        values: dict[str, Any] = {}
        valid = True
        path = reader.path
        by_key = self._by_key
        path.append("")
        for key, child in node.items.items():
            known = by_key.get(key)
            if known is None:
                path.pop()
                self._unknown(node, key, reader)
                path.append("")
                valid = False
                continue
            path[-1] = key
            value = known[0](child, reader)
            if value is INVALID:
                valid = False
            else:
                values[known[1]] = value
        path.pop()
        return values, self._complete(node, reader) and valid

    def _instead_of(self, node: Node, reader: Reader) -> str | None:
        if (hint := hint_for(node, self.meant, reader)) is not None:
            return hint
        if not isinstance(node, Scalar) or node.value is None:
            return None
        return None if self.instead is None or isinstance(node.value, bool) else f"write {self.instead % node.text}"

    def _unknown(self, node: Mapping, key: str, reader: Reader) -> None:
        if reader.problems.full:
            reader.problems.more += 1
            return
        hint = self.hints.get(key)
        if hint is None:
            guess = reader.problems.nearest(key, self._by_key)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(self._by_key)}"
        reader.problem(node, f"unknown key; {hint}", mark=node.mark_of(key), key=shorten(key)[1:-1])

    def _complete(self, node: Mapping, reader: Reader) -> bool:
        complete = True
        items = node.items
        for key in self.required:
            if key not in items:
                reader.problem(node, f"the key {key!r} is missing in {self.label}")
                complete = False
        if self.one_of:
            there = [key for key in self.one_of if key in items]
            if len(there) != 1:
                seen = f"it has {_listed(there, 'and')}" if there else "it has none"
                reader.problem(node, f"exactly one of {_listed(self.one_of, 'and')} is needed here; {seen}")
                complete = False
        return complete

    def schema(self, defs: dict[str, Json]) -> Json:
        key = self.name.replace(" ", "_")  # or references would have to be escaped
        if key not in defs:
            body: Json = {"type": "object", "description": self.doc, "additionalProperties": False}
            defs[key] = body
            body["properties"] = {
                field.key: {"description": field.doc, **field.type.schema(defs)} for field in self.fields
            }
            if self.required:
                body["required"] = list(self.required)
            if self.one_of:
                body["oneOf"] = [{"required": [key]} for key in self.one_of]
        return {"$ref": f"#/$defs/{key}"}

    def show(self, value: Any) -> str:
        return "{}"

    def parts(self) -> Iterable[Type]:
        return [field.type for field in self.fields]


def switched(on: str, **more: str) -> dict[str, str]:
    """What is meant by words that turn something on (`on` is what does it in this format) and off; and by others."""
    return {**dict.fromkeys(("true", "yes", "on"), on), **dict.fromkeys(("false", "no", "off"), ""), **more}


def hint_for(node: Node, words: dict[str, str], reader: Reader) -> str | None:
    """What to write instead of a word, a list (`[]`) or an object (`{}`), as a hint; None: it is none of these."""
    found = words.get(node.text.lower() if isinstance(node, Scalar) else "[]" if isinstance(node, Sequence) else "{}")
    if found is None:
        return None
    return f"write {reader.path[-1]}: {found}" if found else "remove the key"


def _defaults_of(model: type[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(model):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _listed(names: Iterable[str], word: str) -> str:
    quoted = [repr(name) for name in names]
    return f"{', '.join(quoted[:-1])} {word} {quoted[-1]}" if len(quoted) > 1 else "".join(quoted)


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
