"""A wire that loses, doubles, delays or breaks exactly the packet that a test names. (There is no netem everywhere.)

The links that `network(wired=...)` has cut end in a namespace of their own, where one process carries frames from one
end to the other. Each connection of a client has a script of its own, by its port, so that many run at the same time:
`Fault(link=1, toward="gateway", packet=3, kind="drop")` is about the fourth packet of the connection that comes from
the client. On links to backends a connection is recognised by its SYN, which has the client's own number.

    python mangler.py 1 2        carries frames of links 1 and 2; commands are lines of JSON on standard input
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.network import Host

CLIENTS = 1  # the number of the link to the client
ENOUGH = 0.25  # seconds that a delayed packet waits for another one to overtake it

_RCVBUFFORCE = 33  # SO_RCVBUFFORCE of socket(7)
_SOL_PACKET = 263
_IGNORE_OUTGOING = 23  # PACKET_IGNORE_OUTGOING of packet(7)
_L4 = 34  # Ethernet and IPv4 without options
FLAGS = "FSRPAUEC"
RANDOM = ("drop", "double", "delay")


@dataclass(frozen=True)
class Fault:
    """What happens to one packet. `packet` counts from 0, in one direction on one link."""

    link: int
    toward: str  # "gateway" or "host"
    packet: int
    kind: str  # drop, drop two (this and the next), double, delay, corrupt; again: a copy when the script ends
    # random: `packet` is the seed, `at` how many of 1000 packets are dropped, doubled or delayed, on all links
    at: int = 0  # corrupt: the byte, from the TCP header on; negative: from the end
    mask: int = 1  # and the bits in it that change

    def hits(self, number: int) -> bool:
        """Whether it is about this packet."""
        if self.kind == "random":
            return False
        return number == self.packet or (self.kind == "drop two" and number == self.packet + 1)


@dataclass
class Script:
    """What is known of a client's connection."""

    fault: Fault | None
    counts: dict[tuple[int, str], int] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    done: bool = False
    kept: tuple[_End, bytes] | None = None


# --- the process in the wire's namespace --------------------------------------------------------------------


class _End:
    """One end of a cut link."""

    def __init__(self, link: int, name: str, toward: str) -> None:
        self.link = link
        self.toward = toward  # where frames go that are sent here
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 64 << 20)
        self.sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self.sock.bind((name, 3))  # ETH_P_ALL
        self.sock.setblocking(False)
        self.other = self


