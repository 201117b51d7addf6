"""Types of values with parts: lists, objects by name, alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from rauta.config.nodes import Mapping, Node, Scalar, Sequence
from rauta.config.reader import INVALID, Reader
from rauta.config.schema import Json, Object, Type, hint_for


class ListOf(Type):
    """A list. `collect` makes the value of the items; `empty` says what to do instead of writing an empty list.

    With `unique`, equal items are a problem. With `keep`, invalid items stay in their places as INVALID. With `share`,
    lists of the same texts are one value, which is decoded once: the items must depend on nothing but their text.
    `instead` is what to write where a person wrote plain text, or a table of that: for words in lower case, for an
    object (`{}`) and for other text (`%s`).
    """

    def __init__(
        self,
        item: Type,
        *,
        collect: Callable[[list[Any]], Any] = tuple,
        empty: str | None = None,
        unique: bool = False,
        keep: bool = False,
        share: bool = False,
        instead: str | dict[str, str] | None = "[%s]",
    ) -> None:
        self.item = item
        self.label = f"a list of {item.plural}" if item.plural else _list_label(item.label)
        self._collect = collect
        self._empty = empty
        self._unique = unique
        self._keep = keep
        self._share = share
        self._meant = dict(instead) if isinstance(instead, dict) else {}
        self._instead = self._meant.pop("%s", None) if isinstance(instead, dict) else instead

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Sequence)

    def decode(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Sequence):
            reader.wrong_kind(node, self.label, self._instead_of(node, reader))
            return INVALID
        if self._empty is not None and not node.items:
            reader.problem(node, f"the list is empty: {self._empty}")
            return INVALID
        if not self._share:
            return self._decode_items(node, reader)
        same = (self, *[child.value for child in node.items if child.__class__ is Scalar])
        found = reader.memo.get(same)
        if found is not None and len(same) == len(node.items) + 1:
            return found
        found = self._decode_items(node, reader)
        if found is not INVALID:
            reader.memo[same] = found
        return found

    def _instead_of(self, node: Node, reader: Reader) -> str | None:
        if (hint := hint_for(node, self._meant, reader)) is not None:
            return hint
        if self._instead is None or not isinstance(node, Scalar) or node.value is None or isinstance(node.value, bool):
            return None
        return f"write {self._instead % node.text}"

    def _decode_items(self, node: Sequence, reader: Reader) -> Any:
        values = []
        seen: set[Any] = set()
        valid = True
        decode = self.item.decode
        path = reader.path
        path.append(0)
        for position, child in enumerate(node.items):
            path[-1] = position
            value = decode(child, reader)
            if self._unique and value is not INVALID:
                if value in seen:
                    reader.problem(child, "this is in the list twice")
                    value = INVALID
                seen.add(value)
            valid = valid and value is not INVALID
            values.append(value)
        path.pop()
        if self._keep:
            return values
        if not valid:
            return INVALID
        collected = self._collect(values)
        return collected if collected else _EMPTY.get(type(collected), collected)

    def schema(self, defs: dict[str, Json]) -> Json:
        body: Json = {"type": "array", "items": self.item.schema(defs)}
        if self._empty is not None:
            body["minItems"] = 1
        if self._unique:
            body["uniqueItems"] = True
        return body

    def show(self, value: Any) -> str:
        return f"[{', '.join(self.item.show(item) for item in value)}]"

    def parts(self) -> Iterable[Type]:
        return (self.item,)


def _list_label(item: str) -> str:
    article, _, noun = item.partition(" ")
    return f"a list of {noun}s" if article in ("a", "an") else f"a list, each {item}"


_EMPTY: Final[dict[type[Any], Any]] = {tuple: (), frozenset: frozenset()}


class MapOf(Type):
    """A mapping from names to objects, which are built with `name`. The value is a dict; what is invalid stays in it
    as INVALID, so that references to it are not reported as well."""

    def __init__(self, item: Object) -> None:
        self.item = item
        self.label = f"an object of names and {item.name} objects"

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Mapping)

    def decode(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Mapping):
            reader.wrong_kind(node, self.label)
            return INVALID
        values: dict[str, Any] = {}
        path = reader.path
        for name, child in node.items.items():
            path.append(name)
            values[name] = self.item.decode_as(child, reader, {"name": name})
            path.pop()
        return values

    def schema(self, defs: dict[str, Json]) -> Json:
        return {
            "type": "object",
            "propertyNames": {"pattern": "^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"},
            "additionalProperties": self.item.schema(defs),
        }

    def parts(self) -> Iterable[Type]:
        return (self.item,)


class Pairs(Type):
    """A mapping from names to texts, or with `many` also to lists of them. The value is a tuple of (name, text) in the
    order of the file. Names that differ in case only are the same header field, of which one would win silently."""

    def __init__(self, item: Type, *, many: bool = False) -> None:
        self.item = item
        self.label = "an object of names and texts"
        self._many = ListOf(item, empty="leave the name out") if many else None

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Mapping)

    def decode(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Mapping):
            reader.wrong_kind(node, self.label)
            return INVALID
        pairs: list[tuple[str, Any]] = []
        names: dict[str, str] = {}
        valid = True
        path = reader.path
        for name, child in node.items.items():
            path.append(name)
            first = names.setdefault(name.lower(), name)
            if first is not name:
                reader.problem(child, f"{name!r} and {first!r} are the same header field")
                valid = False
            values = self._values(child, reader)
            valid = valid and INVALID not in values
            pairs += [(name, value) for value in values]
            path.pop()
        return tuple(pairs) if valid else INVALID

    def _values(self, node: Node, reader: Reader) -> tuple[Any, ...]:
        if self._many is not None and isinstance(node, Sequence):
            values = self._many.decode(node, reader)
            return (INVALID,) if values is INVALID else values
        return (self.item.decode(node, reader),)

    def schema(self, defs: dict[str, Json]) -> Json:
        one = self.item.schema(defs)
        value = one if self._many is None else {"anyOf": [one, self._many.schema(defs)]}
        return {"type": "object", "additionalProperties": value}

    def show(self, value: Any) -> str:
        return f"{{{', '.join(f'{name}: {self.item.show(text)}' for name, text in value)}}}"

    def parts(self) -> Iterable[Type]:
        return (self.item,)


class OneOrMany(Type):
    """One object, or a list of them. The value is a tuple."""

    def __init__(self, item: Object, *, empty: str) -> None:
        self.item = item
        self._many = ListOf(item, empty=empty)
        self.label = f"{item.label} or {self._many.label}"

    def accepts(self, node: Node) -> bool:
        return not isinstance(node, Scalar)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Mapping):
            value = self.item.decode(node, reader)
            return INVALID if value is INVALID else (value,)
        if isinstance(node, Sequence):
            return self._many.decode(node, reader)
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"anyOf": [self.item.schema(defs), self._many.schema(defs)]}

    def parts(self) -> Iterable[Type]:
        return (self.item,)


class Either(Type):
    """One of several types; the first that accepts the node's kind decodes it."""

    def __init__(self, *options: Type) -> None:
        self.options = options
        self.label = " or ".join(option.label for option in options)

    def accepts(self, node: Node) -> bool:
        return any(option.accepts(node) for option in self.options)

    def decode(self, node: Node, reader: Reader) -> Any:
        for option in self.options:
            if option.accepts(node):
                return option.decode(node, reader)
        reader.wrong_kind(node, self.label)
        return INVALID

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"anyOf": [option.schema(defs) for option in self.options]}

    def show(self, value: Any) -> str:
        return self.options[0].show(value)

    def parts(self) -> Iterable[Type]:
        return self.options


class Raw(Type):
    """A value that is decoded later, when it is known what decodes it: the value is the node."""

    label = "an object"

    def accepts(self, node: Node) -> bool:
        return True

    def decode(self, node: Node, reader: Reader) -> Any:
        return node

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "object"}
