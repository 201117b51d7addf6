"""The corpus, over real sockets: what the client is answered, and what the backend has really received."""

from __future__ import annotations

import asyncio

import pytest

from rauta.routing.settings import LogFormat
from support.corpus import CHUNKED, CUT_RESPONSES, REQUESTS, RESPONSES, SMUGGLED, Response, Row
from support.http import always, backend, client, gateway, ok, once, request, run, talk


def ids(row: Row | Response) -> str:
    return row.name


@pytest.mark.parametrize("row", REQUESTS, ids=ids)
@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "in pieces"])
def test_refused_and_never_forwarded(row: Row, pieces: int) -> None:
    async def main() -> None:
        async with backend(always(ok())) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                step = -(-len(row.data) // pieces)
                for at in range(0, len(row.data), step):
                    peer.send(row.data[at : at + step])
                    await asyncio.sleep(0.002 if pieces > 1 else 0)
                answer = await peer.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % row.status), answer
            assert answer.count(b"\r\n\r\n") == 1
            assert b"\r\nConnection: close\r\n" in answer
            assert (b"\r\nAllow: " in answer) is (row.status == 405)
            assert answer.endswith(b"\n")
            (line,) = rauta.log_lines()
            # In pieces, a broken line can be seen before what else is wrong with it.
            assert f"reason={row.reason}" in line or (pieces > 1 and "reason=bad_line_end" in line)
            assert server.received == []

    run(main())


@pytest.mark.parametrize("row", CHUNKED, ids=ids)
def test_a_broken_chunked_body_never_ends_at_the_backend(row: Row) -> None:
    async def script(peer) -> None:
        await peer.rest()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            answer = await talk(rauta.port, row.data)
            assert answer.startswith(b"HTTP/1.1 400 "), answer
            assert answer.count(b"\r\n\r\n") == 1
            assert b"\nbad_chunk: " in answer
            (line,) = rauta.log_lines()
            assert "reason=bad_chunk" in line
            for received in server.received:
                assert b"\r\n0\r\n" not in received
                assert SMUGGLED not in received

    run(main())


@pytest.mark.parametrize("row", RESPONSES, ids=ids)
@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "in pieces"])
def test_a_malformed_response_is_a_502(row: Response, pieces: int) -> None:
    async def script(peer) -> None:
        await peer.head()
        step = -(-len(row.data) // pieces) or 1
        for at in range(0, len(row.data), step):
            peer.send(row.data[at : at + step])
            await asyncio.sleep(0.002 if pieces > 1 else 0)

    async def main() -> None:
        async with backend(script) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                head, body = await peer.response()
                while head.startswith(b"HTTP/1.1 103"):
                    head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 502 "), head
                reason = b"upstream_reset" if row.name in ("nothing at all", "half a head") else b"upstream_malformed"
                assert b"\n" + reason + b": " in body
                assert b"hello" not in body
                # The client did nothing wrong: its connection lives.
                peer.send(request("/other"))
                head, _ = await peer.response()
                while head.startswith(b"HTTP/1.1 103"):
                    head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 502 ")
            assert len(server.peers) == 2, "the backend's connection was used again"
            assert "reason=upstream_" in rauta.log_lines()[0]

    run(main())


@pytest.mark.parametrize("row", CUT_RESPONSES, ids=ids)
def test_a_response_that_breaks_off_is_cut(row: Response) -> None:
    async def main() -> None:
        async with backend(once(row.data)) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
            answer = await talk(rauta.port, request())
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert not answer.endswith(b"0\r\n\r\n")
            if b"Content-Length: 10" in answer:
                assert answer.endswith(b"hello")
            (line,) = rauta.log_lines()
            assert "reason=upstream_" in line
            assert " 200 " in line

    run(main())


def test_bytes_behind_a_response_never_answer_the_next_request() -> None:
    poisoned = ok(b"first") + ok(b"poison")

    async def main() -> None:
        async with backend(always(poisoned)) as server, gateway(server.port) as rauta:
            async with client(rauta.port) as peer:
                for _ in range(3):
                    peer.send(request())
                    assert (await peer.response())[1] == b"first"
            assert len(server.peers) == 3

    run(main())


def test_bytes_on_an_idle_connection_close_it() -> None:
    async def script(peer) -> None:
        while await peer.head():
            peer.send(ok(b"first"))
            await asyncio.sleep(0.01)
            peer.send(ok(b"poison"))
            await peer.closed()

    async def main() -> None:
        async with backend(script) as server, gateway(server.port) as rauta, client(rauta.port) as peer:
            for number in range(3):
                peer.send(request())
                assert (await peer.response())[1] == b"first"
                async with asyncio.timeout(2):  # well before the pool's idle time-out
                    while not server.peers[number].writer.is_closing():
                        await asyncio.sleep(0.005)

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b'{"password": "hunter2", "x": "\x1b[2J"}' + b"hunter2" * 1000,
        b"HTTP/1.1 200 hunter2\x1b[2J\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b;\r\n session=hunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\nhunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x1bhunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"\xe9" * 5000 + b": hunter2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a" * 5000 + b": \x00hunter2\r\n\r\n",
        b"HTTP/1.1 101 hunter2\r\nConnection: upgrade\r\nUpgrade: hunter2\r\n\r\n",
    ],
)
@pytest.mark.parametrize("form", list(LogFormat))
def test_the_log_shows_nothing_of_a_malformed_response(data: bytes, form: LogFormat) -> None:
    async def main() -> None:
        async with backend(once(data)) as server, gateway(server.port, log=form) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request())
                head, body = await peer.response()
                assert head.startswith(b"HTTP/1.1 502 ")
            assert b"hunter2" not in body
            (line,) = rauta.log_lines()
            assert "upstream_malformed" in line
            assert "detail" in line
            assert "hunter2" not in line
            assert len(line) < 700
            assert line.isascii()
            assert line.isprintable()

    run(main())
