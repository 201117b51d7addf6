"""gRPC by grpcio on both ends, with bytes for messages: a server of some methods, channels, and a gateway between them
on a loop of its own, so that the tests are plain functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from typing import Any

import grpc
import uvloop

from rauta.routing.services import BackendProtocol
from rauta.routing.settings import LogFormat
from support.http import Gateway, forward, gateway, service
from support.tls import Pair

WAIT = 20.0  # seconds; nothing takes that long unless it hangs
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
ALONE = [("grpc.use_local_subchannel_pool", 1)]  # a channel shares no connection with another one
Metadata = list[tuple[str, str | bytes]]


class Server(grpc.GenericRpcHandler):
    """The methods of `test.Echo`, and what was seen of their calls. Metadata that begins with `echo-` is sent back: as
    initial metadata, or as trailing if it begins with `echo-trailing-`."""

    def __init__(self) -> None:
        self.port = 0
        self.name = ""
        self.calls: list[str] = []
        self.metadata: list[dict[str, Any]] = []
        self.remaining: list[float] = []  # seconds that the callers left
        self.peers: set[str] = set()
        self.waiting = threading.Event()  # a call of Wait or Watch has begun
        self.cancelled = threading.Event()  # ... and was given up by its caller
        self.server: grpc.Server

    def service(self, details: Any) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        found = _METHODS.get(name)
        if found is None or not details.method.startswith("/test."):
            return None
        make, behaviour = found

        def called(request: Any, context: grpc.ServicerContext) -> Any:
            self._note(details.method, context)
            return behaviour(self, request, context)

        return make(called)

    def _note(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls.append(method)
        metadata = [(key, value) for key, value in context.invocation_metadata()]
        self.metadata.append(dict(metadata))
        self.remaining.append(context.time_remaining() or 0.0)
        self.peers.add(context.peer())
        ours = [item for item in metadata if item[0].startswith("echo-")]
        if ours:
            context.send_initial_metadata([item for item in ours if not item[0].startswith("echo-trailing-")])
            context.set_trailing_metadata([item for item in ours if item[0].startswith("echo-trailing-")])

    def _unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return request

    def _who(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        return self.name.encode()

    def _many(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    def _join(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b",".join(requests)

    def _talk(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata([("x-why", "because"), ("x-more-bin", b"\0\xff")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())
        raise AssertionError

    def _watch(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"first"
        self._await(context)

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._await(context)
        return b"too late"

    def _await(self, context: grpc.ServicerContext) -> None:
        """Until the caller has given the call up; whatever its deadline."""
        over = threading.Event()
        if not context.add_callback(over.set):
            over.set()
        self.waiting.set()
        if over.wait(WAIT):
            self.cancelled.set()


_METHODS: dict[str, tuple[Callable[..., grpc.RpcMethodHandler], Callable[..., Any]]] = {
    "Unary": (grpc.unary_unary_rpc_method_handler, Server._unary),
    "Who": (grpc.unary_unary_rpc_method_handler, Server._who),
    "Many": (grpc.unary_stream_rpc_method_handler, Server._many),
    "Join": (grpc.stream_unary_rpc_method_handler, Server._join),
    "Talk": (grpc.stream_stream_rpc_method_handler, Server._talk),
    "Fail": (grpc.unary_unary_rpc_method_handler, Server._fail),
    "Watch": (grpc.unary_stream_rpc_method_handler, Server._watch),
    "Wait": (grpc.unary_unary_rpc_method_handler, Server._wait),
}


@contextmanager
def serving(name: str = "", pair: Pair | None = None, port: int = 0, **more: Any) -> Iterator[Server]:
    """A server on loopback; with TLS, if there is a pair."""
    found = Server()
    found.name = name
    with ThreadPoolExecutor(64) as pool:
        found.server = server = grpc.server(pool, handlers=[found], options=[*NO_LIMIT], **more)
        address = f"127.0.0.1:{port}"
        if pair is None:
            found.port = server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())])
            found.port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield found
        finally:
            server.stop(None).wait(WAIT)


@contextmanager
def channel(port: int, *options: tuple[str, Any], pair: Pair | None = None, **more: Any) -> Iterator[grpc.Channel]:
    """A channel to a port on loopback; with TLS, if the server's certificate is given."""
    options = (*NO_LIMIT, *ALONE, *options)
    if pair is None:
        made = grpc.insecure_channel(f"127.0.0.1:{port}", options=options, **more)
    else:
        made = grpc.secure_channel(
            f"localhost:{port}", grpc.ssl_channel_credentials(pair.cert.read_bytes()), options=options, **more
        )
    with made:
        yield made


def unary(over: grpc.Channel, method: str, request: bytes = b"", **more: Any) -> bytes:
    """Call a method of `test.Echo` that has one request and one response. Raises RpcError."""
    return bytes(over.unary_unary(_path(method))(request, timeout=WAIT, **more))


def _path(method: str) -> str:
    return method if method.startswith("/") else f"/test.Echo/{method}"


def failure(over: grpc.Channel, method: str, request: bytes = b"", **more: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message of a call that must fail."""
    more.setdefault("timeout", WAIT)
    try:
        over.unary_unary(_path(method))(request, **more)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call succeeded")


def to(*ports: int, route: dict[str, Any] | None = None, **more: Any) -> Any:
    """A gateway before these backends."""
    found = replace(service(*ports), protocol=BackendProtocol.HTTP2, **more)
    return gateway(services=[found], routes=[forward(**(route or {}))], log=LogFormat.JSON)


@contextmanager
def between(opened: AbstractAsyncContextManager[Gateway]) -> Iterator[Gateway]:
    """A gateway on a thread with a loop of uvloop, as a worker has it."""
    ready: list[Gateway] = []
    failures: list[Any] = []
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loops.append(loop)
        loop.set_exception_handler(lambda _, context: failures.append(context))
        async with opened as gateway:
            ready.append(gateway)
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            uvloop.run(main())
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work, name="gateway")
    thread.start()
    try:
        assert started.wait(WAIT)
        assert not failures, failures
        yield ready[0]
    finally:
        if loops and not loops[0].is_closed():
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(WAIT)
    assert not failures, failures
