"""Plugins in a file: their names are looked up, and their settings decoded by the class's own typed `Settings`.

`Settings` is a frozen dataclass. Its fields may be str, int, float, bool, an Enum, a nested dataclass,
`tuple[T, ...]` of those, and `T | None`; `field(metadata={"doc": "..."})` documents one.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

from rauta.config.composite import ListOf, Raw
from rauta.config.nodes import Mapping, Node, Scalar, shorten
from rauta.config.reader import INVALID, Reader
from rauta.config.scalars import Boolean, Choice, Integer, Number, Text
from rauta.config.schema import Field, Json, Object, Type
from rauta.routing.errors import ModelError, RautaError
from rauta.routing.plugins import PluginError, available, load_class
from rauta.routing.services import Plugin

_SIMPLE: Final[dict[Any, Callable[[], Type]]] = {str: Text, int: Integer, float: Number, bool: Boolean}


class SettingsError(RautaError):
    """A plugin's `Settings` has a type that this format cannot hold: the plugin's mistake, not the file's."""


class Optional(Type):
    """`T | None`: null stands for None."""

    def __init__(self, item: Type) -> None:
        self.item = item
        self.label = f"{item.label} or null"

    def accepts(self, node: Node) -> bool:
        return self.item.accepts(node) or (isinstance(node, Scalar) and node.value is None)

    def decode(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar) and node.value is None:
            return None
        return self.item.decode(node, reader)

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"anyOf": [self.item.schema(defs), {"type": "null"}]}

    def show(self, value: Any) -> str:
        return "null" if value is None else self.item.show(value)

    def parts(self) -> Iterable[Type]:
        return (self.item,)


def settings_type(settings: type[Any]) -> Object:
    """The type of a plugin's `Settings`, for decoding and for showing its keys. Raises SettingsError."""
    return _object_of(settings, ())


def _object_of(model: Any, enclosing: tuple[Any, ...]) -> Object:
    name = getattr(model, "__qualname__", str(model))
    if not isinstance(model, type) or not dataclasses.is_dataclass(model):
        raise SettingsError(f"{name} is not a dataclass")
    if model in enclosing:
        raise SettingsError(f"{name} contains itself")
    try:
        hints = typing.get_type_hints(model)
    except Exception as error:  # foreign annotations: evaluating them can raise anything
        raise SettingsError(f"the annotations of {name} cannot be resolved: {error!r}") from error
    fields = [
        Field(
            key=field.name,
            type=_type_of(hints[field.name], f"{name}.{field.name}", (*enclosing, model)),
            doc=str(field.metadata.get("doc", "")),
            example="",
        )
        for field in dataclasses.fields(model)
        if field.init
    ]
    doc = (model.__doc__ or "").strip()
    return Object(name="settings", doc=doc, fields=tuple(fields), model=model, build=_guarded(model))


def _type_of(hint: Any, where: str, enclosing: tuple[Any, ...]) -> Type:
    if hint in _SIMPLE:
        return _SIMPLE[hint]()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        inner = arguments[0] if arguments[1] is type(None) else arguments[1]
        return Optional(_type_of(inner, where, enclosing))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return ListOf(_type_of(arguments[0], where, enclosing))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Choice(hint)
    if dataclasses.is_dataclass(hint):
        return _object_of(hint, enclosing)
    raise SettingsError(f"{where} has the type {hint!r}, which a file cannot hold")


def _guarded(model: type[Any]) -> Callable[..., Any]:
    """Building foreign settings: whatever their checks raise is a problem of the values."""

    def build(**values: Any) -> Any:
        try:
            return model(**values)
        except ModelError:
            raise
        except ValueError as error:
            raise ModelError.at((), str(error) or "the plugin refuses these settings") from error
        except Exception as error:
            raise ModelError.at((), f"the plugin refuses these settings: {error!r}") from error

    return build


