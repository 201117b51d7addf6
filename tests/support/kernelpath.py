"""A gateway with the kernel offload in a network of namespaces, and what its maps hold."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rauta.offload.bcc import counting, events, syscalls
from rauta.offload.bcc.places import folder_of
from support.network import Network
from support.process import ROOT, Gateway


@dataclass(frozen=True)
class Field:
    """Where a member of a structure is."""

    offset: int
    size: int

    def of(self, value: bytes) -> int:
        """The number there."""
        return int.from_bytes(value[self.offset : self.offset + self.size], sys.byteorder)


def members(name: str) -> dict[str, Field]:
    """Where the members of a structure of `bpf/maps.h` are, as a compiler lays them out."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "bpf" / "maps.h").read_text(), flags=re.DOTALL)
    defines = dict(re.findall(r"#define (\w+) (\d+)\b", text))
    found: dict[str, Field] = {}

    def lay(structure: str) -> tuple[int, int]:
        found.clear()
        body = re.search(rf"struct {structure} {{(.*?)\n}};", text, re.DOTALL)
        assert body is not None, structure
        at, widest, mine = 0, 1, {}
        for declaration in body[1].split(";")[:-1]:
            words = re.match(r"\s*((?:struct )?\w+)\s+(.*)", declaration, re.DOTALL)
            assert words is not None, declaration
            kind = words[1].removeprefix("struct ")
            size, align = (int(kind[1:]) // 8,) * 2 if re.fullmatch(r"[us]\d+", kind) else lay(kind)
            widest = max(widest, align)
            for declared in words[2].split(","):
                word, _, dimension = declared.strip().rstrip("]").partition("[")
                many = int(defines.get(dimension, dimension)) if dimension else 1
                at = -(-at // align) * align
                mine[word] = Field(at, size * many)
                at += size * many
        found.clear()
        found.update(mine)
        return -(-at // widest) * widest, widest

    lay(name)
    return found


def states() -> dict[int, str]:
    """The names of a flow's states."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "bpf" / "maps.h").read_text(), flags=re.DOTALL)
    body = re.search(r"enum state {(.*?)}", text, re.DOTALL)
    assert body is not None
    names = [word.split("=")[0].strip() for word in body[1].split(",") if word.strip()]
    return dict(enumerate(names, 1))


OVER = frozenset({"CLOSING", "TOMBSTONE", "CLOSED"})  # states of flows that may stay for a while


@dataclass(frozen=True)
class Flow:
    """An entry of the map of flows."""

    key: bytes
    state: str
    value: bytes

    @property
    def port(self) -> int:
        """The client's."""
        return int.from_bytes(self.key[8:10], "big")

    @property
    def nat(self) -> bytes:
        """Its key in the map of NAT entries."""
        return self.value[:12]

    def __repr__(self) -> str:
        return f"<{self.state} of port {self.port}>"


class Seen(Counter[str]):
    """How many times the kernel has counted what, since some moment."""


class KernelPath:
    """A gateway whose programs are attached, in its network."""

    def __init__(self, net: Network, gateway: Gateway, log: Path) -> None:
        self.net = net
        self.gateway = gateway
        self.folder = folder_of(net.gateway.path.stat().st_ino)
        self._log = log
        self._state = members("flow")["state"]
        self._states = states()

    def counters(self) -> Seen:
        """All that has been counted."""
        return Seen(counting.read_events(self.folder, events.EVENTS))

    @contextmanager
    def counting(self) -> Iterator[Seen]:
        """What is counted meanwhile; there when the block is left."""
        before, seen = self.counters(), Seen()
        yield seen
        after = self.counters()
        seen.update({name: number - before[name] for name, number in after.items() if number != before[name]})

    def logged(self) -> list[str]:
        """What tier 3 has served: lines of its access log."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    @contextmanager
    def map(self, name: str) -> Iterator[syscalls.Map]:
        """One of the maps."""
        found = syscalls.Map(syscalls.pinned(self.folder / name))
        try:
            yield found
        finally:
            found.close()

    def flows(self) -> list[Flow]:
        """The flows as they are now."""
        with self.map("flows") as found:
            entries = list(found.items())
        return [Flow(key, self._states[self._state.of(value)], value) for key, value in entries]

    def flow_of(self, sock: socket.socket) -> Flow:
        """The flow of a client's connection."""
        port = sock.getsockname()[1]
        (found,) = [flow for flow in self.flows() if flow.port == port]
        return found

    def left(self) -> list[str]:
        """What is in the maps and should not be, once all is quiet: flows that are not over, NAT entries of no flow,
        parked connections of flows which are gone."""
        flows = self.flows()
        with self.map("nats") as found:
            nats = {key: value[:12] for key, value in found.items()}
        with self.map("parked") as found:
            parked = {value[:12]: key for key, value in found.items()}
        ours = {flow.nat for flow in flows} | parked.keys()
        clients = {flow.key for flow in flows}
        return [
            *(repr(flow) for flow in flows if flow.state not in OVER),
            *(f"<NAT port {int.from_bytes(key[10:12], 'big')} of no flow>" for key in nats if key not in ours),
            *(f"<parked by {key.hex()}>" for key in parked.values() if key[:12] not in clients),
        ]

    def settle(self, seconds: float = 5.0) -> list[str]:
        """Wait until nothing is `left`; else what is left after all."""
        wait_until(lambda: not self.left(), seconds)
        return self.left()

    def forget(self) -> None:
        """Empty the maps, so that one test's failure is not the next one's."""
        for name in ("flows", "nats", "parked"):
            with self.map(name) as found:
                for key, _ in list(found.items()):
                    found.delete(key)


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait for what nobody tells, asking often at first; whether it came true in time."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return True


@contextmanager
def kernel_path(net: Network, home: Path, configuration: str, hook: str = "auto") -> Iterator[KernelPath]:
    """A gateway in a network; `configuration` lacks what every test has. When it ends, nothing of it is left."""
    log, file = home / "access.log", home / "rauta.yaml"
    file.write_text(
        f"version: 1\nworkers: 1\noffload: {{mode: require, hook: {hook}}}\n"
        f"admin: {{socket: {home}/admin}}\naccess_log: {{to: {log}, format: json}}\n{configuration}"
    )
    command = net.gateway.command(sys.executable, "-m", "rauta.proxy")
    gateway = Gateway("--config", str(file), command=command)
    folder = folder_of(net.gateway.path.stat().st_ino)
    try:
        gateway.wait_for("ready")
        yield KernelPath(net, gateway, log)
        status = gateway.stop()
        assert status == 0, "".join(gateway.lines)
        assert not folder.exists(), f"left behind: {list(folder.iterdir())}"
    finally:
        gateway.destroy()
        syscalls.remove(folder)
