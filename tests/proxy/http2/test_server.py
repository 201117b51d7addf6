"""HTTP/2 from clients: independent ones (curl, h2load), and frame by frame."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.http2 import frames
from rauta.proxy.http2.frames import STREAM_WINDOW
from rauta.proxy.http2.streams import FREE_FRAMES, SLICE
from rauta.routing.model import Match, PathMatch, Respond, Route
from rauta.routing.settings import LogFormat
from support import h2client
from support.h2client import DATA, ERRORS, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame
from support.h2heads import BROKEN, STATUS
from support.http import Peer, backend, forward, gateway, impatient, service
from support.tls import make_pair


async def run(*words: str) -> bytes:
    """The output of a program that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, told = await process.communicate()
    assert process.returncode == 0, told
    return out


async def body_of(peer: Peer, head: bytes) -> bytes:
    """A request's body, by its head."""
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while size := int(await peer.reader.readuntil(b"\r\n"), 16):
            body += (await peer.exactly(size + 2))[:-2]
        await peer.reader.readuntil(b"\r\n")
        return body
    length = lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await peer.exactly(int(length)) if length else b""


async def mirror(peer: Peer) -> None:
    """A backend that answers with the request's body, or else with its head."""
    while head := await peer.head():
        answer = await body_of(peer, head) or head
        sent = b"" if head.startswith(b"HEAD") else answer
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + sent)


# --- independent clients ------------------------------------------------------------------------------------


