"""Starts from a file: what comes up, and how each thing that can be wrong is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rauta.config import load
from rauta.proxy.http2 import library as libraries
from rauta.runtime import supervisor as supervisor_module
from rauta.runtime.errors import StartError
from rauta.runtime.log import EventLog, Level
from rauta.runtime.supervisor import Supervisor
from support.process import PATIENCE, Backend, Gateway, background, free_port, gateway, get, pid_gone, run_rauta
from support.tls import Pair, make_pair

# A matcher whose behaviour is steered from outside, as an installed package: a module and its entry point.
PLUGIN = """
import os
import pathlib


class Odd:
    Settings = None

    def __init__(self, settings):
        steer = pathlib.Path(os.environ["ODD_PLUGIN"])
        if steer.exists():
            exec(steer.read_text())

    def match(self, request):
        if request.path == "/crash":
            os._exit(7)
        while request.path == "/hang":
            pass
        return True

    def close(self):
        pass
"""


@pytest.fixture
def backend() -> Iterator[Backend]:
    running = Backend()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def steer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Python that the plugin runs when it is built; no such file, no harm."""
    site = tmp_path / "site"
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "odd_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rauta.matchers]\nodd = odd_plugin:Odd\n")
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("ODD_PLUGIN", str(tmp_path / "steer.py"))
    return tmp_path / "steer.py"


class File:
    """A configuration file with one plain listener and one backend; tests add to it."""

    def __init__(self, path: Path, backend_port: int) -> None:
        self.path = path
        self.port = free_port()
        self.document: dict[str, object] = {
            "version": 1,
            "workers": 1,
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}"}},
            "services": {"app": {"backends": [{"address": f"127.0.0.1:{backend_port}"}]}},
            "routes": [{"name": "all", "service": "app"}],
        }

    def write(self, **changes: object) -> str:
        """Write it with changes at the top; JSON is YAML. One key a line."""
        document = {**self.document, **changes}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
        self.path.write_text("{\n" + lines + "\n}\n")
        return str(self.path)


@pytest.fixture
def file(tmp_path: Path, backend: Backend) -> File:
    return File(tmp_path / "rauta.yaml", backend.port)


