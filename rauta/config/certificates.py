"""Certificates and keys that a configuration names: whether they can be read, and belong together."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from rauta.config.certificate_warnings import (
    SOON,
    CertificateWarning,
    days_left,
    warnings_of,
    warnings_of_list,
    warnings_of_ours,
)
from rauta.config.errors import ConfigProblem
from rauta.config.origins import Origin, Origins
from rauta.config.reader import Step
from rauta.config.secrets import SecretError, is_exposed, read, read_file
from rauta.routing.errors import words_of
from rauta.routing.model import Configuration
from rauta.routing.services import BackendTls
from rauta.routing.settings import Certificate

if TYPE_CHECKING:
    from rauta.config.x509 import Facts

_CERTIFICATE: Final = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
_ENCRYPTED: Final = re.compile(rb"-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----")


def check(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """The problems of all certificates and keys, each at its line."""
    for listener in configuration.listeners:
        if listener.tls is None:
            continue
        origin = origins.named["listeners", listener.name]
        for position, certificate in enumerate(listener.tls.certificates):
            try:
                _check(certificate)
            except SecretError as bad:
                yield origin.problem(bad.message, ("tls", "certificates", position, *bad.where))
        if listener.tls.clients is not None:
            try:
                check_authorities(listener.tls.clients.ca, listener.tls.clients.crl)
            except SecretError as bad:
                yield origin.problem(bad.message, ("tls", "clients", *bad.where))
    for service in configuration.services:
        origin = origins.named["services", service.name]
        for keys, tls in service.tls_settings():
            yield from (origin.problem(bad.message, (*keys, *bad.where)) for bad in _of_service(tls))


def exposed(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Warnings: private keys that every user of this machine can read."""
    for origin, place, certificate in _placed(configuration, origins):
        name = certificate.key.file
        if name is not None and is_exposed(name):
            message = f"every user of this machine can read the key in {name!r}: chmod o-r"
            yield origin.problem(message, (*place, "key", "file"))


def _placed(configuration: Configuration, origins: Origins) -> Iterator[tuple[Origin, tuple[Step, ...], Certificate]]:
    """All certificates with keys of ours, each with its place."""
    for listener in configuration.listeners:
        for position, certificate in enumerate(listener.tls.certificates if listener.tls is not None else ()):
            yield origins.named["listeners", listener.name], ("tls", "certificates", position), certificate
    for service in configuration.services:
        for keys, tls in service.tls_settings():
            if tls.certificate is not None:
                yield origins.named["services", service.name], (*keys, "certificate"), tls.certificate


def dubious(configuration: Configuration, origins: Origins, now: float) -> Iterator[ConfigProblem]:
    """Warnings: certificates that clients or backends will not take, now or soon, and those that no client gets. `now`
    is seconds since 1970. What cannot be read is not told here."""
    for listener in configuration.listeners:
        certificates = listener.tls.certificates if listener.tls is not None else ()
        read = [_facts(certificate) for certificate in certificates]
        for position, (facts, warnings) in enumerate(zip(read, warnings_of(read, now), strict=True)):
            if facts is None:
                continue
            for warning in warnings:
                origin = origins.named["listeners", listener.name]
                message = f"{certificates[position].cert!r} {_told(warning, facts, now)}"
                yield origin.problem(message, ("tls", "certificates", position, "cert"))
        if listener.tls is None or listener.tls.clients is None:
            continue
        clients = listener.tls.clients
        for key, message in _warnings_of_trust(clients.ca, clients.crl, now):
            yield origins.named["listeners", listener.name].problem(message, ("tls", "clients", key))
    for service in configuration.services:
        origin = origins.named["services", service.name]
        for keys, tls in service.tls_settings():
            for place, message in _warnings_of_service(tls, now):
                yield origin.problem(message, (*keys, *place))


def _warnings_of_service(tls: BackendTls, now: float) -> Iterator[tuple[tuple[Step, ...], str]]:
    """What speaks against TLS towards backends, now or soon, each with its place."""
    if tls.ca is not None:
        for key, message in _warnings_of_trust(tls.ca, tls.crl, now):
            yield (key,), message
    if tls.certificate is None:
        return
    facts = _facts(tls.certificate)
    if facts is None:
        return
    for warning in warnings_of_ours(facts, now):
        message = f"{tls.certificate.cert!r} {_told(warning, facts, now, 'backends')}"
        yield ("certificate", "cert"), message


def _facts(certificate: Certificate) -> Facts | None:
    from rauta.config.x509 import facts_of  # cryptography: only where TLS is served

    try:
        return facts_of(read_file(certificate.cert, ("cert",)))
    except (SecretError, ValueError):
        return None


def _told(warning: CertificateWarning, facts: Facts, now: float, whom: str = "clients") -> str:
    match warning:
        case CertificateWarning.EXPIRED:
            return f"has expired on {_day(facts.not_after)}: {whom} refuse it"
        case CertificateWarning.EXPIRES_SOON:
            return f"expires on {_day(facts.not_after)}, {_in_days(facts.not_after, now)}"
        case CertificateWarning.NOT_YET_VALID:
            return f"is not valid before {_day(facts.not_before)}: {whom} refuse it"
        case CertificateWarning.NO_NAMES:
            return f"names no host: {whom} refuse it"
        case CertificateWarning.SHADOWED:
            return f"is never used: certificates before it cover {', '.join(facts.names)} with the same kind of key"


