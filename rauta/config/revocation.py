"""Revocation lists (CRLs, RFC 5280 5): whether those of a file are of the CAs that are trusted, and what they say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList

MAX_SIZE: Final = 32 << 20  # 700,000 revoked certificates; public CAs split theirs long before
_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_DER_SEQUENCE: Final = b"\x30"  # the first byte of a list that is not PEM


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list: its issuer (RFC 4514), from when to when it counts (seconds since 1970; `next_update` None: for ever),
    and how many certificates it revokes."""

    issuer: str
    this_update: float
    next_update: float | None
    revoked: int


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists of a file: as PEM, and nothing else of it; what they say, of each issuer the newest; `revoked`, equal
    for files that revoke the same; and whether whole chains are looked up, or the first certificate alone."""

    pem: bytes = field(repr=False)
    lists: tuple[RevocationList, ...]
    revoked: str
    whole_chain: bool


def read_revocations(name: str, ca: str, bundle: bytes) -> Revocations:
    """The lists in the file `name`, for the CAs in `bundle`, which is the content of the file `ca`. There has to be one
    of each: OpenSSL refuses everybody whose CA has none. Raises SecretError for the key `crl` or `ca`."""
    from cryptography import x509

    from rauta.config.secrets import SecretError, read_file

    content = read_file(name, ("crl",), MAX_SIZE)
    blocks = _LIST.findall(content)
    if not blocks:
        raise SecretError(("crl",), f"{name!r} holds {_other_than_lists(name, content)}")
    try:
        authorities = x509.load_pem_x509_certificates(bundle.decode("ascii", "ignore").encode())
    except ValueError:
        raise SecretError(("ca",), f"{ca!r} holds no PEM certificates, or broken ones") from None
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
        facts = _newest(lists)
        revoked = _digest(lists)
    except ValueError:  # its text is cryptography's, about ASN.1
        raise SecretError(("crl",), f"a revocation list in {name!r} is broken") from None
    rootless = _rootless(authorities)
    problem = _of_kind(lists) or _of_authorities(authorities, lists, ca) or _of_roots(rootless, authorities, ca)
    if problem:
        raise SecretError(("crl",), f"{name!r}: {problem}")
    return Revocations(b"\n".join(blocks) + b"\n", facts, revoked, whole_chain=not rootless)


def _other_than_lists(name: str, content: bytes) -> str:
    if content.startswith(_DER_SEQUENCE):
        return f"no PEM: write it as such (openssl crl -inform DER -in {name} -out NEW_FILE)"
    found = "no PEM revocation list"
    if b"PRIVATE KEY-----" in content:
        found = "a private key"
    elif b"CERTIFICATE-----" in content:
        found = "certificates"
    return f"{found}: it needs '-----BEGIN X509 CRL-----'"


def _newest(lists: Sequence[CertificateRevocationList]) -> tuple[RevocationList, ...]:
    found: dict[str, RevocationList] = {}
    for one in lists:
        until = one.next_update_utc
        issuer = one.issuer.rfc4514_string()
        facts = RevocationList(
            issuer, one.last_update_utc.timestamp(), None if until is None else until.timestamp(), len(one)
        )
        if issuer not in found or found[issuer].this_update < facts.this_update:
            found[issuer] = facts
    return tuple(found.values())


def _digest(lists: Sequence[CertificateRevocationList]) -> str:
    revoked: dict[bytes, set[int]] = {}
    for one in lists:
        revoked.setdefault(one.issuer.public_bytes(), set()).update(entry.serial_number for entry in one)
    digest = hashlib.sha256()
    for issuer, serials in sorted(revoked.items()):
        digest.update(b"%d:%b" % (len(issuer), issuer))
        digest.update(b"".join(b"%x;" % serial for serial in sorted(serials)))
    return digest.hexdigest()


def _of_kind(lists: Sequence[CertificateRevocationList]) -> str | None:
    from cryptography import x509

    for one in lists:
        try:
            one.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
        except x509.ExtensionNotFound:
            continue
        return f"the list of {one.issuer.rfc4514_string()!r} is a delta, which is not understood: give whole lists"
    return None


def _of_authorities(
    authorities: Sequence[Certificate], lists: Sequence[CertificateRevocationList], ca: str
) -> str | None:
    """What is wrong between the two, if anything."""
    for authority in authorities:
        subject = authority.subject.rfc4514_string()
        own = [one for one in lists if one.issuer == authority.subject]
        if not own:
            return f"there is no list of {subject!r}, which {ca!r} trusts: everybody it signed would be refused"
        if not any(_signed(one, authority) for one in own):
            return f"the list of {subject!r} is not signed with the key of its certificate in {ca!r}"
        if not _may_sign(authority):
            return f"{subject!r} may not sign lists, says {ca!r} (key usage without cRLSign): OpenSSL refuses them"
    return None


def _signed(one: CertificateRevocationList, authority: Certificate) -> bool:
    try:
        return one.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # others raise TypeError
    except TypeError:
        return False


def _may_sign(authority: Certificate) -> bool:
    from cryptography import x509

    try:
        return authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _of_roots(rootless: Sequence[Certificate], authorities: Sequence[Certificate], ca: str) -> str | None:
    """OpenSSL can look up a whole chain only if that ends in a root; else the first certificate alone. For a file with
    both kinds it would refuse too many, or look up too little."""
    if not rootless or len(rootless) == len(authorities):
        return None
    return (
        f"{ca!r} holds roots and, without its root, {rootless[0].subject.rfc4514_string()!r}: for revocation lists it "
        "needs the roots of all, or none"
    )


def _rootless(authorities: Sequence[Certificate]) -> list[Certificate]:
    """Those from which no way leads up to a root among them."""
    reached = {one.subject for one in authorities if one.subject == one.issuer}
    left = [one for one in authorities if one.subject not in reached]
    while True:
        still = [one for one in left if one.issuer not in reached]
        if len(still) == len(left):
            return left
        reached |= {one.subject for one in left if one.issuer in reached}
        left = still
