"""Each tier serves what it should, and no client or backend can tell: requests over real connections, and which tier it
was by the kernel's own counters."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.kernelpath import KernelPath, wait_until
from support.network import GATEWAY, RAW, Client, Server, body_of, reset


def test_a_get_of_an_exact_path_is_tier_1(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        for _ in range(3):
            assert client.ask("GET", "/one").body == b"b1"
    assert (seen["hit_first"], seen["hit_next"]) == (1, 2)
    assert (seen["hit_first_2"], seen["hit_next_2"], seen["local_assigned"]) == (0, 0, 0)


def test_what_xdp_does(path: KernelPath, hook: str) -> None:
    """The handshake, a GET that is bound, and what is translated; but not a body that comes in segments, nor what must
    be sent in more than one, nor tier 3."""
    for method, asked, body, least in (("GET", "/one", b"", 6), ("POST", "/bytes/1", b"x" * 5000, 4)):
        with path.counting() as seen, Client(path.net.connect()) as client:
            assert client.ask(method, asked, body).status == 200
        assert (seen["at_xdp"] >= least) if hook == "xdp" else not seen["at_xdp"], seen
    with Client(path.net.connect()) as client:
        client.ask("GET", "/one")
        with path.counting() as seen:
            assert client.ask("GET", "/bytes/20000").body == body_of("b1", 20_000)
            # Else acknowledgements are still on their way.
            assert wait_until(lambda: path.flow_of(client.sock).state == "BOUND")
    assert (seen["at_xdp"] >= 15) if hook == "xdp" else not seen["at_xdp"], seen


def test_other_methods_and_prefixes_are_tier_2(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("POST", "/one", b"body").body.startswith(b"b1 4 ")
        assert client.ask("GET", "/bytes/10").body == body_of("b1", 10)
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            assert client.ask(method, "/one").status == 200
    assert (seen["hit_first_2"], seen["hit_next_2"]) == (1, 5)
    assert (seen["hit_first"], seen["hit_next"], seen["local_assigned"]) == (0, 0, 0)


@pytest.mark.parametrize("asked", ["/rx/1", "/hello"])
def test_what_the_kernel_cannot_decide_is_tier_3(path: KernelPath, asked: str) -> None:
    tag = f"?tier-3-{os.urandom(4).hex()}"
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("GET", f"{asked}{tag}").body in (b"b", b"hi")
        assert client.ask("GET", f"/one{tag}").status == 200  # hand-over is final
    assert (seen["miss_route"], seen["local_assigned"]) == (1, 1)
    assert seen["hit_first"] + seen["hit_next"] + seen["bound_to_backend"] == 0
    assert wait_until(lambda: sum(tag in line for line in path.logged()) == 2)


def test_all_tiers_on_one_connection(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        with path.counting() as first:
            assert client.ask("GET", "/one").body == b"b1"
        with path.counting() as second:
            assert client.ask("POST", "/post", b"x" * 100).body.startswith(b"b1 100 ")
        with path.counting() as third:
            assert client.ask("GET", "/rx/2").body == b"b2"
    assert (first["hit_first"], second["hit_next_2"]) == (1, 1)
    assert (third["miss_route"], third["handed_over_later"], third["local_assigned"]) == (1, 1, 1)


def test_backends_send_segments_as_large_as_the_client_takes(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        port = int.from_bytes(path.flow_of(client.sock).nat[10:12], "big")
        told = path.net.b1.run("ss", "-Htin", f"sport = :80 and dst 10.203.2.1 and dport = :{port}")
    assert " mss:1448 " in told  # 1460 less time stamps


def test_the_first_backend_sees_the_end_when_a_connection_is_handed_over(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        port = int.from_bytes(path.flow_of(client.sock).nat[10:12], "big")
        command = ("ss", "-Htan", f"sport = :80 and dst 10.203.2.1 and dport = :{port}")
        assert "ESTAB" in path.net.b1.run(*command)
        assert client.ask("GET", "/hello").body == b"hi"
        # By RST: it keeps nothing of it, neither a connection nor TIME_WAIT.
        assert wait_until(lambda: not path.net.b1.run(*command))


# --- bodies -------------------------------------------------------------------------------------------------

SIZES = (0, 1, 1447, 1448, 1449, 4096, 15_999, 16_000, 16_384, 16_385, 65_536, 1 << 20)


@pytest.mark.parametrize("size", SIZES)
def test_bodies_arrive_whole_both_ways(path: KernelPath, size: int) -> None:
    body = os.urandom(size)
    told = f"b1 {size} {hashlib.sha256(body).hexdigest()}".encode()
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("POST", "/post", body).body == told  # while the backend's handshake is under way
        assert client.ask("GET", f"/bytes/{size}").body == body_of("b1", size)
        assert client.ask("PUT", "/post", body).body == told
        assert client.ask("GET", f"/chunked/{size}").body == body_of("b1", size)
    assert (seen["hit_first_2"], seen["hit_next_2"], seen["local_assigned"]) == (1, 3, 0)


@pytest.mark.parametrize("size", [0, 5000, 1 << 20])
def test_bodies_of_requests_that_are_handed_over(path: KernelPath, size: int) -> None:
    body = os.urandom(size)
    told = f"b2 {size} {hashlib.sha256(body).hexdigest()}".encode()
    with Client(path.net.connect()) as client:
        assert client.ask("POST", "/rx/1", body).body == told
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/one").body == b"b1"
        assert client.ask("POST", "/rx/1", body).body == told


def test_a_body_that_comes_slowly(path: KernelPath) -> None:
    body = os.urandom(20_000)
    with path.counting() as seen, Client(path.net.connect()) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"POST /post HTTP/1.1\r\nHost: a.test\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for at in range(0, len(head + body), 1234):
            client.sock.sendall((head + body)[at : at + 1234])
        assert client.read().body.split()[2].decode() == hashlib.sha256(body).hexdigest()
    assert seen["hit_first_2"] == 1


def test_a_head_in_two_segments_is_tier_3(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sock.sendall(b"GET /one HTTP/1.1\r\nHo")
        assert wait_until(lambda: path.counters()["miss_head"] > 0)
        client.sock.sendall(b"st: a.test\r\n\r\n")
        assert client.read().body == b"b1"
    assert (seen["miss_head"], seen["local_assigned"]) == (1, 1)


# --- backends that do not answer ----------------------------------------------------------------------------

# A client's port decides which of two backends it gets: with so many, once in 2^24 runs all get the same.
ENOUGH = 24


def test_a_refused_request_is_answered_by_tier_3(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("GET", "/dead").status == 502
        assert client.ask("GET", "/one").body == b"b1"
    assert (seen["hit_first_2"], seen["refused"], seen["local_assigned"]) == (1, 1, 1)


@pytest.mark.parametrize("size", [0, 5000, 15_000, 100_000])
def test_a_refused_body_is_sent_elsewhere(path: KernelPath, size: int) -> None:
    """Half of the clients' ports are refused at first."""
    body = os.urandom(size)
    told = f"b2 {size} {hashlib.sha256(body).hexdigest()}".encode()
    with path.counting() as seen:
        for _ in range(ENOUGH):
            with Client(path.net.connect()) as client:
                assert client.ask("POST", "/mixed", body).body == told
    assert seen["refused"] > 0
    assert seen["hit_first_2"] == ENOUGH
    assert seen["local_assigned"] == seen["refused"]