def curl(*arguments: str) -> str:
    command = ["curl", "-sS", "--max-time", "10", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_file_with_tls_and_a_log_of_its_own(file: File, pair: Pair, tmp_path: Path) -> None:
    secure = free_port()
    certificate = {"cert": str(pair.cert), "key": {"file": str(pair.key)}}
    path = file.write(
        listeners={
            "web": {"address": f"127.0.0.1:{file.port}"},
            "websecure": {"address": f"127.0.0.1:{secure}", "tls": {"certificates": [certificate]}},
        },
        access_log={"to": str(tmp_path / "access.log"), "format": "json"},
    )
    with gateway("--config", path, stdout=tmp_path / "stdout") as running:
        ready = running.wait_for("ready")
        assert ready["listeners"]["websecure"] == f"https://127.0.0.1:{secure}"
        assert (ready["routes"], ready["services"], ready["offload"]["name"]) == (1, 1, "null")
        assert curl(f"http://127.0.0.1:{file.port}/plain") == "/plain"
        assert curl("--cacert", str(pair.cert), f"https://localhost:{secure}/secure") == "/secure"
        assert running.stop() == 0
    assert (tmp_path / "stdout").read_text() == ""
    log = tmp_path / "access.log"
    assert len([json.loads(line) for line in log.read_text().splitlines()]) == 2
    assert log.stat().st_mode & 0o777 == 0o640


def test_a_key_from_the_environment(file: File, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_KEY", pair.key.read_text())
    certificate = {"cert": str(pair.cert), "key": {"env": "WEB_KEY"}}
    listeners = {"web": {"address": f"127.0.0.1:{file.port}", "tls": {"certificates": [certificate]}}}
    with gateway("--config", file.write(listeners=listeners)) as running:
        assert curl("--cacert", str(pair.cert), f"https://localhost:{file.port}/secure") == "/secure"
        assert running.stop() == 0


def refuse(*arguments: str, code: int = 2) -> str:
    """A start that must fail: what it says."""
    seen, said = run_rauta(*arguments)
    assert seen == code, said
    assert "Traceback" not in said
    return said


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert "nowhere.yaml" in refuse("--config", str(tmp_path / "nowhere.yaml"))


def test_each_problem_of_a_file_has_its_line(file: File) -> None:
    path = file.write(routes=[{"name": "all", "service": "ap"}], workers="many")
    said = refuse("--config", path)
    assert f"{path}:3: workers" in said
    assert f"{path}:6: routes[0].service: there is no service 'ap'; did you mean 'app'?" in said


def test_an_address_that_cannot_be_bound_is_told_with_its_line(file: File) -> None:
    path = file.write(listeners={"far": {"address": "10.255.255.1:80"}})
    assert refuse("--config", path).startswith(f"rauta: {path}:4: listener 'far': 10.255.255.1:80 is not an address")


def test_a_key_that_is_not_the_certificates(file: File, pair: Pair, tmp_path: Path) -> None:
    other = make_pair(tmp_path, "other")
    certificate = {"cert": str(pair.cert), "key": {"file": str(other.key)}}
    tls = {"certificates": [certificate]}
    path = file.write(listeners={"web": {"address": f"127.0.0.1:{file.port}", "tls": tls}})
    assert f"{path}:4: " in refuse("--config", path)


@pytest.mark.parametrize("check", [False, True])
def test_a_library_of_frames_that_nobody_knows(check: bool, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAUTA_HTTP2", "h3")
    said = refuse("--config", file.write(), *(["--check"] if check else []))
    assert said == "rauta: RAUTA_HTTP2 is 'h3': write ngh2 or h2, or leave it out\n"


def test_a_library_of_frames_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAUTA_HTTP2", "ngh2")
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    libraries.library.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"RAUTA_HTTP2 is 'ngh2', which is not installed: pip install rauta\["):
            libraries.library()
        monkeypatch.delenv("RAUTA_HTTP2")
        assert libraries.library() == "h2"
    finally:
        libraries.library.cache_clear()


def test_an_access_log_that_cannot_be_opened(file: File, tmp_path: Path) -> None:
    path = file.write(access_log={"to": str(tmp_path / "no" / "access.log")})
    said = refuse("--config", path)
    assert said == f"rauta: {path}:7: access_log: cannot open {tmp_path}/no/access.log: No such file or directory\n"


@pytest.mark.parametrize("check", [False, True])
def test_kernel_tiers_that_are_required_and_missing(check: bool, file: File) -> None:
    path = file.write(offload={"mode": "require"})
    said = refuse("--config", path, *(["--check"] if check else []))
    assert said.startswith(f"rauta: {path}:7: offload.mode is require, but no offload is installed; ")


def test_a_backend_that_does_not_resolve_is_told_with_its_line(file: File) -> None:
    backends = [{"address": "127.0.0.1:9"}, {"address": "no-such-host.invalid:80"}]
    path = file.write(services={"app": {"backends": backends}})
    with gateway("--config", path) as running:
        event = running.wait_for("backend_unresolved")
        assert (event["service"], event["host"]) == ("app", "no-such-host.invalid")
        assert (event["file"], event["line"]) == (path, 5)
        assert event["message"].startswith(f"{path}:5: service 'app': backend host 'no-such-host.invalid' cannot be ")
        assert running.stop() == 0


def with_plugin(file: File) -> str:
    return file.write(routes=[{"name": "all", "match": {"plugins": [{"name": "odd"}]}, "service": "app"}])


@pytest.mark.parametrize("check", [False, True])
def test_a_plugin_that_cannot_be_built(check: bool, file: File, steer: Path) -> None:
    path = with_plugin(file)
    steer.write_text("raise ValueError('no luck today')")
    said = refuse("--config", path, *(["--check"] if check else []))
    assert "plugin 'odd' cannot be built: ValueError('no luck today')" in said
    assert said.count("\n") == 1


def test_clients_are_refused_until_every_worker_can_serve(file: File, steer: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    steer.write_text(f"open({str(gate)!r}).close()")  # waits until somebody opens the other end
    starting = Gateway("--config", with_plugin(file))
    try:
        with gate.open("w"):  # the worker is building now
            with pytest.raises(ConnectionRefusedError):
                get(file.port)
            steer.unlink()
        starting.wait_for("ready")
        assert get(file.port, "/now") == (200, b"/now")
        assert starting.stop() == 0
    finally:
        starting.destroy()


def test_a_worker_that_crashes_in_its_start(file: File, steer: Path) -> None:
    path = with_plugin(file)
    steer.write_text("os._exit(9)")
    assert "worker 0 died before it was ready: exit status 9" in refuse("--config", path, code=1)


def test_a_successor_that_cannot_start_is_tried_again(file: File, steer: Path) -> None:
    path = with_plugin(file)
    with gateway("--config", path) as running:
        (pid,) = running.wait_for("ready")["workers"]
        steer.write_text("raise ValueError('for now')")
        os.kill(pid, signal.SIGKILL)
        assert "for now" in running.wait_for("worker_failed", 2)["message"]
        steer.unlink()
        running.wait_for("worker_ready")
        assert get(file.port, "/again") == (200, b"/again")
        assert running.stop() == 0


def test_a_request_that_crashes_workers_hurts_no_other_request(file: File, steer: Path) -> None:
    with gateway("--config", with_plugin(file)) as running:
        assert get(file.port, "/fine") == (200, b"/fine")
        for _ in range(2):
            with pytest.raises(OSError, match=r"."):
                get(file.port, "/crash")
            assert get(file.port, "/fine") == (200, b"/fine")
        assert [event["ending"] for event in running.events("worker_died")] == ["exit status 7"] * 2
        assert running.stop() == 0


def test_on_a_terminal_a_person_sees_a_banner(file: File) -> None:
    master, slave = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "rauta.proxy", "--config", file.write()], stderr=slave, stdout=subprocess.DEVNULL
    ) as running:
        os.close(slave)
        try:
            said = b""
            while b"access log" not in said:
                said += os.read(master, 10_000)
        finally:
            running.terminate()
            running.wait(PATIENCE)
            os.close(master)
    text = said.decode()
    assert "is ready" in text
    assert f"web         http://127.0.0.1:{file.port}" in text
    assert "1, services 1" in text
    assert "offload     no kernel offload: " in text
    assert "{" not in text


# --- what hangs; the supervisor runs in this process, so that its patience can be shortened -----------------


class Recorder(EventLog):
    """Keeps the events."""

    __slots__ = ("_changed", "said")

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.said: list[tuple[str, dict[str, object]]] = []
        self._changed = threading.Condition()

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        with self._changed:
            self.said.append((event, fields))
            self._changed.notify_all()

    def names(self) -> list[str]:
        """The events so far."""
        return [event for event, _ in self.said]

    def wait_for(self, name: str, count: int) -> None:
        """Wait until an event has come so often."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.names().count(name) >= count, PATIENCE):
                raise TimeoutError(f"no {name!r} in {self.said}")


def supervise(path: str, events: EventLog, on_ready: Callable[[list[int]], None]) -> int:
    """Run in this process until a signal."""
    return asyncio.run(Supervisor(load(path).configuration, events=events, on_ready=on_ready).run())


@pytest.fixture
def steered_here(monkeypatch: pytest.MonkeyPatch, steer: Path) -> Path:
    monkeypatch.syspath_prepend(str(steer.parent / "site"))
    return steer


def test_a_start_that_hangs_is_given_up(file: File, steered_here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 1.0)
    path = with_plugin(file)
    steered_here.write_text("while True: pass")
    with pytest.raises(StartError, match=r"the workers were not ready within 1 s") as caught:
        supervise(path, Recorder(), lambda pids: None)
    assert caught.value.code == 1


def test_a_successor_that_hangs_is_killed_and_tried_again(
    file: File, steered_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Recorder()

    def on_ready(pids: list[int]) -> None:
        monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 0.5)
        steered_here.write_text("while True: pass")
        os.kill(pids[0], signal.SIGKILL)
        background(recover)

    def recover() -> None:
        try:
            events.wait_for("worker_died", 2)
            steered_here.unlink()
            monkeypatch.setattr(supervisor_module, "START_TIMEOUT", 60.0)
            events.wait_for("worker_ready", 1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    assert supervise(with_plugin(file), events, on_ready) == 0
    endings = [fields["ending"] for event, fields in events.said if event == "worker_died"]
    assert set(endings) == {"killed by SIGKILL"}
    assert events.names()[-3:] == ["worker_ready", "draining", "stopped"]


def test_a_worker_that_hangs_does_not_hold_the_end_up(
    file: File, steered_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "DRAIN_TIMEOUT", 0.2)
    monkeypatch.setattr(supervisor_module, "KILL_GRACE", 0.2)
    monkeypatch.setattr(supervisor_module, "HURRY_GRACE", 0.1)
    pids: list[int] = []

    def on_ready(found: list[int]) -> None:
        pids.extend(found)
        background(lambda: get(file.port, "/hang"))
        background(stop_when_busy)

    def stop_when_busy() -> None:
        before = cpu_time(pids[0])
        while cpu_time(pids[0]) < before + 0.3:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    events = Recorder()
    assert supervise(with_plugin(file), events, on_ready) == 0
    assert events.said[-1] == ("stopped", {"complete": False})
    assert pid_gone(pids[0])


def cpu_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")
