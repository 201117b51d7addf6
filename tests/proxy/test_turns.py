"""Large bodies: a connection that has brought much lets others have their turn before it brings more."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rauta.proxy import flow
from rauta.proxy.flow import TURN_OVER, ReadGate
from rauta.routing.services import BackendProtocol
from support import h2server
from support.compiled import plain_only
from support.http import Peer, backend, client, forward, gateway, ok, request, run, service

SIZE = 4 * 1024 * 1024


class Transport(asyncio.ReadTransport):
    """Keeps whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


def test_reading_goes_on_in_the_next_turn_if_nobody_objects() -> None:
    async def main() -> None:
        loop, transport = asyncio.get_running_loop(), Transport()
        gate = ReadGate(transport)
        gate.rest(loop)
        gate.rest(loop)
        assert (transport.reads, gate.objections) == (False, TURN_OVER)
        await asyncio.sleep(0)
        assert transport.reads
        gate.rest(loop)
        gate.close(flow.PEER_BLOCKED)
        await asyncio.sleep(0)
        assert not transport.reads
        gate.open(flow.PEER_BLOCKED)
        assert transport.reads

    run(main())


@plain_only
@pytest.mark.parametrize("way", ["download", "upload", "HTTP/2 download"])
def test_who_brings_much_rests(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rests = 0
    rest = ReadGate.rest

    def counted(gate: ReadGate, loop: asyncio.AbstractEventLoop) -> None:
        nonlocal rests
        rests += 1
        rest(gate, loop)

    monkeypatch.setattr(ReadGate, "rest", counted)

    async def give(peer: Peer) -> None:
        await peer.head()
        peer.send(ok(bytes(SIZE)))
        await peer.rest()

    async def take(peer: Peer) -> None:
        await peer.head()
        await peer.exactly(SIZE)
        peer.send(ok(b"taken"))
        await peer.rest()

    async def give_2(peer: h2server.Connection) -> None:
        await peer.request()
        peer.head(1, [(":status", "200")])
        left = SIZE
        while left:
            while (room := min(left, peer.h2.local_flow_control_window(1), 16_384)) > 0:
                left -= room
                peer.data(1, bytes(room), end=not left)
            if left:
                await peer.more()
        await peer.until(lambda: False)

    async def main() -> None:
        if way == "HTTP/2 download":
            async with h2server.server(give_2) as behind:
                services = [replace(service(behind.port), protocol=BackendProtocol.HTTP2)]
                async with gateway(services=services, routes=[forward()]) as rauta, client(rauta.port) as peer:
                    peer.send(request())
                    await peer.head()
                    while not (await peer.reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
                        pass
            return
        async with (
            backend(give if way == "download" else take) as behind_1,
            gateway(behind_1.port) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(request("/", method="POST", body=bytes(SIZE)) if way == "upload" else request())
            assert (await peer.response())[1] == (b"taken" if way == "upload" else bytes(SIZE))

    run(main())
    assert rests
