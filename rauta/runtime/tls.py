"""TLS contexts of listeners."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from rauta.routing.settings import Certificate, TlsSettings


class _EncryptedKeyError(Exception):
    """The key asks for a pass phrase."""


def server_context(settings: TlsSettings, *, listener: str) -> ssl.SSLContext:
    """The context of a listener that terminates TLS: 1.2 or later, HTTP/1.1 by ALPN.

    Raises StartError that names the file or variable and what is wrong with it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996 retires 1.0 and 1.1
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # CRIME; RFC 9113 9.2.1 asks for both
    context.set_alpn_protocols(["http/1.1"])
    for certificate in settings.certificates:
        try:
            _load(context, certificate)
        except StartError as error:
            raise StartError(f"listener {listener!r}: {error}") from error
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    secret = certificate.key
    if secret.file is not None:
        _load_chain(context, certificate.cert, secret.file, told_as=secret.file)
        return
    name = secret.env or ""
    text = os.environ.get(name)
    if text is None:
        raise StartError(f"the environment variable {name} with the key of {certificate.cert} is not set")
    # OpenSSL's API in Python takes a path only. A memfd has one, and nothing reaches a disk.
    fd = os.memfd_create("rauta-tls-key", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(text.encode())
        _load_chain(context, certificate.cert, f"/proc/self/fd/{fd}", told_as=f"the environment variable {name}")
    finally:
        os.close(fd)


def _load_chain(context: ssl.SSLContext, cert: str, key: str, *, told_as: str) -> None:
    for path, name in ((cert, cert), (key, told_as)):
        try:
            with Path(path).open("rb"):
                pass  # OpenSSL's own error would not say which of the two files it could not open
        except OSError as error:
            raise StartError(f"cannot read {name}: {error.strerror}") from error
    try:
        context.load_cert_chain(cert, key, password=_refuse)
    except _EncryptedKeyError:
        raise StartError(f"the key in {told_as} is encrypted: store it without a pass phrase") from None
    except ssl.SSLError as error:
        raise StartError(f"certificate {cert} with the key in {told_as}: {_reason(error)}") from error


def _refuse() -> NoReturn:
    # Without a callback OpenSSL would ask on the terminal, and a service would wait for ever.
    raise _EncryptedKeyError


def _reason(error: ssl.SSLError) -> str:
    if not error.reason:  # the PEM reader's errors have none, only "[SSL] PEM lib (_ssl.c:3926)"
        return "one of the two is not valid PEM" if "PEM lib" in str(error) else str(error)
    known = {
        "KEY_VALUES_MISMATCH": "the key does not belong to the certificate",
        "KEY_TYPE_MISMATCH": "the key does not belong to the certificate",
        "EE_KEY_TOO_SMALL": "the key is too short for OpenSSL's security level",
    }
    return known.get(error.reason, error.reason)
