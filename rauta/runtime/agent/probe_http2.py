"""Health checks over HTTP/2: a GET, or gRPC's health service (grpc.health.v1, "GRPC Health Checking Protocol")."""

from __future__ import annotations

import asyncio
from typing import Final

from rauta.proxy.grpc import told_in
from rauta.proxy.http1.grammar import MalformedError
from rauta.proxy.http2 import frames as wire
from rauta.proxy.http2.frames import BrokenError, Data, End, Event, Fault, Frames, Goodbye, Head, Reset, code_name
from rauta.proxy.http2.heads import Raw, response_head, trailer_fields
from rauta.proxy.messages import ResponseHead
from rauta.proxy.mismatch import HTTP1, TLS, spoken, wants
from rauta.routing.defaults import HEAD_LIMIT
from rauta.routing.services import HealthCheck, HealthKind
from rauta.runtime.agent.probes import CheckFailedError, judge

_READ: Final = 64 * 1024
_MOST: Final = 16 * 1024  # bytes of an answer; that of gRPC has seven
_STATUSES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_GRPC_NOT_FOUND: Final = "5"
_GRPC_UNIMPLEMENTED: Final = "12"


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: HealthCheck, host: str, scheme: str, agent: str
) -> None:
    """One check over a connection. Raises CheckFailedError or OSError."""
    grpc = check.kind is HealthKind.GRPC
    frames = wire.make(head_limit=HEAD_LIMIT, client=True)
    stream = frames.open()
    frames.send_head(stream, _request(check, host, scheme, agent), end=not grpc)
    if grpc:
        frames.send_data(stream, _message(check.service), end=True)
    writer.write(frames.take())
    head, body, status = await _answer(reader, writer, frames, grpc)
    if not grpc:
        judge(head, check)
    else:
        _judge(head, body, status, check)


def _request(check: HealthCheck, host: str, scheme: str, agent: str) -> list[Raw]:
    grpc = check.kind is HealthKind.GRPC
    path = "/grpc.health.v1.Health/Check" if grpc else check.path
    fields: list[Raw] = [
        (b":method", b"POST" if grpc else b"GET"),
        (b":scheme", scheme.encode("ascii")),
        (b":authority", host.encode("latin-1")),
        (b":path", path.encode("latin-1")),
        (b"user-agent", agent.encode("latin-1")),
    ]
    if grpc:
        fields += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    else:
        fields.append((b"accept", b"*/*"))
    return fields


def _message(service: str) -> bytes:
    """A HealthCheckRequest (its field 1 is the service's name) as a gRPC message."""
    name = service.encode()
    fields = b"" if not name else b"\x0a" + _varint(len(name)) + name
    return b"\0" + len(fields).to_bytes(4, "big") + fields


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: Frames, grpc: bool
) -> tuple[ResponseHead, bytes, str | None]:
    """The head of the answer; of a gRPC answer also its body and status."""
    head: ResponseHead | None = None
    body = b""
    first = True
    while data := await reader.read(_READ):
        if first and (what := spoken(data)) in (TLS, HTTP1):
            raise CheckFailedError(f"the answer is no HTTP/2, but {what if grpc else wants(what)}")
        first = False
        try:
            events = frames.receive(data)
        except BrokenError as error:
            raise CheckFailedError(f"the answer is no HTTP/2: {error}") from None
        writer.write(frames.take())
        for event in events:
            if isinstance(event, Head):
                head = _head(event, grpc)
                if not grpc:
                    return head, b"", None
            elif isinstance(event, Data):
                body += event.data
                if len(body) > _MOST:
                    raise CheckFailedError("the answer is too long for gRPC's health service")
            elif isinstance(event, End) and head is not None:
                return head, body, _status(event, head)
            else:
                _check(event)
    raise CheckFailedError("the connection was closed before an answer")


def _check(event: Event) -> None:
    """Raises CheckFailedError for one that is the end of the check."""
    if isinstance(event, Reset):
        raise CheckFailedError(f"the stream was reset ({code_name(event.code)})")
    if isinstance(event, Fault):
        raise CheckFailedError(f"the answer is no HTTP/2: {event.why}")
    if isinstance(event, Goodbye) and (event.code != wire.NO_ERROR or not event.last):
        raise CheckFailedError(f"the backend ended the connection ({code_name(event.code)})")


def _head(event: Head, grpc: bool) -> ResponseHead:
    try:
        return response_head(event.fields, method="POST" if grpc else "GET", ended=event.ended)
    except MalformedError as error:
        raise CheckFailedError(f"the answer is no HTTP: {error}") from None


def _status(event: End, head: ResponseHead) -> str | None:
    """The status of gRPC; None: the answer has none."""
    try:
        return told_in(trailer_fields(event.trailers)) or told_in(head.fields)
    except MalformedError as error:
        raise CheckFailedError(f"the answer is no HTTP: {error}") from None


def _judge(head: ResponseHead, body: bytes, status: str | None, check: HealthCheck) -> None:
    what = f"gRPC service {check.service!r}" if check.service else "the server"
    if status is None:
        raise CheckFailedError(f"status {head.status}, and no gRPC")
    if status == _GRPC_UNIMPLEMENTED:
        raise CheckFailedError("it has no gRPC health service (grpc.health.v1)")
    if status == _GRPC_NOT_FOUND:
        raise CheckFailedError(f"{what} is not known to the health service")
    if status != "0":
        raise CheckFailedError(f"gRPC status {status}")
    found = _status_in(body)
    if found != 1:
        raise CheckFailedError(f"{what} is {_STATUSES.get(found, found)}")


def _status_in(body: bytes) -> int:
    """The status in a HealthCheckResponse, whose field 1 it is; 0, as protobuf has it, if it is not there."""
    at, found = 5, 0
    while at + 1 < len(body) and body[at] == 0x08:
        found, at = body[at + 1], at + 2
    return found
