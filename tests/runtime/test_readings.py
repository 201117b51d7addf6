"""What the agent is told of the offload, and how often it is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rauta.offload import Counters
from rauta.runtime import readings
from rauta.runtime.control import Decoder, Reading, for_the_agent
from rauta.runtime.readings import Readings
from rauta.runtime.tasks import Tasks


class Offload:
    """Counts how often it is read; a reading ends when it may."""

    def __init__(self) -> None:
        self.reads = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def counters(self) -> Counters:
        self.reads += 1
        await self.go_on.wait()
        return Counters(events={"reads": self.reads})


class Asked:
    """Readings, and the answers that they gave."""

    def __init__(self) -> None:
        self.offload = Offload()
        self.tasks = Tasks(asyncio.get_running_loop())
        self.answers: list[int] = []
        self.readings = Readings(self.offload, self.tasks, self._shown)  # type: ignore[arg-type]

    def _shown(self, frame: bytes) -> None:
        (payload,) = Decoder(pickles=True).feed(frame)
        assert isinstance(payload, bytes)
        reading = for_the_agent(payload)
        assert isinstance(reading, Reading)
        self.answers.append(reading.counters.events["reads"])

    async def ask(self, times: int = 1) -> None:
        """Ask, and wait for the answer if there is to be one."""
        for _ in range(times):
            self.readings.wanted()
        await self.settled()

    async def settled(self) -> None:
        while self.tasks._running and self.offload.go_on.is_set():
            await asyncio.wait([*self.tasks._running])


def play(scenario: Callable[[Asked], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        asked = Asked()
        await scenario(asked)
        await asked.tasks.cancel()

    asyncio.run(run())


def test_each_question_is_answered_and_few_are_read_for() -> None:
    async def scenario(asked: Asked) -> None:
        await asked.ask()
        await asked.ask()
        assert (asked.answers, asked.offload.reads) == ([1, 1], 1)

    play(scenario)


def test_a_reading_that_is_old_is_not_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "INTERVAL", 0.0)

    async def scenario(asked: Asked) -> None:
        await asked.ask()
        await asked.ask()
        assert asked.answers == [1, 2]

    play(scenario)


def test_questions_while_one_is_at_work_have_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "INTERVAL", 0.0)

    async def scenario(asked: Asked) -> None:
        asked.offload.go_on.clear()
        await asked.ask(100)
        await asyncio.sleep(0)
        assert (asked.answers, asked.offload.reads) == ([], 1)
        asked.offload.go_on.set()
        await asked.settled()
        assert asked.answers == [1]
        await asked.ask()
        assert asked.answers == [1, 2]

    play(scenario)
