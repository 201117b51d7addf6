"""The client's hash: pinned values (the kernel computes the same), spread and independence."""

from __future__ import annotations

from collections import Counter

import pytest

from rauta.routing.hashing import BACKEND_SEED, SERVICE_SEED, client_hash, mix


def test_the_finaliser_is_splitmix64() -> None:
    """First outputs of SplitMix64 from seed 0 (the reference generator adds the golden gamma, then mixes)."""
    gamma, mask = 0x9E3779B97F4A7C15, (1 << 64) - 1
    assert [mix(gamma * i & mask) for i in (1, 2, 3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_ipv4_is_the_address_and_port_in_one_word() -> None:
    assert client_hash("192.0.2.1", 40000) == mix(((0xC0000201 << 16) | 40000) ^ BACKEND_SEED)


def test_ipv6_folds_both_halves() -> None:
    high, low = 0x20010DB800000000, 0x1
    assert client_hash("2001:db8::1", 443) == mix(mix(mix(high ^ BACKEND_SEED) ^ low) ^ 443)
    assert client_hash("2001:db8::1", 443) != client_hash("2001:db8::2", 443)
    assert client_hash("2001:db8::1", 443) != client_hash("2001:db8:0:1::1", 443)


@pytest.mark.parametrize("host", ["::ffff:192.0.2.1", "::ffff:c000:201"])
def test_a_mapped_address_is_its_ipv4_address(host: str) -> None:
    assert client_hash(host, 1) == client_hash("192.0.2.1", 1)


def test_scope_ids_and_unix_peers_have_a_hash() -> None:
    assert client_hash("fe80::1%eth0", 1) == client_hash("fe80::1", 1)
    assert client_hash("", 0) == client_hash("@", 0)


def test_neighbouring_ports_spread_evenly() -> None:
    counts = Counter(client_hash("192.0.2.1", port) % 4099 % 8 for port in range(32768, 60999))
    assert max(counts.values()) / min(counts.values()) < 1.1


def test_the_seeds_are_independent() -> None:
    pairs = Counter(
        (client_hash("192.0.2.1", p) % 2, client_hash("192.0.2.1", p, SERVICE_SEED) % 2) for p in range(20_000)
    )
    assert all(4700 < count < 5300 for count in pairs.values())
