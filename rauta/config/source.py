"""Reading a configuration file: bytes to text, with limits and one clear message for whatever is wrong."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rauta.config.errors import ConfigError, ConfigProblem, Problems

# 10,000 routes are 1 MiB, so this is room for 40,000; parsing takes 1 s per 2 MiB.
MAX_FILE_SIZE: Final = 4 << 20
MAX_TOTAL_SIZE: Final = 8 << 20  # of a file and all that it includes
MAX_FILES: Final = 1000  # a conf.d with one file per route; more suggest a glob over the wrong directory
# A route is about 15 nodes (keys count): room for 60,000. It bounds memory (200 bytes each) and what aliases expand to.
MAX_NODES: Final = 1_000_000

# YAML 1.2.2 5.1: what a file may hold, without the BOM. Surrogates cannot come out of UTF-8.
_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(slots=True)
class Allowance:
    """What all files of one configuration may still use together, and what was found in them."""

    size: int = MAX_TOTAL_SIZE
    nodes: int = MAX_NODES
    problems: Problems = field(default_factory=Problems)


def fail(file: str, message: str, line: int | None = None, column: int | None = None, key: str = "") -> ConfigError:
    """An error of one problem."""
    return ConfigError(ConfigProblem(file, line, column, key, message))


def read_text(path: Path, allowance: Allowance) -> str:
    """The file's text. Raises ConfigError: missing, unreadable, a directory, too large, not UTF-8."""
    file = str(path)
    try:
        data = _read(path, min(MAX_FILE_SIZE, allowance.size) + 1)
    except FileNotFoundError:
        raise fail(file, "there is no such file") from None
    except IsADirectoryError:
        raise fail(file, "this is a directory: name a file in it") from None
    except PermissionError:
        raise fail(file, f"no permission to read the file (user id {os.geteuid()})") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise fail(file, f"the file cannot be read: {reason}") from None
    if len(data) > MAX_FILE_SIZE:
        raise fail(file, f"the file is larger than {MAX_FILE_SIZE >> 20} MiB")
    allowance.size -= len(data)
    if allowance.size < 0:
        raise fail(file, f"the file and those included before it are larger than {MAX_TOTAL_SIZE >> 20} MiB together")
    return _decode(file, data)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream.read(limit)
        chunks = bytearray()  # a pipe gives what it has; read on to its end
        while len(chunks) < limit and (chunk := stream.read(limit - len(chunks))):
            chunks += chunk
        return bytes(chunks)


def _decode(file: str, data: bytes) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise fail(file, "the file starts with a byte order mark: save it as UTF-8 without BOM", 1, 1)
    if data.startswith(_UTF16):
        raise fail(file, "the file is UTF-16: save it as UTF-8", 1, 1)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _place(data[: error.start].decode())
        raise fail(file, f"byte {data[error.start]:#04x} is not UTF-8: save the file as UTF-8", line, column) from None
    if (bad := _UNPRINTABLE.search(text)) is not None:
        line, column = _place(text[: bad.start()])
        raise fail(file, f"the character U+{ord(bad[0]):04X} is not allowed in YAML", line, column)
    return text


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")
