"""bpf/hash.h and rauta.routing.hashing are one function: the kernel and tier 3 must pick the same backend."""

from __future__ import annotations

import ctypes
import ipaddress
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rauta.routing import hashing

Hash = Callable[..., int]

WRAPPER = """
#include "hash.h"
__u64 mix(__u64 value) { return rauta_mix(value); }
__u64 v4(__u32 address, __u16 port, __u64 seed) { return rauta_hash_v4(address, port, seed); }
__u64 v6(__u64 high, __u64 low, __u16 port, __u64 seed) { return rauta_hash_v6(high, low, port, seed); }
__u64 seeds(int which) { return which ? RAUTA_SERVICE_SEED : RAUTA_BACKEND_SEED; }
"""
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-O2")

ports = st.integers(0, 65535)
seeds = st.sampled_from([hashing.BACKEND_SEED, hashing.SERVICE_SEED]) | st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def wrapper(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("hash") / "wrapper.c"
    source.write_text(WRAPPER)
    return source


@pytest.fixture(scope="module")
def library(checkout: Path, wrapper: Path) -> ctypes.CDLL:
    """The header compiled by the machine's compiler, as userspace would."""
    target = wrapper.with_suffix(".so")
    command = ["cc", *WARNINGS, "-std=gnu11", "-shared", "-fPIC", f"-I{checkout / 'bpf'}"]
    subprocess.run([*command, wrapper, "-o", target], check=True, capture_output=True, text=True)
    loaded = ctypes.CDLL(str(target))
    word, half, port = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint16
    for name, arguments in {
        "mix": [word],
        "v4": [half, port, word],
        "v6": [word, word, port, word],
        "seeds": [ctypes.c_int],
    }.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = word, arguments
    return loaded


def test_seeds_are_equal(library: ctypes.CDLL) -> None:
    assert (library.seeds(0), library.seeds(1)) == (hashing.BACKEND_SEED, hashing.SERVICE_SEED)


def test_mix_is_splitmix64(library: ctypes.CDLL) -> None:
    # The reference generator's first outputs for state 0: mix() of multiples of the golden gamma.
    gamma = 0x9E3779B97F4A7C15
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = [gamma * step % 2**64 for step in (1, 2, 3)]
    assert [library.mix(state) for state in states] == expected
    assert [hashing.mix(state) for state in states] == expected


@given(st.integers(0, 2**32 - 1), ports, seeds)
def test_ipv4_is_equal(library: ctypes.CDLL, address: int, port: int, seed: int) -> None:
    host = str(ipaddress.IPv4Address(address))
    assert library.v4(address, port, seed) == hashing.client_hash(host, port, seed)
    assert library.v4(address, port, seed) == hashing.client_hash(f"::ffff:{host}", port, seed)


@given(st.integers(0, 2**128 - 1) | st.integers(0, 2**64 - 1), ports, seeds)
@example(int(ipaddress.IPv6Address("::1")), 443, hashing.BACKEND_SEED)
@example(int(ipaddress.IPv6Address("::ffff:0:192.0.2.1")), 443, hashing.BACKEND_SEED)  # SIIT: nothing in the high word
def test_ipv6_is_equal(library: ctypes.CDLL, number: int, port: int, seed: int) -> None:
    address = ipaddress.IPv6Address(number)
    if address.ipv4_mapped is not None:
        return  # counts as IPv4, tested above
    assert library.v6(number >> 64, number & (2**64 - 1), port, seed) == hashing.client_hash(str(address), port, seed)
