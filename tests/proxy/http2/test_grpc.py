"""gRPC through the gateway, by grpcio on both ends: what calls bring and what they get."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from rauta.config import load
from rauta.routing.services import BackendProtocol, BackendTls
from rauta.routing.settings import LogFormat
from rauta.runtime.backend_credentials import read_backend_credentials
from rauta.runtime.backend_tls import TlsToBackends, tls_to_backends
from support import grpcpeers
from support.grpcpeers import WAIT, between, channel, serving, to, unary
from support.http import Gateway, forward, gateway, service
from support.tls import Pair, make_pair

# --- the four kinds of calls --------------------------------------------------------------------------------


def test_unary(client: grpc.Channel) -> None:
    assert [unary(client, "Unary", b"%d" % number) for number in range(20)] == [b"%d" % n for n in range(20)]
    assert unary(client, "Unary", b"") == b""


def test_server_streaming(client: grpc.Channel) -> None:
    call = client.unary_stream("/test.Echo/Many")
    assert list(call(b"1000", timeout=WAIT)) == [b"%d" % number for number in range(1000)]
    assert list(call(b"0", timeout=WAIT)) == []


def test_client_streaming(client: grpc.Channel) -> None:
    call = client.stream_unary("/test.Echo/Join")
    messages = [b"%d" % number for number in range(1000)]
    assert call(iter(messages), timeout=WAIT) == b",".join(messages)
    assert call(iter([]), timeout=WAIT) == b""


def test_both_ways_in_turn(client: grpc.Channel) -> None:
    """Each message is answered before the next one is sent."""
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = client.stream_stream("/test.Echo/Talk")(iter(messages.get, None), timeout=WAIT)
    for number in range(100):
        messages.put(b"m%d" % number)
        assert next(answers) == b"M%d" % number
    messages.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


# --- metadata and status ------------------------------------------------------------------------------------

BINARY = bytes(range(256))


def test_metadata_both_ways(backend: grpcpeers.Server, client: grpc.Channel) -> None:
    metadata = [
        ("echo-text", "a b,c"),
        ("echo-data-bin", BINARY),
        ("echo-trailing-a", "1"),
        ("echo-trailing-b-bin", BINARY),
    ]
    _, call = client.unary_unary("/test.Echo/Unary").with_call(b"m", metadata=metadata, timeout=WAIT)
    seen = backend.metadata[0]
    assert {key: seen[key] for key, _ in metadata} == dict(metadata)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["echo-text"], initial["echo-data-bin"]) == ("a b,c", BINARY)
    assert (trailing["echo-trailing-a"], trailing["echo-trailing-b-bin"]) == ("1", BINARY)


def test_a_key_may_come_several_times(backend: grpcpeers.Server, client: grpc.Channel) -> None:
    metadata = [
        ("echo-many", "1"),
        ("echo-many", "2"),
        ("echo-trailing-many-bin", b"\1"),
        ("echo-trailing-many-bin", b"\2"),
    ]
    _, call = client.unary_unary("/test.Echo/Unary").with_call(b"m", metadata=metadata, timeout=WAIT)
    assert [value for key, value in call.initial_metadata() if key == "echo-many"] == ["1", "2"]
    assert [value for key, value in call.trailing_metadata() if key == "echo-trailing-many-bin"] == [b"\1", b"\2"]


@pytest.mark.parametrize("message", ["not now", "", "50% für\nänder\u1234"], ids=["text", "none", "more than ASCII"])
def test_a_status_of_the_backend(client: grpc.Channel, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(client, "Fail", message.encode())
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, message)
    trailing = dict(error.trailing_metadata())
    assert (trailing["x-why"], trailing["x-more-bin"]) == ("because", b"\0\xff")


def test_a_method_that_the_backend_does_not_have(client: grpc.Channel) -> None:
    assert grpcpeers.failure(client, "/test.Echo/None") == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


# --- much ---------------------------------------------------------------------------------------------------


def test_big_messages(client: grpc.Channel) -> None:
    big = BINARY * (4 << 12)  # 4 MiB
    assert unary(client, "Unary", big) == big
    call = client.stream_stream("/test.Echo/Talk")
    assert [len(answer) for answer in call(iter([big] * 3), timeout=WAIT)] == [len(big)] * 3


def test_many_calls_on_one_channel(backend: grpcpeers.Server, client: grpc.Channel) -> None:
    """More than streams fit on one connection."""
    call = client.unary_unary("/test.Echo/Unary")
    futures = [call.future(b"%d" % number, timeout=WAIT) for number in range(1000)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_pass(rauta: Gateway, algorithm: grpc.Compression) -> None:
    with channel(rauta.port, compression=algorithm) as client:
        assert unary(client, "Unary", bytes(100_000)) == bytes(100_000)


# --- backends -----------------------------------------------------------------------------------------------


def test_calls_are_balanced_and_not_connections() -> None:
    with serving("a") as one, serving("b") as two, between(to(one.port, two.port)) as rauta:
        with channel(rauta.port) as client:
            answers = [unary(client, "Who") for _ in range(40)]
        assert min(answers.count(b"a"), answers.count(b"b")) >= 10
        assert (len(one.peers), len(two.peers)) == (1, 1)


def test_a_backend_that_restarts_costs_no_call() -> None:
    """Its GOAWAY says which calls it has not taken: they go elsewhere. What grpcio cancels while it stops (it does so
    to its own clients, too) it has answered: that is passed on."""
    stop = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        server, other = stack.enter_context(serving("0")), stack.enter_context(serving("other"))
        rauta = stack.enter_context(between(to(server.port, other.port)))
        client = stack.enter_context(channel(rauta.port))

        def load() -> int:
            answered = 0
            while not stop.is_set():
                try:
                    answered += bool(unary(client, "Who"))
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.CANCELLED:
                        raise
            return answered

        work = [pool.submit(load) for _ in range(8)]
        try:
            for name in ("1", "2", "3"):
                while unary(client, "Who") == b"other":
                    pass
                server.server.stop(WAIT).wait(WAIT)
                server = stack.enter_context(serving(name, port=server.port))
        finally:
            stop.set()
        assert min(future.result(WAIT) for future in work)
        assert [line for line in rauta.log_lines() if json.loads(line)["reason"]] == []


# --- TLS ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


def facing(pair: Pair) -> ssl.SSLContext:
    """What the gateway has towards clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.mark.parametrize("protocol", [BackendProtocol.HTTP2, BackendProtocol.AUTO])
