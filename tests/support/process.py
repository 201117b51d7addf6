"""A real gateway and real backends for tests: processes and sockets on loopback, ended by pid."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")
PATIENCE = 40.0  # seconds until a test gives up on a process; an overloaded machine starts Python in three


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def run_rauta(*arguments: str, env: dict[str, str] | None = None, prefix: Sequence[str] = ()) -> tuple[int, str]:
    """Run the gateway to its end: exit code and stderr."""
    command = [*prefix, sys.executable, "-m", "rauta.proxy", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stderr


def pid_gone(pid: int, timeout: float = PATIENCE) -> bool:
    """Whether a process that need not be our child ends in time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], timeout)[0])
    finally:
        os.close(fd)


class Gateway:
    """A running `python -m rauta.proxy`. Its events are read as they come; `wait_for` waits for one."""

    def __init__(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        stdout: Path | None = None,
        command: Sequence[str] = (sys.executable, "-m", "rauta.proxy"),
        pass_fds: Sequence[int] = (),
    ) -> None:
        with contextlib.ExitStack() as stack:
            sink: Any = subprocess.DEVNULL if stdout is None else stack.enter_context(stdout.open("wb"))
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.PIPE,
                pass_fds=pass_fds,
            )
        self.lines: list[str] = []
        self._seen = threading.Condition()
        self._ended = False
        self._held: list[int] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr
        if stream is None:
            raise RuntimeError("stderr is not a pipe")
        with stream:
            for line in stream:
                with self._seen:
                    self.lines.append(line.decode())
                    self._seen.notify_all()
        with self._seen:
            self._ended = True
            self._seen.notify_all()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        with self._seen:
            lines = [line for line in self.lines if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of that name, as soon as it is there. Fails with all that was said instead."""
        deadline = time.monotonic() + PATIENCE
        with self._seen:
            while True:
                lines = [line for line in self.lines if line.startswith("{")]
                found = [event for event in map(json.loads, lines) if event["event"] == name]
                if len(found) >= count:
                    return dict(found[count - 1])
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise TimeoutError(f"no event {name!r} number {count}; stderr was:\n{''.join(self.lines)}")
                self._seen.wait(left)

    def wait_for_text(self, text: str) -> None:
        """Wait until a line of stderr contains it."""
        with self._seen:
            if not self._seen.wait_for(lambda: self._ended or any(text in line for line in self.lines), PATIENCE):
                raise TimeoutError(f"nobody said {text!r}; stderr was:\n{''.join(self.lines)}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the supervisor's end: its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def hold_workers(self) -> None:
        """Remember the present workers: `destroy` ends them, also if the supervisor is gone and they should be."""
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                self._held.append(os.pidfd_open(pid))

    def stop(self) -> int:
        """SIGTERM and wait."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def destroy(self) -> None:
        """Whatever state it is in: nothing of it remains."""
        self.hold_workers()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for fd in self._held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)
        self._held.clear()
        self._reader.join(PATIENCE)


def children(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for child in text.split()]


@contextlib.contextmanager
def gateway(*arguments: str, env: dict[str, str] | None = None, stdout: Path | None = None) -> Iterator[Gateway]:
    """A gateway that is ready; destroyed at the end."""
    running = Gateway(*arguments, env=env, stdout=stdout)
    try:
        running.wait_for("ready")
        running.hold_workers()
        yield running
    finally:
        running.destroy()


class Backend:
    """A server of the standard library. It answers every request with its path; `/slow` only after `release`."""

    def __init__(self) -> None:
        self.slow_arrived = threading.Semaphore(0)
        self.release = threading.Event()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                if self.path.startswith("/slow"):
                    backend.slow_arrived.release()
                    backend.release.wait(PATIENCE)
                body = self.path.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the gateway was killed meanwhile, on purpose
                    self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # connections reset by gateways that tests kill

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """For --to."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop serving."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def get(port: int, path: str = "/", host: str = "127.0.0.1") -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


_POOL = ThreadPoolExecutor(32, thread_name_prefix="background")


def background(call: Callable[[], T]) -> Future[T]:
    """A call in a thread."""
    return _POOL.submit(call)
