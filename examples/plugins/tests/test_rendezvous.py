from __future__ import annotations

from collections import Counter

import pytest
from rauta.api import Address, Backend, Balancer

from rauta_example_plugins.rendezvous import Rendezvous, RendezvousSettings

KEYS = [(n * 0x9E3779B97F4A7C15) & ((1 << 64) - 1) for n in range(1, 20_001)]


def backend(number: int, weight: int = 1) -> Backend:
    return Backend(address=Address(f"10.0.0.{number}", 80), weight=weight)


def idle(_: Backend) -> int:
    return 0


def picks(candidates: list[Backend], settings: RendezvousSettings | None = None) -> list[Backend]:
    balancer = Rendezvous(settings or RendezvousSettings())
    return [balancer.pick(candidates, key, idle) for key in KEYS]


def test_shares_are_those_of_the_weights() -> None:
    candidates = [backend(1), backend(2, 2), backend(3, 5)]
    counts = Counter(picks(candidates))
    for one in candidates:
        expected = len(KEYS) * one.weight / 8
        assert abs(counts[one] - expected) < 5 * expected**0.5  # five standard deviations


def test_the_order_of_the_file_changes_nothing() -> None:
    candidates = [backend(number, number) for number in range(1, 6)]
    assert picks(candidates) == picks(candidates[::-1])


@pytest.mark.parametrize("gone", [1, 3, 5])
def test_only_the_clients_of_a_backend_that_goes_move(gone: int) -> None:
    candidates = [backend(number, number) for number in range(1, 6)]
    left = [one for one in candidates if one != backend(gone, gone)]
    for before, after in zip(picks(candidates), picks(left), strict=True):
        assert before == after or before == backend(gone, gone)


def test_without_load_a_bound_changes_nothing() -> None:
    candidates = [backend(1), backend(2), backend(3)]
    assert picks(candidates, RendezvousSettings(bound=1.25)) == picks(candidates)


def test_a_bound_keeps_a_popular_client_from_drowning_a_backend() -> None:
    candidates = [backend(1), backend(2), backend(3, 2)]
    balancer = Rendezvous(RendezvousSettings(bound=1.25))
    in_flight: Counter[Backend] = Counter()
    for _ in range(400):  # one client, nothing ever ends
        in_flight[balancer.pick(candidates, KEYS[0], in_flight.__getitem__)] += 1
    for one in candidates:
        assert in_flight[one] <= 1.25 * 400 * one.weight / 4 + 1
    first = Rendezvous(RendezvousSettings()).pick(candidates, KEYS[0], idle)
    assert in_flight[first] > 400 * first.weight / 4  # and still the first choice has more than its share


def test_a_load_that_cannot_be_still_gets_a_backend() -> None:
    candidates = [backend(1), backend(2)]
    answers = iter([10**9, 10**9])
    assert Rendezvous(RendezvousSettings(bound=1.01)).pick(candidates, KEYS[0], lambda _: next(answers)) in candidates


@pytest.mark.parametrize("bound", [1.0, 0.5, -1.0, 101.0, float("nan")])
def test_a_bound_that_cannot_hold_is_refused(bound: float) -> None:
    with pytest.raises(ValueError, match="out of range"):
        RendezvousSettings(bound=bound)


def test_it_keeps_the_protocol() -> None:
    balancer: Balancer = Rendezvous(RendezvousSettings())  # for the type checker
    assert isinstance(balancer, Balancer)
