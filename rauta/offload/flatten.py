"""Flattening: one host's ordered rules become entries that need no order.

A request that looks up a key K (the longest one that its path, with a slash behind it, starts with) can be claimed
only by rules whose own key K starts with: an element-wise prefix /foo has the key "/foo/" and then fits for sure;
a regex's key is its literal prefix, and it may fit. An exact path's entry adds the rules of that very path (and a
path /users gets an entry of its own where a regex has the literal prefix "/users/", which it cannot have). So per
key and method the *winner* is the first of those rules in the order of precedence: either it answers in the kernel,
or, if it cannot (a regex, a header condition, a redirect), nothing behind it may, and the request is passed.

The winner of a longer key is the first of its own rules and of the winner of the next shorter key. One sweep over
the sorted keys with a stack of the enclosing ones therefore does it: O(n log n) in the number of rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rauta.offload.capabilities import METHODS
from rauta.offload.lookup import is_plain, may_begin
from rauta.offload.plans import ALL_PASS, COLUMN, Verdicts
from rauta.routing.model import Match, PathKind
from rauta.routing.precedence import Rule
from rauta.routing.regexes import literal_prefix


@dataclass(slots=True)
class Loss:
    """Requests that the rule at place `victim` does not get in the kernel: another one is in front of it.

    `at` is the first key or path where that is so, `more` the number of further ones.
    """

    victim: int
    by: int
    at: str
    more: int = 0


@dataclass(slots=True)
class Flat:
    """One host's entries. `shadowed`: tier 3 alone can say whether the other rule claims the request. `unreached`:
    it always does, so the rule never answers anything. Places are positions in the list of rules."""

    exact: dict[str, Verdicts] = field(default_factory=dict)
    prefix: dict[str, Verdicts] = field(default_factory=dict)
    shadowed: dict[int, Loss] = field(default_factory=dict)
    unreached: dict[int, Loss] = field(default_factory=dict)

    def rows(self) -> Iterator[Verdicts]:
        """The verdicts of all entries."""
        yield from self.exact.values()
        yield from self.prefix.values()


@dataclass(frozen=True, slots=True)
class _Level:
    """A key that encloses those that the sweep visits, with the place of each method's winner.

    `bare` are the winners for the key without its final slash, the one path that looks the key up and does not
    start with it: no regex with this literal prefix can claim it.
    """

    key: str
    winners: tuple[int, ...]
    verdicts: Verdicts
    bare: tuple[int, ...]


@lru_cache(maxsize=1024)
def _columns(methods: frozenset[str], supported: frozenset[str]) -> tuple[int, ...]:
    return tuple(COLUMN[method] for method in METHODS if method in supported and (not methods or method in methods))


def is_uncertain(match: Match) -> bool:
    """Whether more than path and method decides if the match claims a request."""
    return match.path.kind is PathKind.REGEX or bool(match.headers or match.query or match.plugins)


def flatten(rules: Sequence[Rule], answers: Sequence[str | None], methods: frozenset[str], path_length: int) -> Flat:
    """The entries of a host with these rules, in order of precedence. `answers[i]` is the name of the route that
    rule i answers by in the kernel, None if it stays in tier 3. `methods` and `path_length` as in Capabilities."""
    return _Sweep(rules, answers, methods, path_length).run()


class _Sweep:
    def __init__(
        self, rules: Sequence[Rule], answers: Sequence[str | None], methods: frozenset[str], path_length: int
    ) -> None:
        self._rules = rules
        self._nobody = len(rules)  # behind every place
        self._answers = (*answers, None)
        self._columns = [_columns(rule.match.methods, methods) for rule in rules]
        self._uncertain = [is_uncertain(rule.match) for rule in rules]
        self._path_length = path_length
        self._flat = Flat()

    def run(self) -> Flat:
        keys, paths = self._keyed()
        # A path is visited under the text that it looks up, after a key of the same text.
        visits = sorted([*((key, False) for key in keys), *((path + "/", True) for path in paths)])
        nobody = (self._nobody,) * len(METHODS)
        enclosing = [_Level("", nobody, ALL_PASS, nobody)]
        for text, is_path in visits:
            while not text.startswith(enclosing[-1].key):
                enclosing.pop()
            if is_path:
                self._visit_path(text, enclosing[-1], paths[text[:-1]])
            else:
                enclosing.append(self._visit_key(text, enclosing[-1], keys[text]))
        return self._flat

    def _visit_key(self, key: str, above: _Level, own: Sequence[int]) -> _Level:
        winners = self._first(above.winners, own)
        verdicts = self._verdicts(winners)
        if verdicts != above.verdicts:
            self._flat.prefix[key] = verdicts
        self._note_losses(key, above.winners, own, winners)
        plain = [place for place in own if self._rules[place].match.path.kind is not PathKind.REGEX]
        bare = winners if len(plain) == len(own) else self._first(above.winners, plain)
        return _Level(key, winners, verdicts, bare)

    def _visit_path(self, text: str, looked_up: _Level, own: Sequence[int]) -> None:
        around = looked_up.bare if looked_up.key == text else looked_up.winners
        winners = self._first(around, own)
        verdicts = self._verdicts(winners)
        # An entry that says the same as the prefix around it still moves GET and HEAD to tier 1.
        if verdicts != looked_up.verdicts or (own and verdicts != ALL_PASS):
            self._flat.exact[text[:-1]] = verdicts
        self._note_losses(text[:-1], around, own, winners)

    def _keyed(self) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """Places by prefix key and by exact path. What no looked-up path can reach needs no entry."""
        keys: dict[str, list[int]] = {}
        paths: dict[str, list[int]] = {}
        for place, rule in enumerate(self._rules):
            value = rule.match.path.value
            if rule.match.path.kind is PathKind.REGEX:
                literal = literal_prefix(value)
                if may_begin(literal, self._path_length):
                    keys.setdefault(literal, []).append(place)
                    if literal.endswith("/") and is_plain(literal[:-1], self._path_length):
                        paths.setdefault(literal[:-1], [])  # /users beside /users/[0-9]+
            elif value == "" or is_plain(value, self._path_length):
                if rule.match.path.kind is PathKind.PREFIX:
                    keys.setdefault(value + "/", []).append(place)
                else:
                    paths.setdefault(value, []).append(place)
        return keys, paths

    def _first(self, around: Sequence[int], own: Iterable[int]) -> tuple[int, ...]:
        """Per method the place that is asked first."""
        winners = list(around)
        for place in own:
            for column in self._columns[place]:
                winners[column] = min(winners[column], place)
        return tuple(winners)

    def _verdicts(self, winners: Iterable[int]) -> Verdicts:
        return tuple([self._answers[place] for place in winners])

    def _note_losses(self, at: str, around: Sequence[int], own: Iterable[int], winners: Sequence[int]) -> None:
        """Note which rules that answer in the kernel lose requests at this entry, for `explain`."""
        for place in own:
            columns = self._columns[place]
            lost = [winners[column] for column in columns if winners[column] != place]
            if lost and self._answers[place] is not None:
                unsure = self._shadow(place, lost, at)
                same = any(self._rules[other].route is self._rules[place].route for other in lost)
                if not unsure and not same and len(lost) == len(columns):
                    self._flat.unreached[place] = Loss(place, lost[0], at)
        if around != winners:
            for place in set(around):
                if self._answers[place] is not None:
                    lost = [new for old, new in zip(around, winners, strict=True) if old == place != new]
                    self._shadow(place, lost, at)

    def _shadow(self, victim: int, winners: Iterable[int], at: str) -> bool:
        """Whether one of the winners might not claim what it wins: then tier 3 has to decide, and it is noted."""
        unsure = next((place for place in winners if self._uncertain[place]), None)
        if unsure is None:
            return False
        known = self._flat.shadowed.get(victim)
        if known is None:
            self._flat.shadowed[victim] = Loss(victim, unsure, at)
        else:
            known.more += 1
        return True
