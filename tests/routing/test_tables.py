"""The tables of docs/routing.md, row by row: what a reader sees there is what is checked here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rauta.routing.errors import RequestError
from rauta.routing.hosts import HostPattern, normalise_host
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    PathKind,
    PathMatch,
    Route,
    ValueKind,
    ValueMatch,
    WeightedService,
    header_match,
)
from rauta.routing.outcome import Hit, Miss
from rauta.routing.paths import normalise_path
from rauta.routing.request import FieldList, RequestView, parse_target
from rauta.routing.table import Table
from support.build import configuration, service

DOCS = Path(__file__).parents[2] / "docs" / "routing.md"


def rows(table: str) -> list[tuple[str, ...]]:
    """The rows of every table of that kind in the docs."""
    found: list[tuple[str, ...]] = []
    for part in DOCS.read_text().split(f"<!-- table: {table} -->\n")[1:]:
        lines = part.split("\n\n")[0].splitlines()
        for line in lines[2:]:
            cells = [cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.append(tuple(cells))
    return found


def test_docs_have_the_tables() -> None:
    assert [len(rows(table)) for table in ("hosts", "owners", "paths", "precedence")] == [26, 12, 40, 73]


def plain(cell: str) -> str:
    return "" if cell == "(empty)" else cell.strip("`")


def refusal(cell: str) -> str | None:
    found = re.fullmatch(r"400 `(\w+)`", cell)
    return found[1] if found else None


@pytest.mark.parametrize(("value", "becomes"), rows("hosts"))
def test_host(value: str, becomes: str) -> None:
    if reason := refusal(becomes):
        with pytest.raises(RequestError) as caught:
            normalise_host(plain(value))
        assert (caught.value.status, caught.value.reason) == (400, reason)
    else:
        assert normalise_host(plain(value)) == plain(becomes)


@pytest.mark.parametrize(("path", "becomes"), rows("paths"))
def test_path(path: str, becomes: str) -> None:
    if reason := refusal(becomes):
        with pytest.raises(RequestError) as caught:
            normalise_path(plain(path))
        assert (caught.value.status, caught.value.reason) == (400, reason)
    else:
        assert normalise_path(plain(path)) == plain(becomes)


@pytest.mark.parametrize(("patterns", "host", "owner"), rows("owners"))
def test_owner(patterns: str, host: str, owner: str) -> None:
    names = [plain(name.strip()) for name in patterns.split(",")]
    routes = [
        Route(
            name=f"r{position}",
            matches=(Match(hosts=() if name == "any" else (HostPattern.parse(name),)),),
            action=Forward(services=(WeightedService(name="s"),)),
        )
        for position, name in enumerate(names)
    ]
    outcome = Table(configuration(*routes)).match("web", RequestView(method="GET", host=plain(host), path="/"))
    if plain(owner) == "none":
        assert outcome == Miss("unknown_host")
    else:
        assert isinstance(outcome, Hit)
        assert names[int(outcome.route.name[1:])] == plain(owner)


KINDS = {
    "=": ValueKind.EXACT,
    "^=": ValueKind.PREFIX,
    "~=": ValueKind.REGEX,
    "?": ValueKind.PRESENT,
    "!": ValueKind.ABSENT,
}


def parse_rule(text: str) -> Route:
    """`name: [host=H] KIND PATH [methods=M,M] [priority=N] [header:NAME OP VALUE] [query:NAME OP VALUE]`."""
    name, _, rest = text.partition(": ")
    words = re.split(r" (?=host=|methods=|priority=|header:|query:|exact |prefix |regex )", " " + rest)
    match: dict[str, object] = {"headers": (), "query": ()}
    priority = 0
    for word in filter(None, words):
        if word.startswith("host="):
            match["hosts"] = (HostPattern.parse(word[5:]),)
        elif word.startswith("methods="):
            match["methods"] = frozenset(word[8:].split(","))
        elif word.startswith("priority="):
            priority = int(word[9:])
        elif found := re.fullmatch(r"(header|query):([\w-]+)(\^=|~=|=|\?|!)(.*)", word):
            what, field, operator, value = found.groups()
            if what == "header":
                match["headers"] = (*match["headers"], header_match(field, KINDS[operator], value))  # type: ignore[misc]
            else:
                match["query"] = (*match["query"], ValueMatch(field, KINDS[operator], value))  # type: ignore[misc]
        else:
            kind, path = word.split(" ")
            match["path"] = PathMatch(PathKind(kind), path)
    return Route(
        name=name,
        priority=priority,
        matches=(Match(**match),),  # type: ignore[arg-type]
        action=Forward(services=(WeightedService(name="s"),)),
    )


def parse_request(text: str) -> RequestView:
    """`METHOD [host]/path[?query] [name: value, name: value]`."""
    method, url, *fields = text.split(" ", 2)
    host, slash, rest = url.partition("/")
    target = parse_target(method, slash + rest)
    pairs = re.findall(r"([\w-]+): ([^,]*)", fields[0]) if fields else []
    return RequestView(method=method, host=host, path=target.path, query=target.query, headers=FieldList(pairs))


def setup_of(rules: str) -> Configuration:
    return configuration(*(parse_rule(rule) for rule in re.findall(r"`([^`]+)`", rules)), services=(service("s"),))


@pytest.mark.parametrize(("rules", "request_", "route"), rows("precedence"))
def test_precedence(rules: str, request_: str, route: str) -> None:
    table = Table(setup_of(rules))
    request = parse_request(plain(request_))
    outcome = table.match("web", request)
    explanation = table.explain("web", request)
    assert explanation.outcome == outcome
    if plain(route) == "none":
        assert outcome == Miss("no_route")
        assert not any(step.claimed for step in explanation.considered)
    else:
        assert isinstance(outcome, Hit)
        assert outcome.route.name == plain(route)
        assert explanation.considered[-1].claimed
        assert explanation.considered[-1].rule.route is outcome.route


def test_the_rule_parser_reads_what_it_says() -> None:
    rule = parse_rule("a: host=*.t prefix /foo priority=3 methods=GET,PUT header:x=1, 2 query:q?")
    assert rule.priority == 3
    assert rule.matches[0] == Match(
        hosts=(HostPattern.parse("*.t"),),
        path=PathMatch.prefix("/foo"),
        methods=frozenset({"GET", "PUT"}),
        headers=(header_match("x", ValueKind.EXACT, "1, 2"),),
        query=(ValueMatch("q", ValueKind.PRESENT),),
    )
