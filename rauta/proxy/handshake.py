"""TLS handshakes: with which contexts they begin, what the client says of itself in them, and why they fail. The event
loops close a connection that fails in its handshake without a word to its protocol, which they connect only afterwards;
so the TLS object itself has to tell why, and a weak reference that."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn, Self

from rauta.proxy.farewell import is_plain_http, plain_on_tls

if TYPE_CHECKING:
    from rauta.proxy.tls import ServerContexts


class Handshake:
    """Held by a connection until its handshake is over, and gone with it if that fails. It is there to be counted, by a
    weak reference: the loop drops such a connection without telling anybody."""

    __slots__ = ("__weakref__",)


PLAIN_HTTP: Final = "HTTP_REQUEST"  # OpenSSL's name for a ClientHello that begins with one of four methods of HTTP
NO_CERTIFICATE: Final = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
BAD_CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"

# Bytes of a request that are read and thrown away behind the answer to it.
DISCARD_LIMIT: Final = 256 * 1024

Failed = Callable[[str, str], None]
"""Has OpenSSL's reason for a handshake that failed, and what it says of the client's certificate, or nothing."""


class Observed(ssl.SSLObject):
    """A connection's TLS. `contexts` are those that it began with; `asked` is the name that the client asks for."""

    contexts: ServerContexts | None = None
    failed: Failed | None = None
    asked: str | None = None
    bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO] | None = None  # in and out; until the client has said something
    verifier: ssl.SSLContext | None = None  # the one to go back to when the certificate for a name is sent
    _refused: str | None = None  # why; no exception, whose traceback would keep this object
    _discard: int = DISCARD_LIMIT

    def do_handshake(self) -> None:
        if self._refused is not None:
            self._once_refused(self._refused)
        if self.bios is not None and self.bios[0].pending:
            self._begin(*self.bios)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # Not over yet, but our certificate is sent and signed for: the next to come is the client's.
            if self.verifier is not None:
                self.context, self.verifier = self.verifier, None
            raise
        except ssl.SSLError as error:
            reason = error.reason or ""
            if self.failed is not None:
                self.failed(reason, getattr(error, "verify_message", ""))
            if reason not in (NO_CERTIFICATE, BAD_CERTIFICATE):
                raise
            # The loops close without having sent OpenSSL's alert, and the client would never learn why. They send it if
            # there is something to wait for; then the client closes, or says more, or its time is over.
            self._refused = reason
            raise ssl.SSLWantReadError from None

    def _begin(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        """See whether it is TLS at all. Who speaks plain HTTP is answered, whatever the method: OpenSSL knows four. The
        look costs a copy of what has come, less than 1 us."""
        first = incoming.read()
        if not is_plain_http(first):
            incoming.write(first)
            self.bios = None
            return
        if self.failed is not None:
            self.failed(PLAIN_HTTP, "")
        outgoing.write(plain_on_tls())
        self._refused = PLAIN_HTTP
        raise ssl.SSLWantReadError

    def _once_refused(self, reason: str) -> NoReturn:
        """The client says more. Closing while it still sends would be a reset, before it has read the answer."""
        if reason == PLAIN_HTTP and self.bios is not None:
            self._discard -= len(self.bios[0].read())
            if self._discard > 0:
                raise ssl.SSLWantReadError
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, reason)


def choose(connection: ssl.SSLObject, name: str | None, initial: ssl.SSLContext) -> None:
    """The `sni_callback` of contexts that handshakes begin with: hand one over to the context for its name. Among those
    that it began with: how it verifies was settled then, and does not change with the context (SSL_set_SSL_CTX); but
    who is trusted would. Called again if the client has to say hello again (HelloRetryRequest, RFC 8446 4.1.4)."""
    if isinstance(connection, Observed) and connection.contexts is not None:
        connection.asked = name
        wanted = connection.contexts.of(name)
        if wanted is not initial:
            connection.context = wanted
            if connection.contexts.rule is not None:
                connection.verifier = initial


class Entry(ssl.SSLContext):
    """What a loop's server is made with, once and for all: it lets each handshake begin with the contexts of its time.

    To begin with one context for ever and to choose another by name would not do: whether a client is asked for a
    certificate, the keys of session tickets and the cache of sessions are those of the context that a connection begins
    with. A client could resume what it began when nobody asked (as CVE-2025-23419 of nginx)."""

    contexts: ServerContexts
    failed: Failed

    def __new__(cls, contexts: ServerContexts, failed: Failed) -> Self:  # noqa: ARG004 - for __init__
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, contexts: ServerContexts, failed: Failed) -> None:
        self.contexts = contexts
        self.failed = failed

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """A connection's TLS, by the contexts that there are now."""
        made = self.contexts.default.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if isinstance(made, Observed):
            made.bios = incoming, outgoing
            made.contexts = self.contexts
            made.failed = self.failed
        return made


class Shown:
    """What a client has shown in its handshake: the name that it asked for, in lower case and without a trailing dot
    ("": none); its certificate as in Client-Cert (RFC 9440 2.1; "": none), and the rule by which that was verified (see
    ServerContexts)."""

    __slots__ = ("certificate", "name", "rule")

    def __init__(self, name: str, certificate: str, rule: str) -> None:
        self.name = name
        self.certificate = certificate
        self.rule = rule


def shown_in(transport: asyncio.BaseTransport) -> Shown | None:
    """None: without TLS, or to a listener that asked for no certificate then."""
    found = transport.get_extra_info("ssl_object")
    if not isinstance(found, Observed) or found.contexts is None or found.contexts.rule is None:
        return None
    certificate = found.getpeercert(True)
    value = "" if certificate is None else f":{b64encode(certificate).decode()}:"  # RFC 8941 3.3.5: a byte sequence
    return Shown((found.asked or "").lower().removesuffix("."), value, found.contexts.rule)
