"""Indexes from host and path to candidates: the cost is by the length of the path, never by the number of routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from rauta.routing.candidate import Candidate
from rauta.routing.hosts import HostKind, HostPattern
from rauta.routing.model import PathKind
from rauta.routing.outcome import Hit, Miss, Outcome
from rauta.routing.regexes import Budget, literal_prefix
from rauta.routing.request import RequestView

NO_ROUTE = Miss("no_route")
UNKNOWN_HOST = Miss("unknown_host")

Group = tuple[Candidate, ...]
T = TypeVar("T")


class PathIndex:
    """The candidates of one host."""

    __slots__ = (
        "_depth",
        "_everything",
        "_exact",
        "_final",
        "_flat",
        "_lengths",
        "_literals",
        "_prefixes",
        "candidates",
    )

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.candidates: Group = tuple(candidates)
        self._exact = _grouped((c.rule.match.path.value, c) for c in self._of_kind(PathKind.EXACT))
        self._prefixes = _grouped((c.rule.match.path.value, c) for c in self._of_kind(PathKind.PREFIX))
        regexes = self._of_kind(PathKind.REGEX)
        self._literals = _grouped((literal_prefix(c.rule.match.path.value), c) for c in regexes)
        self._lengths = sorted({len(literal) for literal in self._literals})
        self._depth = max((prefix.count("/") for prefix in self._prefixes), default=0)
        # With one priority the kinds come one after the other; otherwise what fits has to be sorted.
        self._flat = len({c.route.priority for c in self.candidates}) <= 1
        # A host with nothing but one unconditional root prefix, as behind --to: its answer to every path.
        only = self.candidates[0] if len(self.candidates) == 1 else None
        self._everything: Hit | None = only.final if only is not None and "" in self._prefixes else None
        self._final: dict[str, Hit] = {}
        if self._flat:
            self._final = {path: group[0].final for path, group in self._exact.items() if group[0].final is not None}

    def _of_kind(self, kind: PathKind) -> list[Candidate]:
        return [c for c in self.candidates if c.rule.match.path.kind is kind]

    def match(self, request: RequestView) -> Outcome:
        """The outcome for a request of this host."""
        if self._everything is not None:
            return self._everything
        final = self._final.get(request.path)
        if final is not None:
            return final
        budget: Budget | None = None
        for candidate in self.in_order(request.path):
            if candidate.final is not None:
                return candidate.final
            if budget is None:
                budget = Budget()
            outcome = candidate.ask(request, budget)
            if outcome is not None:
                return outcome
        return NO_ROUTE

    def in_order(self, path: str) -> list[Candidate]:
        """The candidates whose path may fit, in the order in which they are asked. Lists, not generators: this runs
        for every request that no exact path settles, and nested generators take twice the time."""
        found = list(self._exact.get(path, ()))
        if self._lengths:
            regexes = self._regexes_for(path)
            regexes.sort(key=_place)
            found += regexes
        if self._prefixes:
            self._add_prefixes(path, found)
        if not self._flat:
            found.sort(key=_place)
        return found

    def _regexes_for(self, path: str) -> list[Candidate]:
        found: list[Candidate] = []
        for length in self._lengths:
            if length > len(path):
                break
            found += self._literals.get(path[:length], ())
        return found

    def _add_prefixes(self, path: str, found: list[Candidate]) -> None:
        """Longest first. Only as many elements are looked at as the deepest prefix has: a hostile path of
        thousands of slashes costs no more than any other."""
        groups = [self._prefixes.get("", ())]
        at = 0
        for _ in range(self._depth):
            at = path.find("/", at + 1)
            groups.append(self._prefixes.get(path if at < 0 else path[:at], ()))
            if at < 0:
                break
        for group in reversed(groups):
            found += group


class HostIndex(Generic[T]):
    """The most specific entry for a host: exact, then the longest wildcard (one label before any depth), then any."""

    __slots__ = ("_any", "_exact", "_one_label", "_wildcard")

    def __init__(self, entries: dict[HostPattern | None, T]) -> None:
        def of(kind: HostKind) -> dict[str, T]:
            return {host.name: entry for host, entry in entries.items() if host is not None and host.kind is kind}

        self._exact = of(HostKind.EXACT)
        self._one_label = of(HostKind.ONE_LABEL)
        self._wildcard = of(HostKind.WILDCARD)
        self._any = entries.get(None)

    def get(self, host: str) -> T | None:
        """The entry that owns a normalised host, or None."""
        found = self._exact.get(host)
        if found is None and (self._wildcard or self._one_label):
            found = self._by_suffix(host)
        return self._any if found is None else found

    def _by_suffix(self, host: str) -> T | None:
        _, dot, suffix = host.partition(".")
        found = self._one_label.get(suffix) if dot else None
        while found is None and dot:
            found = self._wildcard.get(suffix)
            _, dot, suffix = suffix.partition(".")
        return found


def _place(candidate: Candidate) -> int:
    return candidate.place


def _grouped(pairs: Iterable[tuple[str, Candidate]]) -> dict[str, Group]:
    groups: dict[str, list[Candidate]] = {}
    for key, candidate in pairs:
        groups.setdefault(key, []).append(candidate)
    return {key: tuple(group) for key, group in groups.items()}
