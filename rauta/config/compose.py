"""YAML text to nodes: libyaml's events, composed here and not by libyaml.

Its composer recurses in C, its loader types `off` and `12:30` as YAML 1.1 does, and both lose duplicate keys.
This one is a loop with limits on depth, on nodes and on what aliases stand for. `<<` is a key like any other.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import yaml

from rauta.config.errors import ConfigError, ConfigProblem, key_text
from rauta.config.nodes import Mapping, Node, Scalar, Sequence, Value, resolve, shorten
from rauta.config.source import MAX_NODES, Allowance, fail

MAX_DEPTH: Final = 50  # the format itself needs 8, settings of plugins a few more

_LOADER: Final[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # 0.4 s for 10,000 routes, the pure parser 6 s


class _Anchor:
    """A named node. `size` is None while the node is open, then the number of nodes in it."""

    __slots__ = ("node", "size")

    def __init__(self, node: Node, size: int | None) -> None:
        self.node = node
        self.size = size


class _Open:
    """A collection whose end has not come. `key` is the last key of a mapping; `pending`: its value has not come;
    `drop`: the value is a duplicate."""

    __slots__ = ("anchor", "before", "drop", "key", "node", "pending")

    def __init__(self, node: Sequence | Mapping, anchor: _Anchor | None, before: int) -> None:
        self.node = node
        self.anchor = anchor
        self.before = before
        self.key = ""
        self.pending = False
        self.drop = False


class Composer:
    """Composes one file. Problems that leave the structure intact are collected in the allowance."""

    __slots__ = ("_allowance", "_anchors", "_file", "_opened", "_root")

    def __init__(self, file: str, allowance: Allowance) -> None:
        self._file = file
        self._allowance = allowance
        self._anchors: dict[str, _Anchor] = {}
        self._opened: list[_Open] = []
        self._root: Node | None = None

    def compose(self, text: str, loader: Any = _LOADER) -> Node | None:
        """The file's single document; None if it is empty. Raises ConfigError where reading cannot go on."""
        parser = loader(text)
        documents = 0
        handlers = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }
        try:
            next_event = parser.get_event
            while (event := next_event()) is not None:
                handler = handlers.get(event.__class__)
                if handler is not None:
                    handler(event)
                elif isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    self._document(event, documents)
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error, text) from None
        except yaml.YAMLError as error:
            raise fail(self._file, f"not YAML: {' '.join(str(error).split())}") from None
        finally:
            parser.dispose()
        return self._root

    def _document(self, event: Any, number: int) -> None:
        if number > 1:
            raise self._fatal(event, "a second document starts here: write one per file and use 'include'")
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            raise self._fatal(event, f"the file is read as YAML 1.2, not {version}: remove the line '%YAML {version}'")

    def _scalar(self, event: Any) -> None:
        text = event.value
        opened = self._opened[-1] if self._opened else None
        self._count(event, 1)
        if event.tag is not None:
            self._refuse_tag(event)
        if not text.isascii():
            self._check_surrogates(event)
        is_key = opened is not None and not opened.pending and opened.node.__class__ is Mapping
        if is_key and event.anchor is None:  # the common case first: keys are half of all scalars
            self._key(event, text)
            return
        mark = event.start_mark
        node = Scalar(mark.line + 1, mark.column + 1, text, self._resolve(event) if event.implicit[0] else text)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(node, 1)
        if is_key:
            self._key(event, text)
        else:
            self._attach(node)

    def _resolve(self, event: Any) -> Value:
        try:
            return resolve(event.value)
        except ValueError as error:
            self._problem(event, str(error))
            return None

    def _start(self, event: Any) -> None:
        self._count(event, 1)
        if event.tag is not None:
            self._refuse_tag(event)
        if len(self._opened) >= MAX_DEPTH:
            raise self._fatal(event, f"nested more than {MAX_DEPTH} levels deep")
        opened = self._opened[-1] if self._opened else None
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if opened is not None and isinstance(opened.node, Mapping):
            if not opened.pending:
                hint = ": '{{ }}' of a template was not filled in?" if isinstance(event, yaml.MappingStartEvent) else ""
                raise self._fatal(event, f"a key must be text, not {_kind(event)}{hint}")
            line, column = opened.node.last_mark()
        kind: type[Mapping | Sequence] = Mapping if isinstance(event, yaml.MappingStartEvent) else Sequence
        node = kind(line, column)
        anchor = None
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(node, None)
        self._attach(node)
        self._opened.append(_Open(node, anchor, self._allowance.nodes))

    def _end(self, event: Any) -> None:
        opened = self._opened.pop()
        if opened.anchor is not None:
            opened.anchor.size = opened.before - self._allowance.nodes + 1

    def _alias(self, event: Any) -> None:
        anchor = self._anchors.get(event.anchor)
        if anchor is None:
            guess = self._allowance.problems.nearest(event.anchor, self._anchors)
            hint = f"; did you mean '*{guess}'?" if guess else ""
            raise self._fatal(event, f"'*{event.anchor}' refers to no anchor '&{event.anchor}' before it{hint}")
        if anchor.size is None:
            raise self._fatal(event, f"'*{event.anchor}' stands inside what it refers to")
        self._count(event, anchor.size)
        opened = self._opened[-1]  # an alias cannot be a document: nothing was anchored before
        if isinstance(opened.node, Mapping) and not opened.pending:
            if not isinstance(anchor.node, Scalar):
                raise self._fatal(event, f"a key must be text, and '*{event.anchor}' is not")
            self._key(event, anchor.node.text)
        else:
            self._attach(anchor.node)

    def _key(self, event: Any, text: str) -> None:
        opened = self._opened[-1]
        mapping = opened.node
        if isinstance(mapping, Mapping):  # always: the callers looked
            opened.key = text = sys.intern(text)
            opened.pending = True
            opened.drop = text in mapping.items
            if opened.drop and self._allowance.problems.full:
                self._allowance.problems.more += 1
            elif opened.drop:
                line, _ = mapping.mark_of(text)
                self._problem(event, f"the key {shorten(text)} is there twice, first in line {line}")
            else:
                mapping.add_mark(event.start_mark.line + 1, event.start_mark.column + 1)

    def _attach(self, node: Node) -> None:
        if not self._opened:
            self._root = node
            return
        opened = self._opened[-1]
        if isinstance(opened.node, Sequence):
            opened.node.items.append(node)
        else:
            if not opened.drop:
                opened.node.items[opened.key] = node
            opened.pending = False

    def _count(self, event: Any, nodes: int) -> None:
        self._allowance.nodes -= nodes
        if self._allowance.nodes < 0:
            raise self._fatal(event, f"more than {MAX_NODES} values, those that aliases stand for included")

    def _refuse_tag(self, event: Any) -> None:
        written = event.tag.replace("tag:yaml.org,2002:", "!!", 1)
        self._problem(event, f"the tag {shorten(written)} is not supported: remove it (text that looks like a "
                             "number is written in quotes)")  # fmt: skip

    def _check_surrogates(self, event: Any) -> None:
        try:
            event.value.encode()
        except UnicodeEncodeError:
            raise self._fatal(event, "the escape of half a surrogate pair is not a character") from None

    def _path(self) -> tuple[str | int, ...]:
        steps: list[str | int] = []
        innermost = len(self._opened) - 1
        for i, opened in enumerate(self._opened):
            if isinstance(opened.node, Sequence):
                # Collections are attached when they start, so an outer list already counts the open item.
                steps.append(len(opened.node.items) - (i < innermost))
            elif i < innermost or opened.pending:
                steps.append(opened.key)
        return tuple(steps)

    def _at(self, event: Any, message: str) -> ConfigProblem:
        mark = event.start_mark
        return ConfigProblem(self._file, mark.line + 1, mark.column + 1, key_text(self._path()), message)

    def _problem(self, event: Any, message: str) -> None:
        self._allowance.problems.add(self._at(event, message))

    def _fatal(self, event: Any, message: str) -> ConfigError:
        return ConfigError(self._at(event, message))

    def _syntax(self, error: yaml.MarkedYAMLError, text: str) -> ConfigError:
        mark = error.problem_mark or error.context_mark
        what = error.problem or "not YAML"
        if mark is None:
            return fail(self._file, what)
        if text[mark.index : mark.index + 1] == "\t":
            message = "a tab stands where YAML allows only spaces: indent with spaces"
        else:
            message = f"not YAML: {what}"
            if error.context:
                start = error.context_mark
                message += f" ({error.context}{f' that starts in line {start.line + 1}' if start is not None else ''})"
        return fail(self._file, message, mark.line + 1, mark.column + 1)


def _kind(event: Any) -> str:
    return "an object" if isinstance(event, yaml.MappingStartEvent) else "a list"
