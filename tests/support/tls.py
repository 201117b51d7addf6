"""Certificates for tests, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for localhost and its key, as files."""

    cert: Path
    key: Path


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
