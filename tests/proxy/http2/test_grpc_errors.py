"""gRPC calls that fail: by the gateway, by a deadline, by their caller; and what is logged of them."""

from __future__ import annotations

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from rauta.proxy.counters import SIZE, Column, read
from rauta.proxy.http2.streams import FREE_FRAMES
from rauta.proxy.metrics import GRPC as GRPC_RESPONSES
from rauta.proxy.metrics import WorkerMetrics
from rauta.proxy.reasons import REASONS
from rauta.routing.hosts import HostPattern
from rauta.routing.model import Match, PathMatch
from rauta.routing.services import LimitOverrides, ServiceLimits, TimeoutOverrides, Timeouts
from support import grpcpeers, h2client, h2server
from support.grpcpeers import WAIT, between, channel, failure, to, unary
from support.http import Gateway, forward, free_port, gateway

Code = grpc.StatusCode
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))
MESSAGE = b"\0\0\0\0\1m"
ELSEWHERE = forward(matches=(Match(path=PathMatch.exact("/x")),))
OTHER_HOST = forward(matches=(Match(path=PathMatch.prefix("/"), hosts=(HostPattern.parse("a.test"),)),))


def logged(rauta: Gateway) -> list[dict[str, Any]]:
    return [json.loads(line) for line in rauta.log_lines()]


# --- errors of our own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opened", "status", "text"),
    [
        (lambda: to(free_port()), Code.UNAVAILABLE, "upstream_refused"),
        (lambda: gateway(1, routes=[ELSEWHERE]), Code.UNIMPLEMENTED, "no_route"),
        (lambda: gateway(1, routes=[OTHER_HOST]), Code.UNIMPLEMENTED, "unknown_host"),
        (lambda: to(1, limits=ServiceLimits(body=10)), Code.RESOURCE_EXHAUSTED, "body_too_large"),
    ],
    ids=["refused", "no route", "no host", "too large"],
)  # fmt: skip
def test_errors_of_our_own(opened: Callable[[], Any], status: grpc.StatusCode, text: str) -> None:
    with between(opened()) as rauta, channel(rauta.port) as client:
        code, details = failure(client, "Unary", bytes(100_000) if text == "body_too_large" else b"")
        assert (code, details) == (status, f"{text}: {REASONS[text].text}")


def test_a_stream_that_grows_too_long(backend: grpcpeers.Server) -> None:
    """The call has begun, and has a status nevertheless."""
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with between(to(backend.port, route={"limits": LimitOverrides(body=100)})) as rauta, channel(rauta.port) as client:
        answers = client.stream_stream("/test.Echo/Talk")(iter(messages.get, None), timeout=WAIT)
        messages.put(b"first")
        assert next(answers) == b"FIRST"
        messages.put(bytes(200))
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        messages.put(None)
        error: Any = caught.value
        assert (error.code(), error.details()) == (
            Code.RESOURCE_EXHAUSTED,
            "body_too_large: the body is longer than this route allows",
        )
        (line,) = logged(rauta)
        assert (line["status"], line["grpc_status"], line["reason"]) == (200, "8", "body_too_large")


async def _die(peer: h2server.Connection) -> None:
    peer.writer.transport.abort()


async def _reset(peer: h2server.Connection) -> None:
    peer.reset(1, h2server.ErrorCodes.INTERNAL_ERROR)
    await peer.until(lambda: False)


async def _malformed(peer: h2server.Connection) -> None:
    begun = peer.h2.streams[1].state_machine.headers_sent
    peer.head(1, [("a b", "c")] if begun else [(":status", "200"), ("a b", "c")], end=True)
    await peer.until(lambda: False)


async def _no_grpc(peer: h2server.Connection) -> None:
    peer.answer(1, b"<h1>here is a web server</h1>", ("content-type", "text/html"), status=404)
    await peer.until(lambda: False)


