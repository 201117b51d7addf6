"""YAML text to nodes: libyaml's events, composed here and not by libyaml.

Its composer recurses in C, its loader types `off` and `12:30` as YAML 1.1 does, and both lose duplicate keys.
This one is a loop with limits on depth, on nodes and on what aliases stand for. `<<` is a key like any other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import yaml

from rauta.config.errors import ConfigError, ConfigProblem, key_text
from rauta.config.nodes import Mapping, Mark, Node, Scalar, Sequence, Value, resolve, shorten
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

    __slots__ = ("anchor", "before", "drop", "is_mapping", "key", "node", "pending")

    def __init__(self, node: Sequence | Mapping, is_mapping: bool, anchor: _Anchor | None, before: int) -> None:
        self.node: Any = node  # either, as `is_mapping` says: a check for each of a file's nodes would cost more
        self.is_mapping = is_mapping
        self.anchor = anchor
        self.before = before
        self.key = ""
        self.pending = False
        self.drop = False


class Composer:
    """Composes one file. Problems that leave the structure intact are collected in the allowance."""

    __slots__ = ("_allowance", "_anchors", "_file", "_opened", "_root", "_top")

    def __init__(self, file: str, allowance: Allowance) -> None:
        self._file = file
        self._allowance = allowance
        self._anchors: dict[str, _Anchor] = {}
        self._opened: list[_Open] = []
        self._top: _Open | None = None  # the last of them
        self._root: Node | None = None

    def compose(self, text: str, loader: Any = _LOADER) -> Node | None:
        """The file's single document; None if it is empty. Raises ConfigError where reading cannot go on."""
        parser = loader(text)
        try:
            self._read(parser.get_event)
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error, text) from None
        except yaml.YAMLError as error:
            raise fail(self._file, f"not YAML: {' '.join(str(error).split())}") from None
        finally:
            parser.dispose()
        return self._root

    def _read(self, next_event: Callable[[], Any]) -> None:
        documents = 0
        handlers: dict[Any, Callable[[Any], None]] = {
            yaml.MappingStartEvent: self._start_mapping,
            yaml.SequenceStartEvent: self._start_sequence,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }
        scalar_event, scalar = yaml.ScalarEvent, self._scalar  # more than half of all events
        while (event := next_event()) is not None:
            kind = event.__class__
            if kind is scalar_event:
                scalar(event)
            elif kind in handlers:
                handlers[kind](event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                self._document(event, documents)

    def _document(self, event: Any, number: int) -> None:
        if number > 1:
            raise self._fatal(event, "a second document starts here: write one per file and use 'include'")
        if event.version not in (None, (1, 2)):
            version = ".".join(map(str, event.version))
            raise self._fatal(event, f"the file is read as YAML 1.2, not {version}: remove the line '%YAML {version}'")

    def _scalar(self, event: Any) -> None:
        text = event.value
        top = self._top
        self._allowance.nodes -= 1
        if self._allowance.nodes < 0:
            raise self._too_many(event)
        if event.tag is not None:
            self._refuse_tag(event)
        if not text.isascii():
            self._check_surrogates(event)
        is_key = top is not None and top.is_mapping and not top.pending
        if is_key and event.anchor is None:  # the common case first: keys are half of all scalars
            self._key(event, text)
            return
        node = Scalar(event.start_mark, text, self._resolve(event, text) if event.implicit[0] else text)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchor(node, 1)
        if is_key:
            self._key(event, text)
        else:
            self._attach(node)

    def _resolve(self, event: Any, text: str) -> Value:
        try:
            return resolve(text)
        except ValueError as error:
            self._problem(event, str(error))
            return None

    def _start_mapping(self, event: Any) -> None:
        self._open(event, Mapping(self._place(event)), True)

    def _start_sequence(self, event: Any) -> None:
        self._open(event, Sequence(self._place(event)), False)

    def _place(self, event: Any) -> Mark:
        """Where a collection that starts here is: at its key, if it has one."""
        top = self._top
        if top is None or not top.is_mapping:
            return event.start_mark  # type: ignore[no-any-return]
        if not top.pending:
            hint = ": '{{ }}' of a template was not filled in?" if isinstance(event, yaml.MappingStartEvent) else ""
            raise self._fatal(event, f"a key must be text, not {_kind(event)}{hint}")
        return top.node.marks[-1]  # type: ignore[no-any-return]

    def _open(self, event: Any, node: Mapping | Sequence, is_mapping: bool) -> None:
        self._allowance.nodes -= 1
        if self._allowance.nodes < 0:
            raise self._too_many(event)
        if event.tag is not None:
            self._refuse_tag(event)
        if len(self._opened) >= MAX_DEPTH:
            raise self._fatal(event, f"nested more than {MAX_DEPTH} levels deep")
        anchor = None
        if event.anchor is not None:
            anchor = self._anchors[event.anchor] = _Anchor(node, None)
        self._attach(node)
        self._top = _Open(node, is_mapping, anchor, self._allowance.nodes)
        self._opened.append(self._top)

    def _end(self, _event: Any) -> None:
        opened = self._opened.pop()
        self._top = self._opened[-1] if self._opened else None
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
        self._allowance.nodes -= anchor.size
        if self._allowance.nodes < 0:
            raise self._too_many(event)
        opened = self._opened[-1]  # an alias cannot be a document: nothing was anchored before
        if opened.is_mapping and not opened.pending:
            if not isinstance(anchor.node, Scalar):
                raise self._fatal(event, f"a key must be text, and '*{event.anchor}' is not")
            self._key(event, anchor.node.text)
        else:
            self._attach(anchor.node)

    def _key(self, event: Any, text: str) -> None:
        opened = self._opened[-1]
        mapping = opened.node
        opened.key = text = sys.intern(text)
        opened.pending = True
        opened.drop = text in mapping.items
        if not opened.drop:
            mapping.marks.append(event.start_mark)
        elif self._allowance.problems.full:
            self._allowance.problems.more += 1
        else:
            line, _ = mapping.mark_of(text)
            self._problem(event, f"the key {shorten(text)} is there twice, first in line {line}")

    def _attach(self, node: Node) -> None:
        top = self._top
        if top is None:
            self._root = node
        elif not top.is_mapping:
            top.node.items.append(node)
        else:
            if not top.drop:
                top.node.items[top.key] = node
            top.pending = False

    def _too_many(self, event: Any) -> ConfigError:
        return self._fatal(event, f"more than {MAX_NODES} values, those that aliases stand for included")

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