class PluginType(Type):
    """`{name: ..., settings: {...}}`; with `bare`, also the name alone. The value is a Plugin.

    `built_in` are names that need no entry point and take no settings. The fields that `declared` has beyond name
    and settings are left to the subclass.
    """

    def __init__(self, group: str, declared: Object, *, built_in: Iterable[str] = (), bare: bool = False) -> None:
        self.declared = declared
        self.label = f"the name of a plugin or {declared.label}" if bare else declared.label
        self._group = group
        self._built_in = tuple(built_in)
        self.bare = bare
        self._classes: dict[str, Object | None] = {}

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Mapping) or (self.bare and isinstance(node, Scalar))

    def decode(self, node: Node, reader: Reader) -> Any:
        if self.bare and isinstance(node, Scalar) and isinstance(node.value, str):
            key = (self._group, node.value)
            if key not in reader.memo:
                reader.memo[key] = self._finish({"name": node.value}, node, node, reader)
            return reader.memo[key]
        values = self.declared.values_of(node, reader)
        if values is INVALID or not isinstance(node, Mapping):
            return INVALID
        reader.path.append("name")
        try:
            return self._finish(values, node, node.items["name"], reader)
        finally:
            reader.path.pop()

    def _finish(self, values: dict[str, Any], node: Node, name: Node, reader: Reader) -> Any:
        plugin = self._plugin(values, node, name, reader)
        return INVALID if plugin is INVALID else self.build(plugin, values)

    def build(self, plugin: Plugin, values: dict[str, Any]) -> Any:
        """The value, from the plugin and the other decoded keys."""
        return plugin

    def _plugin(self, values: dict[str, Any], node: Node, place: Node, reader: Reader) -> Any:
        """The plugin; `reader.path` leads to its name, which is at `place`."""
        name = values["name"]
        written: Node | None = values.get("settings")
        settings_of = self._settings_of(name, place, reader)
        if settings_of is INVALID:
            return INVALID
        if settings_of is None and written is None:
            return Plugin(name=name)
        steps = reader.path
        last = steps[-1:] if written is not None else []
        if written is not None:
            steps[-1:] = ["settings"]
        try:
            if settings_of is None:
                reader.problem(written or node, f"{name!r} takes no settings: remove the key")
                return INVALID
            # Without the key, the settings' own defaults hold, and what has none is missing.
            settings = settings_of.decode(Mapping(place.mark) if written is None else written, reader)
        finally:
            if last:
                steps[-1:] = last
        return INVALID if settings is INVALID else Plugin(name=name, settings=settings)

    def _settings_of(self, name: str, place: Node, reader: Reader) -> Any:
        """The type of the plugin's settings (None: it takes none), or INVALID. Classes are imported once a load."""
        if name in self._built_in:
            return None
        key = (self._group, "settings", name)
        if key in reader.memo:
            return reader.memo[key]
        known = [*self._built_in, *available(self._group)]
        if name not in known:
            guess = reader.problems.nearest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(sorted(known)) or 'none is installed'}"
            kind = self._group.removeprefix("rauta.").removesuffix("s")
            reader.problem(place, f"there is no {kind} {shorten(name)}; {hint}")
            return INVALID
        try:
            settings = load_class(self._group, name).Settings
            found = None if settings is None else settings_type(settings)
        except (PluginError, SettingsError) as error:
            message = str(error) if isinstance(error, PluginError) else f"plugin {name!r}: {error}"
            reader.problem(place, message)
            return INVALID
        reader.memo[key] = found
        return found

    def schema(self, defs: dict[str, Json]) -> Json:
        described = self.declared.schema(defs)
        return {"anyOf": [{"type": "string"}, described]} if self.bare else described

    def show(self, value: Any) -> str:
        return str(value.name)

    def parts(self) -> Iterable[Type]:
        return (self.declared,)


def plugin_fields(what: str, *, example: str) -> tuple[Field, Field]:
    """The keys that every plugin has in a file."""
    return (
        Field(key="name", type=Text("the name of a plugin"), doc=f"The {what}'s name.", example=example),
        Field(
            key="settings",
            type=Raw(),
            doc=f"What the {what} itself declares; see its own documentation.",
            example="{}",
            absent=f"the {what}'s defaults",
        ),
    )
