"""Four hosts on one machine, as network namespaces joined by veth pairs, with nginx and rauta on them. Needs root.

client 10.203.1.2 --- 10.203.1.1 rauta 10.203.2.1 --- 10.203.2.2 blue
                                       10.203.3.1 --- 10.203.3.2 green
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from peers import BACKEND, CHECKOUT, DemoError, await_ready, running
from rauta.offload.bcc import syscalls
from rauta.offload.bcc.places import ROOT, folder_of, names_of

EXAMPLE = CHECKOUT / "examples" / "kernel.yaml"
URL = "http://10.203.1.1:8080"
BACKENDS = {"10.203.2.2": "blue", "10.203.3.2": "green"}

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NoLabError(DemoError):
    """This machine does not let us have network namespaces; the text says why."""


# --- hosts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """The namespace's file."""
        return Path("/run/netns", self.name)

    def command(self, *words: str | Path) -> list[str | Path]:
        """A command that runs there. Not by `ip netns exec`, which would give it mounts of its own: what is pinned in a
        BPF file system would vanish with the process."""
        return ["nsenter", f"--net={self.path}", "--", *words]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are there, and stay there."""
        with Path("/proc/thread-self/ns/net").open() as home, self.path.open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoLabError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")


def _remove(host: Host) -> None:
    subprocess.run(["ip", "netns", "del", host.name], capture_output=True, check=False)


def _join(gateway: Host, other: Host, number: int, near: str) -> None:
    """A cable between the gateway and another host, which has its default route through it."""
    here, there = f"10.203.{number}.1", f"10.203.{number}.2"
    far = ["peer", "name", "eth0", "netns", other.name]
    _run("ip", "link", "add", near, "netns", gateway.name, "type", "veth", *far)
    for host, device, address in ((gateway, near, here), (other, "eth0", there)):
        _run(*host.command("ip", "addr", "add", f"{address}/24", "dev", device))
        _run(*host.command("ip", "link", "set", device, "up"))
    _run(*other.command("ip", "route", "add", "default", "via", here))


# --- programs -------------------------------------------------------------------------------------------


class Gateway:
    """The processes of rauta on their host: `log` is their access log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.log = log
        self._process = process
        self._pids = _family(process.pid)

    @property
    def processes(self) -> int:
        """How many there are."""
        return len(self._pids)

    def cpu(self) -> float:
        """Seconds of CPU time that they have used, all together."""
        ticks = 0
        for pid in self._pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """kill -9, the supervisor first, so that it replaces nobody."""
        _kill(self._process, self._pids)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, path.read_text().split())  # of these, in turn
    return found


def _kill(process: subprocess.Popen[bytes], pids: list[int]) -> None:
    # All or nobody: Ctrl-C in between would leave children whose parent is gone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.wait()
    while any(_is_alive(pid) for pid in pids):
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Lab:
    """The hosts, and what runs on them; `folder` holds what the programs write."""

    def __init__(self, folder: Path, nginx: str, stack: ExitStack) -> None:
        self._stack = stack
        self.client, self.gateway, self.blue, self.green = (
            Host(f"rauta-{os.getpid()}-{name}") for name in ("client", "gateway", "blue", "green")
        )
        self.hosts = (self.client, self.gateway, self.blue, self.green)
        self.folder = folder
        self.config = folder / "kernel.yaml"
        self.admin = folder / "admin.sock"
        self._nginx = nginx
        self._starts = 0
        self._backends: dict[Host, subprocess.Popen[bytes]] = {}

    @property
    def pins(self) -> Path:
        """Where rauta pins what it has loaded for its host's interfaces."""
        return folder_of(self.gateway.path.stat().st_ino)

    @property
    def names(self) -> Path:
        """Where it keeps the names of what the kernel counts by numbers."""
        return names_of(self.gateway.path.stat().st_ino)

    def start_backend(self, host: Host) -> None:
        """nginx on a host, which answers with its name."""
        address, name = next((address, name) for address, name in BACKENDS.items() if host.name.endswith(f"-{name}"))
        home = self.folder / name
        home.mkdir(exist_ok=True)
        text = BACKEND.read_text().replace("@name@", name).replace("127.0.0.1:@port@", f"{address}:80")
        (home / "nginx.conf").write_text(text)
        command = host.command(self._nginx, "-p", home, "-c", "nginx.conf")
        process = self._stack.enter_context(running(command, self.folder, f"nginx-{name}"))
        await_ready(process, self.folder, f"nginx-{name}", (address, 80), host.inside)
        self._backends[host] = process

    def kill_backend(self, host: Host) -> None:
        """kill -9 of a backend: from now on its host refuses connections."""
        process = self._backends.pop(host)
        _kill(process, _family(process.pid))

    def as_on_a_wire(self) -> None:
        """From now on packets between the hosts are as they are between machines: no larger than the MTU, with
        checksums. XDP needs that of veth, and that the other end takes what it redirects: with a program, it does."""
        code = struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=Q", 0x95)  # return XDP_PASS
        for host in self.hosts:
            near = [f"to-{other}" for other in ("client", *BACKENDS.values())]
            names = near if host is self.gateway else ["eth0"]
            for name in names:
                features = [word for feature in ("tx", "sg", "tso", "gso", "gro") for word in (feature, "off")]
                _run(*host.command("ethtool", "-K", name, *features))
            if host is not self.gateway:
                program = syscalls.load_program(code, "pass", syscalls.XDP)
                with host.inside(), IPRoute() as netlink:
                    netlink.link("set", index=netlink.link_lookup(ifname="eth0")[0], xdp_fd=program)
                os.close(program)

    @contextmanager
    def rauta(self, hook: str = "auto") -> Iterator[Gateway]:
        """rauta on its host, with the example and an admin socket of its own."""
        self._starts += 1
        name = f"rauta-{self._starts}"
        text = EXAMPLE.read_text()
        if "\nadmin: {}\n" not in text:
            raise DemoError(f"{EXAMPLE} has no line `admin: {{}}`")
        text = text.replace("\noffload: {mode: require}\n", f"\noffload: {{mode: require, hook: {hook}}}\n")
        self.config.write_text(text.replace("\nadmin: {}\n", f'\nadmin: {{socket: "{self.admin}"}}\n'))
        command = self.gateway.command(sys.executable, "-m", "rauta.proxy", "--config", self.config, "--workers", "2")
        with running(command, self.folder, name) as process:
            await_ready(process, self.folder, name, '"event": "ready"')
            yield Gateway(process, self.folder / f"{name}.out")


@contextmanager
def lab(folder: Path, nginx: str) -> Iterator[Lab]:
    """Hosts with backends and without rauta. Raises DemoError; at the end nothing is left of it, whatever happens."""
    with ExitStack() as stack:
        found = Lab(folder, nginx, stack)
        for host in found.hosts:
            stack.callback(_remove, host)
            _run("ip", "netns", "add", host.name)
            _run(*host.command("ip", "link", "set", "lo", "up"))
        stack.callback(_unpin, found.pins, found.names)
        for number, host in enumerate((found.client, found.blue, found.green), start=1):
            _join(found.gateway, host, number, "to-" + host.name.rpartition("-")[2])
        with found.gateway.inside():  # as on a router: without it the kernel looks up no way from client to backend
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for host in (found.blue, found.green):
            found.start_backend(host)
        yield found


def _unpin(folder: Path, names: Path) -> None:
    """What a rauta that was killed has left."""
    syscalls.remove(folder)
    names.unlink(missing_ok=True)
    syscalls.unmount_if_empty(ROOT)
    with contextlib.suppress(OSError):  # others use it
        ROOT.rmdir()
