"""docs/embedding.md, "What each host loses": every cell of the table is asked of the host that it is about."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rauta.api import Gateway
from rauta.proxy.asgi.frames import Closed, Frames
from support import h2client
from support.asgi import host
from support.asgiclient import Seen, ask
from support.http import Peer, Script, always, backend, client, ok, run
from support.process import free_port

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "embedding.md").read_text()
SECTION = PAGE.partition("\n## What each host loses\n")[2].partition("\n## ")[0]
COLUMNS = ("rauta", "uvicorn", "hypercorn", "hypercorn, HTTP/2")
PLENTY = 48 << 20  # bytes; what buffers of kernel, host and gateway hold is below
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class At:
    """A gateway to ask, its backend's port, and its log."""

    port: int
    behind: int
    http2: bool
    log: Path

    async def ask(self, script: Script, *fields: tuple[str, str], **more: str | bytes) -> tuple[Seen, bytes]:
        """An answer, and what the backend has seen."""
        async with backend(script, self.behind) as peer:
            seen = await ask(self.port, fields, http2=self.http2, **more)  # type: ignore[arg-type]
            return seen, b"".join(peer.received)


class Site:
    """A configuration, and the hosts that serve it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.native = free_port()
        self.behind = free_port()
        self.file = folder / "rauta.yaml"
        self.file.write_text(
            f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{self.native}", '
            "forwarded: [x-forwarded-for, via]}}\n"
            f'services: {{s: {{backends: [{{address: "127.0.0.1:{self.behind}"}}]}}}}\n'
            "routes: [{name: all, service: s, upgrades: [websocket, echo]}]\n"
            "access_log: {to: access.log, format: json}\n"
        )
        (folder / "hosted.py").write_text(f"from rauta.api import Gateway\n\napp = Gateway({str(self.file)!r})\n")

    @asynccontextmanager
    async def at(self, column: str, ports: dict[str, int]) -> AsyncIterator[At]:
        log = self.folder / "access.log"
        kind, _, http2 = column.partition(", ")
        if kind != "rauta":
            yield At(ports[kind], self.behind, bool(http2), log)
            return
        async with Gateway(self.file):
            yield At(self.native, self.behind, False, log)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def ports(site: Site) -> Iterator[dict[str, int]]:
    with host("uvicorn", "hosted:app", site.folder) as one, host("hypercorn", "hosted:app", site.folder) as two:
        yield {"uvicorn": one.port, "hypercorn": two.port}


# --- the rows -------------------------------------------------------------------------------------------


async def early_hints(at: At) -> str:
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    seen, _ = await at.ask(always(hint + ok()))
    return "kept" if seen.interim == [103] else "lost"


async def expectation(at: At) -> str:
    async def script(peer: Peer) -> None:
        asked = b"Expect: 100-continue" in await peer.head()
        if asked:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.exactly(5)
        peer.send(ok(b"asked" if asked else b"not asked"))
        await peer.closed()

    seen, _ = await at.ask(script, ("Expect", "100-continue"), method="POST", body=b"hello")
    return "the backend" if seen.body == b"asked" else "the host" if seen.body == b"not asked" else "nobody"


async def trailers(at: At) -> str:
    response = CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
    with_te, _ = await at.ask(always(response), ("TE", "trailers"))
    without, _ = await at.ask(always(response))
    assert with_te.whole
    assert without.whole
    if with_te.trailers and without.trailers:
        return "kept"
    return "kept with `TE: trailers`" if with_te.trailers else "lost"


async def request_trailers(at: At) -> str:
    async def script(peer: Peer) -> None:
        await peer.head()
        data = b""
        while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
            data += await peer.reader.read(65536)
        peer.send(ok(data))
        await peer.closed()

    if at.http2:
        return "lost"  # as over HTTP/1.1: ASGI has no message for them
    async with backend(script, at.behind), client(at.port) as asked:
        asked.send(
            b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        _, body = await asked.response()
        return "kept" if b"X-Sum: 1" in body else "lost"


async def phrase(at: At) -> str:
    seen, _ = await at.ask(always(b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n"))
    return {"Fine": "kept", "OK": "the usual one", "": "none"}[seen.phrase]


async def unnamed_status(at: At) -> str:
    seen, _ = await at.ask(always(b"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n"))
    return "kept" if seen.status == 299 else str(seen.status)


async def names(at: At) -> str:
    seen, _ = await at.ask(always(ok(b"", b"X-CamelCase: 1\r\n")))
    return "kept" if "X-CamelCase" in seen.names else "lower case" if "x-camelcase" in seen.names else "lost"


async def date(at: At) -> str:
    seen, _ = await at.ask(always(ok(b"", b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")))
    found = seen.all("date")
    assert len(found) == 1
    return "the backend's" if "1994" in found[0] else "the host's"


async def server(at: At) -> str:
    seen, _ = await at.ask(always(ok(b"", b"Server: behind\r\n")))
    found = seen.all("server")
    return "kept" if found == ["behind"] else "twice" if "behind" in found else "lost"


async def version(at: At) -> str:
    _, received = await at.ask(always(ok()))
    found = re.search(rb"Via: ([0-9.]+) rauta", received)
    assert found is not None
    return found[1].decode()


async def path(at: At) -> str:
    _, received = await at.ask(always(ok()), path="/a%2Fb%20c/%C3%A4?x=%41&y")
    return "kept" if received.startswith(b"GET /a%2Fb%20c/%C3%A4?x=%41&y ") else received.split(b"\r\n")[0].decode()


async def address(at: At) -> str:
    _, received = await at.ask(always(ok()))
    return "kept" if b"X-Forwarded-For: 127.0.0.1\r\n" in received else "lost"


async def forged_address(at: At) -> str:
    _, received = await at.ask(always(ok()), ("X-Forwarded-For", "192.0.2.99"))
    return "believed" if b"192.0.2.99" in received else "not believed"


async def backpressure(at: At) -> str:
    """How much of 256 MiB a backend can send before the client takes any."""
    written = 0

    async def script(peer: Peer) -> None:
        nonlocal written
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 << 20))
        try:
            while written < 256 << 20:
                peer.send(bytes(1 << 16))
                await peer.writer.drain()
                written += 1 << 16
        finally:
            peer.writer.transport.abort()

    async with backend(script, at.behind), client(at.port) as asked:
        if at.http2:
            asked.send(_h2_get())
        else:
            asked.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        asked.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await _steady(lambda: written)
        asked.writer.transport.abort()
    return "kept" if written < PLENTY else "lost"


async def request_backpressure(at: At) -> str:
    """How much of 256 MiB a client can send before the backend takes any."""
    arrived, over = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        arrived.set()
        await over.wait()

    sent = 0
    if at.http2:
        return await _h2_upload(at, script, over)
    async with backend(script, at.behind), client(at.port) as asked:
        asked.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % (256 << 20))

        async def send() -> None:
            nonlocal sent
            while sent < 256 << 20:
                asked.send(bytes(1 << 16))
                await asked.writer.drain()
                sent += 1 << 16

        task = asyncio.get_running_loop().create_task(send())
        await arrived.wait()
        await _steady(lambda: sent)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asked.writer.transport.abort()
        over.set()
    return "kept" if sent < PLENTY else "lost"


async def cut(at: At) -> str:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED + b"2\r\nhi\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.1)  # so that it is on its way to the client

    began = asyncio.get_running_loop().time()
    seen, _ = await at.ask(script)
    assert seen.body == b"hi"
    if seen.whole:
        return "looks complete"
    return "kept" if asyncio.get_running_loop().time() - began < 4 else "never told"


async def left(at: At) -> str:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        arrived.set()
        await peer.closed()
        gone.set()

    async with backend(script, at.behind):
        async with client(at.port) as asked:
            asked.send(_h2_get() if at.http2 else b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await arrived.wait()
        try:
            await asyncio.wait_for(gone.wait(), 5)
        except TimeoutError:
            return "lost"
    return "kept"


async def websocket(at: At) -> str:
    if at.http2:
        return await _h2_websocket(at)
    async with _echo(at) as url, connect(url, subprotocols=["b", "a"]) as peer:  # type: ignore[list-item]
        assert peer.subprotocol == "a"
        for message in ("hello", b"\x00" * 1_000_000):
            await peer.send(message)
            assert await peer.recv() == message
        await (await peer.ping())
        await peer.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await peer.recv()
        assert closed.value.rcvd is not None
        return "kept" if (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you like") else "no code"


async def refused_websocket(at: At) -> str:
    async with backend(always(b"HTTP/1.1 401 Unauthorized\r\nX-Why: 1\r\nContent-Length: 2\r\n\r\nno"), at.behind):
        if at.http2:
            async with h2client.client(at.port) as asked:
                answer = await asked.answer(_h2_connect(asked))
                kept = (answer.status, answer.fields.get("x-why"), answer.body) == (401, "1", b"no")
                return "kept" if kept else str(answer.status)
        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{at.port}/"):
                pass
    response = refused.value.response
    return (
        "kept"
        if (response.status_code, response.headers.get("X-Why"), response.body) == (401, "1", b"no")
        else (str(response.status_code))
    )


async def other_upgrade(at: At) -> str:
    if at.http2:
        return "lost"  # RFC 9113 8.6: there is no Upgrade

    async def script(peer: Peer) -> None:
        if b"Upgrade: echo" in await peer.head():
            peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        else:
            peer.send(ok())
        await peer.closed()

    async with backend(script, at.behind), client(at.port) as asked:
        asked.send(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        return "kept" if b" 101 " in await asked.head() else "lost"


ROWS: dict[str, Callable[[At], Awaitable[str]]] = {
    "103 (Early Hints)": early_hints,
    "100 (Continue) is sent by": expectation,
    "trailers of responses": trailers,
    "trailers of requests": request_trailers,
    "reason phrase": phrase,
    "a status without a name (299)": unnamed_status,
    "case of header names": names,
    "`Date`": date,
    "`Server` of the backend": server,
    "HTTP version, as `Via` and the log have it": version,
    "path and query as they were sent": path,
    "the client's address": address,
    "`X-Forwarded-For` from loopback": forged_address,
    "a slow client slows the backend": backpressure,
    "a slow backend slows the client": request_backpressure,
    "a response that is cut is seen as cut": cut,
    "a client that leaves frees the backend": left,
    "WebSocket: messages, subprotocol, close code": websocket,
    "WebSocket: the backend's refusal": refused_websocket,
    "`Upgrade` to other protocols": other_upgrade,
}


def table() -> dict[tuple[str, str], str]:
    """The page's cells by row and column."""
    lines = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in lines[0][1:]] == list(COLUMNS)
    return {
        (cells[0].strip(), column): cell.strip()
        for cells in lines[1:]
        for column, cell in zip(COLUMNS, cells[1:], strict=True)
    }


