"""The same addresses and ports, again and again: no late packet, no TIME_WAIT, no used-up port gets in the way."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from support.kernelpath import KernelPath

CONNECTIONS = 100_000


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_many_connections_of_few_ports(path: KernelPath, real: Path) -> None:
    """A client with 4,000 ports makes 100,000 connections."""
    (real / "small").write_bytes(b"x" * 30)
    client = path.net.client
    client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=30000 33999", "net.ipv4.tcp_tw_reuse=1")
    made = 0
    try:
        with path.counting() as seen:
            for _ in range(60):
                told = client.run(
                    "wrk",
                    "-t1",
                    "-c32",
                    "-d10s",
                    "--timeout",
                    "5s",
                    "-H",
                    "Connection: close",
                    "http://10.203.1.1:8080/real/small",
                )
                assert "Socket errors" not in told, told
                assert "Non-2xx" not in told, told
                made += int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
                if made >= CONNECTIONS:
                    break
    finally:
        client.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999", "net.ipv4.tcp_tw_reuse=2")
    assert made >= CONNECTIONS, os.uname().release
    assert seen["hit_first_2"] >= made
    assert not [name for name, number in seen.items() if name.startswith("miss_") and number]
    assert path.settle(30) == []
