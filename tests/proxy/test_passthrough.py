"""TLS that goes through by its name: real clients and servers, and what happens to bytes, ends, failures and time."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy import arrivals, proxyprotocol
from rauta.routing.model import Respond, Route
from rauta.routing.services import ProxyProtocol, ServiceLimits, Timeouts
from rauta.routing.settings import Address, ClientTimeouts, Listener, LogFormat, Passthrough, ProxySources, TlsSettings
from support.http import Peer, backend, client, free_port, gateway, request, run, service
from support.tls import Pair, make_pair
from support.tlspeer import TlsPeer, hello_of

HELLO = Route(name="hello", action=Respond(body="hello"))
A = hello_of("a.test")


def listener(*passes: tuple[str, str], secure: bool = False, head: float = 5.0, **more: Any) -> Listener:
    """One that passes names through to services."""
    items = tuple(Passthrough(names=(name,), service=target) for name, target in passes or (("a.test", "s"),))
    tls = TlsSettings(certificates=({},)) if secure else None  # type: ignore[arg-type]  # only whether it is there counts
    timeouts = ClientTimeouts(head=head)
    return Listener(name="web", address=Address("127.0.0.1", 1), passthrough=items, tls=tls, timeouts=timeouts, **more)


def context_of(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    return context


@asynccontextmanager
async def tls_server(pair: Pair, body: bytes) -> AsyncIterator[int]:
    """A server of HTTPS with its own certificate that answers each request with `body`; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context_of(pair))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def told_by(*command: str, lines: bytes = b"") -> str:
    """What a command writes, and which exit status it has."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(process.communicate(lines), 15)
    return told.decode() + f" exit {process.returncode}"


def test_two_names_go_through_and_a_third_is_served_on_one_port(tmp_path: Path) -> None:
    ours, one, two = (
        make_pair(tmp_path, name, names=f"DNS:{dns}")
        for name, dns in (("ours", "ours.test"), ("one", "one.test"), ("two", "*.two.test"))
    )

    async def main() -> None:
        web = listener(("one.test", "one"), ("*.two.test", "two"), secure=True)
        async with (
            tls_server(one, b"one") as port_one,
            tls_server(two, b"two") as port_two,
            gateway(
                services=[service(port_one, name="one"), service(port_two, name="two")],
                routes=[HELLO],
                listener=web,
                ssl=context_of(ours),
                log=LogFormat.COMMON,
            ) as rauta,
        ):
            for name, pair, body in (
                ("one.test", one, "one"),
                ("ours.test", ours, "hello"),
                ("x.two.test", two, "two"),
                ("X.TWO.test", two, "two"),
            ):
                told = await told_by(
                    *("curl", "-sS", "--max-time", "10", "--cacert", str(pair.cert)),
                    *("--connect-to", f"::127.0.0.1:{rauta.port}", f"https://{name}/"),
                )
                assert told == f"{body} exit 0"
            # On a connection for another name they are not served: browsers share connections of HTTP/2.
            for name, status in (("one.test", "421"), ("x.two.test", "421"), ("other.test", "200")):
                told = await told_by(
                    *("curl", "-sS", "--max-time", "10", "--cacert", str(ours.cert), "-o", str(tmp_path / "out")),
                    *("--connect-to", f"::127.0.0.1:{rauta.port}", "-w", "%{http_code}", "-H", f"Host: {name}"),
                    "https://ours.test/",
                )
                assert told == f"{status} exit 0"
            shown = await told_by(
                *("openssl", "s_client", "-connect", f"127.0.0.1:{rauta.port}", "-servername", "one.test"),
                *("-CAfile", str(one.cert), "-verify_return_error", "-quiet", "-no_ign_eof"),
                lines=b"GET / HTTP/1.1\r\n\r\n",
            )
            assert "verify error" not in shown
            # Without a name, and for a name deeper than a wildcard reaches: our own certificate.
            for arguments in (("-noservername",), ("-servername", "y.x.two.test")):
                shown = await told_by(
                    *("openssl", "s_client", "-connect", f"127.0.0.1:{rauta.port}", *arguments, "-CAfile"),
                    *(str(ours.cert), "-verify_return_error"),
                )
                assert "Verify return code: 0" in shown
            while rauta.plane.open_connections:
                await asyncio.sleep(0.01)
            lines = rauta.log_lines()
            tunnel = next(line for line in lines if " host=one.test " in line)
            assert tunnel.startswith("127.0.0.1 - - [")
            assert ' "-" 200 ' in tunnel
            assert f" route=- service=one backend=127.0.0.1:{port_one} " in tunnel
            assert " reason=- " in tunnel
            assert len(lines) == 8
            assert len([line for line in lines if " host=x.two.test " in line]) == 3

    run(main())


@pytest.mark.parametrize("piece", [1, 9, 1 << 20])
def test_a_header_and_a_hello_in_pieces(tmp_path: Path, piece: int) -> None:
    pair = make_pair(tmp_path, names="DNS:a.test")
    header = b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\r\n"

    async def main() -> None:
        proxies = ProxySources(sources=(ipaddress.ip_network("127.0.0.1/32"),))
        async with tls_server(pair, b"through") as port:
            web = listener(proxy_protocol=proxies)
            async with gateway(port, listener=web, log=LogFormat.JSON) as rauta:
                async with client(rauta.port) as raw:
                    peer = TlsPeer(raw, ssl.create_default_context(cafile=str(pair.cert)), "a.test")
                    await peer.shake(header, piece)
                    assert await peer.talk(request(), b"through")
                while rauta.plane.open_connections:
                    await asyncio.sleep(0.01)
                assert '"client":"203.0.113.7"' in rauta.log_lines()[0]

    run(main())


def test_a_hello_in_pieces_over_a_unix_socket_which_knows_no_low_water_mark(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(len(A))
        peer.send(b"from the backend")

    async def main() -> None:
        path = str(tmp_path / "web.sock")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        async with backend(script) as server, gateway(server.port, listener=listener()) as rauta:
            await rauta.plane.serve(listener(), sock)
            reader, writer = await asyncio.open_unix_connection(path)
            for at in range(0, len(A), 40):
                writer.write(A[at : at + 40])
                await asyncio.sleep(0.001)
            assert await reader.readexactly(16) == b"from the backend"
            writer.close()

    run(main())


def test_the_rest_for_a_star_also_without_a_name() -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(5)
        peer.send(b"any")

    async def main() -> None:
        web = listener(("a.test", "missed"), ("*", "s"))
        async with backend(script) as server:
            services = [service(server.port), service(free_port(), name="missed")]
            async with gateway(services=services, routes=[HELLO], listener=web) as rauta:
                for name in (None, "b.test", "x.a.test"):
                    async with client(rauta.port) as peer:
                        peer.send(hello_of(name))
                        assert await peer.exactly(3) == b"any"

    run(main())


@pytest.mark.parametrize(
    ("data", "reason", "answer"),
    [
        (hello_of("b.test"), "unknown_host", b"\x15\x03\x03\x00\x02\x02\x70"),
        (hello_of(None), "unknown_host", b"\x15\x03\x03\x00\x02\x02\x70"),
        (request(method="DELETE"), "plain_on_tls", b"HTTP/1.1 400 Bad Request"),
        (b"\x00" * 20, "bad_client_hello", b""),
        (b"\x16\x03\x01\x00\x05\x02xxxx", "bad_client_hello", b""),
        (A[:100], "bad_client_hello", b""),  # and then the end
    ],
)
def test_what_is_refused(data: bytes, reason: str, answer: bytes) -> None:
    async def main() -> None:
        async with (
            gateway(services=[service(free_port())], routes=[], listener=listener(), log=LogFormat.COMMON) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(data)
            if data == A[:100]:
                peer.writer.write_eof()
            told = b""
            with suppress(ConnectionResetError):
                told = await peer.rest()
            assert told.startswith(answer)
            assert bool(told) is bool(answer)
            assert f" reason={reason} " in rauta.log_lines()[0]

    run(main())


def test_openssl_says_why_a_name_is_refused() -> None:
    async def main() -> None:
        async with gateway(services=[service(free_port())], routes=[], listener=listener()) as rauta:
            command = ("openssl", "s_client", "-connect", f"127.0.0.1:{rauta.port}", "-servername", "b.test")
            assert "unrecognized name" in await told_by(*command)

    run(main())


def test_a_hello_has_the_time_of_a_head() -> None:
    async def main() -> None:
        web = listener(head=0.3)
        async with (
            gateway(services=[service(free_port())], routes=[], listener=web, log=LogFormat.COMMON) as rauta,
            client(rauta.port) as peer,
            client(rauta.port) as silent,
        ):
            peer.send(A[:100])
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""
            assert await silent.rest() == b""
            (line,) = rauta.log_lines()
            assert " reason=head_timeout " in line
            assert line.endswith('detail="no complete ClientHello within 0.3 s"')

    run(main())


def test_over_tcp_the_rest_of_a_hello_is_seen_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "LOOK_AGAIN", 60.0)  # so that only the low-water mark can wake it

    async def script(peer: Peer) -> None:
        await peer.exactly(len(A))
        peer.send(b"from the backend")

    async def main() -> None:
        async with (
            backend(script) as server,
            gateway(server.port, listener=listener()) as rauta,
            client(rauta.port) as peer,
        ):
            for at in range(0, len(A), 40):
                peer.send(A[at : at + 40])
                await asyncio.sleep(0.002)
            assert await peer.exactly(16) == b"from the backend"

    run(main())


def test_a_hello_that_is_not_complete_costs_no_time(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "web.sock")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        async with gateway(services=[service(free_port())], routes=[], listener=listener()) as rauta:
            await rauta.plane.serve(listener(), sock)
            async with client(rauta.port) as peer:
                _, local = await asyncio.open_unix_connection(path)
                for writer in (peer.writer, local):
                    writer.write(A[:100])
                while rauta.plane.open_connections < 2:
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.05)
                begun = time.process_time()
                await asyncio.sleep(0.5)
                assert time.process_time() - begun < 0.1  # with a descriptor that is always ready: 0.5
                local.close()

    run(main())


def test_either_side_may_end_first_and_the_other_goes_on() -> None:
    async def client_first(peer: Peer) -> None:
        peer.send(b"got %d" % len(await peer.rest()))

    async def backend_first(peer: Peer) -> None:
        await peer.exactly(len(A))
        peer.send(b"bye")
        peer.writer.write_eof()
        assert await peer.rest() == b"and more"
        ended.set()

    ended = asyncio.Event()

    async def main() -> None:
        async with (
            backend(client_first) as one,
            gateway(one.port, listener=listener(), log=LogFormat.JSON) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(A + b"x" * 100_000)
            peer.writer.write_eof()
            assert await peer.rest() == b"got %d" % (len(A) + 100_000)
            while rauta.plane.open_connections:
                await asyncio.sleep(0.005)
            (line,) = rauta.log_lines()
            assert f'"received":{len(A) + 100_000},' in line
            assert '"bytes":10,' in line
            assert '"reason":null,' in line
            (pool,) = rauta.plane.pools
            assert (pool.open, pool.in_flight, pool.connects, pool.failures) == (0, 0, 1, 0)
        async with (
            backend(backend_first) as one,
            gateway(one.port, listener=listener()) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(A)
            assert await peer.rest() == b"bye"
            peer.send(b"and more")
            peer.writer.write_eof()
            await ended.wait()

    run(main())


def reset(writer: asyncio.StreamWriter) -> None:
    """Close it with a reset."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_a_reset_of_one_side_is_one_of_the_other() -> None:
    seen: list[type[BaseException]] = []
    over = asyncio.Event()

    async def resets(peer: Peer) -> None:
        await peer.exactly(len(A))
        reset(peer.writer)

    async def waits(peer: Peer) -> None:
        try:
            await peer.rest()
        except ConnectionResetError:
            seen.append(ConnectionResetError)
        over.set()

    async def main() -> None:
        async with backend(resets) as one, gateway(one.port, listener=listener(), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(A)
                with pytest.raises(ConnectionResetError):
                    await peer.rest()
            assert " 502 " in (line := rauta.log_lines()[0])
            assert " reason=upstream_reset " in line
        async with backend(waits) as one, gateway(one.port, listener=listener(), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(A)
                while not one.peers:
                    await asyncio.sleep(0.005)
                reset(peer.writer)
                await over.wait()
            assert seen == [ConnectionResetError]
            (line,) = rauta.log_lines()
            assert " 200 0 " in line
            assert line.endswith('detail="the client reset the connection"')
            (pool,) = rauta.plane.pools
            assert (pool.open, pool.in_flight) == (0, 0)

    run(main())


def test_who_does_not_read_stops_the_other_side() -> None:
    sent = 0

    async def floods(peer: Peer) -> None:
        nonlocal sent
        await peer.exactly(len(A))
        while True:
            peer.send(b"x" * 65536)
            await peer.writer.drain()
            sent += 65536

    async def main() -> None:
        async with backend(floods) as one, gateway(one.port, listener=listener()) as rauta:
            raw = socket.socket()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            raw.connect(("127.0.0.1", rauta.port))
            raw.sendall(A)
            before = -1
            while sent == 0 or sent != before:
                before = sent
                await asyncio.sleep(0.3)
            assert sent < 24 * 1024 * 1024  # what the buffers of the kernel hold, and no more
            raw.setblocking(False)
            loop, read = asyncio.get_running_loop(), 0
            while read < before + (1 << 20):
                read += len(await loop.sock_recv(raw, 1 << 20))
            raw.close()

    run(main())


def test_silence_ends_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.closed()

    async def main() -> None:
        async with backend(script) as one:
            patient = service(one.port, timeouts=Timeouts(idle=0.3))
            async with gateway(services=[patient], routes=[], listener=listener(), log=LogFormat.COMMON) as rauta:
                async with client(rauta.port) as peer:
                    peer.send(A)
                    with suppress(ConnectionResetError):
                        await peer.rest()
                (line,) = rauta.log_lines()
                assert " reason=tunnel_idle " in line
                assert 'detail="nothing came through for 0.3 s"' in line

    run(main())


def test_another_backend_when_one_refuses_and_what_if_all_do() -> None:
    async def script(peer: Peer) -> None:
        await peer.exactly(len(A))
        peer.send(b"here")

    async def main() -> None:
        async with backend(script) as one:
            half = service(free_port(), one.port)
            async with gateway(services=[half], routes=[], listener=listener(), log=LogFormat.COMMON) as rauta:
                for number in range(1, 31):  # that all of them get the same by chance is one in 2^29
                    async with client(rauta.port, local_addr=(f"127.0.0.{number}", 0)) as peer:
                        peer.send(A)
                        assert await peer.exactly(4) == b"here"
                while rauta.plane.open_connections:
                    await asyncio.sleep(0.005)
                attempts = {line.partition(" attempts=")[2][0] for line in rauta.log_lines()}
                assert attempts == {"1", "2"}
                assert (
                    {pool.in_flight for pool in rauta.plane.pools} == {pool.open for pool in rauta.plane.pools} == {0}
                )
        async with gateway(
            services=[service(*(free_port() for _ in range(4)))], routes=[], listener=listener(), log=LogFormat.COMMON
        ) as rauta:
            async with client(rauta.port) as peer:
                peer.send(A)
                with suppress(ConnectionResetError):
                    assert await peer.rest() == b""
            (line,) = rauta.log_lines()
            assert " 502 0 " in line
            assert " reason=upstream_refused " in line
            assert " attempts=3 " in line
            rauta.plane.set_down("s", frozenset(pool.name for pool in rauta.plane.pools))

    run(main())


def test_backends_that_are_down_are_left_alone_and_none_is_an_error() -> None:
    async def main() -> None:
        port = free_port()
        async with gateway(services=[service(port)], routes=[], listener=listener(), log=LogFormat.COMMON) as rauta:
            rauta.plane.set_down("s", frozenset({f"127.0.0.1:{port}"}))
            async with client(rauta.port) as peer:
                peer.send(A)
                with suppress(ConnectionResetError):
                    assert await peer.rest() == b""
            assert " reason=no_backend " in rauta.log_lines()[0]

    run(main())


def test_the_backend_is_told_whose_connection_it_is_and_has_a_limit() -> None:
    async def script(peer: Peer) -> None:
        data = await peer.exactly(28 + len(A))
        found = proxyprotocol.decode(data)
        assert found is not None
        assert found.origin is not None
        told.append(found.origin)
        assert data[found.size :] == A
        await peer.rest()

    told: list[Any] = []

    async def main() -> None:
        async with backend(script) as one:
            limits = ServiceLimits(connections=1)
            alone = replace(service(one.port), proxy_protocol=ProxyProtocol.V2, limits=limits)
            async with (
                gateway(services=[alone], routes=[], listener=listener(), log=LogFormat.COMMON) as rauta,
                client(rauta.port, local_addr=("127.0.0.8", 0)) as peer,
                client(rauta.port) as beyond,
            ):
                peer.send(A)
                while not told:
                    await asyncio.sleep(0.005)
                assert told[0].client[0] == "127.0.0.8"
                assert told[0].local == ("127.0.0.1", rauta.port)
                beyond.send(A)
                with suppress(ConnectionResetError):
                    assert await beyond.rest() == b""
                assert " reason=upstream_overloaded " in rauta.log_lines()[0]

    run(main())


def test_draining_leaves_it_until_the_time_is_over() -> None:
    async def script(peer: Peer) -> None:
        while True:
            peer.send(await peer.exactly(1))

    async def main() -> None:
        async with backend(script) as one, gateway(one.port, listener=listener(), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer, asyncio.TaskGroup() as tasks:
                peer.send(A)
                await peer.exactly(len(A))
                draining = tasks.create_task(rauta.plane.drain(1.0))
                await asyncio.sleep(0.6)
                peer.send(b"!")
                assert await peer.exactly(1) == b"!"
                with suppress(ConnectionResetError):
                    await peer.rest()
                assert not await draining
            assert " reason=draining " in rauta.log_lines()[0]

    run(main())
