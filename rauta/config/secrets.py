"""Secrets that a configuration names, in files and environment variables: whether they can be read and used."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rauta.config.errors import ConfigProblem
from rauta.config.origins import Origins
from rauta.routing.model import Configuration
from rauta.routing.settings import Secret

MAX_SIZE: Final = 1 << 20  # a chain of ten certificates is 20 KiB
MIN_TOKEN: Final = 16  # characters: 96 bits as base64, which nobody guesses over a network
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 2.1, what can stand behind "Bearer"


class SecretError(Exception):
    """What is wrong, and with which key of the object that names the secret."""

    def __init__(self, where: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.where = where
        self.message = message


def read(secret: Secret, what: str, where: tuple[str, ...] = ()) -> tuple[bytes, tuple[str, ...], str]:
    """The secret, the key that says where it is (below `where`), and its name for messages. `what` it must be is told
    where there is none. Raises SecretError."""
    if secret.file is not None:
        return read_file(secret.file, (*where, "file")), (*where, "file"), repr(secret.file)
    name = secret.env or ""
    value = os.environ.get(name) if name else None
    if not value:
        state = "not set" if value is None else "empty"
        raise SecretError((*where, "env"), f"the environment variable {name!r} is {state}: it must hold {what}")
    return value.encode(errors="surrogateescape"), (*where, "env"), f"the environment variable {name!r}"


def read_file(name: str, where: tuple[str, ...], most: int = MAX_SIZE) -> bytes:
    """The content of a file of at most that many bytes. Raises SecretError."""
    path = Path(name)
    try:
        if path.is_dir():
            raise SecretError(where, f"{name!r} is a directory")
        if path.exists() and not path.is_file():
            raise SecretError(where, f"{name!r} is not a regular file")  # a pipe would be empty when it is read again
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except FileNotFoundError:
        raise SecretError(where, f"there is no file {name!r}") from None
    except PermissionError:
        raise SecretError(where, f"no permission to read {name!r} (user id {os.geteuid()})") from None
    except OSError as error:
        raise SecretError(where, f"{name!r} cannot be read: {error.strerror}") from None
    if len(data) > most:
        what = "certificate, key or token" if most == MAX_SIZE else "revocation list for a gateway"
        raise SecretError(where, f"{name!r} is larger than {most >> 20} MiB: this is no {what}")
    return data


def is_exposed(name: str) -> bool:
    """Whether every user of this machine can read a file."""
    try:
        return bool(Path(name).stat().st_mode & stat.S_IROTH)
    except OSError:
        return False  # it was there a moment ago, when it was read; whoever loads it next reports that it is gone


def token_of(secret: Secret) -> str:
    """A token for `Authorization: Bearer` (RFC 6750 2.1), without the line break that editors add. Raises SecretError;
    its message never shows the token."""
    data, where, name = read(secret, "the token")
    text = data.decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        raise SecretError(where, f"{name} holds no token: letters, digits and -._~+/ only, for example of "
                                 "`openssl rand -base64 24`")  # fmt: skip
    if len(text) < MIN_TOKEN:
        raise SecretError(where, f"the token in {name} has {len(text)} characters: {MIN_TOKEN} are the least")
    return text


def check(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """The problem of the admin interface's token, if it has one."""
    admin = configuration.admin
    if admin is None or admin.token is None:
        return
    try:
        token_of(admin.token)
    except SecretError as bad:
        yield origins.main.problem(bad.message, ("admin", "token", *bad.where))


def exposed(configuration: Configuration, origins: Origins) -> Iterator[ConfigProblem]:
    """Warnings: a token that every user of this machine can read."""
    token = configuration.admin.token if configuration.admin is not None else None
    if token is not None and token.file is not None and is_exposed(token.file):
        yield origins.main.problem(
            f"every user of this machine can read the token in {token.file!r}: chmod o-r", ("admin", "token", "file")
        )
