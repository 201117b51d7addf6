"""The scripts for people: quick when all is there, clear where they cannot go on, and the demo tells the truth.

Installing is not tested here (it needs root and a network), but what leads to it is: the copies of the checkout get
this environment's Python as theirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rauta.config import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DEMO = ("scripts/demo",)


@pytest.fixture(scope="module")
def copy(clone: Callable[[], Path]) -> Path:
    return clone()


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Our interpreter on a copy's scripts, and with the copy's rauta."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH with the programs that every system has, and none to install with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "cat", "cut", "dirname", "env", "flock", "grep", "id", "mktemp", "rm", "sed", "sha256sum"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def _script(folder: Path, name: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(path), "LC_ALL": "C.UTF-8", **variables}
    command = ["bash", str(folder / "scripts" / name)]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_python_that_is_too_old_is_refused_by_name(copy: Path, programs: Path) -> None:
    old = programs / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.18\nexit 1\n')
    old.chmod(0o755)
    done = _script(copy, "demo.sh", programs, PYTHON=str(old))
    assert done.returncode == 1
    assert f"{old} ($PYTHON) is Python 3.9.18; rauta needs Python 3.11 or newer" in done.stderr
    assert not (copy / ".venv").exists()


def test_python_that_does_not_exist_is_named(copy: Path, programs: Path) -> None:
    done = _script(copy, "demo.sh", programs, PYTHON="python-of-mine")
    assert done.returncode == 1
    assert "there is no program 'python-of-mine' ($PYTHON)" in done.stderr


def _pretend(programs: Path, **texts: str) -> None:
    """Programs of shell script, in place of the real ones."""
    for name, text in texts.items():
        path = programs / name.replace("_", "-")
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)


def test_machine_without_apt_is_told_what_to_install(copy: Path, programs: Path) -> None:
    _pretend(programs, id="echo 1000")
    done = _script(copy, "demo.sh", programs)
    assert done.returncode == 1
    assert "this machine has no apt" in done.stderr
    assert "curl python3 python3-venv" in done.stderr


def test_user_without_root_gets_the_line_to_type(copy: Path, programs: Path) -> None:
    _pretend(programs, apt_get="exit 100", id="echo 1000")
    done = _script(copy, "test.sh", programs)
    assert done.returncode == 1
    line = "apt-get update && apt-get install --no-install-recommends curl gcc libc6-dev openssl nghttp2-client"
    # nghttpd is in /usr/sbin, where the scripts look, too; and nothing for the kernel tiers, which want root
    assert re.search(f"{line}( nghttp2-server)? python3 python3-venv\n", done.stderr), done.stderr


def test_root_gets_what_the_kernel_tiers_need(copy: Path, programs: Path) -> None:
    _pretend(programs, apt_get='case "$*" in *install*) exit 100 ;; esac', id="echo 0")
    (programs / "tail").symlink_to(shutil.which("tail") or "")
    done = _script(copy, "test.sh", programs, PYTHON=sys.executable)
    assert done.returncode == 1
    found = re.search(r"apt could not install: (.+)\n", done.stderr)
    assert found is not None, done.stderr
    assert {"curl", "openssl", "util-linux"} <= set(found[1].split())  # this machine may have ip and bcc


def test_scripts_pass_shellcheck(checkout: Path) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    scripts = [*(checkout / "scripts").glob("*.sh"), checkout / ".ci" / "run"]
    done = subprocess.run([program, "-x", *scripts], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# --- the demo -------------------------------------------------------------------------------------------


def test_demo_shows_every_row_and_all_are_right(copy: Path) -> None:
    done = _python(copy, *DEMO)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "15 of 15 rows are what they should be" in done.stdout
    assert done.stdout.count("  ok\n") == 15
    routes = load(copy / "examples" / "rauta.yaml").configuration.routes
    assert {route.name for route in routes} <= set(done.stdout.split())  # a route that no row shows may well be broken
    assert "\033" not in done.stdout  # no colours: this is no terminal


def test_demo_is_red_when_a_request_goes_astray(clone: Callable[[], Path]) -> None:
    folder = clone()
    example = folder / "examples" / "rauta.yaml"
    text = example.read_text()
    assert "{exact: /api/users}}, service: blue}" in text
    example.write_text(text.replace("{exact: /api/users}}, service: blue}", "{exact: /api/users}}, service: green}"))
    done = _python(folder, *DEMO)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"GET /api/users .* green .* WRONG\n +backend should be blue\n", done.stdout)
    assert "1 of 15 rows are not what they should be" in done.stdout


def test_demo_says_why_rauta_did_not_start(clone: Callable[[], Path]) -> None:
    folder = clone()
    example = folder / "examples" / "rauta.yaml"
    example.write_text(example.read_text().replace("service: broken", "service: brokne"))
    done = _python(folder, *DEMO)
    assert done.returncode == 1
    assert "demo: rauta ended with exit code 2" in done.stdout
    assert "there is no service 'brokne'; did you mean 'broken'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def kept(copy: Path) -> Iterator[subprocess.Popen[str]]:
    """`demo --keep` while 8080 is taken, so that the ports are free ones."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody has it already, which does as well
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        process = subprocess.Popen(
            [sys.executable, *DEMO, "--keep"],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_kept_demo_serves_until_it_is_stopped(kept: subprocess.Popen[str], number: signal.Signals) -> None:
    assert kept.stdout is not None
    lines = []
    while "Ctrl-C stops" not in (line := kept.stdout.readline()):
        assert line, "".join(lines)
        lines.append(line)
    text = "".join(lines)
    assert "on ports that are free here" in text
    url = re.search(r"curl (http://127\.0\.0\.1:([0-9]+)/api/users)\n", text)
    assert url is not None
    done = subprocess.run(["curl", "-sS", url[1]], capture_output=True, text=True)
    assert done.stdout == "blue GET /api/users\n"
    kept.send_signal(number)
    assert kept.wait(30) == 0
    assert "Stopped." in kept.stdout.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url[2]))).close()
