"""What a certificate says: the names that it covers, its key's kind, how long it is valid. By `cryptography`, which
only the supervisor loads, and only where TLS is served."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Facts:
    """Of a chain's first certificate. `names` are those of the subject alternative name (DNS names in lower case, IP
    addresses), else the common name; times are seconds since 1970; `bits` is the size of the key; `issuer` a name as
    in RFC 4514; `fingerprint` the SHA-256 of the DER form, as `openssl x509 -fingerprint -sha256` writes it."""

    names: tuple[str, ...]
    key: str
    not_before: float
    not_after: float
    bits: int
    issuer: str
    fingerprint: str


def facts_of(chain: bytes) -> Facts:
    """Of PEM. Raises ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
    from cryptography.x509.oid import NameOID

    edwards = {"Ed25519": 256, "Ed448": 456}  # bits, RFC 8032 5.1 and 5.2: these have one size each
    kinds = ((rsa.RSAPublicKey, "RSA"), (ec.EllipticCurvePublicKey, "ECDSA"), (ed25519.Ed25519PublicKey, "Ed25519"))
    others = ((ed448.Ed448PublicKey, "Ed448"), (dsa.DSAPublicKey, "DSA"))
    certificate = x509.load_pem_x509_certificate(chain)
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in alternative.get_values_for_type(x509.DNSName)]
        names += [str(address) for address in alternative.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(attribute.value).lower() for attribute in common]
    public = certificate.public_key()
    key = next((name for kind, name in (*kinds, *others) if isinstance(public, kind)), "unknown")
    return Facts(
        tuple(dict.fromkeys(names)),
        key,
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        edwards[key] if key in edwards else int(getattr(public, "key_size", 0)),
        certificate.issuer.rfc4514_string(),
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs certificates: its subject (RFC 4514), and its certificate's validity, seconds since 1970."""

    subject: str
    not_before: float
    not_after: float


def authorities_of(bundle: bytes) -> tuple[Authority, ...]:
    """All in a PEM file. Raises ValueError."""
    from cryptography import x509

    return tuple(
        Authority(
            found.subject.rfc4514_string(),
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
        )
        for found in x509.load_pem_x509_certificates(bundle)
    )
