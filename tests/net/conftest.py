"""A gateway with the kernel offload between a client and two backends, for real: network namespaces, packets, TCP.

Each test gets `path`, and is red if it leaves a flow in the kernel's maps. At the end of this folder, nothing is left
on the machine: what comes next may look for that.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import BccOffload
from rauta.offload.bcc.places import folder_of
from rauta.routing.settings import OffloadSettings
from support.kernelpath import KernelPath, kernel_path, wait_until
from support.network import PREFIX, Network, Server, network

# Exact paths are tier 1's, the rest tier 2's. `dead` is refused, of `mixed` a half; nobody is at the first backend of
# `silent`, and the first of `full` listens but takes no connection.
CONFIGURATION = """
listeners: {web: {address: "0.0.0.0:8080"}}
services:
  one: {backends: [{address: "10.203.2.2:80"}]}
  two: {backends: [{address: "10.203.3.2:80"}]}
  real: {backends: [{address: "10.203.2.2:8081"}]}
  told: {backends: [{address: "10.203.2.2:80"}], proxy_protocol: v2}
  dead: {backends: [{address: "10.203.2.2:81"}]}
  deadtold: {backends: [{address: "10.203.2.2:81"}, {address: "10.203.3.2:80"}], proxy_protocol: v2}
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
  - {name: told, match: {path: {prefix: /told}}, service: told}
  - {name: deadtold, match: {path: {prefix: /deadtold}}, service: deadtold}
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


NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.prefix) / "bin")]))
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
def real(path: KernelPath, tmp_path: Path) -> Iterator[Path]:
    """An nginx in the first backend's namespace; the folder that it serves."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    www = tmp_path / "www" / "real"
    www.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "www"):
        folder.chmod(0o755)
    file = tmp_path / "nginx.conf"
    places = "".join(
        f"{name}_temp_path {tmp_path}/t; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"events {{ worker_connections 512; }}\nhttp {{ access_log off; {places} keepalive_requests 100000;\n"
        f"server {{ listen 8081 backlog=1024; root {tmp_path}/www; }} }}\n"
    )
    command = path.net.b1.command(NGINX, "-e", f"{tmp_path}/error.log", "-c", str(file))
    process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def answers() -> bool:
        with path.net.b1.inside():
            sock = socket.socket()
        with sock:
            return process.poll() is not None or sock.connect_ex(("127.0.0.1", 8081)) == 0

    try:
        assert wait_until(answers, 10)
        assert process.poll() is None, process.communicate()[1]
        yield www
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path