def test_tls_on_both_sides(pair: Pair, protocol: BackendProtocol) -> None:
    """grpcio speaks nothing but what was agreed on by ALPN."""
    with serving("secure", pair) as backend:
        found = replace(service(backend.port), protocol=protocol, tls=BackendTls(ca=str(pair.cert)))
        contexts = tls_to_backends([found], read_backend_credentials([found]), TlsToBackends()).contexts
        opened = gateway(services=[found], routes=[forward()], ssl=facing(pair), backend_contexts=contexts)
        with between(opened) as rauta, channel(rauta.port, pair=pair) as client:
            assert [unary(client, "Who") for _ in range(10)] == [b"secure"] * 10
            answers = client.stream_stream("/test.Echo/Talk")(iter([b"a", b"b"]), timeout=WAIT)
            assert list(answers) == [b"A", b"B"]
            big = BINARY * (4 << 12)
            assert unary(client, "Unary", big) == big
            assert grpcpeers.failure(client, "Fail", b"no") == (grpc.StatusCode.FAILED_PRECONDITION, "no")
            backend.server.stop(None).wait(WAIT)  # grpcio does not answer the end of TLS, for which the loop would wait


def test_a_backend_that_is_not_who_it_should_be(pair: Pair) -> None:
    with serving("secure", pair) as backend:
        found = replace(service(backend.port), protocol=BackendProtocol.HTTP2, tls=BackendTls())
        contexts = tls_to_backends([found], read_backend_credentials([found]), TlsToBackends()).contexts
        opened = gateway(services=[found], routes=[forward()], backend_contexts=contexts)
        with between(opened) as rauta, channel(rauta.port) as client:
            code, text = grpcpeers.failure(client, "Who")
            assert (code, text.partition(":")[0]) == (grpc.StatusCode.UNAVAILABLE, "upstream_tls")


# --- routes -------------------------------------------------------------------------------------------------


def test_routes_by_service_and_method(tmp_path: Path) -> None:
    with ExitStack() as stack:
        names = ("exact", "service", "method", "rest")
        ports = {name: stack.enter_context(serving(name)).port for name in names}
        lines = ["version: 1", "listeners: {web: {address: '127.0.0.1:1'}}", "services:"]
        for name, port in ports.items():
            lines.append(f"  {name}: {{protocol: http2, backends: [{{address: '127.0.0.1:{port}'}}]}}")
        matches = {
            "exact": "{grpc: {service: test.Echo, method: Who}}",
            "service": "{grpc: {service: test.Echo}}",
            "method": "{grpc: {method: Who}, headers: [{name: tenant, exact: blue}]}",
            "rest": "{}",
        }
        lines += [
            "routes:",
            *(f"  - {{name: {name}, match: {match}, service: {name}}}" for name, match in matches.items()),
        ]
        file = tmp_path / "rauta.yaml"
        file.write_text("\n".join(lines))
        read = load(file).configuration
        opened = gateway(services=read.services, routes=read.routes, log=LogFormat.JSON)
        with between(opened) as rauta, channel(rauta.port) as client:
            blue = [("tenant", "blue")]
            assert unary(client, "/test.Echo/Who") == b"exact"
            assert unary(client, "/test.Echo/Unary", b"x") == b"x"
            assert unary(client, "/test.Echo2/Who") == b"rest"
            assert unary(client, "/test.Other/Who", metadata=blue) == b"method"
            assert unary(client, "/test.Other/Who") == b"rest"
            assert [json.loads(line)["route"] for line in rauta.log_lines()] == [
                "exact", "service", "rest", "method", "rest"
            ]  # fmt: skip
