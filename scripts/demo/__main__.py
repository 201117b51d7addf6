"""Backends, rauta and real requests, and a table of what happened. Run by scripts/demo.sh."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import rauta
from peers import CHECKOUT, EXAMPLE, DemoError, Stage, stage
from rows import ROWS, Result, run
from screen import BOLD, DIM, Screen

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HEADINGS = ("shows", "request", "route", "tier", "backend", "status", "latency")


def _cells(result: Result) -> tuple[str, ...]:
    latency = f"{result.milliseconds:.1f} ms"
    return (result.row.shows, result.request, result.route, result.tier, result.backend, result.status, latency)


def _introduce(screen: Screen, scene: Stage) -> None:
    file = str(EXAMPLE.relative_to(CHECKOUT))
    ports = "" if scene.config == EXAMPLE else ", on ports that are free here"
    behind = ", ".join(f"{name} {address}" for address, name in scene.names.items())
    screen.say()
    screen.say(f"  {screen.paint(f'rauta {rauta.__version__}', BOLD)}  {scene.url}  with {file}{ports}")
    screen.say(f"  nginx {scene.nginx}  {behind}")
    screen.say("  " + screen.paint("route, tier and backend are what rauta's access log says of each request;", DIM))
    screen.say("  " + screen.paint("latency is curl's, with connecting; of many requests the median", DIM))
    screen.say()


def _keep(screen: Screen, scene: Stage, kernel: list[str]) -> None:
    screen.say()
    screen.say("  Still running. Try:")
    for arguments in ("/api/users", "/users/42", "-H 'X-Canary: yes' /orders/7", "-i /old/7", "-i /broken"):
        options, _, path = arguments.rpartition(" ")
        screen.say("    curl " + (f"{options} " if options else "") + scene.url + path)
    screen.say(f"    tail -f {shlex.quote(str(scene.log))}")
    for command in kernel:
        screen.say(f"    {command}")
    screen.say("  " + screen.paint("Ctrl-C stops everything.", BOLD))
    try:
        signal.pause()
    except KeyboardInterrupt:
        screen.say("\n  Stopped.")


def _first_part(screen: Screen, scene: Stage) -> bool:
    """Tier 3: whether every row is right."""
    _introduce(screen, scene)
    results = list(run(scene))
    screen.table(_HEADINGS, [_cells(result) for result in results], [result.wrong for result in results])
    wrong = sum(1 for result in results if result.wrong)
    screen.summary(wrong, len(ROWS))
    return not wrong


def _second_part(screen: Screen, folder: Path, stack: ExitStack, *, keep: bool) -> tuple[bool, list[str]]:
    """The kernel tiers, where this machine has what they need."""
    import kernel

    lacks = kernel.missing()
    if lacks is not None:
        kernel.not_shown(screen, lacks)
        return True, []
    place = folder / "kernel"
    place.mkdir()
    return kernel.show(screen, place, stack, keep=keep)


def _demo(screen: Screen, folder: Path, *, keep: bool, kernel: bool) -> int:
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        scene = first.enter_context(stage(folder, own_ports=keep))
        right, commands = _first_part(screen, scene), list[str]()
        if not keep:
            first.close()
        if kernel:
            second, commands = _second_part(screen, folder, stack, keep=keep)
            right = right and second
        if keep:
            _keep(screen, scene, commands)
    return 0 if right else 1


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    for other in _SIGNALS:  # a second Ctrl-C must not keep the first from stopping what was started
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """0: every row is right; 1: one is not, or something could not be started; 130: interrupted before the table."""
    parser = argparse.ArgumentParser(prog="./scripts/demo.sh", description="Show rauta at work.")
    parser.add_argument("--keep", action="store_true", help="leave everything running, with URLs to try")
    parser.add_argument("--kernel", action="store_true", help="the kernel tiers too; ./scripts/demo.sh asks for them")
    arguments = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _stop)
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="rauta-demo-") as folder:
        try:
            return _demo(screen, Path(folder), keep=arguments.keep, kernel=arguments.kernel)
        except DemoError as error:
            screen.say(f"demo: {error}")
            return 1
        except KeyboardInterrupt:
            screen.say("\n  Stopped.")
            return 130


if __name__ == "__main__":
    sys.exit(main())