@pytest.mark.parametrize(
    ("begun", "script", "status", "reason"),
    [
        (False, _die, Code.UNAVAILABLE, "upstream_reset"),
        (True, _die, Code.UNAVAILABLE, "upstream_reset"),
        (False, _reset, Code.UNAVAILABLE, "upstream_reset"),
        (True, _reset, Code.UNAVAILABLE, "upstream_reset"),
        (False, _malformed, Code.INTERNAL, "upstream_malformed"),
        (True, _malformed, Code.INTERNAL, "upstream_malformed"),
        (False, _no_grpc, Code.UNIMPLEMENTED, None),
    ],
)
def test_a_backend_that_fails(begun: bool, script: Any, status: grpc.StatusCode, reason: str | None) -> None:
    async def play(peer: h2server.Connection) -> None:
        await peer.request()
        if begun:
            peer.head(1, [(":status", "200"), ("content-type", "application/grpc")])
            peer.data(1, MESSAGE)
            await asyncio.sleep(0.05)  # so that the client has it first
        await script(peer)

    @asynccontextmanager
    async def opened() -> AsyncIterator[Gateway]:
        async with h2server.server(play) as server, to(server.port) as rauta:
            yield rauta

    with between(opened()) as rauta, channel(rauta.port) as client:
        answers = client.unary_stream("/test.Echo/Many")(b"1", timeout=WAIT)
        got = []
        with pytest.raises(grpc.RpcError):
            got += iter(answers)
        assert answers.code() is status
        if reason is not None:
            assert answers.details() == f"{reason}: {REASONS[reason].text}"
            (line,) = logged(rauta)
            assert (line["status"], line["reason"]) == (200, reason)
            assert line["grpc_status"] == str(status.value[0])


async def test_half_a_message_and_then_nothing() -> None:
    async def play(peer: h2server.Connection) -> None:
        await peer.request()
        peer.head(1, [(":status", "200"), ("content-type", "application/grpc")])
        peer.data(1, MESSAGE[:3])

    async with h2server.server(play) as server, to(server.port) as rauta, h2client.client(rauta.port) as peer:
        answer = await peer.answer(peer.request(*GRPC, method="POST"))
        assert (answer.body, answer.trailers["grpc-status"]) == (MESSAGE[:3], "14")


async def test_who_does_not_speak_grpc_gets_http() -> None:
    """Also of a response that has a length: trailers would make it look complete."""

    async def play(peer: h2server.Connection) -> None:
        await peer.request(1)
        peer.head(1, [(":status", "200"), ("content-type", "application/grpc"), ("content-length", "10")])
        peer.head(3, [(":status", "200")])
        await peer.more()

    async with gateway(1, routes=[ELSEWHERE]) as rauta, h2client.client(rauta.port) as peer:
        assert (await peer.answer(peer.request(method="POST"))).status == 404
    async with h2server.server(play) as server, to(server.port) as rauta, h2client.client(rauta.port) as peer:
        first, second = peer.request(*GRPC, method="POST"), peer.request()
        while not (peer.streams[first].status and peer.streams[second].status):
            await peer.more()
        server.connections[0].writer.transport.abort()
        for stream in (first, second):
            assert (await peer.answer(stream)).reset == h2client.ERRORS["INTERNAL_ERROR"]


# --- deadlines ----------------------------------------------------------------------------------------------


def test_a_deadline_is_passed_on(backend: grpcpeers.Server, client: grpc.Channel) -> None:
    client.unary_unary("/test.Echo/Unary")(b"", timeout=9)
    client.unary_unary("/test.Echo/Unary")(b"")
    assert 5 < backend.remaining[0] <= 9
    assert backend.remaining[1] > 1e9


def test_a_call_whose_client_stops_waiting(backend: grpcpeers.Server, rauta: Gateway, client: grpc.Channel) -> None:
    """The client keeps its deadline by itself, and its backend learns of it."""
    assert failure(client, "Wait", timeout=0.3)[0] is Code.DEADLINE_EXCEEDED
    assert backend.cancelled.wait(WAIT)
    with channel(rauta.port) as other:
        assert unary(other, "Unary", b"go on") == b"go on"


@pytest.mark.parametrize("begun", [False, True], ids=["before its head", "behind a message"])
async def test_a_deadline_is_kept_here(begun: bool) -> None:
    """If neither client nor backend does it."""

    async def play(peer: h2server.Connection) -> None:
        told.append((await peer.request())["grpc-timeout"])
        if begun:
            peer.head(1, [(":status", "200"), ("content-type", "application/grpc")])
            peer.data(1, MESSAGE)
        await peer.until(lambda: peer.requests[1].reset is not None)

    told: list[str] = []
    async with h2server.server(play) as server, to(server.port) as rauta, h2client.client(rauta.port) as peer:
        answer = await peer.answer(peer.request(*GRPC, ("grpc-timeout", "300m"), method="POST"))
        assert (answer.status, (answer.trailers if begun else answer.fields)["grpc-status"]) == (200, "4")
        assert (answer.body, told) == (MESSAGE if begun else b"", ["300m"])
        backend = server.connections[0]
        while backend.requests[1].reset is None:
            await asyncio.sleep(0.005)
        assert backend.requests[1].reset == h2client.ERRORS["CANCEL"]
        (line,) = logged(rauta)
        assert (line["reason"], line["grpc_status"]) == ("request_timeout", "4")
        assert 0.3 <= line["duration"] < 5


