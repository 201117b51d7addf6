"""The offload's life beside the workers', with an installed package that offers one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rauta.offload import Capabilities, NullOffload, OffloadError, Plan, Prepared, selection
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.settings import Address, Listener, OffloadMode, OffloadSettings
from rauta.runtime import offloading
from rauta.runtime.errors import StartError
from rauta.runtime.offloading import Offloading
from support.process import free_port, gateway, get

CONFIGURATION = Configuration(
    listeners=(Listener(name="web", address=Address("127.0.0.1", 8080)),),
    routes=(Route(name="r", action=Respond()),),
    offload=OffloadSettings(),
)


class Recording:
    """Writes its calls down; fails where it is told to."""

    name = "recording"

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self._fails = fails

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails:
            raise OffloadError(f"{name} does not work today")

    def start(self, settings: OffloadSettings) -> None:
        self._call("start")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    def prepare(self, plan: Plan) -> Prepared:
        self._call("prepare")
        return Prepared(1, plan)

    def commit(self, prepared: Prepared) -> None:
        self._call("commit")

    def abort(self, prepared: Prepared) -> None:
        self._call("abort")

    def stop(self, *, detach: bool) -> None:
        self._call(f"stop {detach}")


def install(offload: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: OffloadSettings) -> tuple[Recording, str]:
        offload.start(settings)
        return offload, "as told"

    monkeypatch.setattr(offloading, "start", start)


def test_a_run_prepares_commits_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    offload = Recording()
    install(offload, monkeypatch)
    with Offloading(CONFIGURATION) as running:
        assert (running.name, running.reason) == ("recording", "as told")
        assert offload.calls == ["start", "prepare"]
        running.commit()
    assert offload.calls == ["start", "prepare", "commit", "stop True"]


def test_a_start_that_fails_elsewhere_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    offload = Recording()
    install(offload, monkeypatch)
    with pytest.raises(StartError), Offloading(CONFIGURATION):
        raise StartError("a worker cannot start")
    assert offload.calls == ["start", "prepare", "abort", "stop True"]


def test_a_plan_that_cannot_be_taken_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    offload = Recording(fails="prepare")
    install(offload, monkeypatch)
    with (
        pytest.raises(StartError, match=r"offload 'recording': prepare does not work") as caught,
        Offloading(CONFIGURATION),
    ):
        pytest.fail("entered")
    assert caught.value.code == 1
    assert offload.calls == ["start", "prepare", "stop True"]


def test_a_commit_that_fails_is_a_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    offload = Recording(fails="commit")
    install(offload, monkeypatch)
    with pytest.raises(StartError, match=r"commit does not work"), Offloading(CONFIGURATION) as running:
        running.commit()
    assert offload.calls == ["start", "prepare", "commit", "stop True"]


def test_what_is_required_and_missing() -> None:
    settings = OffloadSettings(mode=OffloadMode.REQUIRE)
    with pytest.raises(StartError, match=r"offload\.mode is require, but .*; mode: auto starts without it") as caught:
        offloading.check(settings)
    assert caught.value.code == 2


# An offload as an installed package, which says what it is asked to do.
PACKAGE = """
import os
from rauta.offload import NullOffload, Prepared, Capabilities


class Toy:
    name = "toy"
    capabilities = Capabilities()

    def _say(self, what):
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write(what + chr(10))

    def missing(self, settings):
        return None

    def start(self, settings):
        self._say("start")

    def prepare(self, plan):
        self._say("prepare")
        return Prepared(1, plan)

    def commit(self, prepared):
        self._say("commit")

    def abort(self, prepared):
        self._say("abort")

    def counters(self):
        return None

    def stop(self, *, detach):
        self._say("stop")
"""


def test_an_installed_offload_goes_live_with_the_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "toy_offload.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{selection.OFFLOADS}]\ntoy = toy_offload:Toy\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    port = free_port()
    document = {
        "version": 1,
        "workers": 1,
        "offload": {"mode": "require"},
        "listeners": {"web": {"address": f"127.0.0.1:{port}"}},
        "routes": [{"name": "all", "respond": {"body": "here"}}],
    }
    (tmp_path / "rauta.yaml").write_text(json.dumps(document))
    with gateway("--config", str(tmp_path / "rauta.yaml")) as running:
        assert running.wait_for("ready")["offload"] == {"name": "toy", "reason": "kernel offload 'toy'"}
        assert get(port) == (200, b"here")
        assert (tmp_path / "log").read_text().split() == ["start", "prepare", "commit"]
        assert running.stop() == 0
    assert (tmp_path / "log").read_text().split()[-1] == "stop"


def test_without_one_nothing_is_planned() -> None:
    with Offloading(Configuration(listeners=CONFIGURATION.listeners)) as running:
        assert running.name == NullOffload.name
        assert "no offload section" in running.reason
        running.commit()
