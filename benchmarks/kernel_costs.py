"""What the kernel programs cost: time to load, memory of the maps, time of a run by kind of packet.

    sudo ./scripts/benchmark.sh kernel_costs [--runs]

Runs are counted by the kernel (bpf_stats) under real load, in network namespaces; from each mean that of a program that
does nothing, on the same hook, is taken off: most of it is the clock. A second copy of the program at TC is put on the
backends' interfaces, so that requests and replies are counted apart. The head's parse is run by BPF_PROG_TEST_RUN.
With `--runs`, nothing is loaded again and again.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lab.namespaces import Lab, lab
from lab.peers import CHECKOUT, COMPILED, KERNEL
from pyroute2 import IPRoute, netns  # type: ignore[import-untyped]
from throughput import running, start, wait_for

sys.path.append(str(CHECKOUT / "tests"))
from rauta.config import load
from rauta.offload import Capabilities, plan
from rauta.offload.bcc import loader, programs, syscalls
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.images import Image
from rauta.offload.bcc.places import folder_of
from rauta.offload.bcc.tables import Tables
from support import packets

_HEAD = 400  # bytes of the requests
_ROUNDS = 5
_LINK_UPDATE = 29
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


def row(what: str, value: str, limit: str) -> None:
    """A row of the table."""
    print(f"| {what} | {value} | {limit} |", flush=True)


# --- loading and memory ---------------------------------------------------------------------------------------------


@contextmanager
def pins() -> Iterator[Path]:
    """A BPF file system."""
    root = Path(tempfile.mkdtemp(prefix="rauta-costs-", dir="/run"))
    syscalls.mount_bpffs(root / "fs")
    try:
        yield root / "fs"
    finally:
        subprocess.run(["umount", root / "fs"], check=False)
        with contextlib.suppress(OSError):
            (root / "fs").rmdir()
            root.rmdir()


def fdinfo(descriptor: int) -> dict[str, int]:
    """Numbers that the kernel tells of a map or a program."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)$", text, re.MULTILINE)}


def loading() -> None:
    """Time to compile and load, once and then again, and the maps' memory."""
    memory = 0
    times = []
    with pins() as root, tempfile.TemporaryDirectory() as cache:
        os.environ["CACHE_DIRECTORY"] = cache
        for number in range(_ROUNDS + 1):
            folder = root / f"pins{number}"
            folder.mkdir()
            began = time.monotonic()
            programs.load(folder, xdp=True)
            times.append(time.monotonic() - began)
            memory = sum(maps(folder))
            syscalls.remove(folder)
    row("compile and load, TC and XDP: the first start of a version", f"{times[0]:.1f} s", "3 s")
    row("load, TC and XDP: any other start", f"{statistics.median(times[1:]):.1f} s", "3 s")
    row("memory of all maps, two CPUs", f"{memory / 1e6:.1f} MB", "64 MB")


def maps(folder: Path) -> Iterator[int]:
    """Bytes of each map that is pinned there."""
    for place in folder.iterdir():
        descriptor = syscalls.pinned(place)
        found = fdinfo(descriptor)
        os.close(descriptor)
        if "map_type" in found and not place.name.startswith("made-of"):
            yield found["memlock"]


# --- runs -----------------------------------------------------------------------------------------------------------


