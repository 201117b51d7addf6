"""The offload's life beside the workers', with an installed package that offers one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.offload import NullOffload, Offload, OffloadError, selection
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.settings import Address, Listener, OffloadMode, OffloadSettings
from rauta.runtime import offloading, offloads
from rauta.runtime.errors import StartError
from rauta.runtime.offloading import Offloading
from rauta.runtime.tasks import Tasks
from support.offloads import Events, Recording
from support.process import PATIENCE, free_port, gateway, get, run_rauta

CONFIGURATION = Configuration(
    listeners=(Listener(name="web", address=Address("127.0.0.1", 8080)),),
    routes=(Route(name="r", action=Respond()),),
    offload=OffloadSettings(),
)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recording]:
    """An offload that every configuration gets; `fails` are its calls that raise."""

    def installed(**fails: Exception) -> Recording:
        offload = Recording(fails)
        monkeypatch.setattr(offloads, "select", lambda settings: (offload, "as told"))
        return offload

    return installed


Install = Callable[..., Recording]
ABORTS = "before commit"


async def life(running: Offloading, *, until: str = "") -> None:
    """As the supervisor lives it."""
    try:
        await running.prepare(7)
        if until != ABORTS:
            await running.commit()
    finally:
        await running.stop()


def test_the_fake_is_an_offload() -> None:
    assert isinstance(Recording(), Offload)


def test_a_run_prepares_commits_and_leaves_nothing(install: Install, events: Events) -> None:
    offload = install()
    running = Offloading(CONFIGURATION, events)
    assert (running.name, running.reason, offload.calls) == ("recording", "as told", [])
    asyncio.run(life(running))
    assert offload.calls == ["start", "prepare", "commit", "stop"]
    ((planned, settings, generation),) = offload.given
    assert planned.refusals.keys() == {"r"}
    assert (settings, generation) == (CONFIGURATION.offload, 7)
    assert events.told == []


def test_a_start_that_fails_elsewhere_takes_it_back(install: Install, events: Events) -> None:
    offload = install()
    asyncio.run(life(Offloading(CONFIGURATION, events), until=ABORTS))
    assert offload.calls == ["start", "prepare", "abort", "stop"]


def test_one_that_never_started_removes_nothing(install: Install, events: Events) -> None:
    offload = install()
    asyncio.run(Offloading(CONFIGURATION, events).stop())
    assert offload.calls == []


ERRORS = [
    pytest.param(OffloadError("not\ntoday"), "not today", id="expected"),
    pytest.param(OSError(1, "not permitted"), "PermissionError(1, 'not permitted')", id="foreign"),
]


def removed(call: str, error: Exception) -> bool:
    """Whether stop is called: a start that fails as it should has left nothing."""
    return call != "start" or not isinstance(error, OffloadError)


@pytest.mark.parametrize("call", ["start", "capabilities", "prepare", "commit"])
@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_in_mode_auto_a_failure_is_told_and_tier_3_serves(
    call: str, error: Exception, told: str, install: Install, events: Events
) -> None:
    offload = install(**{call: error})
    running = Offloading(CONFIGURATION, events)
    asyncio.run(life(running))
    assert running.name == NullOffload.name
    assert running.reason == f"no kernel offload: recording: {call} failed: {told}"
    assert events.told == [("offload_failed", running.reason, {"offload": "recording", "call": call})]
    assert offload.calls.count("stop") == removed(call, error)


@pytest.mark.parametrize("call", ["start", "capabilities", "prepare", "commit"])
@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_in_mode_require_a_failure_ends_the_start(
    call: str, error: Exception, told: str, install: Install, events: Events
) -> None:
    offload = install(**{call: error})
    required = replace(CONFIGURATION, offload=OffloadSettings(mode=OffloadMode.REQUIRE))
    with pytest.raises(StartError) as caught:
        asyncio.run(life(Offloading(required, events, place=lambda: "rauta.yaml:3: ")))
    assert str(caught.value).startswith(f"rauta.yaml:3: offload.mode is require, but recording: {call} failed: {told};")
    assert caught.value.code == 2
    assert offload.calls.count("stop") == removed(call, error)


@pytest.mark.parametrize("until", [ABORTS, ""])
def test_what_cannot_be_removed_is_told(until: str, install: Install, events: Events) -> None:
    install(abort=OffloadError("a map is busy"), stop=OSError(16, "Device or resource busy"))
    asyncio.run(life(Offloading(CONFIGURATION, events), until=until))
    told = {str(fields["call"]): message for event, message, fields in events.told if event == "offload_not_removed"}
    assert told.keys() == ({"abort", "stop"} if until else {"stop"})
    assert told["stop"] == (
        "offload 'recording': stop failed, and may have left something on this machine: "
        "OSError(16, 'Device or resource busy')"
    )


def test_calls_do_not_block_the_loop_and_share_a_thread(install: Install, events: Events) -> None:
    offload = install()
    offload.go_on.clear()

    async def run() -> None:
        running = Offloading(CONFIGURATION, events)
        asyncio.get_running_loop().call_soon(offload.go_on.set)  # reached only if prepare does not hold the loop
        await life(running)

    asyncio.run(run())
    assert offload.go_on.is_set()
    assert offload.calls == ["start", "prepare", "commit", "stop"]
    assert len(offload.threads) == 1
    assert threading.current_thread() not in offload.threads


def test_a_stop_waits_for_a_call_that_nobody_awaits_any_more(install: Install, events: Events) -> None:
    """A signal cancels the start while the offload is at work: calls come one at a time all the same."""
    offload = install()
    offload.go_on.clear()

    async def run() -> None:
        running = Offloading(CONFIGURATION, events)
        tasks = Tasks(asyncio.get_running_loop())
        tasks.start(running.prepare(1), name="prepare")
        await asyncio.to_thread(offload.entered.wait, PATIENCE)
        await tasks.cancel()
        asyncio.get_running_loop().call_soon(offload.go_on.set)
        await running.stop()

    asyncio.run(run())
    assert offload.calls == ["start", "prepare", "abort", "stop"]


def test_what_is_required_and_missing(events: Events) -> None:
    settings = OffloadSettings(mode=OffloadMode.REQUIRE)
    expected = r"offload\.mode is require, but no offload is installed; mode: auto starts without it"
    with pytest.raises(StartError, match=expected) as caught:
        offloading.check(settings)
    assert caught.value.code == 2
    with pytest.raises(StartError, match=f"^rauta.yaml:3: {expected}") as caught:
        Offloading(replace(CONFIGURATION, offload=settings), events, place=lambda: "rauta.yaml:3: ")
    assert caught.value.code == 2


def test_without_one_nothing_is_planned(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offloads, "plan", lambda *_: pytest.fail("planned"))
    running = Offloading(Configuration(listeners=CONFIGURATION.listeners), events)
    asyncio.run(life(running))
    assert running.name == NullOffload.name
    assert "no offload section" in running.reason
    assert events.told == []


# An offload as an installed package, which says what it is asked to do and fails where it is told to.
PACKAGE = """
import os
from rauta.offload import Counters, Prepared, Capabilities


