"""Certificates and their keys, read by the supervisor: workers need no right to the files, and a successor gets what is
live, whatever the files say by then. No `repr` of anything here shows a key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.config.revocation import RevocationList, Revocations
    from rauta.config.x509 import Facts
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Certificate, ClientCertificates, Listener

Place = Callable[..., str]
"""The start of a message about a setting, `file:line: ` or nothing: called with the listener, service or route, and the
keys and list positions that lead to it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key, PEM, and what the certificate says; nothing else of them is checked yet."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    facts: Facts


@dataclass(frozen=True, slots=True)
class Held:
    """What a listener terminates TLS with: its pairs, in the order of its certificates; the certificates, PEM, of those
    who sign clients' ones, and the lists of what they have revoked."""

    pairs: tuple[Pair, ...]
    clients_ca: bytes | None = field(default=None, repr=False)
    revocations: Revocations | None = None


Credentials = Mapping[str, Held]
"""Of each listener that terminates TLS, by its name."""


def read_credentials(listeners: Iterable[Listener], place: Place | None = None) -> Credentials:
    """Read the files and variables of the environment that listeners name. Blocks. Raises StartError, which says where
    the file or variable is named, and never shows a key."""
    return {
        listener.name: Held(
            tuple(
                _read(listener, position, certificate, place)
                for position, certificate in enumerate(listener.tls.certificates)
            ),
            *(() if listener.tls.clients is None else _read_clients(listener, listener.tls.clients, place)),
        )
        for listener in listeners
        if listener.tls is not None
    }


def facts_of_all(credentials: Credentials) -> dict[str, tuple[Facts, ...]]:
    """What the certificates say, without them and their keys."""
    return {name: tuple(pair.facts for pair in held.pairs) for name, held in credentials.items()}


def lists_of_all(credentials: Credentials) -> dict[str, tuple[RevocationList, ...]]:
    """What the revocation lists for clients say, where there are any."""
    return {name: held.revocations.lists for name, held in credentials.items() if held.revocations is not None}


def environment_without(configuration: Configuration) -> dict[str, str]:
    """The environment for a child: this process's, without the variables that hold keys."""
    used = [
        certificate
        for listener in configuration.listeners
        if listener.tls is not None
        for certificate in listener.tls.certificates
    ]
    used += [
        tls.certificate
        for service in configuration.services
        for _, tls in service.tls_settings()
        if tls.certificate is not None
    ]
    keys = {certificate.key.env for certificate in used}
    return {name: value for name, value in os.environ.items() if name not in keys}


def _read(listener: Listener, position: int, certificate: Certificate, place: Place | None) -> Pair:
    from rauta.config import secrets  # only where TLS is served
    from rauta.config.x509 import facts_of

    try:
        chain = secrets.read_file(certificate.cert, ("cert",))
        key, *_ = secrets.read(certificate.key, "the key, PEM", ("key",))
    except secrets.SecretError as error:
        keys = ("tls", "certificates", position, *error.where)
        where = "" if place is None else place(listener, *keys)
        raise StartError(f"{where}listener {listener.name!r}: {error.message}") from None
    try:
        facts = facts_of(chain)
    except ValueError:  # its text is cryptography's, about ASN.1
        where = "" if place is None else place(listener, "tls", "certificates", position, "cert")
        text = f"{where}listener {listener.name!r}: {certificate.cert} is no PEM certificate, or a broken one"
        raise StartError(text) from None
    return Pair(chain, key, facts)


def _read_clients(
    listener: Listener, clients: ClientCertificates, place: Place | None
) -> tuple[bytes, Revocations | None]:
    from rauta.config import secrets
    from rauta.config.revocation import read_revocations

    try:
        ca = secrets.read_file(clients.ca, ("ca",))
        return ca, None if clients.crl is None else read_revocations(clients.crl, clients.ca, ca)
    except secrets.SecretError as error:
        where = "" if place is None else place(listener, "tls", "clients", *error.where)
        raise StartError(f"{where}listener {listener.name!r}: {error.message}") from None
