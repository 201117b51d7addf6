"""Certificates for tests, made by openssl, or by cryptography where dates matter."""

from __future__ import annotations

import ssl
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for localhost and its key, as files."""

    cert: Path
    key: Path


def client_context(pair: Pair | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client's, of that version alone. It trusts whoever answers: who asks tests something else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def make_pair(folder: Path, name: str = "tls", *, names: str = "DNS:localhost,IP:127.0.0.1", rsa: bool = False) -> Pair:
    """A new pair (P-256 or RSA, 30 days) for names as in a subject alternative name."""
    key = ("rsa:2048",) if rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", *key, "-nodes"),
            *("-days", "30", "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}"),
            *("-keyout", str(pair.key), "-out", str(pair.cert)),
        ],
        check=True,
        capture_output=True,
    )
    return pair


def encrypt(key: Path, target: Path) -> None:
    """The key with a pass phrase."""
    command = ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(target)]
    subprocess.run(command, check=True, capture_output=True)


def make_dated(folder: Path, name: str, names: tuple[str, ...], begins: float, ends: float) -> Pair:
    """A pair (P-256) for these names, valid from `begins` to `ends`, in seconds since 1970."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(begins, UTC))
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    pair.key.chmod(0o600)
    return pair


DAY = 86_400.0


class Authority:
    """One that signs certificates: `cert` is its own, a root's or by `parent`. Validity is in days from now."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        parent: Authority | None = None,
        begins: float = -1,
        ends: float = 30,
        usage: x509.KeyUsage | None = None,
    ) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._key, begins, ends).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        if usage is not None:
            builder = builder.add_extension(usage, critical=True)
        self.cert = folder / f"{name}.crt"
        self.cert.write_bytes(_pem((parent or self)._sign(builder)))

    def issue(
        self, name: str, *, begins: float = -1, ends: float = 30, server: bool = False, listed_at: str | None = None
    ) -> Pair:
        """A pair for a client, or for a server of that name alone; `listed_at` is its distribution point."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, key, begins, ends).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        if listed_at is not None:
            place = x509.DistributionPoint([x509.UniformResourceIdentifier(listed_at)], None, None, None)
            builder = builder.add_extension(x509.CRLDistributionPoints([place]), critical=False)
        pair = Pair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        pair.cert.write_bytes(_pem(self._sign(builder)))
        plain = serialization.NoEncryption()
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return pair

    def revoke(
        self,
        *pairs: Pair,
        file: str | None = None,
        begins: float = -1,
        ends: float = 7,
        delta: bool = False,
        others_key: Authority | None = None,
        others: int = 0,
        about: x509.IssuingDistributionPoint | None = None,
    ) -> Path:
        """A new list of these certificates and of `others` that nobody has, as a file; also such as must not be
        taken."""
        now = time.time()
        serials = [x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number for pair in pairs]
        at = datetime.fromtimestamp(now, UTC)
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self._name,
            last_update=datetime.fromtimestamp(now + begins * DAY, UTC),
            next_update=datetime.fromtimestamp(now + ends * DAY, UTC),
            revoked_certificates=[  # each by itself would copy all before it
                x509.RevokedCertificateBuilder(serial, at).build()
                for serial in (*serials, *range(1 << 120, (1 << 120) + others))
            ],
        )
        if about is not None:
            builder = builder.add_extension(about, critical=True)
        if delta:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        signed = builder.sign((others_key or self)._key, hashes.SHA256())
        path = self._folder / (file or f"{self.cert.stem}.crl")
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.issuer_name(self._name).sign(self._key, hashes.SHA256())


def part(
    *urls: str,
    cas: bool = False,
    others: bool = False,
    reasons: bool = False,
    indirect: bool = False,
    attributes: bool = False,
) -> x509.IssuingDistributionPoint:
    """What a list is about (RFC 5280 5.2.5): distribution points, CAs, or all but these; what OpenSSL passes over."""
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(url) for url in urls] or None,
        relative_name=None,
        only_contains_user_certs=others,
        only_contains_ca_certs=cas,
        only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}) if reasons else None,
        indirect_crl=indirect,
        only_contains_attribute_certs=attributes,
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, begins: float, ends: float
) -> x509.CertificateBuilder:
    now = time.time()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now + begins * DAY, UTC))
        .not_valid_after(datetime.fromtimestamp(now + ends * DAY, UTC))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
