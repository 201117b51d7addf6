"""What becomes of an offload over reloads, and between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from rauta.offload import Attachment, Counters, Gauges, NullOffload, Offload, OffloadError, selection
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.services import Backend, Service
from rauta.routing.settings import Address, Hook, Listener, OffloadMode, OffloadSettings
from rauta.runtime import offloads
from rauta.runtime.control import Health
from rauta.runtime.errors import StartError
from rauta.runtime.log import Level
from rauta.runtime.offloading import Offloading
from rauta.runtime.tasks import Tasks
from support.offloads import Events, Recording
from support.process import PATIENCE

AUTO, REQUIRE, NONE = (OffloadSettings(mode=mode, interfaces=("eth7",)) for mode in OffloadMode)
A, B, C = (Address("10.0.0.1", port) for port in (1, 2, 3))

ERRORS = [
    pytest.param(OffloadError("not\ntoday"), "not today", id="expected"),
    pytest.param(OSError(1, "not permitted"), "PermissionError(1, 'not permitted')", id="foreign"),
]


def removed(call: str, error: Exception) -> bool:
    """Whether stop is called: a start that fails as it should has left nothing."""
    return call != "start" or not isinstance(error, OffloadError)


@pytest.fixture
def events() -> Events:
    return Events()


def wanting(settings: OffloadSettings | None, *addresses: Address) -> Configuration:
    """A configuration with these settings, and with a service `s` of these backends (default: A)."""
    backends = tuple(Backend(address=address) for address in addresses or (A,))
    return Configuration(
        listeners=(Listener(name="web", address=Address("127.0.0.1", 8080)),),
        services=(Service(name="s", backends=backends),),
        routes=(Route(name="r", action=Respond()),),
        offload=settings,
    )


class Factory:
    """Stands for `select`: a new offload whenever one is wanted, as those of installed packages are built."""

    def __init__(self) -> None:
        self.made: list[Recording] = []
        self.fails: dict[str, Exception] = {}  # of those that are made from now on

    def __call__(self, settings: OffloadSettings | None) -> tuple[Offload, str]:
        if settings is None or settings.mode is OffloadMode.NONE:
            return selection.select(settings)
        self.made.append(Recording(self.fails))
        return self.made[-1], f"offload {len(self.made)}"

    @property
    def last(self) -> Recording:
        return self.made[-1]


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Factory:
    made = Factory()
    monkeypatch.setattr(offloads, "select", made)
    return made


Scenario = Callable[[Offloading], Coroutine[Any, Any, None]]


def play(configuration: Configuration, events: Events, scenario: Scenario) -> None:
    """Start with a configuration, then the scenario, then the end."""

    async def run() -> None:
        running = Offloading(configuration, events)
        await running.prepare(1)
        await running.commit()
        try:
            await scenario(running)
        finally:
            await running.stop()

    asyncio.run(run())


async def reload(running: Offloading, generation: int, configuration: Configuration) -> None:
    await running.prepare(generation, configuration)
    await running.commit()


def test_a_reload_hands_over_the_new_settings(factory: Factory, events: Events) -> None:
    other = replace(REQUIRE, interfaces=("eth8",), hook=Hook.TC)

    async def scenario(running: Offloading) -> None:
        await reload(running, 2, wanting(other))
        assert (running.name, running.reason) == ("recording", "offload 1")

    play(wanting(AUTO), events, scenario)
    assert factory.last.calls == ["start", "prepare", "commit", "prepare", "commit", "stop"]
    assert [(settings, generation) for _, settings, generation in factory.last.given] == [(AUTO, 1), (other, 2)]
    assert (len(factory.made), events.told) == (1, [])


@pytest.mark.parametrize("settings", [NONE, None])
@pytest.mark.parametrize("before", [AUTO, REQUIRE])
def test_going_to_none_stops_it_at_commit(
    before: OffloadSettings, settings: OffloadSettings | None, factory: Factory, events: Events
) -> None:
    async def scenario(running: Offloading) -> None:
        offload = factory.last
        await running.prepare(2, wanting(settings))
        await running.abort()
        await running.prepare(3, wanting(settings))
        assert (offload.calls, running.name) == (["start", "prepare", "commit"], "recording")
        await running.commit()
        assert (offload.calls[3:], running.name) == (["stop"], NullOffload.name)
        assert running.reason.startswith("no kernel offload: ")

    play(wanting(before), events, scenario)
    assert factory.last.calls.count("stop") == 1
    assert events.told == []


@pytest.mark.parametrize("settings", [AUTO, REQUIRE])
def test_coming_from_none_starts_one_at_prepare(settings: OffloadSettings, factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        await running.prepare(2, wanting(settings))
        first = factory.last
        assert (first.calls, running.name) == (["start", "prepare"], NullOffload.name)
        await running.abort()
        assert (first.calls, running.name) == (["start", "prepare", "abort", "stop"], NullOffload.name)
        await reload(running, 3, wanting(settings))
        assert (factory.last.calls, running.name) == (["start", "prepare", "commit"], "recording")
        assert running.reason == "offload 2"

    play(wanting(NONE), events, scenario)
    assert factory.last.calls[3:] == ["stop"]


@pytest.mark.parametrize("call", ["capabilities", "prepare", "missing"])
@pytest.mark.parametrize("before", [AUTO, REQUIRE])
def test_a_reload_that_requires_what_fails_leaves_what_is_live(
    call: str, before: OffloadSettings, factory: Factory, events: Events
) -> None:
    async def scenario(running: Offloading) -> None:
        offload = factory.last
        if call == "missing":
            offload.lacks = "eth8 has no XDP"
        else:
            offload.fails[call] = OffloadError("not today")
        with pytest.raises(StartError, match=r"offload\.mode is require, but recording: .*(not today|no XDP)"):
            await running.prepare(2, wanting(REQUIRE))
        await running.abort()  # as the supervisor does whatever the failure was
        assert {"stop", "abort"}.isdisjoint(offload.calls)
        assert (running.name, running.reason) == ("recording", "offload 1")
        offload.lacks, offload.fails = None, {}
        await reload(running, 3, wanting(REQUIRE))
        assert (offload.calls[-1], offload.given[-1][2]) == ("commit", 3)

    play(wanting(before), events, scenario)
    assert (len(factory.made), events.told) == (1, [])


@pytest.mark.parametrize("call", ["start", "capabilities", "prepare"])
@pytest.mark.parametrize(("error", "told"), ERRORS)
def test_a_reload_that_requires_a_new_one_which_fails_leaves_none(
    call: str, error: Exception, told: str, factory: Factory, events: Events
) -> None:
    async def scenario(running: Offloading) -> None:
        factory.fails = {call: error}
        with pytest.raises(StartError) as caught:
            await running.prepare(2, wanting(REQUIRE))
        assert f"recording: {call} failed: {told}" in str(caught.value)
        assert factory.last.calls.count("stop") == removed(call, error)
        await running.commit()  # of nothing
        await running.abort()
        assert (running.name, running.reason) == (NullOffload.name, "no kernel offload: offload.mode is none")

    play(wanting(NONE), events, scenario)
    assert factory.last.calls.count("stop") == removed(call, error)


@pytest.mark.parametrize("call", ["capabilities", "prepare", "missing"])
def test_in_mode_auto_one_that_fails_to_prepare_is_live_until_commit(
    call: str, factory: Factory, events: Events
) -> None:
    async def scenario(running: Offloading) -> None:
        offload = factory.last
        offload.fails, offload.lacks = {call: OSError(28, "no space")}, "no XDP" if call == "missing" else None
        await running.prepare(2, wanting(AUTO))
        await running.abort()
        assert ("stop" in offload.calls, running.name, events.told) == (False, "recording", [])
        await running.prepare(3, wanting(AUTO))
        assert ("stop" in offload.calls, running.name) == (False, "recording")
        await running.commit()
        assert (offload.calls.count("stop"), running.name) == (1, NullOffload.name)
        why = "no XDP" if call == "missing" else f"{call} failed: OSError(28, 'no space')"
        assert running.reason == f"no kernel offload: recording: {why}"
        expected = [] if call == "missing" else [("offload_failed", running.reason)]
        assert [(event, message) for event, message, _ in events.told] == expected
        await reload(running, 4, wanting(AUTO))  # looks again
        assert (running.name, running.reason) == ("recording", "offload 2")

    play(wanting(AUTO), events, scenario)


@pytest.mark.parametrize(("settings", "level"), [(AUTO, Level.WARNING), (REQUIRE, Level.ERROR)])
def test_a_commit_that_fails_in_a_reload_ends_the_offload_and_not_the_gateway(
    settings: OffloadSettings, level: Level, factory: Factory, events: Events
) -> None:
    """The workers serve the new generation by then, and the kernel must not go on with the old one."""

    async def scenario(running: Offloading) -> None:
        factory.last.fails["commit"] = OffloadError("busy")
        await reload(running, 2, wanting(settings))
        assert running.name == NullOffload.name
        assert running.reason == "no kernel offload: recording: commit failed: busy"
        assert factory.last.calls[-1] == "stop"
        await running.abort()

    play(wanting(AUTO), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_failed"]
    assert events.levels == [level]
    assert factory.last.calls.count("stop") == 1


def test_one_that_cannot_abort_is_removed(factory: Factory, events: Events) -> None:
    """It promised that this does not fail: nobody knows what it answers now."""

    async def scenario(running: Offloading) -> None:
        factory.last.fails["abort"] = OSError(5, "lost")
        await running.prepare(2, wanting(REQUIRE))
        await running.abort()
        assert (factory.last.calls[-1], running.name) == ("stop", NullOffload.name)

    play(wanting(REQUIRE), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_failed"]


# --- health -------------------------------------------------------------------------------------------------


def down(*addresses: Address) -> Health:
    return Health("s", [str(address) for address in addresses])


async def heard(running: Offloading) -> None:
    """Until the thread has worked off what it was told."""
    await running.counters()
    await asyncio.sleep(0)  # the callback that hands on what came meanwhile
    await running.counters()


def test_backends_that_are_down_get_nothing(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        tables = factory.last.tables
        running.health(down(A))
        await heard(running)
        assert tables == {"s": (B,)}
        running.health(down(A, B))
        await heard(running)
        assert tables == {"s": ()}
        running.health(down())
        await heard(running)
        assert tables == {"s": None}

    play(wanting(AUTO, A, B), events, scenario)
    assert events.told == []


def test_health_outlives_reloads_and_offloads(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        running.health(down(A))
        await heard(running)
        await running.prepare(2, wanting(AUTO, A, B, C))
        assert factory.last.calls[-2:] == ["prepare", "usable"]
        assert factory.last.tables == {"s": (B, C)}  # known before it is live; the rest was not wanted by name
        running.health(down(C))
        await heard(running)
        await running.commit()
        assert factory.last.tables == {"s": (A, B)}
        await reload(running, 3, wanting(NONE, A, B, C))
        running.health(down(B))
        await reload(running, 4, wanting(REQUIRE, B, C))
        assert factory.last.tables == {"s": (A, C)}  # A is of the generation before, and counts for nothing
        assert len(factory.made) == 2

    play(wanting(AUTO, A, B), events, scenario)


def test_news_while_nothing_is_live_are_for_the_one_that_is_prepared(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        await running.prepare(2, wanting(AUTO, A, B))
        running.health(down(B))
        await heard(running)
        assert factory.last.tables == {"s": (A,)}
        await running.commit()

    play(wanting(None, A, B), events, scenario)


def test_news_that_come_faster_than_they_are_told_count_by_the_last(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        offload = factory.last
        offload.go_on.clear()
        offload.entered.clear()
        tasks = Tasks(asyncio.get_running_loop())
        busy = tasks.start(running.prepare(2, wanting(AUTO, A, B)), name="prepare")
        await asyncio.to_thread(offload.entered.wait, PATIENCE)
        for _ in range(100):
            running.health(down(A))
            running.health(down(B))
        offload.go_on.set()
        await busy
        await heard(running)
        assert offload.tables == {"s": (A,)}
        assert offload.calls.count("usable") == 2  # the first, and the last

    play(wanting(AUTO, A, B), events, scenario)


@pytest.mark.parametrize("call", ["usable", "counters"])
@pytest.mark.parametrize(("settings", "level"), [(AUTO, Level.WARNING), (REQUIRE, Level.ERROR)])
def test_one_that_fails_between_reloads_is_removed_and_told(
    call: str, settings: OffloadSettings, level: Level, factory: Factory, events: Events
) -> None:
    changes: list[str] = []

    async def scenario(running: Offloading) -> None:
        running.on_change = lambda: changes.append(running.reason)
        factory.last.fails[call] = OSError(5, "lost")
        running.health(down(A))
        await heard(running)
        assert (running.name, factory.last.calls[-1]) == (NullOffload.name, "stop")
        assert changes == [f"no kernel offload: recording: {call} failed: OSError(5, 'lost')"]
        assert await running.counters() == Counters()
        await reload(running, 2, wanting(settings, A, B))
        assert (running.reason, factory.last.tables) == ("offload 2", {"s": (B,)})

    play(wanting(settings, A, B), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_failed"]
    assert events.levels == [level]


def test_one_that_fails_between_prepare_and_commit_does_not_go_live(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        factory.fails = {"usable": OffloadError("no room")}
        await running.prepare(2, wanting(REQUIRE, A, B))
        running.health(down(A))
        await heard(running)
        await running.commit()
        assert factory.last.calls == ["start", "prepare", "usable", "stop"]
        assert running.reason == "no kernel offload: recording: usable failed: no room"

    play(wanting(NONE, A, B), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_failed"]


@pytest.mark.parametrize("settings", [AUTO, REQUIRE])
def test_one_that_takes_no_health_does_not_take_the_generation(
    settings: OffloadSettings, factory: Factory, events: Events
) -> None:
    async def scenario(running: Offloading) -> None:
        running.health(down(A))
        await heard(running)
        factory.last.fails["usable"] = OffloadError("no room")
        if settings is REQUIRE:
            with pytest.raises(StartError, match="recording: usable failed: no room"):
                await running.prepare(2, wanting(settings, A, B))
            assert (factory.last.calls[-1], running.name) == ("abort", "recording")
        else:
            await reload(running, 2, wanting(settings, A, B))
            assert (factory.last.calls[-2:], running.name) == (["abort", "stop"], NullOffload.name)

    play(wanting(AUTO, A, B), events, scenario)


def test_counters_are_those_of_what_is_live(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        assert await running.counters() == Counters(events={"binds": 7})
        await reload(running, 2, wanting(NONE))
        assert await running.counters() == Counters()

    play(wanting(AUTO), events, scenario)


def test_news_after_the_end_are_ignored(factory: Factory, events: Events) -> None:
    async def run() -> None:
        running = Offloading(wanting(AUTO, A, B), events)
        await running.prepare(1)
        await running.commit()
        await running.stop()
        running.health(down(A))

    asyncio.run(run())
    assert factory.last.calls == ["start", "prepare", "commit", "stop"]


# --- detach -------------------------------------------------------------------------------------------------

DETACHED = "no kernel offload: recording was detached by a command; the next reload looks for one again"


@pytest.mark.parametrize("settings", [AUTO, REQUIRE])
def test_one_that_is_detached_comes_back_with_the_next_reload(
    settings: OffloadSettings, factory: Factory, events: Events
) -> None:
    changes: list[str] = []

    async def scenario(running: Offloading) -> None:
        running.on_change = lambda: changes.append(running.reason)
        assert await running.detach() == (True, DETACHED)
        assert (factory.last.calls[-1], running.name, running.reason) == ("stop", NullOffload.name, DETACHED)
        assert changes == [DETACHED]
        running.health(down(A))  # is known to the next one
        assert await running.counters() == Counters()
        assert await running.detach() == (True, DETACHED)
        await reload(running, 2, wanting(settings, A, B))
        assert (running.reason, factory.last.tables) == ("offload 2", {"s": (B,)})

    play(wanting(settings, A, B), events, scenario)
    assert [made.calls.count("stop") for made in factory.made] == [1, 1]
    assert events.told == [("offload_detached", DETACHED, {"offload": "recording"})]
    assert events.levels == [Level.INFO]


def test_where_there_is_none_detaching_says_so(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        assert await running.detach() == (True, "no kernel offload: offload.mode is none")

    play(wanting(NONE), events, scenario)
    assert (factory.made, events.told) == ([], [])


def test_one_that_cannot_be_removed_is_detached_and_told(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        factory.last.fails["stop"] = OSError(16, "busy")
        removed, text = await running.detach()
        assert (removed, text) == (False, f"{DETACHED}. Something is left of it: the log says what")
        assert running.name == NullOffload.name

    play(wanting(AUTO), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_not_removed", "offload_detached"]


def test_what_is_detached_between_prepare_and_commit_does_not_go_live(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        await running.prepare(2, wanting(REQUIRE))
        await running.detach()
        await running.commit()
        assert factory.last.calls == ["start", "prepare", "commit", "prepare", "stop"]
        assert running.reason == DETACHED

    play(wanting(AUTO), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_detached"]


# --- where it is --------------------------------------------------------------------------------------------


def test_the_interfaces_are_known_once_it_is_live(factory: Factory, events: Events) -> None:
    attached = {"eth7": Attachment("tc", "tcx"), "eth8": Attachment("xdp", "native")}

    async def scenario(running: Offloading) -> None:
        assert (running.interfaces, running.status()) == ({}, {"name": "recording", "reason": "offload 1"})
        factory.last.counted = Counters(gauges=Gauges(interfaces=attached))
        await reload(running, 2, wanting(AUTO))
        assert running.interfaces == attached
        assert running.status()["interfaces"] == [
            {"name": "eth7", "hook": "tc", "mode": "tcx", "why": ""},
            {"name": "eth8", "hook": "xdp", "mode": "native", "why": ""},
        ]
        await running.detach()
        assert (running.interfaces, running.status()) == ({}, {"name": NullOffload.name, "reason": DETACHED})

    play(wanting(AUTO), events, scenario)


def test_what_are_no_counters_is_a_failure_of_the_offload(factory: Factory, events: Events) -> None:
    async def scenario(running: Offloading) -> None:
        factory.last.counted = None  # type: ignore[assignment]
        assert await running.counters() == Counters()
        assert running.reason.startswith("no kernel offload: recording: counters failed: AttributeError(")

    play(wanting(AUTO), events, scenario)
    assert [event for event, *_ in events.told] == ["offload_failed"]
