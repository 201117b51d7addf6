"""The accept stage: PROXY headers before HTTP and TLS, from whom they are taken, in whatever pieces they come."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import resource
import socket
import ssl
import struct
import subprocess
import tracemalloc
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from rauta.proxy.dataplane import Endpoint
from rauta.proxy.proxyprotocol import SIGNATURE
from rauta.proxy.tls import ServerContexts
from rauta.routing.model import Configuration, Respond, Route
from rauta.routing.services import ProxyProtocol
from rauta.routing.settings import (
    AccessLog,
    Address,
    ClientLimits,
    ClientTimeouts,
    Listener,
    LogFormat,
    ProxySources,
    Requirement,
)
from rauta.routing.table import Table
from support.http import (
    Client,
    Gateway,
    always,
    backend,
    client,
    forward,
    free_port,
    gateway,
    ok,
    request,
    run,
    service,
)
from support.tls import make_pair
from support.tlspeer import TlsPeer

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
ELSEWHERE = ipaddress.ip_network("192.0.2.0/24")
HELLO = Route(name="hello", action=Respond(body="hello"))

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 4711 443\r\n"
V1_SIX = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n"
V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 2]) + struct.pack("!HH", 4711, 443)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def listener(*sources: Any, optional: bool = False, head: float = 5.0, **more: Any) -> Listener:
    """One that takes PROXY headers, by default from loopback."""
    proxies = ProxySources(
        sources=sources or (LOOPBACK,), mode=Requirement.OPTIONAL if optional else Requirement.REQUIRE
    )
    timeouts = ClientTimeouts(head=head)
    return Listener(name="web", address=Address("127.0.0.1", 1), proxy_protocol=proxies, timeouts=timeouts, **more)


async def none_open(rauta: Gateway) -> None:
    """Wait until the gateway has no connection of a client."""
    while rauta.plane.open_connections:
        await asyncio.sleep(0.005)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A context for the gateway and one that trusts it; both offer HTTP/2."""
    pair = make_pair(tmp_path)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(pair.cert, pair.key)
    ours.set_alpn_protocols(["h2", "http/1.1"])
    return ours, ssl.create_default_context(cafile=pair.cert)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (V1, "203.0.113.7"),
        (V1_SIX, "2001:db8::7"),
        (V2, "203.0.113.7"),
        (b"PROXY UNKNOWN whatever\r\n", "127.0.0.1"),
        (LOCAL, "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_the_client_is_who_the_header_names(header: bytes, told: str, piece: int) -> None:
    async def main() -> None:
        async with (
            backend(always(ok())) as server,
            gateway(server.port, listener=listener(), log=LogFormat.COMMON) as rauta,
            client(rauta.port) as peer,
        ):
            data = header + request()
            for at in range(0, len(data), piece):
                peer.send(data[at : at + piece])
                await asyncio.sleep(0 if piece > 1 else 0.0005)
            assert (await peer.response())[1] == b"hello"
            peer.send(request())  # there is one header for all of the connection
            assert (await peer.response())[1] == b"hello"
            assert f"x-forwarded-for: {told}\r\n".encode() in server.peers[0].received.lower()
            assert [line.split()[0] for line in rauta.log_lines()] == [told] * 2

    run(main())


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("piece", [1, 11, 1 << 20])
def test_a_header_before_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext], header: bytes, piece: int) -> None:
    ours, trusting = tls

    async def main() -> None:
        async with (
            gateway(routes=[HELLO], listener=listener(), ssl=ours, log=LogFormat.COMMON) as rauta,
            client(rauta.port) as raw,
        ):
            peer = TlsPeer(raw, trusting, "localhost")
            await peer.shake(header, piece)
            assert (await peer.talk(request(), b"hello")).startswith(b"HTTP/1.1 200 ")
            assert [line.split()[0] for line in rauta.log_lines()] == ["203.0.113.7"]
            assert len(next(iter(rauta.plane.dispatchers)).handshakes) == 0

    run(main())


