"""One health check of one backend, in the way that its service is spoken to."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import rauta
from rauta.proxy import proxyprotocol
from rauta.proxy.connecting import HANDSHAKE_CUT
from rauta.proxy.http1.grammar import HEAD_END, MalformedError, parse_response
from rauta.proxy.messages import ResponseHead
from rauta.proxy.mismatch import HTTP2, TLS, spoken, wants
from rauta.routing.defaults import HEAD_LIMIT
from rauta.routing.services import BackendProtocol, HealthCheck, HealthKind, ProxyProtocol, Way
from rauta.routing.settings import Address

_USER_AGENT: Final = f"rauta-health/{rauta.__version__}"


class CheckFailedError(Exception):
    """A check found a backend unfit; the text says why."""


async def probe(
    address: Address,
    check: HealthCheck,
    proxy_protocol: ProxyProtocol | None,
    way: Way = (None, BackendProtocol.HTTP1),
    context: ssl.SSLContext | None = None,
) -> None:
    """One check. Raises CheckFailedError or OSError."""
    tls, protocol = way
    # A connection alone needs no header; one of TLS gets none without.
    silent = check.kind is HealthKind.TCP and context is None
    preamble = b"" if proxy_protocol is None or silent else proxyprotocol.encode_own(proxy_protocol)
    name = None if tls is None else (tls.name or address.host.rstrip(".")).strip("[]")
    reader, writer = await _connect(address)
    try:
        if preamble:
            writer.write(preamble)
        if context is not None:
            try:
                await writer.start_tls(context, server_hostname=name)
            except (ConnectionResetError, ConnectionAbortedError):  # asyncio's own, which says nothing
                raise CheckFailedError(HANDSHAKE_CUT) from None
            agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            if agreed != "h2" and protocol is BackendProtocol.HTTP2:
                raise CheckFailedError("it does not speak HTTP/2 (ALPN)")
            protocol = BackendProtocol.HTTP2 if agreed == "h2" else BackendProtocol.HTTP1
        if check.kind is HealthKind.TCP:
            return
        host = check.host or (str(address) if address.path is None else "localhost")
        if protocol is BackendProtocol.HTTP2:
            from rauta.runtime.agent.probe_http2 import ask  # only where it is spoken

            await ask(reader, writer, check, host, "http" if tls is None else "https", _USER_AGENT)
        elif check.kind is HealthKind.GRPC:
            raise CheckFailedError("it does not speak HTTP/2 (ALPN), which gRPC needs")
        else:
            await _ask(reader, writer, check, host)
    finally:
        writer.transport.abort()  # nothing of the body is wanted, and nobody waits for an orderly end


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.path is not None:
        return await asyncio.open_unix_connection(address.path, limit=HEAD_LIMIT)
    return await asyncio.open_connection(address.host, address.port, limit=HEAD_LIMIT)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: HealthCheck, host: str) -> None:
    writer.write(
        f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {_USER_AGENT}\r\n"
        f"Accept: */*\r\nConnection: close\r\n\r\n".encode("latin-1")
    )
    while True:
        try:
            data = await reader.readuntil(HEAD_END)
            head = parse_response(data[:-2], "GET")
        except asyncio.IncompleteReadError as error:
            if (what := spoken(error.partial)) in (TLS, HTTP2):
                raise CheckFailedError(f"the answer is no HTTP/1.1, but {wants(what)}") from None
            raise CheckFailedError("the connection was closed before an answer") from None
        except (asyncio.LimitOverrunError, MalformedError) as error:
            raise CheckFailedError(f"the answer is no HTTP: {error}") from None
        if head.status >= 200:
            break
    judge(head, check)


def judge(head: ResponseHead, check: HealthCheck) -> None:
    """Raises CheckFailedError for a status that is not good."""
    if not any(low <= head.status <= high for low, high in check.statuses):
        raise CheckFailedError(f"status {head.status}")
