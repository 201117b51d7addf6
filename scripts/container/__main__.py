"""packaging/Dockerfile followed without an engine, and the gateway that comes of it asked. Run by scripts/container.sh.

container                 makes the systems, in a folder that is removed in any case
container serve ROOT      process 1 of its own namespaces: starts the gateway, asks it, stops it
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from recipe import RecipeError, Stage, read
from system import System, bootstrap, copy

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPE = CHECKOUT / "packaging" / "Dockerfile"
WITHIN = 30.0  # seconds for the gateway to be ready, and to stop

# What a user mounts over the image's own file.
CONFIGURATION = """\
version: 1
listeners:
  web: {address: ":8080"}
admin: {}
services:
  files: {backends: [{address: "127.0.0.1:9000"}]}
routes:
  - {name: files, match: {path: {prefix: /files}}, service: files, filters: [{rewrite: {path: {prefix: /}}}]}
"""


class CheckError(Exception):
    """Something is not as it should be; the text says what."""


def main() -> int:
    """0: all is as it should be; 1: something is not, or could not be made."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed then, too
    with tempfile.TemporaryDirectory(prefix="rauta-container-", dir="/var/tmp") as folder:
        try:
            _follow(Path(folder))
        except (CheckError, RecipeError) as error:
            print(f"container: {error}")
            return 1
        except subprocess.CalledProcessError as error:
            print(f"container: exit code {error.returncode}: {error.cmd}\n{(error.output or b'').decode()[-4000:]}")
            return 1
    return 0


def _follow(folder: Path) -> None:
    stages = read(RECIPE)
    with _Step("Debian 12 by debootstrap"):
        bootstrap(folder / "base")
    made: dict[str, System] = {}
    for number, stage in enumerate(stages, 1):
        name = stage.name or "final"
        made[name] = System(folder / name)
        with _Step(f"stage {number} ({name}), {len(stage.steps)} steps"):
            copy(folder / "base", folder / name)
            _make(stage, made[name], made)
    final = made["final"]
    print(f"  base {_size(folder / 'base')} MB, final {_size(final.root)} MB", flush=True)
    with _Step("serve: start, ask, stop"):
        final.path("/etc/rauta/rauta.yaml").write_text(CONFIGURATION)
        space = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child"]
        command = [*space, sys.executable, str(Path(__file__).parent), "serve", str(final.root)]
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, timeout=4 * WITHIN)
        if done.returncode:
            raise CheckError("the gateway is not as it should be")


def _make(stage: Stage, system: System, made: dict[str, System]) -> None:
    if stage.base != "debian:12-slim":
        raise RecipeError(f"FROM {stage.base}: only debian:12-slim is known here")
    system.path(stage.folder).mkdir(parents=True, exist_ok=True)
    for word, words in stage.steps:
        if word == "RUN":
            system.run(words, stage.folder)
        else:
            _copy(words, stage.folder, system, made)


def _copy(words: list[str], folder: str, system: System, made: dict[str, System]) -> None:
    """Like COPY: of a folder what is in it, with `--from` out of another stage."""
    source = CHECKOUT
    if words[0].startswith("--from="):
        source = made[words.pop(0).partition("=")[2]].root
    *names, target = words
    place = system.path(target if target.startswith("/") else f"{folder}/{target}")
    for name in names:
        one = source / name.lstrip("/")
        if one.is_dir():
            shutil.copytree(one, place, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to = place / one.name if target.endswith("/") else place
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(one, to)


# --- in there -------------------------------------------------------------------------------------------------


def serve(root: Path) -> int:
    """Process 1 of new namespaces: what it starts and mounts ends with it."""
    system, stage = System(root), read(RECIPE)[-1]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for place in (str(root / "proc"), "/proc"):
        subprocess.run(["mount", "-t", "proc", "proc", place], check=True)
    files = root / "srv"
    (files / "a.txt").write_text("from the backend\n")
    backend = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(files), "9000"]
    subprocess.Popen(backend, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command = stage.command["ENTRYPOINT"] + stage.command["CMD"]
    events = files / "events"
    with events.open("wb") as log:
        gateway = subprocess.Popen(
            system.argv(command, stage.environment, stage.user), stdout=subprocess.DEVNULL, stderr=log
        )
    try:
        _ready(gateway, system.argv(stage.command["HEALTHCHECK"], stage.environment, stage.user))
        _ask(stage.port)
        _look(gateway.pid, stage.user)
        gateway.send_signal(signal.SIGTERM)
        if (code := gateway.wait(WITHIN)) != 0:
            raise CheckError(f"the gateway ended with {code}")
    except CheckError as error:
        print(f"\n{events.read_text()}container: {error}", flush=True)
        return 1
    return 0


def _ready(gateway: subprocess.Popen[bytes], check: list[str]) -> None:
    """Until HEALTHCHECK succeeds."""
    end = time.monotonic() + WITHIN
    while subprocess.run(check, check=False, capture_output=True).returncode:
        if gateway.poll() is not None:
            raise CheckError(f"the gateway ended with {gateway.returncode} instead of serving")
        if time.monotonic() > end:
            raise CheckError(f"HEALTHCHECK did not succeed within {WITHIN:g} s")
        time.sleep(0.1)


def _ask(port: int) -> None:
    """A request through the gateway to a backend; the first that find nobody there yet are sent again."""
    url = f"http://127.0.0.1:{port}/files/a.txt"
    command = ["curl", "-sS", "-i", "--max-time", "5", url]
    answer = ""
    for _ in range(50):
        answer = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        if "from the backend\n" in answer and answer.startswith("HTTP/1.1 200 "):
            return
        time.sleep(0.1)
    raise CheckError(f"GET {url}: {answer!r}")


def _look(pid: int, user: str) -> None:
    """Every process of the gateway is the image's user, and what parses traffic can get no privileges."""
    users, bound = set(), 0
    for status in Path("/proc").glob("[0-9]*/status"):
        lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        if int(status.parent.name) == pid or int(lines["PPid"]) == pid:
            users.add(":".join((lines["Uid"].split()[0], lines["Gid"].split()[0])))
            bound += lines["NoNewPrivs"] == "1"
    if users != {user} or user.startswith(("0", "root")):
        raise CheckError(f"processes run as {', '.join(sorted(users))}; the image's user, not root, is {user}")
    if not bound:
        raise CheckError("no process has no_new_privs")


# --- telling --------------------------------------------------------------------------------------------------


class _Step:
    """One line of progress, with its seconds."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        print(f"  {self._text} ... ", end="", flush=True)
        self._started = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        print(f"{'done' if kind is None else 'failed'} ({time.monotonic() - self._started:.0f} s)", flush=True)


def _size(root: Path) -> int:
    """Megabytes in a folder."""
    total = 0
    for folder, _, names in os.walk(root):
        total += sum(os.lstat(f"{folder}/{name}").st_size for name in names)
    return total // 1_000_000


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[2])) if sys.argv[1:2] == ["serve"] else main())
