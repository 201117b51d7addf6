"""Certificates and keys on their way from the files to the workers, and nowhere else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rauta.config import load
from rauta.config.x509 import facts_of
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.services import BackendTls
from rauta.routing.settings import Address, Certificate, Listener, Secret, TlsSettings
from rauta.runtime.control import AgentSetup, Change, Setup, encode_agent_setup, encode_setup, pack
from rauta.runtime.credentials import Held, environment_without, facts_of_all, read_credentials
from rauta.runtime.credentials import Pair as Pem
from rauta.runtime.errors import StartError
from rauta.runtime.log import EventLog
from rauta.runtime.logfile import LogFile
from rauta.runtime.revision import Revision
from rauta.runtime.start import Source
from rauta.runtime.start import run as run_gateway
from support.http import service
from support.process import Gateway, children, free_port, gateway, run_rauta
from support.tls import Pair, encrypt, make_pair


def listener_of(pair: Pair, key: Secret | None = None) -> Listener:
    certificate = Certificate(cert=str(pair.cert), key=key or Secret(file=str(pair.key)))
    tls = TlsSettings(certificates=(certificate,))
    return Listener(name="web", address=Address("127.0.0.1", 8443), tls=tls)


@pytest.fixture(scope="module")
def ready_made(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Two pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    return [make_pair(folder, "first"), make_pair(folder, "second")]


def secret_lines(pair: Pair) -> list[str]:
    """What of a key must be seen nowhere."""
    return [line for line in pair.key.read_text().splitlines() if not line.startswith("-----")]


def hidden(pair: Pair, *texts: str) -> bool:
    return not any(line in text for line in secret_lines(pair) for text in texts)


def test_nothing_that_holds_a_key_shows_it(ready_made: list[Pair]) -> None:
    pair = ready_made[0]
    listener = listener_of(pair)
    configuration = Configuration(listeners=(listener,), routes=(Route(name="r", action=Respond()),))
    credentials = read_credentials([listener])
    setup = Setup(configuration=configuration, access_log=None, credentials=credentials)
    change = Change(
        generation=2, configuration=pack(configuration), opened=(), access_log=False, credentials=credentials
    )
    revision = Revision(2, configuration, configuration, slots=(), log=LogFile(None))
    revision.credentials = credentials
    chain = pair.cert.read_bytes()
    assert credentials == {"web": Held((Pem(chain, pair.key.read_bytes(), facts_of(chain)),))}
    assert hidden(pair, *map(repr, (credentials, setup, change, revision)))
    assert not hidden(pair, encode_setup(setup).decode("latin-1"))
    certificates = facts_of_all(credentials)
    assert certificates["web"][0].names == ("localhost", "127.0.0.1")
    told = encode_agent_setup(AgentSetup(generation=2, configuration=configuration, certificates=certificates))
    assert hidden(pair, told.decode("latin-1"))


def test_children_do_not_inherit_variables_with_keys(ready_made: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_KEY", "secret")
    monkeypatch.setenv("OTHER", "kept")
    monkeypatch.setenv("OUR_KEY", "secret")
    ours = BackendTls(certificate=Certificate(cert=str(ready_made[1].cert), key=Secret(env="OUR_KEY")))
    configuration = Configuration(
        listeners=(listener_of(ready_made[0], Secret(env="WEB_KEY")),), services=(replace(service(1), tls=ours),)
    )
    environment = environment_without(configuration)
    assert not {"WEB_KEY", "OUR_KEY"} & environment.keys()
    assert environment["OTHER"] == "kept"


# --- the gateway --------------------------------------------------------------------------------------------


class Site:
    """A gateway's file with a TLS listener, whose certificate and key lie beside it."""

    def __init__(self, home: Path, ready_made: list[Pair]) -> None:
        self.home = home
        self.path = home / "rauta.yaml"
        self.port = free_port()
        self.live = Pair(home / "live.crt", home / "live.key")
        self._ready_made = ready_made
        self.use(0)
        self.write({"file": "live.key"})

    def use(self, number: int) -> None:
        """Put another pair in place."""
        shutil.copyfile(self._ready_made[number].cert, self.live.cert)
        shutil.copyfile(self._ready_made[number].key, self.live.key)

    def write(self, key: dict[str, str]) -> None:
        tls = {"certificates": [{"cert": "live.crt", "key": key}]}
        document = {
            "version": 1,
            "workers": 1,
            "admin": {"socket": str(self.home / "admin.sock")},
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}", "tls": tls}},
            "routes": [{"name": "all", "respond": {"body": "here"}}],
        }
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        self.path.write_text(f"{{\n{lines}\n}}\n")

    def served(self) -> int:
        """The number of the pair that clients see."""
        seen = ssl.get_server_certificate(("127.0.0.1", self.port), timeout=10)
        (number,) = [i for i, pair in enumerate(self._ready_made) if pair.cert.read_text().strip() == seen.strip()]
        return number

    def break_in(self, how: str) -> str:
        """Make the pair unusable; what must be said of it."""
        key, where = self.live.key, f"{self.path}:5: listeners.web.tls.certificates[0].key.file"
        if how == "missing":
            key.unlink()
            return f"{where}: there is no file '{key}'"
        if how == "mismatch":
            shutil.copyfile(self._ready_made[1].key, key)
            return f"{where}: the key in '{key}' does not belong to the certificate in '{self.live.cert}'"
        if how == "encrypted":
            encrypt(self._ready_made[0].key, key)
            return f"{where}: the key in '{key}' is encrypted: "
        key.unlink()
        key.mkdir()
        return f"{where}: '{key}' is a directory"


