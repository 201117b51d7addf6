"""TLS contexts of listeners."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from rauta.proxy.tls import ServerContexts
from rauta.routing.errors import words_of
from rauta.routing.settings import Requirement
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.config.revocation import Revocations
    from rauta.routing.settings import Certificate, ClientCertificates, TlsSettings
    from rauta.runtime.credentials import Held


class _EncryptedKeyError(Exception):
    """The key asks for a pass phrase."""


def server_contexts(settings: TlsSettings, held: Held, *, listener: str) -> ServerContexts:
    """The contexts of a listener that terminates TLS: 1.2 or later, HTTP/2 and HTTP/1.1 by ALPN. `held` is what its
    files hold. Certificates for the same names with keys of different kinds share a context: OpenSSL picks the one that
    the client can verify.

    Raises StartError that names the file or variable and what is wrong with it.
    """
    found: list[tuple[tuple[str, ...], ssl.SSLContext]] = []
    kinds: list[set[str]] = []
    for certificate, pair in zip(settings.certificates, held.pairs, strict=True):
        same = [place for place, (names, _) in enumerate(found) if set(names) == set(pair.facts.names)]
        place = next((place for place in same if pair.facts.key not in kinds[place]), None)
        if place is None:
            place = len(found)
            found.append((pair.facts.names, _context()))
            kinds.append(set())
        kinds[place].add(pair.facts.key)
        try:
            load_pair(found[place][1], certificate, pair.chain, pair.key)
        except StartError as error:
            raise StartError(f"listener {listener!r}: {error}") from error
    if settings.clients is None:
        return ServerContexts(found)
    if held.clients_ca is None:
        raise StartError(f"listener {listener!r}: nobody has read {settings.clients.ca}")
    try:  # The first verifies for all: a list takes four times its size in each context. Others trust nobody.
        _ask_clients(found[0][1], settings.clients, held.clients_ca, held.revocations)
    except StartError as error:
        raise StartError(f"listener {listener!r}: {error}") from error
    return ServerContexts(found, _rule(settings.clients, held.clients_ca, held.revocations))


def new_context(side: int, *offers: str) -> ssl.SSLContext:
    """A context of one `side` (PROTOCOL_TLS_SERVER or PROTOCOL_TLS_CLIENT), and what it offers or takes by ALPN."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 retires 1.0 and 1.1
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # CRIME; RFC 9113 9.2.1 asks for both
    context.set_alpn_protocols(offers)
    return context


def trust(context: ssl.SSLContext, ca: bytes, named: str, revocations: Revocations | None = None) -> None:
    """Trust what a file holds, also the certificate of an intermediate without that of its root: else who signs for
    others under the same root would have to be trusted, too. Not what is revoked. Raises StartError."""
    try:
        context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise StartError(f"{named} holds no PEM certificates, or broken ones: {words_of(error)}") from error
    if revocations is None or not revocations.whole_chain:
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if revocations is None:
        return
    try:
        with _file(revocations.pem) as path:  # `cadata` takes no lists
            context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise StartError(f"the revocation lists for {named} cannot be used: {words_of(error)}") from error
    # A whole chain in which a trusted certificate is no root would be refused: its own issuer's list is missing then.
    flags = ssl.VerifyFlags
    context.verify_flags |= flags.VERIFY_CRL_CHECK_CHAIN if revocations.whole_chain else flags.VERIFY_CRL_CHECK_LEAF


def _context() -> ssl.SSLContext:
    context = new_context(ssl.PROTOCOL_TLS_SERVER, "h2", "http/1.1")
    context.num_tickets = 1  # as Go: each costs a signature's worth of work, and clients use one
    return context


def _ask_clients(
    context: ssl.SSLContext, settings: ClientCertificates, ca: bytes, revocations: Revocations | None
) -> None:
    trust(context, ca, settings.ca, revocations)
    context.verify_mode = ssl.CERT_OPTIONAL if settings.mode is Requirement.OPTIONAL else ssl.CERT_REQUIRED


def _rule(settings: ClientCertificates, ca: bytes, revocations: Revocations | None) -> str:
    """Not of the dates of lists: CAs make them anew every day, and whoever is connected stays as good as before."""
    revoked = "nobody is asked" if revocations is None else revocations.revoked
    return f"{settings.mode.value} {hashlib.sha256(ca).hexdigest()} {revoked}"


def load_pair(context: ssl.SSLContext, certificate: Certificate, chain: bytes, key: bytes) -> None:
    """Load a chain and its key, PEM, which `certificate` names. Raises StartError."""
    secret = certificate.key
    told_as = f"the environment variable {secret.env}" if secret.file is None else secret.file
    try:
        with _file(chain) as chain_file, _file(key) as key_file:
            context.load_cert_chain(chain_file, key_file, password=_refuse)
    except _EncryptedKeyError:
        raise StartError(f"the key in {told_as} is encrypted: store it without a pass phrase") from None
    except ssl.SSLError as error:
        raise StartError(f"certificate {certificate.cert} with the key in {told_as}: {_reason(error)}") from error


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A path to the content: Python's API of OpenSSL takes nothing else. Of a memfd, so nothing reaches a disk."""
    fd = os.memfd_create("rauta-tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _refuse() -> NoReturn:
    # Without a callback OpenSSL would ask on the terminal, and a service would wait for ever.
    raise _EncryptedKeyError


def _reason(error: ssl.SSLError) -> str:
    if not error.reason:  # the PEM reader's errors have none, only "[SSL] PEM lib (_ssl.c:3926)"
        return "one of the two is not valid PEM" if "PEM lib" in str(error) else words_of(error)
    known = {
        "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
        "KEY_TYPE_MISMATCH": "the key does not belong to the certificate",
        "EE_KEY_TOO_SMALL": "the key is too short for OpenSSL's security level",
    }
    return known.get(error.reason, error.reason)
