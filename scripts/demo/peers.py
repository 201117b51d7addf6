"""The programs of the demo: nginx backends, rauta, and curl as the client. What is started is also stopped."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLE = CHECKOUT / "examples" / "rauta.yaml"
BACKEND = CHECKOUT / "examples" / "backends" / "nginx.conf"

LISTENER_PORT = 8080
BACKEND_PORTS = {9001: "blue", 9002: "green"}
DEAD_PORT = 9009

START_LIMIT = 20.0  # seconds until a program must be ready; the slowest is rauta on a cold disk
STOP_LIMIT = 10.0  # seconds until a program that was asked to stop is killed
LOG_LIMIT = 5.0  # seconds until a request must stand in the log, which is buffered for one
_PAUSE = 0.02  # between two looks at something that is awaited


Inside = Callable[[], AbstractContextManager[None]]  # sockets that are made meanwhile are those of another host


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


# --- ports ----------------------------------------------------------------------------------------------


def _bound(port: int, *, reuse: bool) -> socket.socket:
    """A socket bound to a loopback port. Raises OSError if the port is in use.

    With `reuse`, connections of a program that has ended do not count as use.
    """
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        sock.bind(("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return sock


def _bound_anywhere(*, reuse: bool) -> socket.socket:
    """A socket bound to a port that nothing else gets by chance: below those that the kernel hands out."""
    for _ in range(100):
        try:
            return _bound(random.randrange(20000, 32768), reuse=reuse)
        except OSError:
            continue  # in use; there are twelve thousand others
    raise DemoError("no free port was found between 20000 and 32767")


def choose_ports(*, own: bool) -> tuple[dict[int, int], socket.socket]:
    """A port for each one in the example, and the socket that keeps the dead one from being used by others.

    With `own` the example's ports stay as they are where they are free; otherwise all are replaced, so that the
    demo runs beside anything else, also beside itself.
    """
    sockets: dict[int, socket.socket] = {}
    for port in (LISTENER_PORT, *BACKEND_PORTS, DEAD_PORT):
        reuse = port != DEAD_PORT  # without it nobody else can take the port while we hold it
        try:
            sockets[port] = _bound(port, reuse=reuse) if own else _bound_anywhere(reuse=reuse)
        except OSError:
            sockets[port] = _bound_anywhere(reuse=reuse)
    chosen = {port: sock.getsockname()[1] for port, sock in sockets.items()}
    dead = sockets.pop(DEAD_PORT)  # bound and never listening: every connection is refused
    for sock in sockets.values():
        sock.close()
    return chosen, dead


def with_ports(text: str, ports: dict[int, int]) -> str:
    """The example file's text with its loopback ports replaced."""
    return re.sub(r"(?<=127\.0\.0\.1:)[0-9]+", lambda found: str(ports.get(int(found[0]), found[0])), text)


# --- programs -------------------------------------------------------------------------------------------


