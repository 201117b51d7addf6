"""A gateway with the kernel offload between a client and two backends, for real: network namespaces, packets, TCP.

Each test gets `path`, and is red if it leaves a flow in the kernel's maps. At the end of this folder, nothing is left
on the machine: what comes next may look for that.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import BccOffload
from rauta.offload.bcc.places import folder_of
from rauta.routing.settings import OffloadSettings
from support.kernelpath import KernelPath, kernel_path
from support.network import PREFIX, Network, Server, network

# Exact paths are tier 1's, the rest tier 2's. `dead` is refused, of `mixed` a half; nobody is at the first backend of
# `silent`, and the first of `full` listens but takes no connection.
CONFIGURATION = """
listeners: {web: {address: "0.0.0.0:8080"}}
services:
  one: {backends: [{address: "10.203.2.2:80"}]}
  two: {backends: [{address: "10.203.3.2:80"}]}
  real: {backends: [{address: "10.203.2.2:8081"}]}
  dead: {backends: [{address: "10.203.2.2:81"}]}
  mixed: {backends: [{address: "10.203.2.2:81"}, {address: "10.203.3.2:80"}]}
  silent: {backends: [{address: "10.203.2.77:80"}, {address: "10.203.3.2:80"}]}
  full: {backends: [{address: "10.203.2.2:82"}, {address: "10.203.3.2:80"}]}
routes:
  - {name: one, match: {path: {exact: /one}}, service: one}
  - {name: exact, match: {path: {exact: /bytes/3000}}, service: one}
  - {name: other, match: {path: {exact: /other}}, service: two}
  - {name: rest, match: {path: {prefix: /}}, service: one}
  - {name: two, match: {path: {prefix: /two}}, service: two}
  - {name: real, match: {path: {prefix: /real}}, service: real}
  - {name: dead, match: {path: {prefix: /dead}}, service: dead}
  - {name: mixed, match: {path: {prefix: /mixed}}, service: mixed}
  - {name: silent, match: {path: {prefix: /silent}}, service: silent}
  - {name: full, match: {path: {prefix: /full}}, service: full}
  - {name: regex, match: {path: {regex: "/rx/[0-9]+"}}, service: two}
  - {name: hello, match: {path: {exact: /hello}}, respond: {body: "hi"}}
"""
MANY = 10  # more services than a flow parks connections to
_head, _routes = CONFIGURATION.split("routes:\n")
CONFIGURATION = (
    _head
    + "".join(f'  s{n}: {{backends: [{{address: "10.203.{2 + n % 2}.2:80"}}]}}\n' for n in range(MANY))
    + "routes:\n"
    + _routes
    + "".join(f"  - {{name: s{n}, match: {{path: {{prefix: /s{n}}}}}, service: s{n}}}\n" for n in range(MANY))
)


_pins: list[Path] = []  # the folders of the namespaces that were here


def _namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
    return {name for name in listed if name.startswith(f"{PREFIX}{os.getpid() % 100000}n")}


@pytest.fixture(scope="package", autouse=True)
def _clean() -> Iterator[None]:
    """Nothing of these tests is left: no namespace, no pin."""
    missing = BccOffload().missing(OffloadSettings())
    if missing is not None:
        pytest.skip(missing)
    yield
    assert not _namespaces()
    assert not [folder for folder in _pins if folder.exists()]


@pytest.fixture(scope="package", params=["tc", "xdp"])
def hook(request: pytest.FixtureRequest) -> str:
    """Where the kernel's work is done."""
    return str(request.param)


@pytest.fixture(scope="package")
def net(_clean: None, hook: str) -> Iterator[Network]:
    with network(offloads=hook != "xdp") as found:
        _pins.append(folder_of(found.gateway.path.stat().st_ino))
        yield found


@pytest.fixture(scope="package")
def b1(net: Network) -> Iterator[Server]:
    with Server(net.b1, "b1") as found:
        yield found


@pytest.fixture(scope="package")
def b2(net: Network) -> Iterator[Server]:
    with Server(net.b2, "b2") as found:
        yield found


@pytest.fixture(scope="package")
def running(
    net: Network, hook: str, b1: Server, b2: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KernelPath]:
    with kernel_path(net, tmp_path_factory.mktemp("gateway"), CONFIGURATION, hook) as found:
        yield found


@pytest.fixture
def path(running: KernelPath, request: pytest.FixtureRequest) -> Iterator[KernelPath]:
    """The gateway, whose maps must be empty again when the test has ended, but for flows that are over."""
    yield running
    # (A failure in here is no expected one: a test that expects it asks by itself.)
    left = [] if request.node.get_closest_marker("xfail") else running.settle()
    running.forget()
    assert not left


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path
