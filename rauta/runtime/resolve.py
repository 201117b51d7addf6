"""A look at the backends' names when the gateway starts, so that a typing error is told at once.

A name that does not resolve stops nothing: its requests are answered 502, and it may resolve later.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rauta.routing.services import Service

MAX_NAMES: Final = 256  # more are not looked at: the check must not become load on a resolver
THREADS: Final = 16  # 256 names at 20 ms each take 0.3 s
TIMEOUT: Final = 5.0  # seconds for all; one try of the C library's resolver takes 5 s


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A backend's host that has no address now, the resolver's words, and who uses it first: the service and the
    position in its list of backends."""

    service: str
    position: int
    host: str
    reason: str

    def __str__(self) -> str:
        return (
            f"service {self.service!r}: backend host {self.host!r} cannot be resolved: {self.reason}; "
            "its requests are answered 502 until it can"
        )


async def unresolved(services: Iterable[Service], *, within: float = TIMEOUT) -> list[Unresolved]:
    """Look all names up, side by side and within `within` seconds; what did not resolve."""
    users: dict[str, tuple[str, int]] = {}
    for service in services:
        for position, backend in enumerate(service.backends):
            if backend.address.is_name:
                users.setdefault(backend.address.host, (service.name, position))
    hosts = [*users][:MAX_NAMES]
    answers = await _look_up(hosts, within)
    silence = f"no answer within {within:g} s"
    reasons = ((host, answers.get(host, silence)) for host in hosts)
    return [Unresolved(*users[host], host, reason) for host, reason in reasons if reason]


async def _look_up(hosts: list[str], within: float) -> dict[str, str]:
    """What went wrong, by host ("": nothing); hosts without an answer in time are missing."""
    # Not the loop's executor: getaddrinfo cannot be interrupted, and the loop would wait for its threads at the
    # end. Daemon threads hold nothing up.
    loop = asyncio.get_running_loop()
    answers: dict[str, str] = {}
    done = asyncio.Event()
    work: queue.SimpleQueue[str] = queue.SimpleQueue()

    def note(host: str, reason: str) -> None:
        answers[host] = reason
        if len(answers) == len(hosts):
            done.set()

    def resolve() -> None:
        while True:
            try:
                host = work.get_nowait()
            except queue.Empty:
                return
            reason = _try(host)
            try:
                loop.call_soon_threadsafe(note, host, reason)
            except RuntimeError:
                return  # the loop is closed: the gateway has stopped in the meantime

    for host in hosts:
        work.put(host)
    for number in range(min(THREADS, len(hosts))):
        threading.Thread(target=resolve, name=f"resolver {number}", daemon=True).start()
    if hosts:
        try:
            async with asyncio.timeout(within):
                await done.wait()
        except TimeoutError:
            pass  # the caller tells which ones have no answer
    return dict(answers)


def _try(host: str) -> str:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError as error:  # the IDNA codec: a label is empty or longer than 63 characters
        return str(error)
    return ""
