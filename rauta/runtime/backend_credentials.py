"""What TLS towards backends is made of, read by the supervisor: see `credentials`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.config.revocation import Revocations
    from rauta.config.x509 import Facts
    from rauta.routing.model import Configuration
    from rauta.routing.services import BackendTls, Service
    from rauta.runtime.backend_tls import TlsToBackends
    from rauta.runtime.credentials import Place


@dataclass(frozen=True, slots=True)
class BackendCredential:
    """PEM: the CAs that sign backends' certificates (None: those of the system), our chain and our key. The lists of
    what these CAs have revoked (None: nobody is asked), and what our certificate says."""

    ca: bytes | None = field(default=None, repr=False)
    chain: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    revocations: Revocations | None = None
    facts: Facts | None = None


BackendCredentials = Mapping["BackendTls", BackendCredential]
"""Of each setting of TLS towards backends."""


def read_backend_credentials(services: Iterable[Service], place: Place | None = None) -> BackendCredentials:
    """Read the files and variables of the environment that services name. Blocks. Raises StartError, which says where
    the file or variable is named, and never shows a key."""
    found: dict[BackendTls, BackendCredential] = {}
    for service in services:
        for keys, tls in service.tls_settings():
            if tls not in found:
                found[tls] = _read(service, keys, tls, place)
    return found


def _read(service: Service, keys: tuple[str, ...], tls: BackendTls, place: Place | None) -> BackendCredential:
    from rauta.config import secrets  # only where it is used
    from rauta.config.revocation import read_revocations

    ca = revocations = chain = key = facts = None
    try:
        if tls.ca is not None:
            ca = secrets.read_file(tls.ca, ("ca",))
            revocations = None if tls.crl is None else read_revocations(tls.crl, tls.ca, ca)
        if tls.certificate is not None:
            chain = secrets.read_file(tls.certificate.cert, ("certificate", "cert"))
            key, *_ = secrets.read(tls.certificate.key, "the key, PEM", ("certificate", "key"))
            facts = _facts(chain, tls.certificate.cert)
    except secrets.SecretError as error:
        where = "" if place is None else place(service, *keys, *error.where)
        raise StartError(f"{where}service {service.name!r}: {error.message}") from None
    return BackendCredential(ca, chain, key, revocations, facts)


def _facts(chain: bytes, name: str) -> Facts:
    from rauta.config.secrets import SecretError
    from rauta.config.x509 import facts_of

    try:
        return facts_of(chain)
    except ValueError:  # its text is cryptography's, about ASN.1
        raise SecretError(("certificate", "cert"), f"{name} is no PEM certificate, or a broken one") from None


def tls_to_backends_of(
    configuration: Configuration, backend_credentials: BackendCredentials, before: TlsToBackends | None
) -> TlsToBackends | None:
    """The TLS contexts towards backends; None where there is no TLS. Raises StartError."""
    if not backend_credentials:
        return None
    from rauta.runtime.backend_tls import TlsToBackends, tls_to_backends

    return tls_to_backends(configuration.services, backend_credentials, before or TlsToBackends())
