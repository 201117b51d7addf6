"""Whom workers and agent run as."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rauta.runtime.errors import StartError
from rauta.runtime.privileges import identity_of
from support.process import ROOT, Gateway, children, free_port, get

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
