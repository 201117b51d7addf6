"""Field blocks: HPACK's encoder (RFC 7541), in the place of that of `hpack`.

That one takes Huffman codes by shifting one number, searches its table from one end to the other for each field, and
lets the peer say how large the table grows: memory and time by the megabyte for whoever asks. Here a field costs a
look into a dictionary, the table has 4 KiB at most, and there are no Huffman codes, which save a third of what the
table does not save already. Decoding stays with the library.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

MOST: Final = 4096  # bytes of the table, by RFC 7541 4.1; what a peer allows until it says otherwise (RFC 9113 6.5.2)
_OVERHEAD: Final = 32  # RFC 7541 4.1: of an entry
# Their values are hardly seen twice, and would push out what is: as nghttp2 has it.
_PASSING: Final = frozenset(
    {
        b":path",
        b"age",
        b"content-length",
        b"content-range",
        b"etag",
        b"if-modified-since",
        b"if-none-match",
        b"location",
        b"set-cookie",
    }
)
# RFC 7541 7.1.3: what somebody might guess by the length of what is sent, no hop may put into a table.
_SECRET: Final = frozenset({b"authorization", b"proxy-authorization"})
_SHORT_COOKIE: Final = 20  # bytes, that can be guessed one by one


def _integer(value: int, bits: int, pattern: int) -> bytes:
    """RFC 7541 5.1: with a prefix of so many bits, behind this pattern."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    found = bytearray((pattern | most,))
    value -= most
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _string(octets: bytes) -> bytes:
    """RFC 7541 5.2, without Huffman codes."""
    return _integer(len(octets), 7, 0) + octets


_STATIC: Final = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
_FIRST: Final = len(_STATIC) + 1  # the index of the youngest entry of the table
_INDEXED: Final = tuple(_integer(index, 7, 0x80) for index in range(_FIRST + MOST // _OVERHEAD))
_KNOWN: Final = {field: _INDEXED[index] for index, field in enumerate(_STATIC, 1)}
_KNOWN_NAMES: Final = {name: index for index, (name, _) in reversed([*enumerate(_STATIC, 1)])}


class FieldEncoder:
    """That of one connection. Its entries are numbered as they come, from 1."""

    __slots__ = ("_count", "_entries", "_least", "_limit", "_names", "_numbers", "_size", "_told")

    def __init__(self) -> None:
        self._entries: deque[Field] = deque()
        self._numbers: dict[Field, int] = {}
        self._names: dict[bytes, int] = {}  # the youngest entry with that name
        self._count = 0
        self._size = 0
        self._limit = self._least = self._told = MOST  # now, the least since it was told, and as it was told

    @property
    def header_table_size(self) -> int:
        """Bytes that the table may have."""
        return self._limit

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        """The peer's setting, which bounds it."""
        self._limit = min(value, MOST)
        self._least = min(self._least, self._limit)
        self._evict(self._limit)

    def encode(self, fields: Iterable[Field]) -> bytes:
        """A block with these fields, names in lower case."""
        found: list[bytes] = []
        if self._least < self._told or self._limit != self._told:
            found.append(self._resized())
        for field in fields:
            if (known := _KNOWN.get(field)) is not None:
                found.append(known)
            elif (number := self._numbers.get(field)) is not None:
                found.append(_INDEXED[_FIRST + self._count - number])
            else:
                self._literal(field, found)
        return b"".join(found)

    def _literal(self, field: Field, found: list[bytes]) -> None:
        name, value = field
        size = len(name) + len(value) + _OVERHEAD
        if name in _SECRET or (name == b"cookie" and len(value) < _SHORT_COOKIE):
            bits, pattern, kept = 4, 0x10, False
        elif name in _PASSING or size > self._limit * 3 // 4:
            bits, pattern, kept = 4, 0, False
        else:
            bits, pattern, kept = 6, 0x40, True
        index = _KNOWN_NAMES.get(name, 0)
        if not index and (number := self._names.get(name, 0)):
            index = _FIRST + self._count - number
        found.append(_integer(index, bits, pattern))
        if not index:
            found.append(_string(name))
        found.append(_string(value))
        if kept:
            self._add(field, size)

    def _add(self, field: Field, size: int) -> None:
        self._evict(self._limit - size)
        self._entries.append(field)
        self._size += size
        self._count += 1
        self._numbers[field] = self._names[field[0]] = self._count

    def _evict(self, size: int) -> None:
        """The oldest, until they have no more than so many bytes."""
        while self._size > size:
            number = self._count - len(self._entries) + 1
            field = self._entries.popleft()
            self._size -= len(field[0]) + len(field[1]) + _OVERHEAD
            del self._numbers[field]
            if self._names[field[0]] == number:
                del self._names[field[0]]

    def _resized(self) -> bytes:
        """RFC 7541 4.2: the least that it was since the last block, and what it is now."""
        least, self._least, self._told = self._least, self._limit, self._limit
        now = _integer(self._limit, 5, 0x20)
        return now if least == self._limit else _integer(least, 5, 0x20) + now
