"""What TLS towards backends is made of, read by the supervisor: see `credentials`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.routing.model import Configuration
    from rauta.routing.services import BackendTls, Service
    from rauta.runtime.client_tls import ClientTls
    from rauta.runtime.credentials import Place


@dataclass(frozen=True, slots=True)
class Material:
    """PEM: the CAs that sign backends' certificates (None: those of the system), our chain and our key."""

    ca: bytes | None = field(default=None, repr=False)
    chain: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


Materials = Mapping["BackendTls", Material]
"""Of each setting of TLS towards backends."""


def read_materials(services: Iterable[Service], place: Place | None = None) -> Materials:
    """Read the files and variables of the environment that services name. Blocks. Raises StartError, which says where
    the file or variable is named, and never shows a key."""
    found: dict[BackendTls, Material] = {}
    for service in services:
        tls = service.tls
        if tls is not None and tls not in found:
            found[tls] = _read(service, tls, place)
    return found


def _read(service: Service, tls: BackendTls, place: Place | None) -> Material:
    from rauta.config import secrets  # only where it is used

    keys: tuple[str, ...] = ("ca",)
    try:
        ca = None if tls.ca is None else secrets.read_file(tls.ca, ("ca",))
        if tls.certificate is None:
            return Material(ca)
        keys = ("certificate", "cert")
        chain = secrets.read_file(tls.certificate.cert, keys)
        keys = ("certificate", "key")
        key, *_ = secrets.read(tls.certificate.key, "the key, PEM", keys)
    except secrets.SecretError as error:
        where = "" if place is None else place(service, "tls", *keys)
        raise StartError(f"{where}service {service.name!r}: {error.message}") from None
    return Material(ca, chain, key)


def client_tls_of(configuration: Configuration, materials: Materials, before: ClientTls | None) -> ClientTls | None:
    """The TLS contexts towards backends; None where there is no TLS. Raises StartError."""
    if not materials:
        return None
    from rauta.runtime.client_tls import ClientTls, client_tls

    return client_tls(configuration.services, materials, before or ClientTls())
