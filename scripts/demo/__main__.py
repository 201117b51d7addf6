"""Backends, rauta and real requests, and a table of what happened. Run by scripts/demo.sh."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import rauta
from peers import CHECKOUT, EXAMPLE, DemoError, Stage, stage
from rows import ROWS, Result, run

_BOLD, _DIM, _GREEN, _RED, _PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_HEADINGS = ("shows", "request", "route", "tier", "backend", "status", "latency")


class Screen:
    """Text for a person; colours only where they are wanted (a terminal, and no NO_COLOR)."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def say(self, text: str = "") -> None:
        print(text, flush=True)

    def table(self, results: list[Result]) -> None:
        """One line per result, with what was wrong below it."""
        lines = [_cells(result) for result in results]
        widths = [max(map(len, column)) for column in zip(_HEADINGS, *lines, strict=True)]
        self.say("  " + self.paint(_aligned(_HEADINGS, widths), _BOLD))
        for result, cells in zip(results, lines, strict=True):
            mark = self.paint("ok", _GREEN) if not result.wrong else self.paint("WRONG", _RED)
            self.say(f"  {_aligned(cells, widths)}  {mark}")
            for complaint in result.wrong:
                self.say("      " + self.paint(complaint, _RED))


def _cells(result: Result) -> tuple[str, ...]:
    latency = f"{result.milliseconds:.1f} ms"
    return (result.row.shows, result.request, result.route, result.tier, result.backend, result.status, latency)


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
    return "  ".join([*padded, cells[-1].rjust(widths[-1])])


def _introduce(screen: Screen, scene: Stage) -> None:
    file = str(EXAMPLE.relative_to(CHECKOUT))
    ports = "" if scene.config == EXAMPLE else ", on ports that are free here"
    behind = ", ".join(f"{name} {address}" for address, name in scene.names.items())
    screen.say()
    screen.say(f"  {screen.paint(f'rauta {rauta.__version__}', _BOLD)}  {scene.url}  with {file}{ports}")
    screen.say(f"  nginx {scene.nginx}  {behind}")
    screen.say("  " + screen.paint("route, tier and backend are what rauta's access log says of each request;", _DIM))
    screen.say("  " + screen.paint("latency is curl's, with connecting; of many requests the median", _DIM))
    screen.say()


def _keep(screen: Screen, scene: Stage) -> None:
    screen.say("  Still running. Try:")
    for arguments in ("/api/users", "/users/42", "-H 'X-Canary: yes' /orders/7", "-i /old/7", "-i /broken"):
        options, _, path = arguments.rpartition(" ")
        screen.say("    curl " + (f"{options} " if options else "") + scene.url + path)
    screen.say(f"    tail -f {shlex.quote(str(scene.log))}")
    screen.say("  " + screen.paint("Ctrl-C stops everything.", _BOLD))
    try:
        signal.pause()
    except KeyboardInterrupt:
        screen.say("\n  Stopped.")


def _demo(screen: Screen, folder: Path, *, keep: bool) -> int:
    with stage(folder, own_ports=keep) as scene:
        _introduce(screen, scene)
        results = list(run(scene))
        screen.table(results)
        wrong = sum(1 for result in results if result.wrong)
        screen.say()
        if wrong:
            screen.say("  " + screen.paint(f"{wrong} of {len(ROWS)} rows are not what they should be.", _RED))
        else:
            screen.say(f"  {len(ROWS)} of {len(ROWS)} rows are what they should be.")
        if keep:
            _keep(screen, scene)
    return 1 if wrong else 0


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    for other in _SIGNALS:  # a second Ctrl-C must not keep the first from stopping what was started
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """0: every row is right; 1: one is not, or something could not be started; 130: interrupted before the table."""
    parser = argparse.ArgumentParser(prog="./scripts/demo.sh", description="Show rauta at work.")
    parser.add_argument("--keep", action="store_true", help="leave everything running, with URLs to try")
    arguments = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _stop)
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="rauta-demo-") as folder:
        try:
            return _demo(screen, Path(folder), keep=arguments.keep)
        except DemoError as error:
            screen.say(f"demo: {error}")
            return 1
        except KeyboardInterrupt:
            screen.say("\n  Stopped.")
            return 130


if __name__ == "__main__":
    sys.exit(main())
