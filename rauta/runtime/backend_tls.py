"""TLS contexts towards backends."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rauta.routing.services import BackendProtocol
from rauta.runtime.errors import StartError
from rauta.runtime.tls import load_pair, new_context, trust

if TYPE_CHECKING:
    from rauta.proxy.pool import BackendContexts
    from rauta.routing.services import BackendTls, Service
    from rauta.runtime.backend_credentials import BackendCredential, BackendCredentials


_OFFERS: Final = {
    BackendProtocol.HTTP1: ("http/1.1",),
    BackendProtocol.HTTP2: ("h2",),
    BackendProtocol.AUTO: ("h2", "http/1.1"),
}


@dataclass(frozen=True, slots=True)
class TlsToBackends:
    """The contexts of all services that have TLS, and what they are made of."""

    contexts: BackendContexts = field(default_factory=dict)
    backend_credentials: BackendCredentials = field(default_factory=dict, repr=False)


def tls_to_backends(
    services: Iterable[Service], backend_credentials: BackendCredentials, before: TlsToBackends
) -> TlsToBackends:
    """The contexts of these services; those of `before` where what they are made of is the same, so that a reload
    leaves the connections of these alone. Raises StartError that names the service and what is wrong."""
    made: dict[tuple[BackendTls | None, BackendProtocol], ssl.SSLContext] = {}
    for service in services:
        for _, tls in service.tls_settings():
            way = tls, service.protocol
            if way in made:
                continue
            known = before.contexts.get(way)
            if known is not None and before.backend_credentials.get(tls) == backend_credentials[tls]:
                made[way] = known
                continue
            try:
                made[way] = _context(tls, service.protocol, backend_credentials[tls])
            except StartError as error:
                raise StartError(f"service {service.name!r}: {error}") from error
    return TlsToBackends(made, backend_credentials)


def _context(tls: BackendTls, protocol: BackendProtocol, credential: BackendCredential) -> ssl.SSLContext:
    context = new_context(ssl.PROTOCOL_TLS_CLIENT, *_OFFERS[protocol])
    # A response that lasts until the end of the stream is whole only if TLS says so, too (RFC 9112 9.8).
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif credential.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        trust(context, credential.ca, tls.ca or "", credential.revocations)
    if tls.certificate is not None and credential.chain is not None and credential.key is not None:
        load_pair(context, tls.certificate, credential.chain, credential.key)
    return context
