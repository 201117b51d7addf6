"""What routing costs: `Table.match` by number of routes, hostile regexes, Maglev tables.

    .venv/bin/python benchmarks/routing.py [--rounds 15]

Prints Markdown tables (docs/benchmarks.md holds a run). What is compared is interleaved in one process; figures are
medians over the rounds, ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter
from time import perf_counter

from rauta.routing import maglev
from rauta.routing.hosts import HostPattern
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    PathMatch,
    Route,
    ValueKind,
    WeightedService,
    header_match,
)
from rauta.routing.outcome import Hit, RegexTimeout
from rauta.routing.request import FieldList, RequestView
from rauta.routing.services import Backend, Service
from rauta.routing.settings import Address, Listener
from rauta.routing.table import Table

HOST = "api.example.com"
LOOPS = 20_000


def table_of(routes: list[Route]) -> Table:
    """A table of those routes, which all lead to one service."""
    backends = tuple(Backend(address=Address(f"10.0.0.{i}", 80)) for i in range(1, 5))
    return Table(
        Configuration(
            listeners=(Listener(name="web", address=Address("0.0.0.0", 8080)),),
            services=(Service(name="s", backends=backends),),
            routes=tuple(routes),
        )
    )


def route(name: str, path: PathMatch, **match: object) -> Route:
    """A route of HOST."""
    return Route(
        name=name,
        matches=(Match(hosts=(HostPattern.parse(HOST),), path=path, **match),),  # type: ignore[arg-type]
        action=Forward(services=(WeightedService(name="s"),)),
    )


def many(count: int) -> Table:
    """Exact, prefix, regex and header routes on one host, spread over `count`."""
    routes: list[Route] = []
    for i in range(count // 5):
        routes += [
            route(f"exact-{i}", PathMatch.exact(f"/api/v1/items/{i}")),
            route(f"exact2-{i}", PathMatch.exact(f"/api/v2/items/{i}")),
            route(f"prefix-{i}", PathMatch.prefix(f"/files/{i}")),
            route(f"regex-{i}", PathMatch.regex(f"/users/{i}/[0-9]+")),
            route(f"header-{i}", PathMatch.exact(f"/beta/{i}"), headers=(header_match("x-env", ValueKind.EXACT, "b"),)),
        ]
    return table_of(routes)


def request(path: str, *fields: tuple[str, str]) -> RequestView:
    """A GET of HOST."""
    return RequestView(method="GET", host=HOST, path=path, headers=FieldList(fields), client=("192.0.2.1", 40000))


CASES = {
    "exact path": request("/api/v1/items/1"),
    "prefix, 3 elements below": request("/files/1/a/b/c"),
    "regex": request("/users/1/12345"),
    "exact path with a header match": request("/beta/1", ("x-env", "b")),
    "miss": request("/nothing/here"),
}


def microseconds(table: Table, view: RequestView) -> float:
    """One `match`, in microseconds, the empty loop taken off."""
    match = table.match
    started = perf_counter()
    for _ in range(LOOPS):
        pass
    between = perf_counter()
    for _ in range(LOOPS):
        match("web", view)
    return (perf_counter() - between - (between - started)) / LOOPS * 1e6


def bench_match(rounds: int) -> None:
    """10,000 routes against 10."""
    few, lots = many(10), many(10_000)
    print("| request | 10 routes, us | 10,000 routes, us | ratio |\n|---|---|---|---|")
    for name, view in CASES.items():
        pairs = [(microseconds(few, view), microseconds(lots, view)) for _ in range(rounds)]
        small, large = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"| {name} | {small:.2f} | {large:.2f} | {ratio:.2f} |")


def bench_hostile(rounds: int) -> None:
    """Eight hostile requests are ahead of an honest one, as when eight clients attack in a closed loop: the time from
    the first hostile request to the answer for the honest one, the patterns new in each of the repetitions."""
    hostile = request("/" + "a" * 64 + "!")
    honest = request("/api/v1/items/1")
    print("| pattern | hostile clients | delay p50, ms | p99, ms | max, ms | answer to the hostile |")
    print("|---|---|---|---|---|---|")
    for pattern in ("/(a|aa)+$", r"/(a|aa)+(?!b)c\1"):
        for clients in (0, 8):
            delays: list[float] = []
            answers: Counter[str] = Counter()
            for _ in range(rounds):
                table = table_of(
                    [route("hostile", PathMatch.regex(pattern)), route("ok", PathMatch.exact(honest.path))]
                )
                for _ in range(400):
                    started = perf_counter()
                    for _ in range(clients):
                        outcome = table.match("web", hostile)
                        answers["503" if isinstance(outcome, RegexTimeout) else "404"] += 1
                    if not isinstance(table.match("web", honest), Hit):
                        raise SystemExit("the honest request was not answered")
                    delays.append((perf_counter() - started) * 1e3)
                del table  # the pattern goes with it, so the next repetition begins anew
            cuts = statistics.quantiles(delays, n=100)
            name = pattern.replace("|", "\\|")
            shown = ", ".join(f"{count} x {what}" for what, count in answers.items()) or "-"
            figures = f"{cuts[49]:.3f} | {cuts[98]:.2f} | {max(delays):.2f}"
            print(f"| `{name}` | {clients} | {figures} | {shown} |")


def some_backends(count: int, chosen: random.Random) -> list[Backend]:
    """Backends with different random addresses."""
    numbers = chosen.sample(range(1 << 24), count)
    return [Backend(address=Address(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80)) for n in numbers]


def bench_maglev(rounds: int) -> None:
    """Slots that move when one backend leaves, evenness, and the time to build."""
    print("| backends | slots | moved, mean | moved, worst | ideal | max/mean share | build, ms |")
    print("|---|---|---|---|---|---|---|")
    for count in (2, 8, 32, 512):
        moved, shares, times = [], [], []
        for seed in range(rounds * 4 if count <= 8 else max(1, rounds // 15)):
            backends = some_backends(count, random.Random(seed))
            started = perf_counter()
            table = maglev.build(backends)
            times.append((perf_counter() - started) * 1e3)
            before = [table.backends[slot] for slot in table.slots]
            shares.append(max(Counter(before).values()) / (len(before) / count))
            for gone in range(min(count, 8)):
                after = maglev.build(backends[:gone] + backends[gone + 1 :])
                if len(after.slots) == len(before):
                    changed = sum(a is not after.backends[s] for a, s in zip(before, after.slots, strict=True))
                    moved.append(changed / len(before))
        print(
            f"| {count} | {len(before)} | {statistics.mean(moved):.1%} | {max(moved):.1%} | {1 / count:.1%} "
            f"| {max(shares):.4f} | {statistics.median(times):.1f} |"
        )


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    for title, bench in (("Table.match", bench_match), ("Hostile regexes", bench_hostile), ("Maglev", bench_maglev)):
        print(f"\n### {title}\n")
        bench(rounds)


if __name__ == "__main__":
    main()
