from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from rauta.routing.services import Backend, Service
from rauta.routing.settings import Address
from rauta.runtime.resolve import MAX_NAMES, unresolved


def service(name: str, *hosts: str) -> Service:
    return Service(name=name, backends=tuple(Backend(address=Address(host, 80)) for host in hosts))


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Answers by host: None resolves, an exception is raised, an Event is waited for. Counts the questions."""
    answers: dict[str, object] = {}
    asked: list[str] = []
    answers["asked"] = asked

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        answer = answers.get(host)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, threading.Event):
            answer.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


def test_only_names_that_do_not_resolve_are_told(resolver: dict[str, object]) -> None:
    resolver["gone.test"] = socket.gaierror(-2, "Name or service not known")
    services = [
        service("a", "127.0.0.1", "good.test"),
        service("b", "127.0.0.1", "gone.test"),
        service("c", "gone.test"),
    ]
    (finding,) = asyncio.run(unresolved(services))
    assert (finding.service, finding.position) == ("b", 1)
    assert str(finding) == (
        "service 'b': backend host 'gone.test' cannot be resolved: Name or service not known; "
        "its requests are answered 502 until it can"
    )
    assert sorted(resolver["asked"]) == ["gone.test", "good.test"]  # type: ignore[call-overload]


def test_unix_sockets_have_no_name(resolver: dict[str, object]) -> None:
    backend = Backend(address=Address.unix("/run/backend.sock"))
    assert asyncio.run(unresolved([Service(name="a", backends=(backend,))])) == []
    assert resolver["asked"] == []


def test_a_silent_resolver_holds_nothing_up(resolver: dict[str, object]) -> None:
    release = threading.Event()
    resolver["slow.test"] = release
    started = time.monotonic()
    (finding,) = asyncio.run(unresolved([service("a", "slow.test", "good.test")], within=0.1))
    assert time.monotonic() - started < 5
    assert (finding.host, finding.reason) == ("slow.test", "no answer within 0.1 s")
    release.set()


def test_the_number_of_questions_is_bounded(resolver: dict[str, object]) -> None:
    services = [service(f"s{number}", f"h{number}.test") for number in range(MAX_NAMES + 50)]
    assert asyncio.run(unresolved(services)) == []
    assert len(resolver["asked"]) == MAX_NAMES  # type: ignore[arg-type]


def test_addresses_need_no_resolver(resolver: dict[str, object]) -> None:
    assert asyncio.run(unresolved([service("a", "127.0.0.1", "::1")])) == []
    assert resolver["asked"] == []
