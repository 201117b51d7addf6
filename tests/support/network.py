"""Hosts on one machine: network namespaces joined by veth pairs, as few as a test needs. Needs root.

client 10.203.1.2 --- 10.203.1.1 gateway 10.203.2.1 --- 10.203.2.2 b1
                                         10.203.3.1 --- 10.203.3.2 b2
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from rauta.offload.bcc import syscalls

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()

GATEWAY = "10.203.1.1"
CLIENT = "10.203.1.2"
BACKENDS = ("10.203.2.2", "10.203.3.2")


def run(*words: str) -> str:
    """Run a command; its output. Raises CalledProcessError with what it said."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Host:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def command(self, *words: str) -> list[str]:
        """A command line that runs there. Not by `ip netns exec`, which would give it mounts of its own: what is pinned
        in a BPF file system would end with the process."""
        return ["nsenter", f"--net={self.path}", "--", *words]

    def run(self, *words: str) -> str:
        """Run a command there; its output."""
        return run(*self.command(*words))

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


class Network:
    """A client, a gateway and two backends; `wire` is in between, if there is one."""

    def __init__(self, tag: str) -> None:
        self.client, self.gateway, self.b1, self.b2 = (Host(f"{tag}{name}") for name in ("c", "g", "b1", "b2"))
        self.wire = Host(f"{tag}w")
        self.hosts = (self.client, self.gateway, self.b1, self.b2)

    def connect(
        self, port: int = 8080, host: str = GATEWAY, timeout: float = 20.0, source_port: int = 0
    ) -> socket.socket:
        """A connection from the client to the gateway."""
        with self.client.inside():
            sock = socket.socket()
        try:
            sock.settimeout(timeout)
            if source_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("", source_port))
            sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return sock


PREFIX = "rt"  # of the names of all namespaces here


@contextmanager
def network(wired: Sequence[int] = (), *, offloads: bool = True) -> Iterator[Network]:
    """The namespaces, for as long as they are used. Without `offloads`, packets are everywhere as they are on a wire,
    as XDP needs it.

    The links in `wired` (1: to the client, 2: to b1, 3: to b2) are cut, and their ends are in the namespace `wire` as
    `w1o` (to the host) and `w1g` (to the gateway): see `support.mangler`. Nothing is offloaded there: packets are as
    they are on a wire, with checksums and not larger than the MTU."""
    found = Network(f"{PREFIX}{os.getpid() % 100000}n{next(_numbers)}")
    with ExitStack() as stack:
        for host in (*found.hosts, found.wire) if wired else found.hosts:
            run("ip", "netns", "add", host.name)
            stack.callback(run, "ip", "netns", "del", host.name)
            host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
            host.run("ip", "link", "set", "lo", "up")
        for number, host in enumerate((found.client, found.b1, found.b2), 1):
            near, far = f"v{number}g", f"v{number}o"
            if number in wired:
                _pair(found.gateway, near, found.wire, f"w{number}g", offloads=False)
                _pair(host, far, found.wire, f"w{number}o", offloads=False)
            else:
                _pair(found.gateway, near, host, far, offloads=offloads)
            found.gateway.run("ip", "addr", "add", f"10.203.{number}.1/24", "dev", near)
            host.run("ip", "addr", "add", f"10.203.{number}.2/24", "dev", far)
            host.run("ip", "route", "add", "default", "via", f"10.203.{number}.1")
        found.gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield found


def _pair(one: Host, its: str, other: Host, others: str, *, offloads: bool = True) -> None:
    ends = ("ip", "link", "add", its, "netns", one.name, "type", "veth")
    run(*ends, "peer", "name", others, "netns", other.name)
    for host, name in ((one, its), (other, others)):
        host.run("ip", "link", "set", name, "up")
        if not offloads:
            host.run("ethtool", "-K", name, "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off")
    if not offloads:
        take_from_xdp(other, others)


