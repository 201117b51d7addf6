"""The certificate of a start without a file: `--self-signed`.

It is nobody's authority: a client that shall trust it trusts it alone (`curl --cacert`), or by its fingerprint.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
import re
import socket
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rauta.config.certificate_warnings import SOON
from rauta.config.x509 import facts_of
from rauta.routing.settings import Certificate, Secret
from rauta.runtime.credentials import Pair
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

    from rauta.routing.settings import Address
    from rauta.runtime.revision import Reloaded

DAYS: Final = 30  # long enough to try something, too short to be forgotten in production
EARLIER: Final = timedelta(hours=1)  # clocks of clients may be behind
LOOK: Final = 3600.0  # seconds between looks at one that is kept; no time until the end, since machines sleep
HELD: Final = 10.0  # seconds; making a pair takes milliseconds, and whoever may read the folder can lock it
AGAIN: Final = 0.05  # seconds between two tries
OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
ISSUER: Final = "rauta --self-signed"
CERT: Final = "self-signed.crt"
KEY: Final = "self-signed.key"

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A pair, and the file of its certificate if it is kept."""

    pair: Pair
    file: Path | None = None

    def setting(self) -> Certificate:
        """What stands for it in a configuration; where it is in no file, nothing that could be read."""
        if self.file is None:
            return Certificate(cert="self-signed", key=Secret(file="self-signed"))
        return Certificate(cert=str(self.file), key=Secret(file=str(self.file.with_name(KEY))))


def names_for(listen: Address) -> list[str]:
    """What it is for: this machine, by the names and addresses that are known without asking anybody, and the address
    that it listens on, if that is one."""
    names = ["localhost", "127.0.0.1", "::1"]
    machine = socket.gethostname().lower()
    if _HOST_NAME.fullmatch(machine):
        names.append(machine)
    if listen.ip is not None and not listen.ip.is_unspecified:
        names.append(str(listen.ip))
    return [*dict.fromkeys(names)]


def made(names: Sequence[str]) -> SelfSigned:
    """A new one, in memory: ECDSA P-256, for these names and addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC).replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
    usage = {
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "key_cert_sign": False,
        "crl_sign": False,
        "encipher_only": False,
        "decipher_only": False,
    }
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*map(_general_name, names)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SelfSigned(Pair(chain, secret, facts_of(chain)))


def kept(folder: Path, names: Sequence[str]) -> SelfSigned:
    """The one in a folder, as long as it is good for these names; else a new one, which is left there. Raises
    StartError; also where somebody else could have put there what is in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone_in(folder):
            pair = _found(folder, names)
            if pair is None:
                pair = made(names).pair
                _write(folder / CERT, pair.chain, 0o644)  # first: a key alone would be taken for another's
                _write(folder / KEY, pair.key, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise StartError(f"--self-signed: {folder} is no folder, and cannot be one: name another") from None
    except OSError as error:
        raise StartError(f"--self-signed: {error.filename or folder}: {error.strerror}") from error
    return SelfSigned(pair, folder.absolute() / CERT)


async def renew(folder: Path, names: Sequence[str], served: Pair, reload: Callable[[str], Awaitable[Reloaded]]) -> None:
    """Reload whenever the folder has another one than the pair that is served, or none that is good any more: a reload
    makes that. Until cancelled."""
    while True:
        await asyncio.sleep(LOOK)
        if await asyncio.to_thread(_usable, folder, names) == served:
            continue
        if (await reload("self-signed")).ok:
            found = await asyncio.to_thread(_usable, folder, names)
            served = served if found is None else found


def _usable(folder: Path, names: Sequence[str]) -> Pair | None:
    try:
        with _alone_in(folder):
            return _found(folder, names)
    except (OSError, StartError):
        return None  # the reload tells what is wrong


def _general_name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Another start at the same time must not leave the key of one and the certificate of the other."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_owner(folder, os.fstat(fd))
        _lock(fd, folder)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, folder: Path) -> None:
    end = time.monotonic() + HELD
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                what = f"{folder} is locked by another process, for {HELD:g} s now"
                raise StartError(f"--self-signed: {what}: end that one (see lslocks), or name another folder") from None
        time.sleep(AGAIN)


def _check_owner(path: Path, status: os.stat_result) -> None:
    """Whoever can write there knows the key that is served, and what clients are told to trust."""
    me = os.geteuid()
    if status.st_uid not in (me, 0):
        who = f"belongs to user {status.st_uid}, not to user {me}, who starts the gateway, or root"
    elif status.st_mode & OTHERS:
        who = f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    else:
        return
    raise StartError(f"--self-signed: {path} {who}: name a folder of your own, mode 0700")


def _read(file: Path) -> bytes:
    """All of a file that nobody else could have written; never waits for a writer. Raises OSError and StartError."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:  # noqa: PTH123 - an fd
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise StartError(f"--self-signed: {file} is no regular file: name another folder, or move it")
        _check_owner(file, status)
        return opened.read()


def _found(folder: Path, names: Sequence[str]) -> Pair | None:
    """What is there and can be used on. Raises OSError, and StartError if what is there is not ours to replace."""
    try:
        chain = _read(folder / CERT)
    except FileNotFoundError:
        if (folder / KEY).exists():
            raise _not_ours(folder / KEY) from None
        return None
    try:
        facts = facts_of(chain)
    except ValueError:
        raise _not_ours(folder / CERT) from None
    if facts.issuer != f"CN={ISSUER}":
        raise _not_ours(folder / CERT)
    try:
        key = _read(folder / KEY)
    except FileNotFoundError:
        return None
    now = time.time()
    good = facts.not_before <= now < facts.not_after - SOON and set(facts.names) == set(names)
    return Pair(chain, key, facts) if good and _belong_together(chain, key) else None


def _not_ours(file: Path) -> StartError:
    return StartError(f"--self-signed: {file} is not of its making: name another folder, or move the file")


def _belong_together(chain: bytes, key: bytes) -> bool:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        return False
    return private.public_key() == x509.load_pem_x509_certificate(chain).public_key()


def _write(path: Path, content: bytes, mode: int) -> None:
    """All of it or nothing; the mode holds from the first moment."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    beside.replace(path)