@contextmanager
def running(command: list[str | Path], folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program, from its start to its end. Output goes to NAME.out and NAME.err in the folder."""
    # Ends with the demo even if that is killed and cannot clean up.
    guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    with (folder / f"{name}.out").open("ab") as out, (folder / f"{name}.err").open("ab") as err:
        process = subprocess.Popen([*guard, *command], cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def await_ready(
    process: subprocess.Popen[bytes], folder: Path, name: str, ready: str | tuple[str, int], host: Inside = nullcontext
) -> None:
    """Wait for a word in NAME.err, or for an address that accepts, as seen from a host. Raises DemoError."""
    limit = time.monotonic() + START_LIMIT
    errors = folder / f"{name}.err"
    while time.monotonic() < limit:
        if isinstance(ready, str):
            if ready in errors.read_text(errors="replace"):
                return
        elif _accepts(ready, host):
            return
        if process.poll() is not None:
            break
        time.sleep(_PAUSE)
    what = "did not start in time" if process.poll() is None else f"ended with exit code {process.returncode}"
    raise DemoError(f"{name} {what}:\n{errors.read_text(errors='replace')[-2000:]}")


def _accepts(address: tuple[str, int], host: Inside) -> bool:
    try:
        with host():
            socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that runs: where rauta is reached, with which file, who is behind which address, where it logs."""

    url: str
    config: Path
    names: dict[str, str]
    nginx: str
    log: Path


@contextmanager
def stage(folder: Path, *, own_ports: bool) -> Iterator[Stage]:
    """Start the backends and rauta; stop them at the end, whatever happens. Raises DemoError."""
    nginx = shutil.which("nginx")
    if nginx is None or shutil.which("curl") is None:
        raise DemoError("nginx and curl are needed; ./scripts/demo.sh installs them")
    with ExitStack() as stack:
        ports, dead = choose_ports(own=own_ports)
        stack.enter_context(dead)
        for port, name in BACKEND_PORTS.items():
            home = folder / name
            home.mkdir()
            text = BACKEND.read_text().replace("@name@", name).replace("@port@", str(ports[port]))
            (home / "nginx.conf").write_text(text)
            process = stack.enter_context(running([nginx, "-p", home, "-c", "nginx.conf"], folder, name))
            await_ready(process, folder, name, ("127.0.0.1", ports[port]))
        config = EXAMPLE
        if any(port != chosen for port, chosen in ports.items()):
            config = folder / "rauta.yaml"
            config.write_text(with_ports(EXAMPLE.read_text(), ports))
        command: list[str | Path] = [sys.executable, "-m", "rauta.proxy", "--config", config, "--workers", "2"]
        process = stack.enter_context(running(command, folder, "rauta"))
        await_ready(process, folder, "rauta", '"event": "ready"')
        yield Stage(
            url=f"http://127.0.0.1:{ports[LISTENER_PORT]}",
            config=config,
            names={f"127.0.0.1:{ports[port]}": name for port, name in BACKEND_PORTS.items()},
            nginx=version(nginx),
            log=folder / "rauta.out",
        )


def version(nginx: str) -> str:
    """Of an nginx."""
    text = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return text.strip().rpartition("/")[2].partition(" ")[0]


# --- requests -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got. `seconds` is its time from the start of the request to the end of the answer."""

    status: int
    body: str
    location: str
    seconds: float


def curl(
    url: str, method: str, headers: tuple[str, ...], body: str | None, times: int, options: tuple[str, ...] = ()
) -> list[Answer]:
    """Send a request, or the same one several times with the marker's number counted up, each on its own connection."""
    command = ["curl", "-q", "--silent", "--noproxy", "*", "--path-as-is", "--max-time", "10", "--request", method]
    command += options
    command += ["--write-out", "\x1e%{http_code}\x1f%{time_total}\x1f%{redirect_url}\x1e"]
    for header in headers:
        command += ["--header", header]
    if body is not None:
        command += ["--data-binary", body]
    if times > 1:
        command += ["--header", "Connection: close"]
        url += f".[1-{times}]"
    done = subprocess.run(
        [*command, url], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    # text RS status US time US location RS, for each answer
    parts = done.stdout.split("\x1e")
    answers = []
    for text, figures in zip(parts[::2], parts[1::2], strict=False):
        status, seconds, location = figures.split("\x1f")
        answers.append(Answer(status=int(status), body=text, location=location, seconds=float(seconds)))
    if len(answers) != times:
        raise DemoError(f"curl gave {len(answers)} answers to {times} requests (exit code {done.returncode})")
    return answers


def read_log(path: Path, expected: int, after: int = -1) -> dict[str, list[dict[str, object]]]:
    """The access log's lines by request marker, of those beyond `after`, once all `expected` ones are written or time
    is up."""
    limit = time.monotonic() + LOG_LIMIT
    while True:
        found: dict[str, list[dict[str, object]]] = {}
        whole_lines = path.read_text().rpartition("\n")[0].splitlines()
        for line in whole_lines:
            entry = json.loads(line)
            marker = re.search(r"[?&]demo=([0-9]+)", str(entry["target"]))
            if marker is not None and int(marker[1]) > after:
                found.setdefault(marker[1], []).append(entry)
        if sum(map(len, found.values())) >= expected or time.monotonic() > limit:
            return found
        time.sleep(_PAUSE)