def test_the_table_has_these_rows() -> None:
    assert [row for row, column in table() if column == "rauta"] == list(ROWS)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_what_each_host_loses(row: str, column: str, site: Site, ports: dict[str, int]) -> None:
    async def main() -> None:
        async with site.at(column, ports) as at:
            assert await ROWS[row](at) == table()[row, column]

    run(main())


# --- helpers --------------------------------------------------------------------------------------------


async def _steady(value: Callable[[], int]) -> None:
    """Wait until it has not changed for a while, since all buffers are full; or is beyond what they hold."""
    before, same = -1, 0
    while same < 4 and value() < PLENTY:
        same = same + 1 if before == value() else 0
        before = value()
        await asyncio.sleep(0.15)


def _h2_get() -> bytes:
    """A whole request, of a client that then says nothing more."""
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")]
    connection.send_headers(1, head, end_stream=True)
    return bytes(connection.data_to_send())


async def _h2_upload(at: At, script: Script, over: asyncio.Event) -> str:
    async with backend(script, at.behind), h2client.client(at.port) as asked:
        task = asyncio.get_running_loop().create_task(
            asked.upload(asked.request(method="POST", end=False, host="test"), 256 << 20)
        )
        await _steady(lambda: (256 << 20) - asked.left if asked.left else 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asked.writer.transport.abort()
        over.set()
        return "kept" if asked.left > (256 << 20) - PLENTY else "lost"


def _h2_connect(asked: h2client.Client) -> int:
    """A WebSocket's CONNECT (RFC 8441); its stream."""
    fields = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", "test"),
        ("sec-websocket-version", "13"), ("sec-websocket-protocol", "b, a"),
    ]  # fmt: skip
    return asked.head(fields, end=False)