async def curl(*arguments: str) -> str:
    """What curl writes, of a new process."""
    command = ["curl", "-sS", "--max-time", "10", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    told, _ = await process.communicate()
    assert process.returncode == 0
    return told.decode()


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_curl_with_a_header_of_version_1(tls: tuple[ssl.SSLContext, ssl.SSLContext], protocol: str) -> None:
    secure = protocol != "--http2-prior-knowledge"

    async def main() -> None:
        route = [HELLO]
        async with gateway(
            routes=route, listener=listener(), ssl=tls[0] if secure else None, log=LogFormat.COMMON
        ) as rauta:
            url = f"http{'s' if secure else ''}://127.0.0.1:{rauta.port}/"
            options = ("--interface", "127.0.0.9", "-k", "--haproxy-protocol", protocol)
            told = await curl(*options, "-w", " %{http_version}", url)
            assert told == ("hello 1.1" if protocol == "--http1.1" else "hello 2")
            assert [line.split()[0] for line in rauta.log_lines()] == ["127.0.0.9"]

    run(main())


@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_behind_haproxy(tmp_path: Path, sends: str) -> None:
    config, port = tmp_path / "haproxy.cfg", free_port()

    async def main() -> None:
        async with (
            backend(always(ok())) as server,
            gateway(
                services=[replace(service(server.port), proxy_protocol=ProxyProtocol.V1)],
                listener=listener(),
                routes=[forward()],
            ) as rauta,
        ):
            config.write_text(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
                f"frontend f\n bind 127.0.0.1:{port}\n unique-id-format %ci\n default_backend b\n"
                f"backend b\n server s 127.0.0.1:{rauta.port} source 127.0.0.1 {sends}\n"
            )
            haproxy = await asyncio.create_subprocess_exec("haproxy", "-db", "-f", str(config), stderr=subprocess.PIPE)
            try:
                options = ("--interface", "127.0.0.9", "--retry", "50", "--retry-connrefused", "--retry-delay", "0")
                assert await curl(*options, f"http://127.0.0.1:{port}/") == "hello"
            finally:
                haproxy.terminate()
                await haproxy.communicate()
            # And on to the backend: whose connection it was, and where to.
            line = server.peers[0].received.split(b"\r\n")[0].split()
            assert line[:4] == [b"PROXY", b"TCP4", b"127.0.0.9", b"127.0.0.1"]
            assert line[5] == b"%d" % port

    run(main())


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (request(), "no PROXY header"),
        (b"PROXY TCP4 nobody nowhere 1 2\r\n" + request(), "PROXY v1: a malformed line"),
        (b"PROXY UNKNOWN " + b"x" * 200, "PROXY v1: no end of line within 107 bytes"),
        (SIGNATURE + b"\x21\x11\xff\xff", "PROXY v2: 65551 bytes, and 4096 are allowed"),
        (V2[:20], "the connection ended in the header"),
    ],
)
def test_what_is_no_header_is_closed_without_an_answer(data: bytes, detail: str) -> None:
    async def main() -> None:
        async with (
            gateway(routes=[HELLO], listener=listener(), log=LogFormat.COMMON) as rauta,
            client(rauta.port) as peer,
        ):
            peer.send(data)
            if data == V2[:20]:
                peer.writer.write_eof()
            with suppress(ConnectionResetError):  # as good as an end
                assert await peer.rest() == b""
            (line,) = rauta.log_lines()
            assert line.startswith("127.0.0.1 - - [")
            assert ' "-" 400 0 ' in line
            assert " reason=bad_proxy_header " in line
            assert line.endswith(f'detail="{detail}"')

    run(main())


