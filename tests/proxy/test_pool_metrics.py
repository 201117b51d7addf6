"""Gauges and counters of backends: by address, whatever ways lead there."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

from rauta.proxy.counters import SIZE, Column, read
from rauta.proxy.metrics import CONNECTS, IN_FLIGHT, POOL, WorkerMetrics
from rauta.routing.model import Match, PathMatch
from rauta.routing.services import BackendTls, Timeouts
from support.http import always, backend, client, forward, gateway, ok, request, run, service


def test_two_ways_to_one_address_are_counted_together() -> None:
    """One speaks plain HTTP, and is served; the other wants TLS, and fails."""

    async def main() -> None:
        async with backend(always(ok())) as server:
            plain = service(server.port, name="plain")
            secure = replace(
                service(server.port, name="secure", timeouts=Timeouts(connect=0.3)), tls=BackendTls(verify=False)
            )
            routes = [
                forward("secure", route="a", matches=(Match(path=PathMatch.exact("/secure")),)),
                forward("plain", route="b"),
            ]
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            contexts = {(secure.tls, secure.protocol): context}
            async with (
                gateway(services=[plain, secure], routes=routes, backend_contexts=contexts) as rauta,
                client(rauta.port) as peer,
            ):
                memory = memoryview(bytearray(SIZE))
                metrics = WorkerMetrics(Column(memory))

                def counted() -> dict[tuple[str, ...], int]:
                    metrics.tick(rauta.plane)
                    wanted = (CONNECTS, POOL, IN_FLIGHT)
                    return {
                        (found.name, *found.labels[1:]): int(c[0]) for found, c in read(memory) if found.name in wanted
                    }

                for path, status in (("/", b"200"), ("/secure", b"504"), ("/", b"200")):
                    peer.send(request(path))
                    assert (await asyncio.wait_for(peer.response(), 15))[0].split()[1] == status
                expected = {(CONNECTS, "made"): 1, (CONNECTS, "failed"): 1, (POOL, "idle"): 1, (POOL, "busy"): 0}
                for _ in range(2):  # nothing is counted twice
                    found = counted()
                    assert {key: found[key] for key in expected} == expected
                    assert found[IN_FLIGHT,] == 0

    run(main())
