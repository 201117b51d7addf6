"""Revocation lists (CRLs, RFC 5280 5): whether those of a file are of the CAs that are trusted, and what they say."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList, GeneralName, IssuingDistributionPoint

MAX_SIZE: Final = 32 << 20  # 700,000 revoked certificates; public CAs split theirs long before
_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_DER_SEQUENCE: Final = b"\x30"  # the first byte of a list that is not PEM


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One list: its issuer (RFC 4514), which of the issuer's certificates it is about (None: all; else distribution
    points, CAs, or all but these; RFC 5280 5.2.5), from when to when it counts (seconds since 1970; `next_update` None:
    for ever), and how many certificates it revokes."""

    issuer: str
    scope: str | None
    this_update: float
    next_update: float | None
    revoked: int


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists of a file: as PEM, and nothing else of it; what each says; `revoked`, equal for files that revoke the
    same; and whether whole chains are looked up, or the first certificate alone."""

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
        facts = tuple(map(_facts, lists))
        revoked = _digest(lists)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):  # their text is about ASN.1
        raise SecretError(("crl",), f"a revocation list in {name!r} is broken") from None
    rootless = _rootless(authorities)
    problem = (
        _of_kind(lists)
        or _of_authorities(authorities, lists, ca)
        or _of_signers(authorities, lists, ca)
        or _of_roots(rootless, authorities, ca)
    )
    if not problem and not rootless:
        problem = _of_scopes(authorities, lists)
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


def _facts(one: CertificateRevocationList) -> RevocationList:
    until = one.next_update_utc
    return RevocationList(
        issuer=one.issuer.rfc4514_string(),
        scope=_scope(one),
        this_update=one.last_update_utc.timestamp(),
        next_update=None if until is None else until.timestamp(),
        revoked=len(one),
    )


def _point(one: CertificateRevocationList) -> IssuingDistributionPoint | None:
    from cryptography import x509

    try:
        return one.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return None


def _scope(one: CertificateRevocationList) -> str | None:
    point = _point(one)
    if point is None:
        return None
    parts = [_told(name) for name in point.full_name or ()]
    if point.relative_name is not None:
        parts.append(point.relative_name.rfc4514_string())
    if point.only_contains_ca_certs:
        parts.append("CAs")
    if point.only_contains_user_certs:
        parts.append("all but CAs")
    return ", ".join(parts) or None


def _told(name: GeneralName) -> str:
    from cryptography import x509

    return name.value.rfc4514_string() if isinstance(name, x509.DirectoryName) else str(name.value)


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
    """OpenSSL passes these over, and what they revoke would go on."""
    from cryptography import x509

    for one in lists:
        kind, point = None, _point(one)
        if any(isinstance(extension.value, x509.DeltaCRLIndicator) for extension in one.extensions):
            kind = "a delta"
        elif point is not None and point.indirect_crl:
            kind = "indirect (about what others have signed)"
        elif point is not None and point.only_some_reasons:
            kind = "for some reasons of revocation alone"
        elif point is not None and point.only_contains_attribute_certs:
            kind = "for attribute certificates"
        if kind is not None:
            return f"the list of {one.issuer.rfc4514_string()!r} is {kind}, which is not understood: give whole lists"
    return None


def _of_scopes(authorities: Sequence[Certificate], lists: Sequence[CertificateRevocationList]) -> str | None:
    """Where whole chains are looked up, those who are trusted are, too: each needs a list that is about it."""
    for authority in authorities:
        own = [one for one in lists if one.issuer == authority.issuer]
        if any(_covers(one, authority) for one in own):
            continue
        issuer, subject = authority.issuer.rfc4514_string(), authority.subject.rfc4514_string()
        scopes = "; ".join(_scope(one) or "all" for one in own)
        return (
            f"no list of {issuer!r} is about the certificate of {subject!r} itself, but about: {scopes}. OpenSSL looks "
            "that up, too, and would refuse everybody: add the list for CAs"
        )
    return None


def _covers(one: CertificateRevocationList, authority: Certificate) -> bool:
    from cryptography import x509

    point = _point(one)
    if point is None or point.relative_name is not None:  # of the latter nothing is known here
        return True
    if point.only_contains_user_certs:
        return False
    if point.full_name is None:
        return True
    try:
        own = authority.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return False
    return any(name in point.full_name for each in own for name in each.full_name or ())


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


def _of_signers(authorities: Sequence[Certificate], lists: Sequence[CertificateRevocationList], ca: str) -> str | None:
    """OpenSSL takes the newest list with the name of an issuer, whoever has signed it, refusing all if that is
    of another. What an older one revokes goes on."""
    from cryptography.hazmat.primitives.hashes import SHA256

    seen: set[tuple[bytes, str | None, bytes]] = set()
    for one in lists:
        issuer = one.issuer.rfc4514_string()
        named = [authority for authority in authorities if authority.subject == one.issuer]
        signers = [authority for authority in named if _signed(one, authority)]
        if named and not signers:
            return f"a list of {issuer!r} is not signed with the key of its certificate in {ca!r}: everybody is refused"
        key = one.issuer.public_bytes(), _scope(one), signers[0].fingerprint(SHA256()) if signers else b""
        if key in seen:
            return f"there are two lists of {issuer!r} about the same certificates: leave the newest alone"
        seen.add(key)
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
