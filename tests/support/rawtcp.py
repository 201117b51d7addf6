"""A TCP client by hand: each segment as a test wants it."""

from __future__ import annotations

import re
import socket
import struct
from itertools import count

from support import packets
from support.network import GATEWAY, Network

ADDRESS = "10.203.1.77"  # nobody's: no stack answers for it
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_ports = count(20_000)


class Raw:
    """One end of a connection, whose first number is `first`."""

    def __init__(self, net: Network, first: int = 1_000_000) -> None:
        with net.client.inside():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._wire.bind(("v1o", 0x0800))
        self._wire.settimeout(5)
        found = re.search(r"link/ether (\S+)", net.gateway.run("ip", "link", "show", "v1g"))
        assert found is not None
        self._gateway = bytes.fromhex(found[1].replace(":", ""))
        self.port = next(_ports)
        self.seq, self.ack = first, 0
        self.received = b""

    def segment(self, data: bytes = b"", *, at: int | None = None, flags: int = ACK | PSH, urgent: int = 0) -> None:
        """Send one."""
        seq = (self.seq if at is None else at) % (1 << 32)
        frame = packets.tcp(
            data, (GATEWAY, 8080), (ADDRESS, self.port), seq=seq, ack=self.ack, flags=flags, urgent=urgent
        )
        self._wire.send(self._gateway + frame[6:])

    def data(self, data: bytes) -> None:
        """Send what comes next."""
        self.segment(data)
        self.seq += len(data)

    def _next(self) -> tuple[int, int, bytes]:
        while True:
            frame = self._wire.recv(65536)
            if frame[23] != 6 or frame[26:34] != socket.inet_aton(GATEWAY) + socket.inet_aton(ADDRESS):
                continue
            source, target, seq, _, offset, flags = struct.unpack_from("!HHIIBB", frame, 34)
            if (source, target) == (8080, self.port):
                size = int.from_bytes(frame[16:18], "big")
                return seq, flags, frame[34 + (offset >> 4) * 4 : 14 + size]

    def connect(self) -> None:
        """Shake hands."""
        self.segment(flags=SYN)
        seq, flags, _ = self._next()
        assert flags == SYN | ACK
        self.seq, self.ack = self.seq + 1, (seq + 1) % (1 << 32)
        self.segment(flags=ACK)

    def read(self, least: int) -> bytes:
        """Take in, and acknowledge, until there are so many bytes in all."""
        while len(self.received) < least:
            seq, flags, payload = self._next()
            assert not flags & RST, "reset"
            if seq == self.ack and payload:
                self.received += payload
                self.ack = (self.ack + len(payload)) % (1 << 32)
                self.segment(flags=ACK)
        return self.received

    def quiet(self, seconds: float = 0.3) -> None:
        """Whatever comes meanwhile."""
        self._wire.settimeout(seconds)
        try:
            while True:
                self._next()
        except TimeoutError:
            self._wire.settimeout(5)

    def close(self) -> None:
        """Leave nothing behind."""
        self.segment(flags=RST)
        self.vanish()

    def vanish(self) -> None:
        """Say nothing more."""
        self._wire.close()