class Runs:
    """Runs of a program since it was last asked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before = (0, 0)
        self.take()

    def take(self) -> tuple[int, float]:
        """How many, and their mean in ns."""
        found = fdinfo(self._descriptor)
        now = (found.get("run_cnt", 0), found.get("run_time_ns", 0))
        count, spent = now[0] - self._before[0], now[1] - self._before[1]
        self._before = now
        return count, spent / max(count, 1)


def second_copy(folder: Path) -> int:
    """rauta_tc again, with the maps that are pinned."""
    found = loader.image(programs.sizes(), "tc.c", loader.PROGRAMS)
    maps = {name: syscalls.pinned(folder / name) for name in found.maps}
    return loader.programs_of(Image(found.maps, {"rauta_tc": found.programs["rauta_tc"]}), maps, syscalls.SCHED_CLS)[
        "rauta_tc"
    ]


def put(program: int, link: Path) -> None:
    """Another program into a link."""
    descriptor = syscalls.pinned(link)
    syscalls._bpf(_LINK_UPDATE, struct.pack("=IIIIII", descriptor, program, 0, 0, 0, 0))  # noqa: SLF001
    os.close(descriptor)


def nothing() -> int:
    """A program that does nothing: TCX_NEXT."""
    return syscalls.load_program(struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=Q", 0x95), "nothing")


def interfaces(place: Lab) -> dict[str, int]:
    """Indices by name, where the kernel tiers are."""
    with IPRoute(netns=place.kernel) as netlink:
        return {str(link.get_attr("IFLA_IFNAME")): int(link["index"]) for link in netlink.get_links()}


def wrk(place: Lab, *words: str) -> None:
    """Load for two seconds."""
    filler = f"X-Filler: {'x' * (_HEAD - 110)}"
    command = place.command(place.client, "wrk", "-t1", "-c8", "-d2s", "-H", filler, *words)
    subprocess.run(command, capture_output=True, check=True)


def under_load(place: Lab, folder: Path, target: str) -> None:
    """Means by kind of packet."""
    known = interfaces(place)
    clients, backends = syscalls.pinned(folder / "rauta_tc"), second_copy(folder)
    for name in ("v12g", "v13g"):
        put(backends, folder / f"tc-{known[name]}")
    url = f"http://{target}/small"
    empty = nothing()
    link = _attach(empty, place, known["v11g"])
    idle, asked, replied = Runs(empty), Runs(clients), Runs(backends)
    found: dict[str, list[float]] = {"request": [], "reply": [], "close": [], "empty": []}
    for _ in range(_ROUNDS):
        wrk(place, url)
        found["empty"].append(idle.take()[1])
        found["request"].append(asked.take()[1])
        found["reply"].append(replied.take()[1])
    os.close(link)
    base = statistics.median(found["empty"])
    row("(a program that does nothing)", f"{base:.0f} ns", "")
    row("request on a bound flow", f"{statistics.median(found['request']) - base:.0f} ns", "900 ns")
    row("reply", f"{statistics.median(found['reply']) - base:.0f} ns", "600 ns")
    row("SYN", f"{syns(place, asked, target, known['v11g']) - base:.0f} ns", "700 ns")
    row(f"first request, head of {_HEAD} bytes", f"{firsts(place, asked, target) - base:.0f} ns", "2.5 us")
    for descriptor in (clients, backends, empty):
        os.close(descriptor)


def _attach(program: int, place: Lab, index: int) -> int:
    netns.pushns(place.kernel)
    try:
        # In front of what is there (BPF_F_BEFORE), which ends the row of programs for most packets.
        return syscalls._bpf(  # noqa: SLF001
            syscalls.LINK_CREATE, struct.pack("=IIIIIIQ", program, index, syscalls.TCX_INGRESS, 1 << 3, 0, 0, 0)
        )
    finally:
        netns.popns()


@contextmanager
def inside(place: Lab) -> Iterator[None]:
    """Sockets of the client's."""
    netns.pushns(place.client)
    try:
        yield
    finally:
        netns.popns()


def syns(place: Lab, runs: Runs, target: str, _index: int) -> float:
    """The mean of SYNs, sent from an address that nobody has: the answers end where they come to."""
    host, port = target.split(":")
    with inside(place):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    runs.take()
    means = []
    with raw:
        for _ in range(_ROUNDS):
            for number in range(4000):
                raw.sendto(_syn(host, int(port), number), (host, 0))
            time.sleep(0.1)
            means.append(runs.take()[1])
    return statistics.median(means)


def _syn(host: str, port: int, number: int) -> bytes:
    options = bytes.fromhex("020405b40402080a") + struct.pack("!II", number + 1, 0) + bytes.fromhex("01030307")
    sender = ("10.201.11.77", 1024 + number)
    frame: bytes = packets.tcp(b"", (host, port), sender, seq=number * 7919, ack=0, flags=2, options=options)
    return frame[14:]


_BATCH = 50


def firsts(place: Lab, runs: Runs, target: str) -> float:
    """The mean of first requests, one behind the other on connections that were made before. Acknowledgements of the
    responses, which come 40 ms later, are not among them."""
    host, port = target.split(":")
    request = f"GET /small HTTP/1.1\r\nHost: {target}\r\nX-Filler: "
    request += "x" * (_HEAD - len(request) - 4) + "\r\n\r\n"
    means = []
    for _ in range(60):
        with ExitStack() as stack:
            with inside(place):
                sockets = [stack.enter_context(socket.socket()) for _ in range(_BATCH)]
            for sock in sockets:
                sock.connect((host, int(port)))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            time.sleep(0.01)
            runs.take()
            for sock in sockets:
                sock.sendall(request.encode())
            count, mean = runs.take()
            if count == _BATCH:
                means.append(mean)
            for sock in sockets:
                sock.recv(1 << 16)
    return statistics.median(means)


# --- the parse ------------------------------------------------------------------------------------------------------


def routing(routes: int) -> str:
    """A file with as many exact routes."""
    listed = "".join(f"  - {{name: r{n}, match: {{path: {{exact: /r{n}}}}}, service: s}}\n" for n in range(routes))
    return (
        'version: 1\noffload: {mode: auto}\naccess_log: {to: "off"}\n'
        'listeners: {web: {address: "192.0.2.1:80", forwarded: []}}\n'
        f'services: {{s: {{backends: [{{address: "203.0.113.1:80"}}]}}}}\nroutes:\n{listed}'
    )


