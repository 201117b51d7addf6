"""Backpressure: who asked a connection to stop reading, and how much may wait to be written."""

from __future__ import annotations

import asyncio
from typing import Final

# Water marks of what waits to be written to one peer. With the 256 KiB that uvloop reads at once they bound the
# memory of a stream, whatever its length.
HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024

# Why reading is paused: a bit each.
PEER_BLOCKED: Final = 1  # the other side of the exchange takes no more
HELD_FULL: Final = 2  # enough is held for later (pipelined requests)
TURN_OVER: Final = 4  # others have their turn first: libuv would read the same socket up to 32 times in a row
UNREAD: Final = 8  # what was read before is not looked at yet
# A read from this size on says that there is more. 32 times 256 KiB for one connection made others wait for 150 ms.
LARGE_READ: Final = 64 * 1024


class ReadGate:
    """Reading of one transport: it goes on while nobody objects."""

    __slots__ = ("_transport", "objections")

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport
        self.objections = 0  # reading is paused unless it is 0

    def close(self, why: int) -> None:
        """Pause reading for one more reason."""
        if not self.objections and not self._transport.is_closing():
            self._transport.pause_reading()
        self.objections |= why

    def rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read no more before the next turn of the loop."""
        if not self.objections & TURN_OVER:
            self.close(TURN_OVER)
            loop.call_soon(self.open, TURN_OVER)

    def open(self, why: int) -> None:
        """That reason is gone; resume if it was the last."""
        if self.objections & why:
            self.objections &= ~why
            if not self.objections and not self._transport.is_closing():
                self._transport.resume_reading()


# Up to this size copying is cheaper than handing several buffers to the kernel.
_JOIN_LIMIT: Final = 16 * 1024


def write_all(transport: asyncio.WriteTransport, buffers: list[bytes]) -> None:
    """Write buffers by one system call: uvloop writes at once, so each write would cost one (some 5 us)."""
    if len(buffers) == 1:
        transport.write(buffers[0])
    elif sum(map(len, buffers)) <= _JOIN_LIMIT:
        transport.write(b"".join(buffers))
    else:
        transport.writelines(buffers)
