"""What a connection brings, in pieces and in turns."""

from __future__ import annotations

import itertools
import types

import pytest

from rauta.proxy.exchange import Exchange
from rauta.proxy.http2 import streams
from support.compiled import plain_only
from support.h2mirror import mirrored
from support.h2wire import LARGEST, data, get, post, wire

pytestmark = plain_only  # parts are replaced


def upload(stream: int, body: bytes, size: int) -> bytes:
    """A request with a body in frames of that size."""
    pieces = (data(stream, body[at : at + size], 0) for at in range(0, len(body), size))
    return post(stream) + b"".join(pieces) + data(stream, b"")


@pytest.mark.parametrize("size", [1, 100, LARGEST])
@pytest.mark.parametrize("turn", [-1.0, 0.005])
async def test_all_arrives_in_order_whatever_the_turns(size: int, turn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TURN", turn)  # seconds: below zero it is over behind each slice
    monkeypatch.setattr(streams, "_SLOW", 0.0 if turn < 0 else streams._SLOW)
    bodies = {stream: bytes(range(stream, stream + 50)) * (400 if size > 1 else 20) for stream in (1, 3, 5)}
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(b"".join(upload(stream, body, size) for stream, body in bodies.items()))
        for stream, body in bodies.items():
            assert (await peer.answered(stream)).body == body


async def test_all_arrives_in_order_whatever_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = itertools.cycle([0.003] * 6 + [0.0001] * 7)  # slow ones halve the next slice twice, quick ones double it
    clock = itertools.accumulate(steps)
    monkeypatch.setattr(streams, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(streams, "_TURN", 1e9)
    bodies = {stream: bytes(range(stream, stream + 50)) * 60 for stream in range(1, 40, 2)}
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        for stream, body in bodies.items():
            peer.send(upload(stream, body, 777))
            await peer.settled()  # a read of its own, which begins with a small slice and ends with a large one
        for stream, body in bodies.items():
            assert (await peer.answered(stream)).body == body


async def test_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_TURN", -1.0)
    monkeypatch.setattr(streams, "_SLOW", 0.0)
    went_on = 0
    go_on = streams.Multiplexed._go_on

    def counted(connection: streams.Multiplexed) -> None:
        nonlocal went_on
        went_on += 1
        go_on(connection)

    monkeypatch.setattr(streams.Multiplexed, "_go_on", counted)
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(upload(1, bytes(20_000), 1000))
        assert (await peer.answered(1)).body == bytes(20_000)
        assert went_on >= 10
        peer.send(get(3))
        assert (await peer.answered(3)).status == 200


async def test_a_body_in_small_pieces_is_handed_on_in_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    request_body = Exchange.request_body

    def counted(exchange: Exchange, piece: bytes) -> None:
        nonlocal calls
        calls += 1
        request_body(exchange, piece)

    monkeypatch.setattr(Exchange, "request_body", counted)
    async with mirrored([]) as rauta, wire(rauta.port) as peer:
        peer.send(upload(1, bytes(5000), 1))
        assert (await peer.answered(1)).body == bytes(5000)
        assert calls < 500