@pytest.mark.parametrize("kind", ["service", "route"])
def test_the_shorter_time_counts(backend: grpcpeers.Server, kind: str) -> None:
    more: dict[str, Any] = {"timeouts": Timeouts(request=0.3)}
    if kind == "route":
        more = {"route": {"timeouts": TimeoutOverrides(request=0.3)}}
    with between(to(backend.port, **more)) as rauta, channel(rauta.port) as client:
        assert failure(client, "Wait") == (Code.DEADLINE_EXCEEDED, "request_timeout: the request took too long")
        assert backend.cancelled.wait(WAIT)


# --- callers that leave -------------------------------------------------------------------------------------


def test_cancelling_reaches_the_backend(backend: grpcpeers.Server, rauta: Gateway, client: grpc.Channel) -> None:
    future = client.unary_unary("/test.Echo/Wait").future(b"", timeout=WAIT)
    assert backend.waiting.wait(WAIT)
    future.cancel()
    assert backend.cancelled.wait(WAIT)
    (line,) = logged(rauta)
    assert (line["status"], line["reason"]) == (499, "client_gone")


def test_many_who_leave_are_no_flood(backend: grpcpeers.Server, rauta: Gateway, client: grpc.Channel) -> None:
    """Streams that are left after a message, and calls whose deadlines are over, all on one connection."""
    for _ in range(2 * FREE_FRAMES):
        answers = client.unary_stream("/test.Echo/Watch")(b"", timeout=WAIT)
        assert next(answers) == b"first"
        answers.cancel()
    call = client.unary_unary("/test.Echo/Wait")
    for _ in range(3):
        futures = [call.future(b"", timeout=0.5) for _ in range(FREE_FRAMES // 2)]
        assert {future.code() for future in futures} == {Code.DEADLINE_EXCEEDED}
    assert unary(client, "Unary", b"go on") == b"go on"
    assert "flood" not in {line["reason"] for line in logged(rauta)}


def test_keepalive_is_no_flood(backend: grpcpeers.Server, rauta: Gateway) -> None:
    options = [("grpc.keepalive_time_ms", 100), ("grpc.keepalive_permit_without_calls", 1),
               ("grpc.http2.max_pings_without_data", 0)]  # fmt: skip
    with channel(rauta.port, *options) as client:
        assert failure(client, "Wait", timeout=2.0)[0] is Code.DEADLINE_EXCEEDED
        assert unary(client, "Unary", b"go on") == b"go on"
    assert "flood" not in {line["reason"] for line in logged(rauta)}
    assert len({line["client"] for line in logged(rauta)}) == 1


# --- metrics ------------------------------------------------------------------------------------------------


def test_statuses_are_counted(backend: grpcpeers.Server, rauta: Gateway, client: grpc.Channel) -> None:
    memory = memoryview(bytearray(SIZE))
    metrics = WorkerMetrics(Column(memory))
    for dispatcher in rauta.plane.dispatchers:
        dispatcher.metrics = metrics
    for _ in range(3):
        unary(client, "Unary")
    failure(client, "Fail")
    failure(client, "None")
    future = client.unary_unary("/test.Echo/Wait").future(b"", timeout=WAIT)
    assert backend.waiting.wait(WAIT)
    future.cancel()
    assert backend.cancelled.wait(WAIT)  # a call without a status
    found = {series.labels: cells[0] for series, cells in read(memory) if series.name == GRPC_RESPONSES}
    assert found == {("web", "r", "s", status): count for status, count in (("0", 3), ("9", 1), ("12", 1))}


async def test_statuses_that_do_not_exist_are_one() -> None:
    async def play(peer: h2server.Connection) -> None:
        for number in range(3):
            await peer.request(number)
            peer.answer(2 * number + 1, b"", ("content-type", "application/grpc"), ("grpc-status", str(17 + number)))
        await peer.until(lambda: False)

    memory = memoryview(bytearray(SIZE))
    async with h2server.server(play) as server, to(server.port) as rauta, h2client.client(rauta.port) as peer:
        for dispatcher in rauta.plane.dispatchers:
            dispatcher.metrics = WorkerMetrics(Column(memory))
        for _ in range(3):
            await peer.answer(peer.request(*GRPC, method="POST"))
    found = [(series.labels[3], cells[0]) for series, cells in read(memory) if series.name == GRPC_RESPONSES]
    assert found == [("OTHER", 3)]