class Toy:
    name = "toy"
    capabilities = Capabilities()

    def _say(self, *what):
        with open(os.environ["TOY_LOG"], "a") as log:
            print(*what, file=log)
        with open(os.environ["TOY_FAILS"]) as fails:
            if what[0] == fails.read():
                raise RuntimeError("no luck")

    def missing(self, settings):
        return None

    def start(self, settings):
        self._say("start")

    def prepare(self, plan, settings, generation):
        self._say("prepare", generation, *settings.interfaces)
        return Prepared(generation, plan, settings)

    def commit(self, prepared):
        self._say("commit", prepared.generation)

    def abort(self, prepared):
        self._say("abort")

    def usable(self, service, addresses):
        self._say("usable", service, *(addresses or ["all" if addresses is None else "none"]))

    def counters(self):
        return Counters()

    def stop(self, *, detach):
        self._say("stop", detach)
"""


class Installed:
    """The toy, and a file that asks for an offload."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self.path = folder / "rauta.yaml"
        self.socket = folder / "admin.sock"
        self.port = free_port()
        info = folder / "site" / "toy-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "site" / "toy_offload.py").write_text(PACKAGE)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{selection.OFFLOADS}]\ntoy = toy_offload:Toy\n")
        monkeypatch.setenv("PYTHONPATH", str(folder / "site"), prepend=os.pathsep)
        monkeypatch.setenv("TOY_LOG", str(folder / "log"))
        monkeypatch.setenv("TOY_FAILS", str(folder / "fails"))

    def file(self, mode: str, *, fails: str = "", **sections: object) -> str:
        """Write the file; its path."""
        (self._folder / "fails").write_text(fails)
        document = {
            "version": 1,
            "workers": 1,
            "offload": {"mode": mode, "interfaces": ["eth7"]},
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}"}},
            "routes": [{"name": "all", "respond": {"body": "here"}}],
            **sections,
        }
        self.path.write_text(json.dumps(document))
        return str(self.path)

    def said(self) -> list[str]:
        """The calls so far."""
        return (self._folder / "log").read_text().splitlines()

    def wait_for(self, call: str) -> None:
        """Until it is the last one; another process writes them down."""
        eventually(lambda: self.said()[-1] == call, self.said)

    def offload(self) -> dict[str, str]:
        """What /v1/status tells of it."""
        command = ["curl", "-sS", "--max-time", "10", "--unix-socket", str(self.socket), "http://x/v1/status"]
        done = subprocess.run(command, capture_output=True, check=True)
        return dict(json.loads(done.stdout)["offload"])