def test_a_backend_that_nobody_is_at(path: KernelPath) -> None:
    """No next hop: tier 3 hears of it, and asks the other one. Some ports of the client get that at once."""
    with path.counting() as seen, ThreadPoolExecutor(ENOUGH) as pool:

        def ask(_: int) -> bytes:
            with Client(path.net.connect()) as client:
                return client.ask("GET", "/silent").body

        assert set(pool.map(ask, range(ENOUGH))) == {b"b2"}
    assert seen["local_assigned"] == seen["backend_silent"] > 0


@contextlib.contextmanager
def full_listener(path: KernelPath) -> Iterator[None]:
    """Somebody who listens, but whose backlog is full: SYNs are dropped without a word."""
    with contextlib.ExitStack() as stack, path.net.b1.inside():
        listener = stack.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 82))
        listener.listen(0)
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", 82))
        yield


def test_a_backend_that_drops_syns(path: KernelPath) -> None:
    with full_listener(path), path.counting() as seen, ThreadPoolExecutor(ENOUGH) as pool:
        body = os.urandom(10_000)

        def ask(number: int) -> bytes:
            with Client(path.net.connect()) as client:
                return client.ask("POST", f"/full/{number}", body).body

        told = f"b2 10000 {hashlib.sha256(body).hexdigest()}".encode()
        assert set(pool.map(ask, range(ENOUGH))) == {told}
    assert seen["local_assigned"] == seen["backend_silent"] > 0


