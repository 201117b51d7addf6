"""Whom workers and agent run as."""

from __future__ import annotations

import os
import pwd
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from rauta.runtime.errors import StartError
from rauta.runtime.privileges import identity_of
from support.process import ROOT, Gateway, children, free_port, get, run_rauta
from support.tls import make_pair

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as another user")


def test_names_and_numbers() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert identity_of(me.pw_name) == identity_of(str(me.pw_uid))
    found = identity_of(f"{me.pw_name}:{me.pw_gid}")
    assert (found.uid, found.gid, found.groups) == (me.pw_uid, me.pw_gid, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [("nobody-at-all", "there is no user 'nobody-at-all'"), ("root:no-such", "there is no group 'no-such'")],
)
def test_who_is_not_there(text: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        identity_of(text)


def status_of(pid: int) -> dict[str, str]:
    return dict(re.findall(r"^(\w+):\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def interpreter_for(uid: int) -> tuple[str, dict[str, str]] | None:
    """A Python that this user may run with rauta, and its environment. Ours may lie in a folder of root's."""
    folders = os.pathsep.join([str(ROOT), *(folder for folder in sys.path if folder.endswith("site-packages"))])
    for python, more in ((sys.executable, {}), ("/usr/bin/python3", {"PYTHONPATH": folders})):
        environment = {**os.environ, **more}
        words = [python, "-c", "import rauta.runtime.worker, uvloop"]
        try:
            done = subprocess.run(words, env=environment, cwd="/", user=uid, capture_output=True, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return python, environment
    return None


@ROOT_ONLY
def test_workers_and_agent_have_no_rights(tmp_path: Path) -> None:
    found = interpreter_for(pwd.getpwnam("nobody").pw_uid)
    if found is None:
        pytest.skip("no Python here that another user may run with rauta")
    python, environment = found
    command = (python, "-m", "rauta.proxy")
    port = free_port()
    config = tmp_path / "rauta.yaml"
    log = tmp_path / "access.log"
    config.write_text(
        f'version: 1\nworkers: 2\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\n'
        f"access_log: {{to: {log}}}\nadmin: {{socket: {tmp_path}/admin.sock}}\n"
        "routes: [{name: r, respond: {status: 200}}]\n"
    )
    running = Gateway("--config", str(config), "--user", "nobody", env=environment, command=command)
    try:
        running.wait_for("ready")
        ask = ["curl", "-sSf", "--unix-socket", f"{tmp_path}/admin.sock", "http://x/readyz"]
        subprocess.run(ask, check=True, capture_output=True)  # answered by the agent, so it is there
        wanted = pwd.getpwnam("nobody")
        pids = children(running.process.pid)
        assert len(pids) == 3
        for pid in pids:
            status = status_of(pid)
            assert set(status["Uid"].split()) == {str(wanted.pw_uid)}
            assert set(status["Gid"].split()) == {str(wanted.pw_gid)}
            assert int(status["CapEff"], 16) == 0
        assert get(port, "/")[0] == 200
        for pid in running.wait_for("ready")["workers"]:
            assert status_of(pid)["NoNewPrivs"] == "1"
        assert running.stop() == 0
    finally:
        running.destroy()
    assert len(log.read_text().splitlines()) == 1  # written by them, opened by the supervisor


def certificate_on(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10).strip()


def with_tls(folder: Path, port: int) -> Path:
    """A file whose key only root can read."""
    pair = make_pair(folder)
    pair.key.chmod(0o600)
    config = folder / "rauta.yaml"
    config.write_text(
        "version: 1\nworkers: 1\nlisteners:\n"
        f'  web: {{address: "127.0.0.1:{port}", tls: {{certificates: [{{cert: tls.crt, key: {{file: tls.key}}}}]}}}}\n'
        "routes: [{name: r, respond: {status: 200}}]\n"
    )
    return config


@ROOT_ONLY
def test_keys_are_for_the_supervisor_alone_to_read(tmp_path: Path) -> None:
    """At the start, for a successor, and in a reload; `tmp_path` itself is not for another user to enter, either."""
    found = interpreter_for(pwd.getpwnam("nobody").pw_uid)
    if found is None:
        pytest.skip("no Python here that another user may run with rauta")
    python, environment = found
    port = free_port()
    config = with_tls(tmp_path, port)
    command = (python, "-m", "rauta.proxy")
    running = Gateway("--config", str(config), "--user", "nobody", env=environment, command=command)
    try:
        (pid,) = running.wait_for("ready")["workers"]
        first = (tmp_path / "tls.crt").read_text().strip()
        assert certificate_on(port) == first
        os.kill(pid, signal.SIGKILL)
        running.wait_for("worker_ready")
        assert certificate_on(port) == first
        second = make_pair(tmp_path)
        second.key.chmod(0o600)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        assert certificate_on(port) == second.cert.read_text().strip() != first
        assert running.stop() == 0
    finally:
        running.destroy()


@ROOT_ONLY
def test_a_supervisor_without_the_right_to_a_key_says_so(tmp_path: Path) -> None:
    config = with_tls(tmp_path, free_port())
    dropped = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]  # root without what lets it read everything
    (tmp_path / "tls.key").chmod(0o600)
    os.chown(tmp_path / "tls.key", 1, 1)
    code, said = run_rauta("--config", str(config), prefix=dropped)
    expected = f"{config}:4: listeners.web.tls.certificates[0].key.file: no permission to read '{tmp_path}/tls.key'"
    assert (code, expected in said) == (2, True), said