def eventually(holds: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Until it holds; what was seen, if it does not within the patience of tests."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.01)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    return Installed(tmp_path, monkeypatch)


def test_an_installed_offload_goes_live_with_the_gateway(toy: Installed) -> None:
    with gateway("--config", toy.file("require")) as running:
        assert running.wait_for("ready")["offload"] == {"name": "toy", "reason": "kernel offload 'toy'"}
        assert get(toy.port) == (200, b"here")
        assert toy.said() == ["start", "prepare 1 eth7", "commit 1"]
        assert running.stop() == 0
    assert toy.said()[3:] == ["stop True"]


@pytest.mark.parametrize("call", ["start", "prepare", "commit"])
def test_a_gateway_serves_without_the_offload_that_fails(call: str, toy: Installed) -> None:
    with gateway("--config", toy.file("auto", fails=call)) as running:
        reason = f"no kernel offload: toy: {call} failed: RuntimeError('no luck')"
        assert running.wait_for("ready")["offload"] == {"name": "null", "reason": reason}
        assert running.events("offload_failed")[0]["message"] == reason
        assert toy.said()[-1] == "stop True"
        assert get(toy.port) == (200, b"here")
        assert running.stop() == 0
        assert "Traceback" not in "".join(running.lines)


@pytest.mark.parametrize("call", ["start", "prepare", "commit"])
def test_a_gateway_that_requires_it_does_not_start(call: str, toy: Installed) -> None:
    path = toy.file("require", fails=call)
    code, said = run_rauta("--config", path)
    assert code == 2
    assert said == (
        f"rauta: {path}:1: offload.mode is require, but toy: {call} failed: RuntimeError('no luck'); "
        "mode: auto starts without it\n"
    )
    assert toy.said()[-1] == "stop True"


def test_a_gateway_ends_well_though_the_offload_does_not(toy: Installed) -> None:
    with gateway("--config", toy.file("require", fails="stop")) as running:
        assert running.stop() == 0
        assert "RuntimeError('no luck')" in running.wait_for("offload_not_removed")["message"]
        assert "Traceback" not in "".join(running.lines)


def test_reloads_with_an_installed_offload(toy: Installed) -> None:
    """From none to require; what is required fails and changes nothing; auto goes on without it, and finds it again."""
    admin = {"socket": str(toy.socket)}
    with gateway("--config", toy.file("none", admin=admin)) as running:

        def reload(mode: str, *, event: str = "reloaded", count: int, fails: str = "") -> dict[str, Any]:
            toy.file(mode, fails=fails, admin=admin)
            running.signal(signal.SIGHUP)
            return running.wait_for(event, count)

        assert reload("require", count=1)["notes"] == ["kernel offload 'toy'"]
        assert toy.said() == ["start", "prepare 2 eth7", "commit 2"]
        said = reload("require", event="reload_failed", count=1, fails="prepare")["message"]
        assert f"{toy.path}:1: offload.mode is require, but toy: prepare failed: RuntimeError('no luck'); " in said
        assert toy.said()[3:] == ["prepare 3 eth7"]
        assert toy.offload() == {"name": "toy", "reason": "kernel offload 'toy'"}
        reason = "no kernel offload: toy: prepare failed: RuntimeError('no luck')"
        assert reload("auto", count=2, fails="prepare")["notes"] == [reason]
        assert toy.said()[4:] == ["prepare 4 eth7", "stop True"]
        assert toy.offload() == {"name": "null", "reason": reason}
        assert reload("auto", count=3)["notes"] == ["kernel offload 'toy'"]
        assert reload("none", count=4)["notes"] == ["no kernel offload: offload.mode is none"]
        assert toy.said()[6:] == ["start", "prepare 5 eth7", "commit 5", "stop True"]
        assert get(toy.port) == (200, b"here")
        assert running.stop() == 0
    assert len(toy.said()) == 10


def test_an_installed_offload_learns_who_is_down(toy: Installed) -> None:
    """From the agent's checks, by the supervisor; over a reload too."""
    with socket.create_server(("127.0.0.1", 0)) as alive:
        ports = [alive.getsockname()[1], free_port()]
        check = {"kind": "tcp", "interval": "100ms", "timeout": "1s"}
        backends = [{"address": f"127.0.0.1:{port}"} for port in ports]
        services = {"s": {"backends": backends, "health": check}}
        routes = [{"name": "all", "service": "s"}]
        with gateway("--config", toy.file("auto", services=services, routes=routes)) as running:
            running.wait_for("backend_down")
            toy.wait_for(f"usable s 127.0.0.1:{ports[0]}")
            running.signal(signal.SIGHUP)
            running.wait_for("reloaded")
            assert toy.said()[-3:] == ["prepare 2 eth7", f"usable s 127.0.0.1:{ports[0]}", "commit 2"]
            toy.file("auto", services={"s": {"backends": backends}}, routes=routes)
            running.signal(signal.SIGHUP)
            toy.wait_for("usable s all")  # nobody checks any more
            assert running.stop() == 0


def test_a_status_tells_that_the_offload_is_gone(toy: Installed) -> None:
    services = {
        "s": {
            "backends": [{"address": f"127.0.0.1:{free_port()}"}],
            "health": {"kind": "tcp", "interval": "100ms", "timeout": "1s"},
        }
    }
    sections = {"services": services, "routes": [{"name": "all", "service": "s"}], "admin": {"socket": str(toy.socket)}}
    with gateway("--config", toy.file("require", fails="usable", **sections)) as running:
        event = running.wait_for("offload_failed")
        assert (event["level"], event["call"]) == ("error", "usable")
        reason = "no kernel offload: toy: usable failed: RuntimeError('no luck')"
        eventually(lambda: toy.offload() == {"name": "null", "reason": reason}, toy.offload)
        assert running.stop() == 0
