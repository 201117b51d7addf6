"""The processes, for real: start, serve, replace, drain, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from rauta.runtime.backoff import FIRST_DELAY, LONGEST_DELAY, YOUNG, Backoff
from support.process import PATIENCE, ROOT, Backend, Gateway, background, children, free_port, gateway, get, pid_gone


@pytest.fixture
def backend() -> Iterator[Backend]:
    running = Backend()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def port() -> int:
    return free_port()


def arguments(port: int, backend: Backend, workers: int = 2) -> tuple[str, ...]:
    return ("--listen", f"127.0.0.1:{port}", "--to", backend.url, "--workers", str(workers))


def test_backoff_starts_at_nothing_doubles_to_a_limit_and_forgets() -> None:
    backoff = Backoff()
    delays = [backoff.after(0.1) for _ in range(8)]
    assert delays[:3] == [0.0, FIRST_DELAY, 2 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert backoff.after(YOUNG) == 0.0


def test_curl_gets_an_answer_through_every_worker(backend: Backend, port: int, tmp_path: Path) -> None:
    log = tmp_path / "stdout"
    with gateway(*arguments(port, backend), stdout=log) as running:
        ready = running.wait_for("ready")
        assert ready["listeners"] == {"http": f"http://127.0.0.1:{port}"}
        assert sorted(ready["workers"]) == sorted(children(running.process.pid))
        for number in range(20):
            url = f"http://127.0.0.1:{port}/hello/{number}"
            said = subprocess.run(["curl", "-sS", "--max-time", "10", url], capture_output=True, check=True)
            assert said.stdout == b"/hello/%d" % number
        assert running.stop() == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 20  # the access log and nothing else
    assert not any("hello" in line for line in running.lines)


def test_a_killed_worker_is_replaced_and_its_port_never_refuses(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        for victim in running.wait_for("ready")["workers"]:
            os.kill(victim, signal.SIGKILL)
        # Nobody accepts now. All of these wait at the sockets, which the supervisor holds.
        calls = [background(lambda number=number: get(port, f"/{number}")) for number in range(30)]
        assert [call.result(PATIENCE) for call in calls] == [(200, b"/%d" % number) for number in range(30)]
        running.wait_for("worker_ready", 2)
        died = running.events("worker_died")
        assert [event["ending"] for event in died] == ["killed by SIGKILL"] * 2
        assert len(children(running.process.pid)) == 2
        assert running.stop() == 0


def test_a_worker_that_hangs_is_replaced(backend: Backend, port: int, tmp_path: Path) -> None:
    script = tmp_path / "impatient.py"
    script.write_text(
        "import sys\n"
        "from rauta.routing import defaults\n"
        "defaults.HANG_TIMEOUT = 2.5\n"
        "from rauta.runtime import hearts\n"
        "hearts.LOOK_INTERVAL = 0.5\n"
        "from rauta.runtime import supervisor\n"
        "supervisor.LOOK_INTERVAL = 0.5\n"
        "from rauta.runtime.cli import main\n"
        "sys.exit(main())\n"
    )
    running = Gateway(*arguments(port, backend), command=[sys.executable, str(script)])
    try:
        first, second = running.wait_for("ready")["workers"]
        os.kill(first, signal.SIGSTOP)
        hung = running.wait_for("worker_hung")
        assert hung["worker_pid"] == first
        running.wait_for("worker_ready")
        assert pid_gone(first)
        now = children(running.process.pid)
        assert (second in now, first in now, len(now)) == (True, False, 2)
        assert running.stop() == 0
        assert len(running.events("worker_hung")) == 1
    finally:
        running.destroy()


def test_a_worker_that_is_told_to_leave_finishes_while_its_successor_serves(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend, workers=1)) as running:
        (old,) = running.wait_for("ready")["workers"]
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        os.kill(old, signal.SIGTERM)
        new = running.wait_for("worker_ready")["worker_pid"]
        assert get(port, "/next") == (200, b"/next")
        assert sorted(children(running.process.pid)) == sorted([old, new])
        backend.release.set()
        assert slow.result(PATIENCE) == (200, b"/slow")
        assert pid_gone(old)
        assert running.events("worker_died") == []
        assert running.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_slow_response_finish(number: signal.Signals, backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        running.signal(number)
        running.wait_for("draining")
        assert running.process.poll() is None
        backend.release.set()
        assert slow.result(PATIENCE) == (200, b"/slow")
        assert running.wait() == 0
        assert running.wait_for("stopped")["complete"] is True


def test_a_second_signal_stops_at_once(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        workers = running.wait_for("ready")["workers"]
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        running.signal(signal.SIGTERM)
        running.wait_for("draining")
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert running.wait_for("stopped")["complete"] is False
        wait([slow], PATIENCE)
        assert slow.exception(0) is not None
        assert all(pid_gone(pid) for pid in workers)


def refused_soon(port: int) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it was in the queue when that was closed
    return False


def test_clients_are_refused_while_the_last_requests_finish(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        running.signal(signal.SIGTERM)
        running.wait_for("draining")
        assert refused_soon(port)
        backend.release.set()
        assert slow.result(PATIENCE) == (200, b"/slow")
        assert running.wait() == 0


def test_workers_outlive_a_killed_supervisor_only_to_finish(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        workers = running.wait_for("ready")["workers"]
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        running.signal(signal.SIGKILL)
        running.process.wait()
        backend.release.set()
        assert slow.result(PATIENCE) == (200, b"/slow")
        assert all(pid_gone(pid) for pid in workers)


def test_a_supervisor_killed_during_the_start_leaves_nothing(backend: Backend, port: int) -> None:
    starting = Gateway(*arguments(port, backend, workers=4))
    try:
        found: set[int] = set()
        while len(found) < 4 and starting.process.poll() is None:
            found |= {*children(starting.process.pid)}
        starting.signal(signal.SIGKILL)
        starting.process.wait()
        assert found
        assert all(pid_gone(pid) for pid in found)
    finally:
        starting.destroy()


def test_a_signal_during_the_start_stops_it(backend: Backend, port: int) -> None:
    starting = Gateway(*arguments(port, backend, workers=4))
    try:
        while not children(starting.process.pid) and starting.process.poll() is None:
            pass
        found = children(starting.process.pid)
        starting.signal(signal.SIGTERM)
        assert starting.wait() == 0
        assert "Traceback" not in "".join(starting.lines)
        assert all(pid_gone(pid) for pid in found)
    finally:
        starting.destroy()


def test_ctrl_c_on_a_terminal_reaches_the_supervisor_alone(backend: Backend, port: int) -> None:
    """The terminal signals the whole group; workers leave it to the supervisor, so requests finish."""
    with gateway(*arguments(port, backend)) as running:
        slow = background(lambda: get(port, "/slow"))
        assert backend.slow_arrived.acquire(timeout=PATIENCE)
        for pid in children(running.process.pid):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGHUP)
        running.signal(signal.SIGINT)
        running.wait_for("draining")
        backend.release.set()
        assert slow.result(PATIENCE) == (200, b"/slow")
        assert running.wait() == 0
        assert running.events("worker_died") == []


def test_ctrl_c_does_not_kill_a_worker_that_is_starting(backend: Backend, port: int) -> None:
    starting = Gateway(*arguments(port, backend))
    try:
        signalled: set[int] = set()
        while len(signalled) < 2 and starting.process.poll() is None:
            for pid in set(children(starting.process.pid)) - signalled:
                os.kill(pid, signal.SIGINT)
                signalled.add(pid)
        assert set(starting.wait_for("ready")["workers"]) == signalled
        assert starting.stop() == 0
    finally:
        starting.destroy()


def loaded(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_each_process_loads_what_it_needs_and_no_more(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend, workers=1)) as running:
        (worker,) = running.wait_for("ready")["workers"]
        supervisor = loaded(running.process.pid)
        assert "uvloop" not in supervisor
        assert "uvloop" in loaded(worker)
        assert "yaml" not in loaded(worker)


def test_no_descriptor_leaks_into_workers(backend: Backend, port: int) -> None:
    with gateway(*arguments(port, backend)) as running:
        for pid in running.wait_for("ready")["workers"]:
            kinds = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
            # two for the supervisor, and the listener; uvloop adds a socket pair for signals
            assert len([kind for kind in kinds if kind.startswith("socket:")]) <= 5, kinds


def test_the_worker_searches_the_working_directory_only_if_the_supervisor_does(
    backend: Backend, port: int, tmp_path: Path
) -> None:
    """The installed command does not have the working directory on its path; a stray module there is not run."""
    (tmp_path / "json.py").write_text("raise SystemExit('a stray module was imported')")
    script = "import sys; from rauta.runtime.cli import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", script, *arguments(port, backend, workers=1)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            first = running.stderr.readline() if running.stderr else ""
            assert '"ready"' in first
        finally:
            running.terminate()
    assert running.returncode == 0


def test_a_backend_that_does_not_resolve_stops_nothing(port: int) -> None:
    with gateway(
        "--listen", f"127.0.0.1:{port}", "--to", "http://no-such-host.invalid:80", "--workers", "1"
    ) as running:
        assert running.wait_for("backend_unresolved")["host"] == "no-such-host.invalid"
        assert get(port)[0] == 502
        assert running.stop() == 0
