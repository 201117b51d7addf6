"""A running gateway under stress: memory, and what clients notice of reloads and of workers that end.

    ./scripts/benchmark.sh live [--only NAME] [--reloads 1000] [--connections 10000]

On loopback, with nginx as backend, one or two workers as each case says. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.load import family, read

NGINX = """worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  server {{ listen 127.0.0.1:{port}; root {home}; location = /small {{ return 200 "thirty bytes of a small body.\\n"; }}
           # Takes all of the body before it goes on, so the answer comes behind it.
           location = /sink {{ proxy_pass http://127.0.0.1:{port}/small; proxy_request_buffering on; }} }}
}}
"""
GIB = 1 << 30


class Gateway:
    """rauta with a file of its own, and its backend."""

    def __init__(self, home: Path, workers: int) -> None:
        self.home = home
        self.port, self.backend = free_port(), free_port()
        self.path = home / "rauta.yaml"
        self.socket = home / "admin.sock"
        self.workers = workers
        self.write(0)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rauta.proxy", "--config", str(self.path)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self.lines: list[str] = []
        self.wait_for("ready")

    def write(self, generation: int) -> None:
        """Another file; the route's name tells them apart."""
        document = {
            "version": 1,
            "workers": self.workers,
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}", "forwarded": []}},
            "access_log": {"to": "off"},
            "admin": {"socket": str(self.socket)},
            "services": {"s": {"backends": [{"address": f"127.0.0.1:{self.backend}"}]}},
            "routes": [{"name": f"all-{generation}", "service": "s"}],
        }
        new = self.home / "new"
        new.write_text(json.dumps(document))
        new.rename(self.path)

    def wait_for(self, event: str, seconds: float = 60.0) -> None:
        """Until the next event of that name."""
        stream = self.process.stderr
        deadline = time.monotonic() + seconds
        while stream is not None:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SystemExit(f"no event {event!r} within {seconds:g} s; said was:\n{''.join(self.lines[-10:])}")
            line = os.read(stream.fileno(), 1 << 16).decode()
            self.lines.append(line)
            if not line:
                raise SystemExit(f"the gateway ended:\n{''.join(self.lines[-10:])}")
            if f'"event": "{event}"' in line:
                return

    @property
    def worker_pids(self) -> list[int]:
        """The processes that serve."""
        return [
            pid for pid in family(self.process.pid) if b"runtime.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    def pss(self) -> int:
        """PSS of the whole tree in KiB."""
        total = 0
        for pid in family(self.process.pid):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
        return total


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(workers: int) -> Iterator[Gateway]:
    """A gateway and its backend, both ended at the end."""
    with tempfile.TemporaryDirectory(prefix="rauta-live-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        gateway = Gateway(home, workers)
        (home / "nginx.conf").write_text(NGINX.format(home=home, port=gateway.backend))
        with (home / "big").open("wb") as big:
            big.truncate(GIB)
        nginx = subprocess.Popen(["nginx", "-c", str(home / "nginx.conf")], stderr=subprocess.DEVNULL)
        try:
            wait_for_answer(gateway)
            yield gateway
        finally:
            gateway.process.terminate()
            nginx.terminate()
            gateway.process.communicate(timeout=60)
            nginx.wait(20)


def wait_for_answer(gateway: Gateway) -> None:
    """Until the backend answers through the gateway."""
    deadline = time.monotonic() + 20
    url = f"http://127.0.0.1:{gateway.port}/small"
    while subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=False).returncode:
        if time.monotonic() > deadline:
            raise SystemExit("no answer through the gateway")
        time.sleep(0.05)


@contextmanager
def wrk(gateway: Gateway, seconds: float) -> Iterator[Callable[[], tuple[int, int]]]:
    """Load meanwhile; what is yielded waits for its end and gives requests and failures."""
    url = f"http://127.0.0.1:{gateway.port}/small"
    words = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", "--latency", "--timeout", "10s", url]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def end() -> tuple[int, int]:
        report, _ = process.communicate(timeout=seconds + 60)
        requests, _, _, failures = read(report)
        return requests, failures

    try:
        yield end
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def peak_of(pid: int) -> int:
    """The highest resident size so far, in KiB; reset by writing 5 to clear_refs."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def idle_memory(_: argparse.Namespace) -> str:
    """PSS of the tree, one worker, idle."""
    with running(1) as gateway:
        subprocess.run(
            ["curl", "-sf", "--unix-socket", str(gateway.socket), "http://x/metrics", "-o", "/dev/null"], check=True
        )
        return f"{gateway.pss() / 1024:.0f} MiB"


def transfer(direction: str) -> str:
    """Peak of the worker above its size before, while 1 GiB passes."""
    with running(1) as gateway:
        (pid,) = gateway.worker_pids
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before = peak_of(pid)
        url = f"http://127.0.0.1:{gateway.port}"
        words = ["curl", "-sf", "-o", "/dev/null", f"{url}/big"]
        if direction == "up":
            words = ["curl", "-sf", "-o", "/dev/null", "-X", "POST", "-T", str(gateway.home / "big"), f"{url}/sink"]
        started = time.monotonic()
        subprocess.run(words, check=True)
        seconds = time.monotonic() - started
        return f"{(peak_of(pid) - before) / 1024:.1f} MiB more, {1024 / seconds:.0f} MiB/s"


def idle_connections(arguments: argparse.Namespace) -> str:
    """PSS of the tree with many idle connections, above that without; each has had one request."""
    with running(1) as gateway:
        before = gateway.pss()
        held = []
        try:
            for _ in range(arguments.connections):
                sock = socket.create_connection(("127.0.0.1", gateway.port))
                sock.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
                sock.recv(1000)
                held.append(sock)
            more = gateway.pss() - before
        finally:
            for sock in held:
                sock.close()
        return f"{more / 1024:.0f} MiB more for {len(held)} connections, {more * 1024 / len(held) / 1000:.1f} kB each"


def reloads(arguments: argparse.Namespace) -> str:
    """Reloads under wrk."""
    with running(2) as gateway:
        started = time.monotonic()
        done = 0
        failed = requests = 0
        while done < arguments.reloads:
            with wrk(gateway, 10) as end:
                until = time.monotonic() + 9.5
                while time.monotonic() < until and done < arguments.reloads:
                    done += 1
                    gateway.write(done)
                    gateway.process.send_signal(signal.SIGHUP)
                    gateway.wait_for("reloaded")
                count, failures = end()
            requests, failed = requests + count, failed + failures
        each = (time.monotonic() - started) / done
        return f"{done} reloads, {requests} requests, {failed} failed; {each * 1000:.0f} ms a reload"


def retired_workers(_: argparse.Namespace) -> str:
    """SIGTERM to each worker in turn, three times round, under wrk."""
    with running(2) as gateway, wrk(gateway, 20) as end:
        time.sleep(1)
        for _ in range(3):
            for pid in gateway.worker_pids[:2]:
                os.kill(pid, signal.SIGTERM)
                gateway.wait_for("worker_ready")
                time.sleep(1)
        requests, failed = end()
        return f"6 workers, {requests} requests, {failed} failed"


def killed_worker(_: argparse.Namespace) -> str:
    """kill -9 of a worker under wrk: what fails, whether a new connection is refused, and until it is replaced."""
    with running(2) as gateway, wrk(gateway, 8) as end:
        time.sleep(1)
        os.kill(gateway.worker_pids[0], signal.SIGKILL)
        started = time.monotonic()
        refused = 0
        for _ in range(50):
            try:
                socket.create_connection(("127.0.0.1", gateway.port), timeout=5).close()
            except ConnectionRefusedError:
                refused += 1
        gateway.wait_for("worker_ready")
        seconds = time.monotonic() - started
        requests, failed = end()
        return f"{failed} of {requests} failed (32 connections), {refused} of 50 refused, replaced in {seconds:.2f} s"


CASES: dict[str, tuple[str, str, Callable[[argparse.Namespace], str]]] = {
    "idle": ("PSS of the whole tree, one worker, idle, with agent and metrics", "under 100 MB", idle_memory),
    "down": ("1 GiB from the backend", "under 32 MB more", lambda _: transfer("down")),
    "up": ("1 GiB to the backend", "under 32 MB more", lambda _: transfer("up")),
    "connections": ("10,000 idle connections", "under 150 MB more", idle_connections),
    "reloads": ("1,000 reloads under wrk", "no failed request", reloads),
    "retire": ("SIGTERM of each worker in turn under wrk", "no failed request", retired_workers),
    "kill": ("kill -9 of a worker under wrk", "only requests in flight fail; none refused; 1 s", killed_worker),
}


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=10_000)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("| case | goal | seen |\n|---|---|---|")
    for name, (text, goal, case) in CASES.items():
        if arguments.only in (None, name):
            print(f"| {text} | {goal} | {case(arguments)} |", flush=True)


if __name__ == "__main__":
    main()
