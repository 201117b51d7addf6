"""One health check of one backend, in the way that its service is spoken to."""

from __future__ import annotations

import asyncio
import os
import ssl
from errno import ECONNRESET
from typing import Final

import rauta
from rauta.proxy import proxyprotocol
from rauta.proxy.connecting import handshake_cut, tls_failure
from rauta.proxy.http1.grammar import HEAD_END, MalformedError, parse_response
from rauta.proxy.messages import ResponseHead
from rauta.proxy.mismatch import HTTP2, TLS, doubt, doubt_of_refusal, spoken, wants
from rauta.routing.defaults import HEAD_LIMIT
from rauta.routing.services import BackendProtocol, HealthCheck, HealthKind, ProxyProtocol, Way
from rauta.routing.settings import Address

_BAD_REQUEST: Final = 400
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
    proxied = proxy_protocol is not None
    # A connection alone needs no header; one of TLS gets none without.
    bare = check.kind is HealthKind.TCP and context is None
    preamble = b"" if proxy_protocol is None or bare else proxyprotocol.encode_own(proxy_protocol)
    name = None if tls is None else (tls.name or address.host.rstrip(".")).strip("[]")
    reader, writer = await _connect(address)
    try:
        if preamble:
            writer.write(preamble)
        if context is not None:
            agreed = await _secure(writer, context, name, proxied=proxied)
            if agreed != "h2" and protocol is BackendProtocol.HTTP2:
                raise CheckFailedError("it does not speak HTTP/2 (ALPN)")
            protocol = BackendProtocol.HTTP2 if agreed == "h2" else BackendProtocol.HTTP1
        if check.kind is HealthKind.TCP:
            return
        scheme = "http" if tls is None else "https"
        host = check.host or (str(address) if address.path is None else "localhost")
        if protocol is BackendProtocol.HTTP2:
            from rauta.runtime.agent.probe_http2 import ask  # only where it is spoken

            await ask(reader, writer, check, host, scheme, _USER_AGENT)
        elif check.kind is HealthKind.GRPC:
            raise CheckFailedError("it does not speak HTTP/2 (ALPN), which gRPC needs")
        else:
            silent, refused = doubt(scheme, "http2", proxied=proxied), doubt_of_refusal(scheme, proxied=proxied)
            judge(await _ask(reader, writer, check, host, silent), check, refused)
    finally:
        writer.transport.abort()  # nothing of the body is wanted, and nobody waits for an orderly end


async def _connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.path is not None:
        return await asyncio.open_unix_connection(address.path, limit=HEAD_LIMIT)
    return await asyncio.open_connection(address.host, address.port, limit=HEAD_LIMIT)


async def _secure(
    writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str | None, *, proxied: bool
) -> str | None:
    """Make it a connection of TLS; what is agreed on by ALPN. Raises CheckFailedError or OSError."""
    try:
        await writer.start_tls(context, server_hostname=name)
    except (ConnectionResetError, ConnectionAbortedError):  # asyncio's own, which says nothing
        raise CheckFailedError(handshake_cut(proxied=proxied)) from None
    except ssl.SSLError as error:
        raise CheckFailedError(tls_failure(error, proxied=proxied)) from None
    agreed: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    return agreed


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: HealthCheck, host: str, doubts: str
) -> ResponseHead:
    """The head of the answer. `doubts`: what to ask if there is none. Raises CheckFailedError or OSError."""
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
            silent = "" if error.partial else doubts
            raise CheckFailedError(f"the connection was closed before an answer{silent}") from None
        except ConnectionResetError as error:
            raise CheckFailedError(f"{os.strerror(error.errno or ECONNRESET).lower()}{doubts}") from None
        except (asyncio.LimitOverrunError, MalformedError) as error:
            raise CheckFailedError(f"the answer is no HTTP: {error}") from None
        if head.status >= 200:
            return head


def judge(head: ResponseHead, check: HealthCheck, refused: str = "") -> None:
    """Raises CheckFailedError for a status that is not good. `refused`: what to ask of a 400."""
    if not any(low <= head.status <= high for low, high in check.statuses):
        raise CheckFailedError(f"status {head.status}{refused if head.status == _BAD_REQUEST else ''}")
