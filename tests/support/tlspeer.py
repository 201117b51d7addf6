"""A client's TLS whose bytes are in the test's hands: what goes before it, and in which pieces it is sent."""

from __future__ import annotations

import asyncio
import ssl

from support.http import WAIT, Client


class TlsPeer:
    """TLS over a raw connection to the gateway."""

    def __init__(self, raw: Client, context: ssl.SSLContext, name: str | None) -> None:
        self.raw = raw
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name)

    async def shake(self, before: bytes = b"", piece: int = 1 << 20) -> None:
        """The handshake; `before` goes first, and all that is sent until the server answers, in pieces of this size."""
        pending = before
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                pending += self._out.read()
                await self._send(pending, piece)
                pending = b""
                await self._receive()
            else:
                await self._send(self._out.read(), 1 << 20)
                return

    async def talk(self, data: bytes, until: bytes) -> bytes:
        """Send, and read until the end of that."""
        self.tls.write(data)
        await self._send(self._out.read(), 1 << 20)
        found = b""
        while until not in found:
            try:
                found += self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                await self._receive()
        return found

    async def _send(self, data: bytes, piece: int) -> None:
        for at in range(0, len(data), piece):
            self.raw.send(data[at : at + piece])
            await asyncio.sleep(0.0002 if piece < len(data) else 0)  # a segment of its own

    async def _receive(self) -> None:
        async with asyncio.timeout(WAIT):
            data = await self.raw.reader.read(1 << 16)
        if not data:
            raise ConnectionResetError("the gateway has closed")
        self._in.write(data)


def hello_of(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")
