"""rautactl, run in this process or as a program, and a file to run it on; there is no offload but a test's."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl import cli
from support.offloads import hide_shipped

CHECKOUT = Path(__file__).resolve().parents[2]
RAUTACTL = (sys.executable, "-W", "error", "-m", "rauta.ctl.cli")
EXAMPLE = """\
version: 1
listeners:
  web: {address: "0.0.0.0:8080"}
offload: {mode: auto, interfaces: [eth0]}
services:
  users:
    backends: [{address: "10.0.2.2:80"}, {address: "10.0.3.2:80", weight: 3}]
  canary: {backends: [{address: "10.0.4.2:80"}]}
  slow: {backends: [{address: "10.0.5.2:80"}], timeouts: {response: 300s}}
  turns:
    balancer: round_robin
    backends: [{address: "10.0.6.2:80"}, {address: "10.0.7.2:80"}]
routes:
  - {name: exact, match: {hosts: [api.example.com], path: {exact: /users}}, service: users}
  - name: shared
    match:
      - {hosts: [api.example.com], path: {prefix: /orders}, methods: [POST, PUT]}
      - {hosts: [api.example.com], path: {prefix: /v2/orders}}
    services: [{name: users, weight: 9}, {name: canary, weight: 1}]
  - {name: by-id, match: {hosts: [api.example.com], path: {regex: "/users/[0-9]+"}}, service: users}
  - {name: beta, match: {hosts: [api.example.com], headers: [{name: x-beta, exact: "1"}]}, service: canary}
  - {name: old, match: {hosts: [api.example.com], path: {prefix: /old}}, redirect: {status: 301, path: {prefix: /new}}}
  - {name: teapot, match: {hosts: [api.example.com], path: {exact: /tea}}, respond: {status: 418, body: "short\\n"}}
  - {name: slow, match: {hosts: ["*.example.org"], path: {prefix: /slow}}, service: slow}
  - {name: turns, match: {hosts: ["*.example.org"], path: {prefix: /turns}}, service: turns}
"""


# An offload that works, or lacks something; nothing is called but `missing`.
OFFLOAD = """
from rauta.offload import Capabilities

class Offload:
    name = {name!r}
    capabilities = Capabilities()
    start = prepare = commit = abort = usable = counters = stop = print

    def missing(self, settings):
        return {missing!r}
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.out)
        return content


Rautactl = Callable[..., Ended]
Install = Callable[..., None]


@pytest.fixture(scope="session")
def no_offload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hide_shipped(tmp_path_factory.mktemp("no-offload"))


@pytest.fixture(autouse=True)
def _without_the_shipped_offload(no_offload: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(no_offload))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[Install]:
    """Install an offload, for this process and for programs, with what it lacks on this machine."""
    site = tmp_path / "site"

    def installed(*, name: str = "toy", missing: str | None = None) -> None:
        about = site / "toy_offload-1.dist-info"
        about.mkdir(parents=True)
        (site / "toy_offload.py").write_text(OFFLOAD.format(name=name, missing=missing))
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-offload\nVersion: 1\n")
        (about / "entry_points.txt").write_text(f"[rauta.offloads]\n{name} = toy_offload:Offload\n")
        monkeypatch.syspath_prepend(str(site))
        environment["PYTHONPATH"] += f"{os.pathsep}{site}"

    yield installed
    sys.modules.pop("toy_offload", None)


@pytest.fixture
def rautactl(capsys: pytest.CaptureFixture[str]) -> Rautactl:
    def run(*arguments: str) -> Ended:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example, as ./rauta.yaml."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "rauta.yaml"
    path.write_text(EXAMPLE)
    return path


# --- as a program ---------------------------------------------------------------------------------------


@pytest.fixture
def environment(no_offload: Path) -> dict[str, str]:
    """Without what changes the form of the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "TERM")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(no_offload), str(CHECKOUT)])}


@pytest.fixture
def program(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RAUTACTL, *arguments], capture_output=True, text=True, check=False, env=environment | more, timeout=30
        )

    return run


@pytest.fixture
def on_a_terminal(environment: dict[str, str]) -> Callable[..., str]:
    """What the program writes to a terminal of so many columns, whatever its exit code."""

    def run(columns: int, *arguments: str, **more: str) -> str:
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        with subprocess.Popen(
            [*RAUTACTL, *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment | {"TERM": "xterm"} | more,
        ) as process:
            os.close(follower)
            written = b""
            while chunk := _read(leader):
                written += chunk
            os.close(leader)
            process.wait(30)
        return written.decode().replace("\r\n", "\n")

    return run


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # EIO: the other side is closed
        return b""