@pytest.mark.parametrize("header", [V1, V2])
def test_who_is_not_trusted_is_served_as_itself_and_its_header_refused(header: bytes) -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=listener(ELSEWHERE), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(header + request())
                with suppress(ConnectionResetError):
                    assert await peer.rest() == b""
            for first in (b"P", b"\r\n"):  # as a header could begin, too
                async with client(rauta.port) as peer:
                    data = first + request(method="UT", body=b"x") if first == b"P" else first + request()
                    peer.send(data[:1])
                    await asyncio.sleep(0.01)
                    peer.send(data[1:])
                    assert (await peer.response())[1] == b"hello"
            refused, *served = rauta.log_lines()
            assert " reason=bad_proxy_header " in refused
            assert "proxy_protocol.from does not list" in refused
            assert [line.split()[0] for line in served] == ["127.0.0.1"] * 2

    run(main())


def test_with_optional_a_header_is_taken_and_none_is_needed() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=listener(optional=True), log=LogFormat.COMMON) as rauta:
            for first in (V1, V2, b"", b"\r\n"):
                async with client(rauta.port) as peer:
                    for byte in first + request():
                        peer.send(bytes([byte]))
                        await asyncio.sleep(0)
                    assert (await peer.response())[1] == b"hello"
            clients = [line.split()[0] for line in rauta.log_lines()]
            assert clients == ["203.0.113.7", "203.0.113.7", "127.0.0.1", "127.0.0.1"]

    run(main())


def test_ipv6_and_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")

    async def main() -> None:
        six = listener(ipaddress.ip_network("::1/128"))
        local = Listener(name="web", address=Address.unix(path), proxy_protocol=ProxySources())
        for web, sock, where in (
            (six, socket.socket(socket.AF_INET6), ("::1", 0)),
            (local, socket.socket(socket.AF_UNIX), path),
        ):
            sock.bind(where)
            sock.listen()
            async with gateway(routes=[HELLO], listener=web, log=LogFormat.COMMON) as rauta:
                await rauta.plane.serve(web, sock)
                if web is six:
                    streams = await asyncio.open_connection(*sock.getsockname()[:2])
                else:
                    streams = await asyncio.open_unix_connection(path)
                peer = Client(*streams)
                for byte in V1_SIX + request():
                    peer.send(bytes([byte]))
                    await asyncio.sleep(0)
                assert (await peer.response())[1] == b"hello"
                peer.writer.close()
                assert [line.split()[0] for line in rauta.log_lines()] == ["2001:db8::7"]

    run(main())


def test_a_header_has_the_time_of_a_head_and_silence_is_no_news() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=listener(head=0.3), log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as silent, client(rauta.port) as slow:
                slow.send(V1[:20])
                assert await silent.rest() == b""
                assert await slow.rest() == b""
            (line,) = rauta.log_lines()
            assert " 408 0 " in line
            assert " reason=head_timeout " in line
            assert line.endswith('detail="no complete PROXY header within 0.3 s"')

    run(main())


def test_a_thousand_that_say_nothing_cost_little_and_end_in_time() -> None:
    count = 1000

    async def main() -> None:
        web = listener(head=3.0, limits=ClientLimits(connections=count))
        async with gateway(routes=[HELLO], listener=web) as rauta:
            tracemalloc.start()
            peers = []
            try:
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(count):
                    peer = socket.socket()
                    peer.setblocking(False)
                    with suppress(BlockingIOError):
                        peer.connect(("127.0.0.1", rauta.port))
                    peers.append(peer)
                while rauta.plane.open_connections < count:
                    await asyncio.sleep(0.01)
                assert (tracemalloc.get_traced_memory()[0] - before) / count < 4096  # bytes, the client's side included
                async with client(rauta.port) as beyond:
                    with suppress(ConnectionResetError):
                        assert await beyond.rest() == b""
                await none_open(rauta)
            finally:
                tracemalloc.stop()
                for peer in peers:
                    peer.close()

    run(main())


def test_draining_ends_silence_and_not_what_has_begun() -> None:
    async def main() -> None:
        async with (
            gateway(routes=[HELLO], listener=listener()) as rauta,
            client(rauta.port) as silent,
            client(rauta.port) as begun,
            asyncio.TaskGroup() as tasks,
        ):
            begun.send(V1[:10])
            while rauta.plane.open_connections < 2:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            draining = tasks.create_task(rauta.plane.drain(5.0, idle=0.3))
            assert await silent.rest() == b""
            begun.send(V1[10:] + request())
            assert (await begun.response())[1] == b"hello"
            assert await begun.rest() == b""
            assert await draining

    run(main())