# --- framing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", ["/one", "/other", "/hello", "/rx/1", "/two/bytes/3000"])
@pytest.mark.parametrize("kind", ["bytes", "chunked"])
def test_a_pipelined_request_waits_for_the_response_before(path: KernelPath, b1: Server, kind: str, later: str) -> None:
    answers = {"/one": b"b1", "/other": b"b2", "/hello": b"hi", "/rx/1": b"b", "/two/bytes/3000": body_of("b2", 3000)}
    with b1.holding(), Client(path.net.connect()) as client:
        client.send("GET", f"/stall/{kind}/9000")
        assert b1.arrived.acquire(timeout=10)
        before = path.counters()
        client.send("GET", later)

        def decided() -> bool:
            now = path.counters()
            return any(
                now[name] > before[name] for name in ("hit_next", "hit_next_2", "drop_not_yet", "local_assigned")
            )

        assert wait_until(decided)
        b1.release.set()
        assert client.read().body == body_of("b1", 9000)
        assert client.read().body == answers[later]
        assert client.ask("GET", "/bytes/100").body == body_of("b1", 100)


@pytest.mark.parametrize("later", ["/one", "/other", "/hello"])
def test_no_other_response_is_put_into_one_without_an_end(path: KernelPath, b1: Server, later: str) -> None:
    """An event stream: it ends with the connection, and what was asked meanwhile is not answered, or behind it."""
    with b1.holding(), Client(path.net.connect()) as client:
        client.send("GET", "/stall/endless/9000")
        assert b1.arrived.acquire(timeout=10)
        client.send("GET", later)
        b1.release.set()
        with contextlib.suppress(ConnectionResetError):  # the backend has closed with a request unread
            assert client.rest().partition(b"\r\n\r\n")[2] == body_of("b1", 9000)


@pytest.mark.parametrize("kind", RAW)
def test_a_response_that_has_not_ended_is_not_left(path: KernelPath, kind: str) -> None:
    """The client has all that came; a request for another service has to wait, and then both sides are reset."""
    with Client(path.net.connect()) as client:
        client.send("GET", f"/raw/{kind}")
        got = b""
        while len(got) < len(RAW[kind]):
            got += client.sock.recv(1 << 16)
        assert got == RAW[kind]
        with path.counting() as seen:
            client.send("GET", "/other")
            client.sock.settimeout(5)
            with contextlib.suppress(OSError):
                assert client.sock.recv(1 << 16) == b""
    assert seen["drop_not_yet"] > 0
    assert not seen["moved"]


@pytest.mark.parametrize("count", [2, 4, 7])
def test_pipelined_requests_in_one_segment(path: KernelPath, count: int) -> None:
    with Client(path.net.connect()) as client:
        one = b"GET /bytes/%d HTTP/1.1\r\nHost: a.test\r\n\r\n"
        client.sock.sendall(b"".join(one % (1000 + number) for number in range(count)))
        for number in range(count):
            assert client.read().body == body_of("b1", 1000 + number)
        client.sock.sendall(b"".join(one % (1000 + number) for number in range(count)))
        for number in range(count):
            assert client.read().body == body_of("b1", 1000 + number)