async def _h2_websocket(at: At) -> str:
    async with _echo(at), h2client.client(at.port) as asked:
        await asked.until(lambda: asked.h2.remote_settings.enable_connect_protocol)
        stream = _h2_connect(asked)
        answer, frames = asked.streams[stream], Frames(client=True)
        await asked.until(lambda: answer.status)
        assert (answer.status, answer.fields["sec-websocket-protocol"]) == (200, "a")

        async def send(data: bytes) -> None:
            while data:
                await asked.until(lambda: asked.h2.local_flow_control_window(stream) > 0)
                room = min(asked.h2.local_flow_control_window(stream), 16_384)
                asked.h2.send_data(stream, data[:room])
                asked.flush()
                data = data[room:]

        async def hear() -> object:
            while True:
                await asked.until(lambda: answer.body or answer.ended)
                assert answer.body
                body, answer.body = answer.body, b""
                if found := frames.receive(body):
                    return found[0]

        for message in ("hello", b"\x00" * 1_000_000):
            await send(frames.message(message))
            assert await hear() == message
        await send(frames.message("close"))
        return "kept" if await hear() == Closed(4001, "as you like") else "no code"


@asynccontextmanager
async def _echo(at: At) -> AsyncIterator[str]:
    """A WebSocket server that sends back what comes."""

    async def handler(connection: ServerConnection) -> None:
        async for message in connection:
            if message == "close":
                await connection.close(4001, "as you like")
            else:
                await connection.send(message)

    async with serve(handler, "127.0.0.1", at.behind, subprotocols=["a"], compression=None):  # type: ignore[list-item]
        yield f"ws://127.0.0.1:{at.port}/ws"