def test_what_is_left_at_the_end_of_draining_is_cut() -> None:
    async def main() -> None:
        async with gateway(routes=[HELLO], listener=listener()) as rauta, client(rauta.port) as peer:
            peer.send(V1[:10])
            while not rauta.plane.open_connections:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            assert not await rauta.plane.drain(0.1)
            with suppress(ConnectionResetError):
                assert await peer.rest() == b""

    run(main())


def test_without_descriptors_it_waits_and_goes_on() -> None:
    told: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
        async with gateway(routes=[HELLO], listener=listener()) as rauta:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            async with AsyncExitStack() as stack:
                peer = socket.socket()
                stack.callback(peer.close)
                highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
                resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
                stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
                with suppress(OSError):
                    while True:
                        stack.callback(os.close, os.dup(0))
                loop = asyncio.get_running_loop()
                peer.connect(("127.0.0.1", rauta.port))  # by the kernel alone
                peer.sendall(V1 + request())
                peer.setblocking(False)
                while not told:
                    await asyncio.sleep(0.01)
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                assert b"hello" in await loop.sock_recv(peer, 4096)
        assert told == ["no connection can be accepted"]

    uvloop.run(asyncio.wait_for(main(), 20))


def test_a_reload_turns_a_listener_to_tls_and_back_and_to_headers(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    plain = Listener(name="web", address=Address("127.0.0.1", 1))
    ours, trusting = tls

    async def swap(rauta: Gateway, web: Listener, contexts: ServerContexts | None) -> None:
        table = Table(Configuration(listeners=(web,), routes=(HELLO,), access_log=AccessLog(to="off")))
        await rauta.plane.swap(table, [Endpoint(listener=web, contexts=contexts)])

    async def answered(rauta: Gateway, before: bytes, *, secure: bool) -> bool:
        async with client(rauta.port) as raw:
            try:
                if secure:
                    peer = TlsPeer(raw, trusting, "localhost")
                    await peer.shake(before)
                    return b" 200 " in await peer.talk(request(), b"hello")
                raw.send(before + request())
                return b" 200 " in (await raw.response())[0]
            except (OSError, asyncio.IncompleteReadError):
                return False

    async def main() -> None:
        contexts = ServerContexts([((), ours)])
        states = [(plain, None), (plain, contexts), (listener(), None), (listener(), contexts), (plain, contexts)]
        async with gateway(routes=[HELLO], listener=plain) as rauta:
            for web, given in [*states, *reversed(states)]:
                async with client(rauta.port) as before:
                    await swap(rauta, web, given)
                    for header in (b"", V1):
                        for secure in (False, True):
                            wanted = (given is not None, web.proxy_protocol is not None)
                            assert await answered(rauta, header, secure=secure) is ((secure, bool(header)) == wanted)
                    before.writer.close()
            async with client(rauta.port) as kept:
                kept.send(request())
                await kept.response()
                await swap(rauta, plain, contexts)
                assert await kept.rest() == b""  # of plain HTTP, where there is TLS now

    run(main())


def test_a_reload_leaves_the_file_of_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    plain = Listener(name="web", address=Address.unix(path))
    behind = replace(plain, proxy_protocol=ProxySources())

    async def main() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        sock.listen()
        async with gateway(routes=[HELLO], listener=plain) as rauta:
            await rauta.plane.serve(plain, sock)
            for web, header in ((behind, V1), (plain, b""), (behind, V1)):
                table = Table(Configuration(listeners=(web,), routes=(HELLO,), access_log=AccessLog(to="off")))
                await rauta.plane.swap(table, [Endpoint(listener=web)])
                peer = Client(*await asyncio.open_unix_connection(path))
                peer.send(header + request())
                assert (await peer.response())[1] == b"hello"
                peer.writer.close()

    run(main())