def test_pipelined_requests_in_segments_of_their_own(path: KernelPath) -> None:
    """For the same backend and others, more than the queue takes; answers come in order."""
    asked = [f"{'/two' if number % 5 == 4 else ''}/bytes/{2000 + number}" for number in range(20)]
    with Client(path.net.connect()) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for one in asked:
            client.send("GET", one)
        for number, one in enumerate(asked):
            assert client.read().body == body_of("b2" if one.startswith("/two") else "b1", 2000 + number)


def test_responses_without_bodies(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        answer = client.ask("HEAD", "/bytes/5000")
        assert (answer.status, answer.body) == (200, b"")
        assert client.ask("GET", "/status/204").status == 204
        assert client.ask("GET", "/status/304").status == 304
        assert client.ask("GET", "/hints/100").body == body_of("b1", 100)
        assert client.informed == 2
        assert client.ask("HEAD", "/chunked/5000").body == b""
        assert client.ask("GET", "/one").body == b"b1"
        # Its end is known each time: else this would wait, or be reset.
        assert client.ask("GET", "/hello").body == b"hi"
    assert (seen["hit_first_2"], seen["hit_next_2"], seen["hit_next"]) == (1, 4, 1)
    assert (seen["handed_over_later"], seen["drop_not_yet"], seen["reset_both"]) == (1, 0, 0)


@pytest.mark.parametrize(
    "asked", ["/status/204", "/status/304", "/hints/10", "/chunked/10", "/chunked/9000", "/bytes/0"]
)
def test_the_end_of_each_kind_of_response_is_known(path: KernelPath, asked: str) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        client.ask("GET", asked)
        assert client.ask("GET", "/hello").body == b"hi"
        # (with what came behind a miss, the client may have been slow to acknowledge)
    assert (seen["handed_over_later"], seen["reset_both"]) == (1, 0)


# --- ends ---------------------------------------------------------------------------------------------------


def test_the_backend_closes(path: KernelPath) -> None:
    with path.counting() as seen, Client(path.net.connect()) as client:
        assert client.ask("GET", "/close/5000").body == body_of("b1", 5000)
        assert client.rest() == b""
    assert seen["hit_first_2"] == 1


def test_a_response_that_ends_with_the_connection(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        assert client.ask("GET", "/endless/50000").body == body_of("b1", 50_000)


def test_the_client_closes_its_half_first(path: KernelPath, b1: Server) -> None:
    with b1.holding(), Client(path.net.connect()) as client:
        client.send("GET", "/slow/5000")
        assert b1.arrived.acquire(timeout=10)
        client.sock.shutdown(socket.SHUT_WR)
        b1.release.set()
        assert client.read().body == body_of("b1", 5000)
        assert client.rest() == b""


def test_the_backend_resets(path: KernelPath) -> None:
    with Client(path.net.connect()) as client:
        client.send("GET", "/reset/20000")
        with pytest.raises(ConnectionResetError):
            client.read()


def test_the_client_resets(path: KernelPath, b1: Server) -> None:
    with b1.holding():
        client = Client(path.net.connect())
        client.send("GET", "/stall/bytes/9000")
        assert b1.arrived.acquire(timeout=10)
        with path.counting() as seen:
            reset(client.sock)
            assert wait_until(lambda: not path.left())
        assert seen["ended_by_reset"] == 1


def test_the_client_has_closed_when_the_response_comes(path: KernelPath, b1: Server) -> None:
    """It is answered by a reset of the client's, whose number is the one behind its FIN."""
    with b1.holding():
        client = Client(path.net.connect())
        client.send("GET", "/slow/5000")
        assert b1.arrived.acquire(timeout=10)
        client.close()
        assert wait_until(lambda: "ESTAB" not in path.net.client.run("ss", "-Htan", "dport = :8080"))
    assert not path.settle()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_say_nothing(path: KernelPath, how: str) -> None:
    sock = path.net.connect()
    assert wait_until(lambda: [flow.state for flow in path.flows()] == ["EST"])
    if how == "close":
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        sock.close()
    else:
        reset(sock)


@pytest.mark.timeout(120)
def test_a_connection_for_each_request(path: KernelPath) -> None:
    """Two thousand, over and over on one kernel."""
    count, threads = 2000, 8

    def ask(first: int) -> int:
        good = 0
        for number in range(first, count, threads):
            size = number * 7 % 5000
            with Client(path.net.connect()) as client:
                good += client.ask("GET", f"/bytes/{size}?{number}").body == body_of(f"b1-{number}", size)
        return good

    with path.counting() as seen, ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(ask, range(threads))) == count
    served = seen["hit_first_2"] + seen["hit_first"]
    assert served == count
    assert seen["local_assigned"] == 0


# --- real peers ---------------------------------------------------------------------------------------------


def curl(path: KernelPath, *words: str) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = path.net.client.command("curl", "-sS", "--noproxy", "*", "--max-time", "20", *words)
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_and_nginx(path: KernelPath, real: Path) -> None:
    for size in (0, 100, 70_000, 1 << 20):
        (real / str(size)).write_bytes(body_of("file", size))
        with path.counting() as seen:
            assert curl(path, f"http://{GATEWAY}:8080/real/{size}") == body_of("file", size)
        assert seen["hit_first_2"] == 1


def test_curl_keeps_its_connection(path: KernelPath, real: Path) -> None:
    (real / "small").write_bytes(b"small")
    url = f"http://{GATEWAY}:8080"
    with path.counting() as seen:
        answer = curl(path, "-w", "%{num_connects},", f"{url}/real/small", f"{url}/real/small", f"{url}/hello")
    assert answer == b"small1,small0,hi0,"
    assert (seen["hit_first_2"], seen["hit_next_2"], seen["handed_over_later"]) == (1, 1, 1)


def test_curl_sends_files(path: KernelPath, tmp_path: Path) -> None:
    """It asks for `100 Continue` with large ones, which is for tier 3."""
    for size, tier in ((5000, "hit_first_2"), (2 << 20, "miss_head")):
        body = os.urandom(size)
        (tmp_path / "body").write_bytes(body)
        with path.counting() as seen:
            answer = curl(path, "--data-binary", f"@{tmp_path}/body", f"http://{GATEWAY}:8080/post")
        assert answer == f"b1 {size} {hashlib.sha256(body).hexdigest()}".encode()
        assert seen[tier] == 1


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("close", [False, True])
def test_wrk(path: KernelPath, real: Path, *, close: bool) -> None:
    (real / "small").write_bytes(b"small")
    fields = ["-H", "Connection: close"] if close else []
    command = ["wrk", "-t1", "-c16", "-d2s", *fields, f"http://{GATEWAY}:8080/real/small"]
    with path.counting() as seen:
        said = path.net.client.run(*command)
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert seen["hit_first_2"] >= 16
    assert not [name for name in seen if name.startswith("miss_")], seen


def test_many_clients_at_once(path: KernelPath) -> None:
    """Threads that mix what there is; each compares every byte."""
    stop = threading.Event()
    asked = ("/one", "/bytes/20000", "/two/bytes/9000", "/rx/5", "/chunked/7000", "/hello", "/mixed/bytes/100")
    answers = (
        b"b1",
        body_of("b1", 20_000),
        body_of("b2", 9000),
        b"b2:00",
        body_of("b1", 7000),
        b"hi",
        body_of("b2", 100),
    )

    def mix(seed: int) -> int:
        count = 0
        while not stop.is_set():
            with Client(path.net.connect()) as client:
                for turn in range(8):
                    at = (seed + count + turn * 3) % len(asked)
                    assert client.ask("GET", asked[at]).body == answers[at]
                count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(mix, seed) for seed in range(8)]
        stop.wait(2)
        stop.set()
        assert sum(found.result() for found in running) > 50