class _Relay:
    def __init__(self, links: Sequence[int]) -> None:
        self.scripts: dict[int, Script] = {}
        self.isns: dict[int, int] = {}  # a client's first number -> its port
        self.nat: dict[tuple[int, int], int] = {}  # link and port of the gateway's -> a client's port
        self.held: dict[tuple[int, int, str], tuple[float, _End, bytes]] = {}
        self.selector = selectors.DefaultSelector()
        for link in links:
            host, gateway = _End(link, f"w{link}o", "host"), _End(link, f"w{link}g", "gateway")
            host.other, gateway.other = gateway, host
            for end in (host, gateway):
                self.selector.register(end.sock, selectors.EVENT_READ, end)
        self.selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ, None)  # type: ignore[attr-defined]
        self._input = b""

    def run(self) -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for key, _ in self.selector.select(0.02 if self.held else None):
                if key.data is None:
                    if not self.read_commands():
                        return
                else:
                    self.carry(key.data)
            now = time.monotonic()
            for place in [place for place, held in self.held.items() if held[0] < now]:
                self.release(place)

    def read_commands(self) -> bool:
        data = os.read(0, 1 << 16)
        self._input += data
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            port, fault, answers = json.loads(line), None, {}
            if isinstance(port, dict):
                port, fault = port["port"], port["fault"]
                self.scripts[port] = Script(Fault(**fault) if fault else None)
            else:
                script = self.scripts.pop(port)
                if script.kept is not None:
                    self.send(*script.kept)
                counts = [[*place, count] for place, count in script.counts.items()]
                answers = {"counts": counts, "trace": script.trace, "done": script.done}
            sys.stdout.write(json.dumps({"port": port, **answers}) + "\n")
            sys.stdout.flush()
        return bool(data)

    def carry(self, end: _End) -> None:
        for _ in range(64):  # and then it is the others' turn
            try:
                frame = end.sock.recv(1 << 16)
            except BlockingIOError:
                return
            out = end.other
            port = self.port_of(frame, out)
            script = self.scripts.get(port) if port else None
            if script is None:
                self.send(out, frame)
            else:
                self.play(port, script, out, frame)

    def send(self, out: _End, frame: bytes) -> None:
        with contextlib.suppress(OSError):  # the link is gone: the test ends
            out.sock.send(frame)

    def port_of(self, frame: bytes, out: _End) -> int:
        """The client's port of the connection that a frame is about; 0: of none."""
        if len(frame) < _L4 + 20 or frame[12:15] != b"\x08\x00\x45" or frame[23] != 6:
            return 0
        source, target, seq = struct.unpack_from("!HHI", frame, _L4)
        flags = frame[_L4 + 13]
        toward_gateway = out.toward == "gateway"
        if out.link == CLIENTS:
            port = source if toward_gateway else target
            if toward_gateway and flags & 0x12 == 2:
                self.isns[seq] = port
            return int(port)
        place = (out.link, target if toward_gateway else source)
        if not toward_gateway and flags & 0x12 == 2:
            found = self.isns.get(seq)
            if found is None:
                self.nat.pop(place, None)
            else:
                self.nat[place] = found
        return self.nat.get(place, 0)

    def play(self, port: int, script: Script, out: _End, frame: bytes) -> None:
        place = (out.link, out.toward)
        number = script.counts.get(place, 0)
        script.counts[place] = number + 1
        fault = script.fault
        hit = fault is not None and not script.done and (fault.link, fault.toward) == place and fault.hits(number)
        if len(script.trace) < 400:
            script.trace.append(_told(out, number, frame) + (f"  <-- {fault.kind}" if hit and fault else ""))
        if fault is not None and fault.kind == "random":
            drawn = random.Random(f"{fault.packet} {place} {number}")
            if drawn.randrange(1000) < fault.at:
                script.done = True
                script.trace[-1:] = [f"{script.trace[-1]}  <-- {(kind := drawn.choice(RANDOM))}"]
                self.release((port, *place))
                if kind == "double":
                    self.send(out, frame)
                    self.send(out, frame)
                elif kind == "delay":
                    self.held[port, *place] = (time.monotonic() + ENOUGH, out, frame)
                return
        if not hit or fault is None:
            self.send(out, frame)
            self.release((port, *place))
            return
        script.done = fault.kind != "drop two" or number > fault.packet
        if fault.kind == "double":
            self.send(out, frame)
            self.send(out, frame)
        elif fault.kind == "again":
            self.send(out, frame)
            script.kept = (out, frame)
        elif fault.kind == "delay":
            self.held[port, *place] = (time.monotonic() + ENOUGH, out, frame)
        elif fault.kind == "corrupt":
            size = 14 + int.from_bytes(frame[16:18], "big")
            at = _L4 + fault.at if fault.at >= 0 else size + fault.at
            broken = bytearray(frame)
            if at < size:
                broken[at] ^= fault.mask
            else:
                script.done = False  # there is no such byte
            self.send(out, bytes(broken))

    def release(self, place: tuple[int, int, str]) -> None:
        held = self.held.pop(place, None)
        if held is not None:
            self.send(held[1], held[2])


def _told(out: _End, number: int, frame: bytes) -> str:
    seq, ack, offset, flags = struct.unpack_from("!IIBB", frame, _L4 + 4)
    payload = int.from_bytes(frame[16:18], "big") - 20 - (offset >> 4) * 4
    letters = "".join(letter for bit, letter in enumerate(FLAGS) if flags >> bit & 1)
    return (
        f"{time.monotonic() % 1000:.4f} link {out.link} to {out.toward} #{number} [{letters}] {seq}+{payload} ack {ack}"
    )


# --- the test's side ----------------------------------------------------------------------------------------


class Mangler:
    """The process that carries frames."""

    def __init__(self, wire: Host, links: Sequence[int]) -> None:
        command = wire.command(sys.executable, "-B", __file__, *map(str, links))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        assert self._from.readline() == b"ready\n"

    def _ask(self, command: Any) -> Any:
        with self._lock:
            self._to.write(json.dumps(command).encode() + b"\n")
            self._to.flush()
            return json.loads(self._from.readline())

    @contextlib.contextmanager
    def script(self, port: int, fault: Fault | None) -> Iterator[Script]:
        """What happens to a client's connection meanwhile; filled with what has happened when the block is left."""
        self._ask({"port": port, "fault": None if fault is None else asdict(fault)})
        found = Script(fault)
        try:
            yield found
        finally:
            told = self._ask(port)
            found.counts = {(link, toward): count for link, toward, count in told["counts"]}
            found.trace, found.done = told["trace"], told["done"]

    def close(self) -> None:
        """No more frames are carried."""
        self._to.close()
        self._process.wait(10)
        self._from.close()


@contextlib.contextmanager
def mangler(wire: Host, links: Sequence[int]) -> Iterator[Mangler]:
    """The links that were cut, joined again."""
    found = Mangler(wire, links)
    try:
        yield found
    finally:
        found.close()


if __name__ == "__main__":
    _Relay([int(word) for word in sys.argv[1:]]).run()