def parsing() -> None:
    """Parse and decision by BPF_PROG_TEST_RUN, with few and with many routes."""
    with pins() as root:
        folder = root / "testing"
        folder.mkdir()
        loader.load(folder, {**programs.sizes(), "TESTING": 1})
        decided, empty = syscalls.pinned(folder / "decided"), nothing()
        tables = Tables(folder, range(10_000, 11_000), Known(None))
        found: dict[int, float] = {}
        for routes in (10, 10_000):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(routing(routes))
                file.flush()
                began = time.monotonic()
                made = plan(load(Path(file.name)).configuration, Capabilities())
                tables.write(made, ())
                tables.switch()
                taken = time.monotonic() - began
            head = f"GET /r{routes - 1} HTTP/1.1\r\nHost: a.test\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nX-Filler: "
            packet = packets.tcp((head + "x" * (_HEAD - len(head) - 4) + "\r\n\r\n").encode(), ("192.0.2.1", 80))
            times = []
            for _ in range(20):
                result, _, spent = syscalls.run(decided, packet, repeat=20_000)
                if not result:
                    sys.exit("the kernel does not decide what it should")
                times.append(spent - syscalls.run(empty, packet, repeat=20_000)[2])
            found[routes] = statistics.median(times)
            row(f"parse and decide, {_HEAD} bytes, {routes:,} routes", f"{found[routes]:.0f} ns", "600 ns")
            row(f"read, plan and write {routes:,} routes", f"{taken * 1e3:.0f} ms", "")
        row("10,000 routes against 10", f"{found[10_000] / found[10]:.2f}", "1.3")
        tables.close()
        os.close(decided)
        os.close(empty)


# --- changes --------------------------------------------------------------------------------------------------------


def changed(place: Lab, admin: Path, home: Path, service: str) -> str:
    """The file with 100 routes, of which one goes to `service`."""
    listed = "".join(f"  - {{name: r{n}, match: {{path: {{exact: /r{n}}}}}, service: one}}\n" for n in range(99))
    one, two = (f'{{backends: [{{address: "{place.kernel_backends[0]}:{port}"}}]}}' for port in (80, 81))
    (home / "rauta.yaml").write_text(
        f'version: 1\nworkers: 2\noffload: {{mode: require}}\naccess_log: {{to: "off"}}\n'
        f'admin: {{socket: "{admin}"}}\nlisteners: {{web: {{address: "0.0.0.0:8009", forwarded: []}}}}\n'
        f"services: {{one: {one}, two: {two}}}\nroutes:\n{listed}"
        f"  - {{name: port, match: {{path: {{exact: /port}}}}, service: {service}}}\n"
    )
    return str(home / "rauta.yaml")


def post_reload(admin: Path) -> None:
    """POST /v1/reload, and its answer."""
    ask(admin, b"POST /v1/reload HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n", b"{}")


def ask(admin: Path, head: bytes, body: bytes = b"") -> None:
    """One request to the admin socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(admin))
        sock.sendall(head + b"Host: localhost\r\nConnection: close\r\n\r\n" + body)
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    if b" 200 " not in answer[:20]:
        sys.exit(f"{head.decode()}: {answer.decode()}")


def obeying(place: Lab, home: Path) -> None:
    """From a POST that changes a route to the first request that obeys, on a connection that is kept."""
    admin, home = home / "changes.sock", home / "changes"
    home.mkdir()
    words = [sys.executable, "-P", "-m", "rauta.proxy", "--config", changed(place, admin, home, "one")]
    taken = []
    with running(place.command(place.kernel, "env", COMPILED, *words), "rauta"):
        wait_for(place, f"http://{place.kernel_address}:8009/port", "rauta")
        ask(admin, b"GET /v1/status HTTP/1.1\r\n")  # its process starts behind the workers
        with inside(place):
            sock = socket.create_connection((place.kernel_address, 8009))
        with sock:
            for number in range(30):
                port = b"\r\n\r\n81" if number % 2 == 0 else b"\r\n\r\n80"
                changed(place, admin, home, "two" if number % 2 == 0 else "one")
                began = time.monotonic()
                poster = threading.Thread(target=post_reload, args=(admin,))
                poster.start()
                answer = b""
                while not answer.endswith(port):
                    sock.sendall(b"GET /port HTTP/1.1\r\nHost: a.test\r\n\r\n")
                    answer = sock.recv(1 << 16)
                    time.sleep(0.0005)  # there are two CPUs for all this
                taken.append(time.monotonic() - began)
                poster.join()
    row("POST to the first request that obeys, 100 routes", f"{statistics.median(taken) * 1e3:.0f} ms", "50 ms")
    row("... the slowest of 30", f"{max(taken) * 1e3:.0f} ms", "")


def main() -> None:
    """Measure and print a table."""
    if os.geteuid():
        sys.exit("network namespaces need root")
    print("| what | seen | limit |\n|---|---|---|")
    if "--runs" not in sys.argv:
        loading()
        parsing()
    before = _STATS.read_text()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rauta-bench-")))
        home.chmod(0o755)
        place = stack.enter_context(lab())
        targets: dict[str, Any] = start(place, stack, home, [KERNEL], backend_count=1)
        folder = folder_of(Path(f"/run/netns/{place.kernel}").stat().st_ino)
        _STATS.write_text("1")
        stack.callback(_STATS.write_text, before)
        under_load(place, folder, targets["kernel"][0])
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rauta-bench-")))
        home.chmod(0o755)
        place = stack.enter_context(lab())
        start(place, stack, home, [], backend_count=1)
        obeying(place, home)


if __name__ == "__main__":
    main()
