"""What a gateway serves with, built before it is opened or changed. Blocks: files are read, plugins imported."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rauta.embed.errors import GatewayError
from rauta.proxy.asgi.applications import ApplicationError
from rauta.routing.model import Configuration
from rauta.routing.table import Table
from rauta.runtime.backend_credentials import read_backend_credentials, tls_to_backends_of
from rauta.runtime.changing import contexts_of
from rauta.runtime.credentials import read_credentials
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.proxy.tls import ServerContexts
    from rauta.runtime.backend_tls import TlsToBackends

Source = str | os.PathLike[str] | Configuration | Table
"""What a gateway takes: the path of a file, or what was made of one."""

Sockets = Mapping[str, Sequence[socket.socket]]
"""Bound sockets by the name of their listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A table, and the TLS of its listeners and services."""

    table: Table
    contexts: dict[str, ServerContexts | None]
    tls_to_backends: TlsToBackends | None

    @property
    def configuration(self) -> Configuration:
        """What the table was made of."""
        return self.table.configuration


def configuration_of(source: Source) -> Configuration:
    """Raises ConfigError."""
    if isinstance(source, Table):
        return source.configuration
    if isinstance(source, Configuration):
        return source
    from rauta.config import load  # YAML: only where there is a file

    return load(source, warn=False).configuration


def read(source: Source) -> Configuration | Table:
    """What is at a path; what is none, as it is. Blocks. Raises ConfigError."""
    return configuration_of(source) if isinstance(source, str | os.PathLike) else source


def located(error: ApplicationError, source: Source) -> str:
    """Its text, with the places of its routes if `source` is a file. Blocks."""
    if isinstance(source, Configuration | Table):
        return str(error)
    from rauta.config import ConfigError, load
    from rauta.runtime.places import places_of

    try:
        files = load(source, check_files=False, warn=False).files
    except ConfigError:
        return str(error)  # it was good when it was loaded, and has been changed since
    places = places_of(files, [("routes", name, "asgi") for name in error.routes])
    lines = zip(places, error.routes.items(), strict=True)
    return "\n".join(f"{place}: route {name!r}: {text}" for place, (name, text) in lines)


def build(source: Configuration | Table, served: Iterable[str], before: TlsToBackends | None) -> Parts:
    """`served` are the listeners whose connections are ours: the others need no keys. Raises RautaError."""
    configuration = source.configuration if isinstance(source, Table) else source
    names = frozenset(served)
    listeners = [listener for listener in configuration.listeners if listener.name in names]
    try:
        credentials = read_credentials(listeners)
        found = {listener.name: contexts_of(listener, credentials) for listener in listeners}
        tls_to_backends = tls_to_backends_of(configuration, read_backend_credentials(configuration.services), before)
    except StartError as error:
        raise GatewayError(str(error)) from error
    table = source if isinstance(source, Table) else Table(configuration)
    return Parts(table=table, contexts=found, tls_to_backends=tls_to_backends)
