"""The admin interface of a running gateway, by curl and by rautactl."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.http2.library import LIBRARIES
from support.process import PATIENCE, ROOT, Backend, Gateway, children, free_port, gateway, get

TOKEN = "a-token-of-enough-characters"


class Admin:
    """A gateway with both admin sockets."""

    def __init__(self, home: Path, backend: Backend) -> None:
        self.path = home / "rauta.yaml"
        self.socket = home / "admin.sock"
        self.port = free_port()
        self.web = free_port()
        self.dead = free_port()
        self.backend = backend
        (home / "token").write_text(TOKEN + "\n")
        (home / "token").chmod(0o600)

    def write(self, **changes: Any) -> None:
        document = {
            "version": 1,
            "workers": 1,
            "listeners": {"web": {"address": f"127.0.0.1:{self.web}"}},
            "access_log": {"to": "off"},
            "admin": {"socket": str(self.socket), "address": f"127.0.0.1:{self.port}", "token": {"file": "token"}},
            "services": {
                "s": {
                    "backends": [
                        {"address": f"127.0.0.1:{self.backend.port}"},
                        {"address": f"127.0.0.1:{self.dead}"},
                    ],
                    "health": {"interval": "100ms", "timeout": "100ms"},
                }
            },
            "routes": [{"name": "all", "service": "s"}],
            **changes,
        }
        self.path.write_text(json.dumps(document))

    def curl(self, path: str, *more: str, unix: bool = False) -> tuple[int, str]:
        """Status and body."""
        where = (
            ["--unix-socket", str(self.socket), f"http://x{path}"] if unix else [f"http://127.0.0.1:{self.port}{path}"]
        )
        words = ["curl", "-sS", "--max-time", "30", "-w", "\n%{http_code}", *more, *where]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        body, _, status = said.rpartition("\n")
        return int(status), body

    def ctl(self, *words: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of rautactl."""
        command = [sys.executable, "-m", "rauta.ctl.cli", *words, "--socket", str(self.socket)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    backend = Backend()
    try:
        found = Admin(tmp_path, backend)
        found.write()
        yield found
    finally:
        backend.close()


@pytest.fixture
def running(admin: Admin) -> Iterator[Gateway]:
    with gateway("--config", str(admin.path)) as process:
        wait_for_admin(admin)
        yield process


def wait_for_admin(admin: Admin) -> None:
    """The agent starts beside the workers; the sockets listen from the first moment on, so a request just waits."""
    status, _ = admin.curl("/healthz")
    assert status == 200


POST = ("-X", "POST", "-H", "Content-Type: application/json")


def test_who_may_do_what(admin: Admin, running: Gateway) -> None:
    assert stat.S_IMODE(admin.socket.stat().st_mode) == 0o600
    bearer = ("-H", f"Authorization: Bearer {TOKEN}")
    asked = [
        (200, admin.curl("/readyz")),
        (200, admin.curl("/v1/status")),
        (401, admin.curl("/v1/reload", *POST)),
        (401, admin.curl("/v1/reload", *POST, "-H", "Authorization: Bearer wrong")),
        (200, admin.curl("/v1/reload", *POST, *bearer)),
        (200, admin.curl("/v1/reload", *POST, unix=True)),
        (415, admin.curl("/v1/reload", "-X", "POST", unix=True)),
        (415, admin.curl("/v1/reload", "-d", "a=b", unix=True)),
        (421, admin.curl("/v1/status", "-H", "Host: evil.example")),
        (421, admin.curl("/v1/status", "-H", "Host: 192.0.2.1")),
        (403, admin.curl("/v1/status", "-H", "Origin: http://evil.example", *bearer)),
        (404, admin.curl("/v1/nothing", unix=True)),
        (405, admin.curl("/v1/reload", unix=True)),
        (413, admin.curl("/v1/reload", *POST, "-d", "x" * 100_000, unix=True)),
    ]
    assert [(wanted, status) for wanted, (status, _) in asked if wanted != status] == []
    for wanted, (_, body) in asked[2:]:
        if wanted != 200:
            assert json.loads(body)["error"]["text"]


def test_health_reaches_routing_and_is_shown(admin: Admin, running: Gateway) -> None:
    running.wait_for("backend_down")
    for _ in range(20):  # by now the workers know: no request goes to the dead one, so none is tried twice
        assert get(admin.web, "/here") == (200, b"/here")
    code, shown, _ = admin.ctl("services", "--json")
    assert code == 0
    (service,) = json.loads(shown)["services"]
    assert [backend["health"] for backend in service["backends"]] == ["healthy", "unhealthy"]
    assert service["backends"][1]["failure"] == "connection refused"
    _, text = admin.curl("/metrics")
    assert f'rauta_backend_healthy{{backend="127.0.0.1:{admin.dead}",service="s"}} 0.0' in text


def test_all_backends_down_is_503(admin: Admin) -> None:
    services = {"s": {"backends": [{"address": f"127.0.0.1:{admin.dead}"}], "health": {"interval": "100ms"}}}
    admin.write(services=services)
    with gateway("--config", str(admin.path)) as running:
        running.wait_for("backend_down")
        deadline = time.monotonic() + PATIENCE
        status, body = get(admin.web, "/here")
        while status == 502 and time.monotonic() < deadline:  # the news is on its way from the agent to the worker
            status, body = get(admin.web, "/here")
        assert (status, b"no_backend" in body) == (503, True)


def test_counters_outlive_a_worker(admin: Admin, running: Gateway) -> None:
    def requests() -> int:
        _, shown, _ = admin.ctl("stats", "--json")
        return sum(row["requests"] for row in json.loads(shown)["routes"])

    for _ in range(5):
        get(admin.web, "/here")
    assert requests() == 5
    (pid, *_) = running.wait_for("ready")["workers"]
    os.kill(pid, signal.SIGKILL)
    running.wait_for("worker_ready")
    for _ in range(3):
        get(admin.web, "/here")
    assert requests() == 8
    _, text = admin.curl("/metrics")
    assert "rauta_worker_restarts_total 1.0" in text


def test_metrics_have_the_labels_that_are_promised(admin: Admin, running: Gateway) -> None:
    get(admin.web, "/here")
    subprocess.run(["curl", "-s", "-X", "BREW", f"http://127.0.0.1:{admin.web}/x"], check=True, capture_output=True)
    _, text = admin.curl("/metrics")
    assert (
        'rauta_requests_total{code="200",listener="web",method="GET",protocol="HTTP/1.1",route="all",service="s",tier="3"}'
        " 1.0"
    ) in text
    assert 'method="OTHER"' in text
    assert "BREW" not in text


def test_the_library_of_frames_is_told(admin: Admin, running: Gateway) -> None:
    used = running.wait_for("ready")["http2"]
    assert used in LIBRARIES
    assert f"HTTP/2         frames by {used}\n" in admin.ctl("status")[1]
    assert json.loads(admin.ctl("status", "--json")[1])["status"]["http2"] == used
    assert re.search(rf'^rauta_build_info{{http2="{used}",', admin.curl("/metrics")[1], re.MULTILINE)


def test_reload_by_rautactl_tells_what_is_wrong(admin: Admin, running: Gateway) -> None:
    assert admin.ctl("reload")[0] == 0
    admin.write(routes=[{"name": "all", "service": "nobody"}])
    code, _, complaint = admin.ctl("reload")
    assert code == 2
    assert "there is no service 'nobody'" in complaint
    _, shown, _ = admin.ctl("status", "--json")
    status = json.loads(shown)["status"]
    assert status["reloads"]["failed"] == 1
    assert status["reloads"]["last"]["ok"] is False


def test_reload_tells_what_is_most_likely_a_mistake(admin: Admin, running: Gateway) -> None:
    assert "warning" not in admin.ctl("reload")[1]
    assert json.loads(admin.curl("/v1/reload", *POST, unix=True)[1])["warnings"] == []
    admin.write(routes=[{"name": name, "service": "s"} for name in ("all", "other")])
    code, shown, _ = admin.ctl("reload")
    warning, done = shown.splitlines()
    assert (code, warning) == (
        0,
        f"warning: {admin.path}:1: routes[1]: this route is never reached: 'all' has the same match and goes first",
    )
    assert done == "admin: generation 4 is live"
    assert json.loads(admin.ctl("reload", "--json")[1])["warnings"] == [warning.removeprefix("warning: ")]
    assert "warnings" not in json.loads(admin.curl("/v1/reopen", *POST, unix=True)[1])


def test_a_dump_of_the_running_gateway_can_be_served(admin: Admin, running: Gateway, tmp_path: Path) -> None:
    code, shown, _ = admin.ctl("dump")
    assert code == 0
    assert TOKEN not in shown
    again = tmp_path / "again.json"
    again.write_text(shown)
    check = subprocess.run(
        [sys.executable, "-m", "rauta.proxy", "--config", str(again), "--check"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


def test_the_agent_is_replaced(admin: Admin, running: Gateway) -> None:
    workers = running.wait_for("ready")["workers"]
    (agent,) = set(children(running.process.pid)) - set(workers)
    os.kill(agent, signal.SIGKILL)
    running.wait_for("agent_died")
    assert admin.curl("/readyz")[0] == 200
    assert get(admin.web, "/here") == (200, b"/here")


def test_readyz_fails_before_the_listeners_close(admin: Admin) -> None:
    admin.write(shutdown={"delay": "30s"})
    with gateway("--config", str(admin.path)) as running:
        wait_for_admin(admin)
        running.signal(signal.SIGTERM)
        running.wait_for("draining")
        deadline = time.monotonic() + PATIENCE
        while admin.curl("/readyz")[0] != 503:
            assert time.monotonic() < deadline
        assert get(admin.web, "/here") == (200, b"/here")  # still served
        running.signal(signal.SIGTERM)  # the second one ends the waiting
        assert running.wait() == 0
    assert not admin.socket.exists()


def test_a_hanging_worker_is_replaced(admin: Admin, running: Gateway) -> None:
    (pid, *_) = running.wait_for("ready")["workers"]
    os.kill(pid, signal.SIGSTOP)  # its loop turns no more, but it lives
    assert running.wait_for("worker_hung")["worker_pid"] == pid
    running.wait_for("worker_ready")
    assert get(admin.web, "/here") == (200, b"/here")


def test_an_admin_socket_in_use_is_told(admin: Admin, running: Gateway, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    document = json.loads(admin.path.read_text())
    document["listeners"]["web"]["address"] = f"127.0.0.1:{free_port()}"
    other.write_text(json.dumps(document))
    words = [sys.executable, "-m", "rauta.proxy", "--config", str(other)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"admin: unix:{admin.socket} is in use" in done.stderr
    assert admin.curl("/healthz", unix=True)[0] == 200
