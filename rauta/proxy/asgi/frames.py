"""Messages of WebSocket (RFC 6455) as bytes of a tunnel, by the package `websockets`. No extensions are spoken."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Final, NamedTuple

from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

# A message is whole before an application sees it. As uvicorn and hypercorn have it.
MESSAGE_LIMIT: Final = 16 * 1024 * 1024
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
NO_CODE: Final = 1005  # of a close frame without one; never in a frame
ABNORMAL: Final = 1006  # the connection was lost; never in a frame
INVALID_DATA: Final = 1007
INTERNAL_ERROR: Final = 1011
BAD_GATEWAY: Final = 1014

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3


class Closed(NamedTuple):
    """The peer has closed, or was told to: nothing follows."""

    code: int
    reason: str


def accept_of(key: bytes) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key: RFC 6455 4.2.2."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest()).decode()


class Frames:
    """One side of a WebSocket whose handshake is over."""

    __slots__ = ("_pieces", "_protocol", "_text")

    def __init__(self, *, client: bool) -> None:
        self._protocol = Protocol(Side.CLIENT if client else Side.SERVER, max_size=MESSAGE_LIMIT)
        self._pieces: list[bytes] = []  # of a message that has not ended
        self._text = False

    @property
    def open(self) -> bool:
        """Whether nobody has closed it yet."""
        return self._protocol.state is OPEN

    def receive(self, data: bytes) -> list[str | bytes | Closed]:
        """What the bytes bring: messages, perhaps the end. Then `to_send` may have answers."""
        protocol = self._protocol
        protocol.receive_data(data)
        found: list[str | bytes | Closed] = []
        for frame in protocol.events_received():
            if not isinstance(frame, Frame) or frame.opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE):
                continue
            if frame.opcode is not Opcode.CONT:
                self._text = frame.opcode is Opcode.TEXT
            self._pieces.append(bytes(frame.data))
            if frame.fin:
                whole, self._pieces = b"".join(self._pieces), []
                try:
                    found.append(whole.decode() if self._text else whole)
                except UnicodeDecodeError:
                    protocol.fail(INVALID_DATA, "no UTF-8")
                    break
        if not self.open:
            end = protocol.close_rcvd or protocol.close_sent
            found.append(Closed(ABNORMAL, "") if end is None else Closed(end.code, end.reason))
        return found

    def message(self, value: str | bytes) -> bytes:
        """A message, as it is sent; nothing if it is closed already."""
        if self.open:
            if isinstance(value, str):
                self._protocol.send_text(value.encode())
            else:
                self._protocol.send_binary(value)
        return self.to_send()

    def close(self, code: int, reason: str = "") -> bytes:
        """The end, as it is sent; nothing if it is closed already. Codes that nobody may send become none."""
        if self.open:
            try:
                self._protocol.send_close(code, reason)
            except (WebSocketException, ValueError):
                self._protocol.send_close()
        return self.to_send()

    def to_send(self) -> bytes:
        """What must be sent now."""
        return b"".join(self._protocol.data_to_send())