@pytest.fixture
def site(tmp_path: Path, ready_made: list[Pair]) -> Site:
    return Site(tmp_path, ready_made)


WRONG = ["missing", "mismatch", "encrypted", "unreadable"]


@pytest.mark.parametrize("how", WRONG)
def test_a_start_tells_file_line_and_key(how: str, site: Site) -> None:
    said = site.break_in(how)
    code, text = run_rauta("--config", str(site.path))
    assert (code, said in text, "Traceback" in text) == (2, True, False), text


@pytest.fixture
def running(site: Site) -> Iterator[Gateway]:
    with gateway("--config", str(site.path)) as started:
        yield started


@pytest.mark.parametrize("how", WRONG)
def test_a_reload_tells_them_too_and_the_old_ones_go_on(how: str, site: Site, running: Gateway) -> None:
    said = site.break_in(how)
    running.signal(signal.SIGHUP)
    assert said in running.wait_for("reload_failed")["message"]
    assert site.served() == 0


def test_a_reload_reads_them_anew(site: Site, running: Gateway) -> None:
    site.use(1)
    assert site.served() == 0
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded")
    assert site.served() == 1


def test_a_successor_serves_what_is_live(site: Site, running: Gateway) -> None:
    """Not what the files say by now, and also if there are none."""
    (pid,) = running.wait_for("ready")["workers"]
    site.use(1)
    os.kill(pid, signal.SIGKILL)
    pid = running.wait_for("worker_ready")["worker_pid"]
    assert site.served() == 0
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded")
    site.live.key.unlink()
    site.live.cert.unlink()
    os.kill(pid, signal.SIGKILL)
    running.wait_for("worker_ready", 2)
    assert site.served() == 1


def test_a_failed_reload_leaves_the_keys_of_successors_alone(site: Site, running: Gateway) -> None:
    """The new keys are good, but something else of the new file is not."""
    (pid,) = running.wait_for("ready")["workers"]
    site.use(1)
    good = site.path.read_text()
    site.path.write_text(good.replace('"workers": 1', '"access_log": {"to": "/no/such/folder/log"}'))
    running.signal(signal.SIGHUP)
    assert "cannot open /no/such" in running.wait_for("reload_failed")["message"]
    os.kill(pid, signal.SIGKILL)
    running.wait_for("worker_ready")
    assert site.served() == 0


def test_a_key_from_the_environment_reaches_no_other_place(
    site: Site, ready_made: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEB_KEY", ready_made[0].key.read_text())
    site.write({"env": "WEB_KEY"})
    with gateway("--config", str(site.path)) as running:
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        assert site.served() == 0
        socket = str(site.home / "admin.sock")
        ctl = [sys.executable, "-m", "rauta.ctl.cli"]
        shown = [
            subprocess.run([*ctl, *words, "--socket", socket], capture_output=True, text=True, check=True).stdout
            for words in (["dump"], ["status", "--json"])
        ]
        assert "WEB_KEY" in shown[0]
        pids = children(running.process.pid)
        assert len(pids) == 2
        environments = [Path(f"/proc/{pid}/environ").read_text() for pid in pids]
        assert running.stop() == 0
        assert hidden(ready_made[0], *shown, *environments, *running.lines)


def test_a_file_that_vanishes_after_the_check_is_told_with_its_line(site: Site) -> None:
    loaded = load(site.path)
    source = Source(configuration=loaded.configuration, name=str(site.path), files=loaded.files)
    site.live.key.unlink()
    with pytest.raises(StartError) as caught:
        run_gateway(source, EventLog(terminal=False))
    assert str(caught.value) == f"{site.path}:5: listener 'web': there is no file '{site.live.key}'"
    assert caught.value.code == 2