def take_from_xdp(host: Host, name: str) -> None:
    """A veth takes what XDP sends to it only if it has a program of its own, or GRO."""
    program = syscalls.load_program(struct.pack("=BBhi", 0xB7, 0, 0, 2) + struct.pack("=Q", 0x95), "pass", syscalls.XDP)
    try:
        with host.inside(), IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link("set", index=index, xdp_fd=program)  # for as long as the interface lives
    finally:
        os.close(program)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one segment

    def __init__(self, ours: Server, *arguments: Any) -> None:
        self.ours = ours
        super().__init__(*arguments)

    def setup(self) -> None:
        self.ours.taken.add(self.request)
        super().setup()
        self._read_proxy_header()

    def _read_proxy_header(self) -> None:
        """Of version 2, for TCP over IPv4, if there is one: it says who the client is."""
        with contextlib.suppress(OSError):
            if not self.rfile.peek(12).startswith(b"\r\n\r\n\0\r\nQUIT\n"):  # type: ignore[attr-defined]
                return
            *_, family, length, source, _, port, _ = struct.unpack("!12sBBH4s4sHH", self.rfile.read(28))
            assert (family, length) == (0x11, 12)
            self.client_address = (socket.inet_ntoa(source), port)

    def finish(self) -> None:
        super().finish()
        self.ours.taken.discard(self.request)

    def do_GET(self) -> None:
        self.ours.note(self)
        path, _, query = self.path.partition("?")
        words = path.lstrip("/").split("/")
        if words[0] not in KINDS and len(words) > 1:
            words = words[1:]
        if stalls := words[0] == "stall":
            words = words[1:]
        kind, number = words[0], words[-1]
        name = f"{self.ours.name}-{query}" if query else self.ours.name
        if kind == "status":
            self.bodyless(int(number))
            return
        if kind == "raw":
            self.wfile.write(RAW[number])
            return
        if kind == "slow":
            self.ours.arrived.release()
            self.ours.release.wait(20)
        if kind == "hints":
            for _ in range(2):
                self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n")
                self.wfile.flush()
        self.answer(body_of(name, int(number)) if number.isdigit() else name.encode(), kind, stalls=stalls)

    def bodyless(self, status: int) -> None:
        self.send_response(status)
        if status == 304:
            self.send_header("Content-Length", "1000")
        self.end_headers()

    do_HEAD = do_DELETE = do_OPTIONS = do_GET  # noqa: N815 - names of the standard library

    def do_POST(self) -> None:
        self.ours.note(self)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.answer(f"{self.ours.name} {len(body)} {hashlib.sha256(body).hexdigest()}".encode(), "post")

    do_PUT = do_PATCH = do_POST  # noqa: N815

    def answer(self, body: bytes, kind: str, *, stalls: bool = False) -> None:
        self.send_response(200)
        if kind == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        elif kind != "endless":
            self.send_header("Content-Length", str(len(body)))
        if kind in ("close", "endless"):
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        middle = len(body) // 2 if stalls or kind == "reset" else 0
        self.send(body[:middle], kind)
        if kind == "reset":
            self.wfile.flush()
            reset(self.connection)
            self.close_connection = True
            return
        if stalls:
            self.wfile.flush()
            self.ours.arrived.release()
            self.ours.release.wait(20)
        self.send(body[middle:], kind)
        if kind == "chunked":
            self.wfile.write(b"0\r\n\r\n")

    def send(self, body: bytes, kind: str) -> None:
        if kind != "chunked":
            self.wfile.write(body)
            return
        for at in range(0, len(body), 1000):
            piece = body[at : at + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()

    def log_message(self, *args: object) -> None:
        pass


class Server:
    """An HTTP backend of the standard library at port 80 of a host; keeps connections.

    What it answers, the path says; a first element that is none of these counts for nothing (so routes can tell
    services apart by it), and a query becomes a part of the body:

        /bytes/N            N bytes; the same for what is not listed here, with N 0: its name
        /chunked/N          the same in chunks
        /close/N            the same, and then it closes
        /endless/N          the same without a length: to the connection's end
        /status/204         without a body; 304 with the length that it would have
        /hints/N            103 twice, then N bytes
        /slow/N             only after `release`
        /stall/KIND/N       the head and one half, and the other after `release`; KIND is bytes, chunked or endless
        /reset/N            promises N bytes, sends one half and resets

    A POST gives the length and hash of its body.
    """

    def __init__(self, host: Host, name: str, port: int = 80) -> None:
        self.name = name
        self.requests: list[str] = []
        self.peers: list[tuple[str, int]] = []
        self.taken: set[socket.socket] = set()
        self.arrived = threading.Semaphore(0)
        self.release = threading.Event()

        class Listening(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # connections that were reset

        with host.inside():
            self._server = Listening(("0.0.0.0", port), functools.partial(_Handler, self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def note(self, handler: BaseHTTPRequestHandler) -> None:
        """A request has come."""
        self.requests.append(f"{handler.command} {handler.path}")
        self.peers.append((str(handler.client_address[0]), int(handler.client_address[1])))

    def hang_up(self, ports: Container[int], *, by_reset: bool = False) -> None:
        """End all connections from these ports."""
        for sock in list(self.taken):
            with contextlib.suppress(OSError):  # it has just ended
                if sock.getpeername()[1] not in ports:
                    continue
                if by_reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.shutdown(socket.SHUT_RD if by_reset else socket.SHUT_RDWR)  # its thread sees the end, and closes

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What stalls does so meanwhile, or until `release` is set."""
        self.release.clear()
        try:
            yield
        finally:
            self.release.set()
            while self.arrived.acquire(blocking=False):
                pass

    def close(self) -> None:
        """Stop serving."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


KINDS = frozenset({"bytes", "chunked", "close", "endless", "status", "hints", "slow", "stall", "reset", "raw"})
_OK = b"HTTP/1.1 200 OK\r\n"
# Responses whose end is somewhere else than a careless reader believes, or nowhere.
RAW = {
    "beyond-32-bits": _OK + b"Content-Length: 4294967296\r\n\r\n",
    "trailer-of-lf": _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\n",
    "folded": _OK + b"Content-Length: 0\r\n 5\r\n\r\n",
    "no-status": b"HTTP/1.1 3&4 OK\r\n\r\n",
    "nearly-chunked": _OK + b"Transfer-Encodin: chunked\r\n\r\n0\r\n\r\n",
}


def body_of(name: str, size: int) -> bytes:
    """What a backend answers at /bytes/SIZE: it differs from backend to backend and from place to place."""
    line = b"".join(f"{name}:{number:08};".encode() for number in range(size // (len(name) + 10) + 1))
    return line[:size]


class Answer:
    """A response, read from a socket."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body


def reset(sock: socket.socket) -> None:
    """Close a connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(sock.detach())


class Client:
    """A plain HTTP/1.1 client on one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.informed = 0
        self._data = b""

    def ask(
        self, method: str, path: str, body: bytes = b"", fields: Sequence[str] = (), host: str = "a.test"
    ) -> Answer:
        """One request and its response."""
        self.send(method, path, body, fields, host)
        return self.read(method)

    def send(self, method: str, path: str, body: bytes = b"", fields: Sequence[str] = (), host: str = "a.test") -> None:
        """One request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def read(self, method: str = "GET") -> Answer:
        """The next response. Those of 1xx in front of it are counted in `self.informed`."""
        while True:
            while b"\r\n\r\n" not in self._data:
                self._more()
            head, _, self._data = self._data.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 "):
                raise ValueError(f"not the head of a response: {head[:200]!r}")
            status = int(head[9:12])
            if status >= 200:
                break
            self.informed += 1
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if method == "HEAD" or status in (204, 304):
            return Answer(status, head, b"")
        if fields.get(b"transfer-encoding") == b"chunked":
            return Answer(status, head, self._chunks())
        if b"content-length" not in fields:
            return Answer(status, head, self.rest())
        length = int(fields[b"content-length"])
        while len(self._data) < length:
            self._more()
        body, self._data = self._data[:length], self._data[length:]
        return Answer(status, head, body)

    def rest(self) -> bytes:
        """All that comes until the other side closes."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        found, self._data = self._data, b""
        return found

    def _chunks(self) -> bytes:
        found = b""
        while True:
            while b"\r\n" not in self._data:
                self._more()
            line, _, self._data = self._data.partition(b"\r\n")
            size = int(line, 16)
            while len(self._data) < size + 2:
                self._more()
            found += self._data[:size]
            self._data = self._data[size + 2 :]
            if not size:
                return found

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError(f"the connection ended; what had come was {self._data!r}")
        self._data += data

    def close(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
