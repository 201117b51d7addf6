"""Certificates and keys that a configuration names: whether they can be read, and belong together."""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rauta.config.errors import ConfigProblem
from rauta.config.origins import Origins
from rauta.routing.model import Configuration
from rauta.routing.settings import Certificate, Secret

MAX_PEM_SIZE: Final = 1 << 20  # a chain of ten certificates is 20 KiB

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_ENCRYPTED: Final = re.compile(rb"-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")


class _PemError(Exception):
    """What is wrong, and with which key of the certificate."""

    def __init__(self, where: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.where = where
        self.message = message


def check(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """The problems of all certificates and keys, each at its line."""
    for listener in configuration.listeners:
        if listener.tls is None:
            continue
        origin = origins.named["listeners", listener.name]
        for position, certificate in enumerate(listener.tls.certificates):
            try:
                _check(certificate)
            except _PemError as bad:
                yield origin.problem(bad.message, ("tls", "certificates", position, *bad.where))


def exposed(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Warnings: private keys that every user of this machine can read."""
    for listener in configuration.listeners:
        for position, certificate in enumerate(listener.tls.certificates if listener.tls is not None else ()):
            name = certificate.key.file
            if name is not None and _mode(name) & stat.S_IROTH:
                yield origins.named["listeners", listener.name].problem(
                    f"every user of this machine can read the key in {name!r}: chmod o-r",
                    ("tls", "certificates", position, "key", "file"),
                )


def _mode(name: str) -> int:
    try:
        return Path(name).stat().st_mode
    except OSError:
        return 0  # it was there a moment ago, when it was read; whoever loads it next reports that it is gone


def _check(certificate: Certificate) -> None:
    chain = _read(certificate.cert, ("cert",))
    if not _CERTIFICATE.search(chain):
        what = "a private key" if _KEY.search(chain) else "no PEM certificate"
        raise _PemError(("cert",), f"{certificate.cert!r} holds {what}: it needs '-----BEGIN CERTIFICATE-----'")
    key, where, name = _read_key(certificate.key)
    if not _KEY.search(key):
        what = "a certificate" if _CERTIFICATE.search(key) else "no PEM private key"
        raise _PemError(where, f"{name} holds {what}: it needs '-----BEGIN PRIVATE KEY-----'")
    if _ENCRYPTED.search(key):
        raise _PemError(
            where, f"the key in {name} is encrypted: decrypt it (openssl pkey), nobody is there to type a password"
        )
    try:
        ssl.create_default_context(cadata=chain.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise _PemError(("cert",), f"the certificate in {certificate.cert!r} is broken: {_reason(error)}") from None
    try:
        _load_pair(chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _PemError(
                where, f"the key in {name} does not belong to the certificate in {certificate.cert!r}"
            ) from None
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
            raise _PemError(
                ("cert",), f"the certificate in {certificate.cert!r} is too weak: {_reason(error)}"
            ) from None
        raise _PemError(where, f"the key in {name} cannot be used: {_reason(error)}") from None


def _read_key(key: Secret) -> tuple[bytes, tuple[str, ...], str]:
    """The key, the file's key that names it, and its name for messages."""
    if key.file is not None:
        return _read(key.file, ("key", "file")), ("key", "file"), repr(key.file)
    name = key.env or ""
    value = os.environ.get(name) if name else None
    if not value:
        state = "not set" if value is None else "empty"
        raise _PemError(("key", "env"), f"the environment variable {name!r} is {state}: it must hold the key, PEM")
    return value.encode(errors="surrogateescape"), ("key", "env"), f"the environment variable {name!r}"


def _read(name: str, where: tuple[str, ...]) -> bytes:
    path = Path(name)
    try:
        if path.is_dir():
            raise _PemError(where, f"{name!r} is a directory")
        if path.exists() and not path.is_file():
            raise _PemError(where, f"{name!r} is not a regular file")  # a pipe would be empty when it is read again
        with path.open("rb") as stream:
            data = stream.read(MAX_PEM_SIZE + 1)
    except FileNotFoundError:
        raise _PemError(where, f"there is no file {name!r}") from None
    except PermissionError:
        raise _PemError(where, f"no permission to read {name!r} (user id {os.geteuid()})") from None
    except OSError as error:
        raise _PemError(where, f"{name!r} cannot be read: {error.strerror}") from None
    if len(data) > MAX_PEM_SIZE:
        raise _PemError(where, f"{name!r} is larger than {MAX_PEM_SIZE >> 20} MiB: this is no PEM file of certificates")
    return data


def _load_pair(chain: bytes, key: bytes) -> None:
    """Load both into a scratch context. The key goes through anonymous memory: it may come from the environment,
    and what was checked is then what was read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert_file, key_file = os.memfd_create("certificate"), os.memfd_create("key")
    try:
        _write(cert_file, chain)
        _write(key_file, key)
        context.load_cert_chain(f"/proc/self/fd/{cert_file}", f"/proc/self/fd/{key_file}", password=lambda: "")
    finally:
        os.close(cert_file)
        os.close(key_file)


def _write(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb", closefd=False) as stream:
        stream.write(data)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if isinstance(reason, str) else str(error)
