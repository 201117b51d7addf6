"""Load a configuration: read, compose, decode, include, check as a whole."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rauta.config import advice, certificates, secrets
from rauta.config.compose import Composer
from rauta.config.errors import ConfigError, ConfigProblem
from rauta.config.format import GATEWAY, INCLUDED, ROOT, VERSION, Sections
from rauta.config.includes import matches
from rauta.config.nodes import Mapping, Scalar, describe, shorten
from rauta.config.origins import Origin, Origins
from rauta.config.reader import INVALID, Reader
from rauta.config.schema import Object
from rauta.config.source import MAX_FILES, Allowance, fail, read_text
from rauta.routing.errors import ModelError, Problem
from rauta.routing.model import Configuration, Forward, Route

_SECTIONS: Final = ("listeners", "services", "routes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a file and those it includes say. `files` are all that were read, the main one first; `includes` the entries
    of `include`, each with the folder where it starts."""

    configuration: Configuration
    warnings: tuple[ConfigProblem, ...]
    files: tuple[Path, ...]
    includes: tuple[tuple[Path, str], ...] = ()


def load(path: str | os.PathLike[str], *, check_files: bool = True, warn: bool = True) -> Loaded:
    """Load the configuration at `path`.

    With `check_files`, certificates and keys are read, too; with `warn`, what is allowed and most likely a mistake is
    looked for (which compiles every regex a second time). Raises ConfigError with every problem that was found.
    The garbage collector stands still meanwhile.
    """
    with _collector_paused():
        return _Load().run(Path(path), check_files=check_files, warn=warn)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Nodes are many, none is in a cycle, and all go by themselves at the end. Looking through them again and again
    takes 0.6 of 1.8 s for 10,000 routes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Load:
    """One call of `load`: the state that its files share."""

    def __init__(self) -> None:
        self._allowance = Allowance()
        self._problems = self._allowance.problems
        self._memo: dict[Any, Any] = {}
        self._files: dict[str, Path] = {}
        self._valid: dict[str, list[Any]] = {section: [] for section in _SECTIONS}
        self._declared: dict[str, dict[str, Origin]] = {section: {} for section in _SECTIONS}
        self._routes: list[Origin] = []
        # Whether something could not be read that may declare names: then missing names are not reported.
        self._partial = False

    def run(self, path: Path, *, check_files: bool, warn: bool) -> Loaded:
        """See `load`."""
        try:
            root, reader = self._open(path)
            self._check_version(root, reader)
        except ConfigError as error:
            self._problems.extend(error.problems)
            raise self._problems.error() from None
        origins = Origins(Origin(reader.file, root), self._routes)
        main = self._decode(ROOT, root, reader)
        self._include(main.include, root, reader)
        configuration = self._configure(main, origins)
        if configuration is not None and check_files:
            self._problems.extend(certificates.check(configuration, origins))
            self._problems.extend(secrets.check(configuration, origins))
        if configuration is None or self._problems:
            raise self._problems.error(map(str, self._files.values()))
        warnings: list[ConfigProblem] = []
        if warn:
            warnings += advice.warnings(configuration, origins)
        if warn and check_files:
            warnings += certificates.exposed(configuration, origins)
            warnings += certificates.dubious(configuration, origins, time.time())
            warnings += secrets.exposed(configuration, origins)
        return Loaded(
            configuration=configuration,
            warnings=tuple(warnings),
            files=tuple(self._files.values()),
            includes=tuple((reader.directory, pattern) for pattern in main.include),
        )

    def _open(self, path: Path) -> tuple[Mapping, Reader]:
        main = not self._files
        file = str(path)
        text = read_text(path, self._allowance)
        self._files[os.path.realpath(path)] = path
        root = Composer(file, self._allowance).compose(text)
        if root is None or (isinstance(root, Scalar) and root.value is None):
            raise fail(file, "the file is empty" + (f": it needs 'version: {VERSION}' and a listener" if main else ""))
        if not isinstance(root, Mapping):
            keys = ", ".join((*(("version",) if main else ()), *_SECTIONS))
            message = f"expected an object with keys such as {keys}, not {describe(root)}"
            raise fail(file, message, root.line, root.column)
        return root, Reader(file, path.parent, self._problems, self._memo)

    def _check_version(self, root: Mapping, reader: Reader) -> None:
        """A file of another version is not looked at further: every complaint would be about the wrong format."""
        node = root.items.get("version")
        if not isinstance(node, Scalar) or not isinstance(node.value, int) or isinstance(node.value, bool):
            return  # missing or of another kind: reported like any other key
        if node.value == VERSION:
            return
        message = f"this rauta reads version {VERSION} of the format, not {shorten(node.text)[1:-1]}: "
        message += "a newer rauta is needed" if node.value > VERSION else f"write version: {VERSION}"
        raise fail(reader.file, message, node.line, node.column, "version")

    def _decode(self, kind: Object, root: Mapping, reader: Reader) -> Sections:
        """What of a file is valid; the names and places of all that it declares are kept."""
        values, _ = kind.partial_values(root, reader)
        sections = Sections(**values)
        if any(key in root.items and key not in values for key in (*_SECTIONS, "include")):
            self._partial = True
        for section in ("listeners", "services"):
            for name, value in (getattr(sections, section) or {}).items():
                if self._declare(section, name, Origin(reader.file, root, (section, name))) and value is not INVALID:
                    self._valid[section].append(value)
        for position, route in enumerate(sections.routes or ()):
            origin = Origin(reader.file, root, ("routes", position))
            if route is not INVALID and self._declare("routes", route.name, origin, ("name",)):
                self._valid["routes"].append(route)
                self._routes.append(origin)
        return sections

    def _declare(self, section: str, name: str, origin: Origin, where: tuple[str, ...] = ()) -> bool:
        first = self._declared[section].setdefault(name, origin)
        if first is origin:
            return True
        there = first.problem("", where)
        place = f"line {there.line}" if first.file == origin.file else f"{there.file}:{there.line}"
        self._problems.add(origin.problem(f"the name {name!r} is already used in {place}", where))
        return False

    def _include(self, patterns: Iterable[str], root: Mapping, reader: Reader) -> None:
        for position, pattern in enumerate(patterns):
            origin = Origin(reader.file, root, ("include", position))
            try:
                found = matches(pattern, reader.directory)
            except ValueError as error:
                self._problems.add(origin.problem(str(error)))
                self._partial = True
                continue
            for path in found:
                if os.path.realpath(path) in self._files:
                    continue  # a file is read once, where it comes first: the main one may match its own glob
                if len(self._files) > MAX_FILES:
                    self._problems.add(origin.problem(f"more than {MAX_FILES} files are included"))
                    self._partial = True
                    return
                self._read_included(path)

    def _read_included(self, path: Path) -> None:
        try:
            root, reader = self._open(path)
        except ConfigError as error:  # the other files have problems of their own: all are shown together
            self._problems.extend(error.problems)
            self._partial = True
            return
        self._decode(INCLUDED, root, reader)

    def _configure(self, main: Sections, origins: Origins) -> Configuration | None:
        """The whole; None if anything is wrong. What was declared, but is invalid, is not reported as missing."""
        origins.named.update(
            ((section, name), origin)
            for section in ("listeners", "services")
            for name, origin in self._declared[section].items()
        )
        if not self._partial:
            for position, route in enumerate(self._valid["routes"]):
                self._check_references(route, self._routes[position])
        whole: dict[str, Any] = {section: tuple(values) for section, values in self._valid.items()}
        if self._problems:
            whole["routes"] = ()  # their references have been checked
        for key in GATEWAY:
            if (value := getattr(main, key)) is not None:
                whole[key] = value
        try:
            configuration = Configuration(**whole)
        except ModelError as error:
            for problem in error.problems:
                if not self._follows(problem):
                    self._problems.add(origins.place(problem))
            return None
        return None if self._problems else configuration

    def _follows(self, problem: Problem) -> bool:
        """Whether it may be there only since something could not be read, which has been told."""
        listeners = {listener.name: listener for listener in self._valid["listeners"]}
        match problem.where:
            case ("listeners",):
                return self._partial or bool(self._declared["listeners"])
            case ("listeners", str() as name, "passthrough", int() as position, "service"):
                service = listeners[name].passthrough[position].service
                missing = all(service != one.name for one in self._valid["services"])
                return missing and (self._partial or service in self._declared["services"])
            case ("services", _, "health", "tls"):  # no listener passes TLS through to it
                return self._partial or len(listeners) < len(self._declared["listeners"])
        return False

    def _check_references(self, route: Route, origin: Origin) -> None:
        """The model checks them as well, but it knows neither what was invalid nor when to stop guessing."""
        for index, name in enumerate(route.listeners):
            if name not in self._declared["listeners"]:
                self._problems.add(origin.problem(self._unknown("listener", name), ("listeners", index)))
        if isinstance(route.action, Forward):
            for index, share in enumerate(route.action.services):
                if share.name not in self._declared["services"]:
                    where = ("services", index, "name")
                    self._problems.add(origin.problem(self._unknown("service", share.name), where))

    def _unknown(self, what: str, name: str) -> str:
        known = self._declared[f"{what}s"]
        guess = self._problems.nearest(name, known)
        if guess is not None:
            return f"there is no {what} {name!r}; did you mean {guess!r}?"
        some = ", ".join(list(known)[:10])
        return f"there is no {what} {shorten(name)}" + (
            f"; known: {some}{', ...' if len(known) > 10 else ''}" if some else ""
        )