def _warnings_of_trust(ca: str, crl: str | None, now: float) -> Iterator[tuple[str, str]]:
    """Each with its key."""
    yield from (("ca", f"{ca!r}: {message}") for message in _warnings_of_authorities(ca, now))
    if crl is not None:
        yield from (("crl", f"{crl!r}: {message}") for message in _warnings_of_lists(crl, ca, now))


def _warnings_of_lists(crl: str, ca: str, now: float) -> Iterator[str]:
    from rauta.config.revocation import read_revocations

    try:
        found = read_revocations(crl, ca, read_file(ca, ("ca",))).lists
    except SecretError:
        return
    for one in found:
        warnings = warnings_of_list(one, now)
        named, whom = f"the list of {one.issuer!r}", "everybody it signed"
        if one.scope is not None:
            named, whom = f"{named} for {one.scope}", "whatever that is about"
        if CertificateWarning.EXPIRED in warnings:
            yield f"{named} has expired on {_day(one.next_update or 0.0)}: {whom} is refused, revoked or not"
        if CertificateWarning.NOT_YET_VALID in warnings:
            yield f"{named} does not count before {_day(one.this_update)}: {whom} is refused"


def _warnings_of_authorities(name: str, now: float) -> Iterator[str]:
    from rauta.config.x509 import authorities_of

    try:
        found = authorities_of(read_file(name, ("ca",)))
    except (SecretError, ValueError):
        return
    for authority in found:
        if now >= authority.not_after:
            yield f"{authority.subject!r} has expired on {_day(authority.not_after)}: whom it signed is refused"
        elif now + SOON >= authority.not_after:
            yield f"{authority.subject!r} expires on {_day(authority.not_after)}, {_in_days(authority.not_after, now)}"
        if now < authority.not_before:
            since = _day(authority.not_before)
            yield f"{authority.subject!r} is not valid before {since}: whom it signed is refused"


def _in_days(not_after: float, now: float) -> str:
    days = days_left(not_after, now)
    return "in less than a day" if not days else f"in {days} day{'' if days == 1 else 's'}"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _check(certificate: Certificate) -> None:
    chain = read_file(certificate.cert, ("cert",))
    if not _CERTIFICATE.search(chain):
        what = "a private key" if _KEY.search(chain) else "no PEM certificate"
        raise SecretError(("cert",), f"{certificate.cert!r} holds {what}: it needs '-----BEGIN CERTIFICATE-----'")
    key, where, name = read(certificate.key, "the key, PEM", ("key",))
    if not _KEY.search(key):
        what = "a certificate" if _CERTIFICATE.search(key) else "no PEM private key"
        raise SecretError(where, f"{name} holds {what}: it needs '-----BEGIN PRIVATE KEY-----'")
    if _ENCRYPTED.search(key):
        raise SecretError(
            where, f"the key in {name} is encrypted: decrypt it (openssl pkey), nobody is there to type a password"
        )
    try:
        ssl.create_default_context(cadata=chain.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError) as error:
        raise SecretError(("cert",), f"the certificate in {certificate.cert!r} is broken: {_reason(error)}") from None
    try:
        _load_pair(chain, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SecretError(
                where, f"the key in {name} does not belong to the certificate in {certificate.cert!r}"
            ) from None
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK", "CA_KEY_TOO_SMALL"):
            raise SecretError(
                ("cert",), f"the certificate in {certificate.cert!r} is too weak: {_reason(error)}"
            ) from None
        raise SecretError(where, f"the key in {name} cannot be used: {_reason(error)}") from None


def _of_service(tls: BackendTls) -> Iterator[SecretError]:
    if tls.ca is not None:
        try:
            check_authorities(tls.ca, tls.crl)
        except SecretError as bad:
            yield bad
    if tls.certificate is not None:
        try:
            _check(tls.certificate)
        except SecretError as bad:
            yield SecretError(("certificate", *bad.where), bad.message)


def check_authorities(name: str, crl: str | None = None) -> None:
    """The file of those who sign the certificates of clients or backends, and that of the lists of what they have
    revoked. Raises SecretError."""
    bundle = read_file(name, ("ca",))
    if _KEY.search(bundle):
        raise SecretError(
            ("ca",), f"{name!r} holds a private key: only certificates belong there, keep their keys away"
        )
    if not _CERTIFICATE.search(bundle):
        raise SecretError(("ca",), f"{name!r} holds no PEM certificate: it needs '-----BEGIN CERTIFICATE-----'")
    try:
        # As workers do; comments between the certificates may hold anything.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=bundle.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise SecretError(("ca",), f"a certificate in {name!r} is broken: {_reason(error)}") from None
    if crl is not None:
        from rauta.config.revocation import read_revocations

        read_revocations(crl, name, bundle)


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
    return reason.lower().replace("_", " ") if isinstance(reason, str) else words_of(error)