async def test_curl_over_tls_by_alpn(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with backend(mirror) as server, gateway(server.port, ssl=context, log=LogFormat.COMMON) as rauta:
        url = f"https://localhost:{rauta.port}/x?y=1"
        for version, shown in (("--http2", "2"), ("--http1.1", "1.1")):
            words = ("curl", "-sS", "--cacert", str(pair.cert), version, "-w", "%{http_version}", url)
            out = await run(*words)
            assert out.startswith(b"GET /x?y=1 HTTP/1.1\r\nHost: localhost:")
            assert out.endswith(shown.encode())
        assert [line.split('"')[1] for line in rauta.log_lines()] == ["GET /x?y=1 HTTP/2.0", "GET /x?y=1 HTTP/1.1"]
        many = [word for number in range(50) for word in (f"{url}{number}", "-o", str(tmp_path / f"o{number}"))]
        await run("curl", "-sS", "--cacert", str(pair.cert), "-Z", *many)
        assert (tmp_path / "o49").read_bytes().startswith(b"GET /x?y=149 HTTP/1.1")


async def test_curl_knows_that_http_2_is_spoken(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(range(256)) * 10_000)
    async with backend(mirror) as server, gateway(server.port) as rauta:
        curl = ("curl", "-sS", "--http2-prior-knowledge")
        url = f"http://127.0.0.1:{rauta.port}/x"
        assert (await run(*curl, url)).startswith(b"GET /x HTTP/1.1\r\n")
        assert await run(*curl, "--data-binary", f"@{big}", url) == big.read_bytes()
        assert await run(*curl, "-H", "Expect: 100-continue", "-T", str(big), url) == big.read_bytes()
        assert b"HTTP/2 200" in await run(*curl, "-I", url)


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (nghttp2-client)")
async def test_h2load() -> None:
    async with backend(mirror) as server, gateway(server.port) as rauta:
        out = await run("h2load", "-n", "400", "-c", "4", "-m", "20", f"http://127.0.0.1:{rauta.port}/x")
        assert b"400 succeeded, 0 failed" in out


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp is not installed (nghttp2-client)")
async def test_nghttp(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * 2000)
    async with backend(mirror) as server, gateway(server.port) as plain, gateway(server.port, ssl=context) as secure:
        for url in (f"http://127.0.0.1:{plain.port}/x", f"https://localhost:{secure.port}/x"):
            assert (await run("nghttp", "--no-verify-peer", url)).startswith(b"GET /x HTTP/1.1\r\n")
            words = ("nghttp", "--no-verify-peer", "-d", str(body), "--trailer=x-sum: 1", "-p", "7")
            assert await run(*words, url) == body.read_bytes()


# --- what goes through --------------------------------------------------------------------------------------


async def test_cookies_and_fields_become_those_of_http_1() -> None:
    async with backend(mirror) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        stream = peer.request(("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("te", "trailers"), host="A.test:80")
        answer = await peer.answer(stream)
    assert answer.status == 200
    lines = answer.body.split(b"\r\n")
    assert lines[:2] == [b"GET / HTTP/1.1", b"Host: A.test:80"]
    assert b"cookie: a=1; b=2" in lines
    assert not [line for line in lines if line.startswith(b"te:")]


async def test_interim_responses_and_trailers() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </s>\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        peer.send(b"2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n")

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        answer = await peer.answer(peer.request())
    assert (answer.interim, answer.status, answer.body) == ([103], 200, b"hi")
    assert answer.trailers == {"x-sum": "7"}
    assert not {"connection", "transfer-encoding"} & answer.fields.keys()


async def test_trailers_of_requests() -> None:
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.head()
        seen.append(await peer.reader.readuntil(b"\r\n\r\n"))
        peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        stream = peer.request(method="POST", end=False)
        peer.h2.send_data(stream, b"hi")
        trailers = [("x-sum", "7"), ("cache-control", "no-store"), ("x-forwarded-for", "10.0.0.1")]
        peer.h2.send_headers(stream, trailers, end_stream=True)
        peer.flush()
        assert (await peer.answer(stream)).status == 204
    assert seen == [b"2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"]


async def test_answers_of_rauta_itself() -> None:
    routes = [
        forward("gone", route="gone", matches=(Match(path=PathMatch.exact("/gone")),)),
        Route(name="hi", matches=(Match(path=PathMatch.exact("/hi")),), action=Respond(status=200, body="hi")),
    ]
    async with gateway(services=[service(1, name="gone")], routes=routes) as rauta, h2client.client(rauta.port) as peer:
        asked = {path: peer.request(path=path) for path in ("/hi", "/gone", "/none")}
        answers = {path: await peer.answer(stream) for path, stream in asked.items()}
    assert {path: answer.status for path, answer in answers.items()} == {"/hi": 200, "/gone": 502, "/none": 404}
    assert b"upstream_refused" in answers["/gone"].body


# --- flow control -------------------------------------------------------------------------------------------


async def test_a_slow_stream_stops_itself_and_no_other() -> None:
    """Its backend takes nothing; the client sends as long as it gets credit, and then others as much."""
    held = asyncio.Event()

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            if b"/slow" in head:
                peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await held.wait()
                return
            await body_of(peer, head)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        slow = peer.request(method="POST", path="/slow", end=False)
        with pytest.raises(TimeoutError):  # what does not come cannot be waited for in any other way
            assert await asyncio.wait_for(peer.upload(slow, 40_000_000), 2) == 0
        sent = 40_000_000 - peer.left
        assert STREAM_WINDOW <= sent < 20_000_000  # what sockets hold, and 64 KiB of ours
        for _ in range(4):  # more than the connection's window
            other = peer.request(method="POST", path="/other", end=False)
            assert await asyncio.wait_for(peer.upload(other, 3_000_000), 10) == 0
            peer.h2.end_stream(other)
            peer.flush()
            assert (await peer.answer(other)).body == b"hi"
        held.set()


async def test_a_client_that_takes_nothing_is_not_sent_more_than_its_window() -> None:
    everything = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
        for _ in range(400):
            peer.send(bytes(100_000))
            await peer.writer.drain()
        everything.set()

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        peer.greedy = False
        big = peer.request(path="/big")
        while len(peer.streams[big].body) < STREAM_WINDOW:
            await peer.more()
        assert len(peer.streams[big].body) == STREAM_WINDOW
        with pytest.raises(TimeoutError):  # more than sockets and 64 KiB of ours hold
            await asyncio.wait_for(everything.wait(), 1)
        peer.h2.reset_stream(big)
        peer.flush()


async def test_streams_take_turns() -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            size = 2_000_000 if b"/big" in head else 10
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        big = peer.request(path="/big")
        small = peer.request(path="/small")
        assert len((await peer.answer(small)).body) == 10
        assert len(peer.streams[big].body) < 2_000_000
        assert len((await peer.answer(big)).body) == 2_000_000


# --- the end ------------------------------------------------------------------------------------------------


async def test_a_reset_stream_ends_its_request_at_the_backend() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await peer.closed()
        gone.set()

    async with backend(script) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
        async with h2client.client(rauta.port) as peer:
            stream = peer.request()
            await asyncio.wait_for(asked.wait(), 5)
            peer.h2.reset_stream(stream)
            peer.flush()
            await asyncio.wait_for(gone.wait(), 5)
        assert "reason=client_gone" in rauta.log_lines()[0]


async def test_an_answer_that_needs_no_body_stops_the_client() -> None:
    async with gateway() as rauta, h2client.client(rauta.port) as peer:
        stream = peer.request(method="POST", end=False)
        answer = await peer.answer(stream)
        while answer.reset is None:
            await peer.more()
        assert (answer.status, answer.reset) == (404, ERRORS["NO_ERROR"])
        assert (await peer.answer(peer.request())).status == 404


async def test_a_response_that_nobody_takes_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + bytes(70_000))

    listener = impatient(idle=0.3)
    async with (
        backend(script) as server,
        gateway(server.port, listener=listener) as rauta,
        h2client.client(rauta.port) as peer,
    ):
        peer.greedy = False
        answer = await peer.answer(peer.request())
        assert (len(answer.body), answer.reset) == (STREAM_WINDOW, ERRORS["CANCEL"])
        assert await peer.end() == ERRORS["NO_ERROR"]  # and then it is idle


async def test_a_response_that_breaks_off_is_a_reset_stream() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi")

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        answer = await peer.answer(peer.request())
        assert (answer.status, answer.reset, answer.ended) == (200, ERRORS["INTERNAL_ERROR"], False)
        other = await peer.answer(peer.request(path="/other"))  # the connection goes on
        assert other.status == 200


async def test_draining_finishes_streams_and_takes_no_new_ones() -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        asked.set()
        await go_on.wait()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with backend(script) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        stream = peer.request()
        await asyncio.wait_for(asked.wait(), 5)
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(rauta.plane.drain(5))
            while peer.goaway is None:
                await peer.more()
            assert peer.goaway == ERRORS["NO_ERROR"]
            go_on.set()
            # h2 takes the connection for closed: what comes is read by hand.
            assert b"hi" in await asyncio.wait_for(peer._reader.read(), 10)
        assert stream == 1
        assert draining.result()


# --- requests that are no good: the stream alone ---------------------------------------------------------------


@pytest.mark.parametrize("what", STATUS)
async def test_a_request_that_is_no_good(what: str) -> None:
    fields, status = STATUS[what]
    async with backend(mirror) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        stream = peer.head(fields)
        try:
            answer = await peer.answer(stream)
        except ConnectionError:
            assert peer.goaway == ERRORS["PROTOCOL_ERROR"]  # as RFC 9113 8.1.1 lets a server do
            return
        assert answer.status == status or answer.reset == ERRORS["PROTOCOL_ERROR"]
        assert not server.received
        assert (await peer.answer(peer.request())).status == 200


@pytest.mark.parametrize("what", BROKEN)
async def test_what_could_become_something_else_reaches_no_backend(what: str) -> None:
    async with backend(mirror) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        stream = peer.head(BROKEN[what])
        try:
            answer = await peer.answer(stream)
            assert answer.status in (400, 405) or answer.reset == ERRORS["PROTOCOL_ERROR"]
        except ConnectionError:
            assert peer.goaway == ERRORS["PROTOCOL_ERROR"]
        assert not server.received
    async with backend(mirror) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        assert (await peer.answer(peer.request())).status == 200


# --- frames that break the connection ------------------------------------------------------------------------

FRAMES = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
    "DATA on an idle stream": (frame(DATA, 0, 5, b"x"), "PROTOCOL_ERROR"),
    "HEADERS on stream 0": (frame(HEADERS, 5, 0, b"\x82"), "PROTOCOL_ERROR"),
    "HEADERS on an even stream": (frame(HEADERS, 5, 2, b"\x82"), "PROTOCOL_ERROR"),
    "RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    "RST_STREAM of 3 bytes": (frame(RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    "SETTINGS of 5 bytes": (frame(SETTINGS, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
    "SETTINGS: a window of 2^31": (frame(SETTINGS, 0, 0, b"\x00\x04\x80\x00\x00\x00"), "FLOW_CONTROL_ERROR"),
    "SETTINGS: push is 2": (frame(SETTINGS, 0, 0, b"\x00\x02\x00\x00\x00\x02"), "PROTOCOL_ERROR"),
    "SETTINGS: frames of 1 byte": (frame(SETTINGS, 0, 0, b"\x00\x05\x00\x00\x00\x01"), "PROTOCOL_ERROR"),
    "PING of 7 bytes": (frame(PING, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE of 0": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE beyond 2^31": (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), "FLOW_CONTROL_ERROR"),
    "PUSH_PROMISE": (frame(5, 4, 1, b"\x00\x00\x00\x02\x82"), "PROTOCOL_ERROR"),
    "CONTINUATION alone": (frame(9, 4, 1, b"\x82"), "PROTOCOL_ERROR"),
    "PING within HEADERS": (frame(HEADERS, 1, 1, b"\x82") + frame(PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
    "a frame over 16 KiB": (frame(DATA, 0, 1, bytes(16_385)), "FRAME_SIZE_ERROR"),
    "a broken field block": (frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff"), "COMPRESSION_ERROR"),
    "padding longer than the frame": (frame(DATA, 8, 1, b"\x09x"), "PROTOCOL_ERROR"),
    "no HTTP/2 behind the preface": (b"GET / HTTP/1.1\r\n\r\n", "FRAME_SIZE_ERROR"),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_broken_connection_is_told_why_and_ends_alone(what: str) -> None:
    data, code = FRAMES[what]
    async with backend(mirror) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
        async with h2client.client(rauta.port) as peer, h2client.client(rauta.port) as other:
            peer.raw(data)
            ended = await peer.end()
            allowed = {ERRORS[code], ERRORS["PROTOCOL_ERROR"]}  # RFC 9113 5.4.1 leaves the choice of a code
            assert ended in allowed, (ended, code)
            assert not server.received
            assert (await other.answer(other.request())).status == 200
        assert "reason=bad_frame" in rauta.log_lines()[0]


# --- floods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ping", "settings", "reset", "empty"])
async def test_floods_end_the_connection(kind: str) -> None:
    async with backend(mirror) as server, gateway(server.port, log=LogFormat.COMMON) as rauta:
        async with h2client.client(rauta.port) as peer:
            stream = peer.request(method="POST", end=False)
            for _ in range(2 * FREE_FRAMES + 10):
                if peer.writer.is_closing():
                    break
                if kind == "ping":
                    peer.writer.write(frame(PING, 0, 0, bytes(8)))
                elif kind == "settings":
                    peer.writer.write(frame(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x64"))
                elif kind == "empty":
                    peer.writer.write(frame(DATA, 0, stream))
                else:
                    peer.h2.reset_stream(peer.request())
                    peer.flush()
            assert await peer.end() == ERRORS["ENHANCE_YOUR_CALM"]
        assert any("reason=flood" in line for line in rauta.log_lines())


async def test_a_browser_that_pings_is_no_flood() -> None:
    async with backend(mirror) as server, gateway(server.port) as rauta, h2client.client(rauta.port) as peer:
        for number in range(2 * FREE_FRAMES):
            peer.h2.ping(bytes(8))
            assert (await peer.answer(peer.request(path=f"/{number}"))).status == 200


@pytest.mark.parametrize("at", [1, 10, 17, 18, 20, 23, 24, 30])
async def test_a_preface_in_pieces(at: int) -> None:
    async with backend(mirror) as server, gateway(server.port) as rauta:
        reader, writer = await asyncio.open_connection("127.0.0.1", rauta.port)
        whole = h2client.PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, b"\x82\x86\x84\x41\x01a")
        writer.write(whole[:at])
        await asyncio.sleep(0.02)
        writer.write(whole[at:])
        data = b""
        while b"GET / HTTP/1.1" not in data:
            data += await asyncio.wait_for(reader.read(1 << 16), 5)
        writer.close()


@pytest.mark.parametrize("kind", ["heads", "settings", "ping", "window"])
async def test_a_burst_is_stopped_early(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in one read is counted piece by piece: 256 KiB of the shortest heads took 54 s."""
    given: list[int] = []
    make = frames.make

    def recording(**settings: Any) -> frames.Frames:
        made = make(**settings)
        kind = type(made)

        class Recording(kind):  # type: ignore[misc,valid-type]
            __slots__ = ()

            def receive(self, data: bytes) -> list[frames.Event]:
                given.append(len(data))
                found: list[frames.Event] = super().receive(data)
                return found

        made.__class__ = Recording
        return made

    async with (
        backend(mirror) as server,
        gateway(server.port, log=LogFormat.COMMON) as rauta,
        h2client.client(rauta.port) as other,
    ):
        assert (await other.answer(other.request())).status == 200
        monkeypatch.setattr(frames, "make", recording)
        async with h2client.client(rauta.port) as peer:
            stream = peer.request(method="POST", end=False)
            await peer.until(lambda: peer.h2.remote_settings.initial_window_size)
            bursts = {
                "heads": b"".join(
                    frame(HEADERS, 0x5, number, b"\x82\x86\x84\x41\x01a") for number in range(stream + 2, 40_000, 2)
                ),
                "settings": frame(SETTINGS, 0, 0, b"") * 28_000,
                "ping": frame(PING, 0, 0, bytes(8)) * 15_000,
                "window": frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big")) * 20_000,
            }
            peer.raw(bursts[kind])
            while not peer.closed:
                try:
                    await peer.more()
                except ConnectionError:
                    break
        assert max(given) == SLICE
        assert (await other.answer(other.request())).status == 200
        logged = "".join(rauta.log_lines())
        assert "reason=flood" in logged or "reason=bad_frame" in logged  # by ngh2 itself
