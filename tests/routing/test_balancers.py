"""The built-in balancers: their shares, their reaction to load, and the contract that they share with plugins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from rauta.routing.balancers import BUILT_IN, LeastRequests, Maglev, RandomOfTwo, RoundRobin
from rauta.routing.hashing import client_hash
from rauta.routing.plugins import Balancer
from rauta.routing.services import Backend
from support.build import backend

A, B, C = backend("10.0.0.1:80", 1), backend("10.0.0.2:80", 2), backend("10.0.0.3:80", 3)
KEYS = [client_hash("192.0.2.1", port) for port in range(3000)]


def idle(_: Backend) -> int:
    return 0


def counts(balancer: Balancer, *candidates: Backend, load: Callable[[Backend], int] = idle) -> Counter[Backend]:
    return Counter(balancer.pick(candidates, key, load) for key in KEYS)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_keeps_the_contract(name: str) -> None:
    balancer = BUILT_IN[name]()
    assert isinstance(balancer, Balancer)
    for candidates in ((A,), (A, B, C), (B, C), (C,)):
        picked = set(counts(balancer, *candidates))
        assert picked <= set(candidates)
        assert picked == set(candidates) or name == "least_requests", "that one looks at load, and there is none"
    balancer.close()


@pytest.mark.parametrize("name", ["maglev", "round_robin", "random_two"])
def test_shares_follow_weights(name: str) -> None:
    found = counts(BUILT_IN[name](), A, B, C)
    for each in (A, B, C):
        assert found[each] == pytest.approx(500 * each.weight, rel=0.2)


def test_maglev_keeps_clients_when_another_backend_leaves() -> None:
    balancer = Maglev()
    before = {key: balancer.pick((A, B, C), key, idle) for key in KEYS}
    moved = [key for key in KEYS if balancer.pick((A, B), key, idle) != before[key] and before[key] != C]
    assert len(moved) < 0.1 * len(KEYS)
    assert all(balancer.pick((A, B, C), key, idle) == before[key] for key in KEYS)


def test_maglev_builds_once_for_the_same_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    from rauta.routing import maglev

    built: list[object] = []
    real = maglev.build
    monkeypatch.setattr(maglev, "build", lambda candidates: built.append(candidates) or real(candidates))
    balancer = Maglev()
    for candidates in ((A, B), (A, B), (A, B, C), (A, B, C)):
        balancer.pick(candidates, 1, idle)
    assert built == [(A, B), (A, B, C)]


def test_round_robin_takes_turns_evenly() -> None:
    same = tuple(backend(f"10.0.1.{i}:80") for i in range(3))
    balancer = RoundRobin()
    turns = [balancer.pick(same, 0, idle) for _ in range(6)]
    assert turns[:3] == turns[3:]
    assert set(turns) == set(same)
    weighted = RoundRobin()
    found = [weighted.pick((A, C), 0, idle) for _ in range(8)]
    assert Counter(found) == {A: 2, C: 6}
    assert all(Counter(found[i : i + 4]) == {A: 1, C: 3} for i in range(5))


def test_least_requests_looks_at_load_and_weight() -> None:
    load = {A: 1, B: 3, C: 9}
    assert set(counts(LeastRequests(), A, B, C, load=load.__getitem__)) == {A, B}  # 2/1 and 4/2 tie, 10/3 is more
    assert set(counts(LeastRequests(), A, B, load={A: 0, B: 0}.__getitem__)) == {B}
    same = tuple(backend(f"10.0.1.{i}:80") for i in range(4))
    assert set(counts(LeastRequests(), *same).values()) == {750}


def test_random_of_two_prefers_the_less_loaded() -> None:
    same = tuple(backend(f"10.0.1.{i}:80") for i in range(4))
    found = counts(RandomOfTwo(), *same, load=same.index)
    assert found[same[3]] == 0, "the most loaded of all loses every comparison"
    assert found[same[0]] == pytest.approx(1500, rel=0.15)


def test_random_of_two_draws_two_different_ones() -> None:
    assert set(counts(RandomOfTwo(), A, B, load={A: 1, B: 0}.__getitem__)) == {B}
