"""What `rautactl top` makes of two answers of the gateway."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl import top
from support.adminsocket import AdminSocket

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "rautactl.md").read_text()
RAUTACTL = ("-W", "error", "-m", "rauta.ctl.cli")


def stats(time: float, kernel: float | None, **routes: tuple[int, int, int]) -> dict[str, Any]:
    """An answer of /v1/stats: requests of tiers 1 to 3, by route."""
    return {
        "time": time,
        "kernel_time": kernel,
        "routes": [
            {
                "listener": "web",
                "route": route,
                "service": "users",
                "tiers": {str(tier): count for tier, count in enumerate(counts, 1) if count},
            }
            for route, counts in routes.items()
        ],
    }


BEFORE = stats(10.0, 9.5, users=(1000, 100, 10), rest=(0, 500, 0), quiet=(7, 7, 7))
AFTER = stats(12.0, 11.0, users=(2500, 100, 30), rest=(0, 800, 0), quiet=(7, 7, 7), new=(0, 0, 4))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "INTERVAL", 0.01)


def place(route: str) -> tuple[str, str, str]:
    return "web", route, "users"


def test_each_tier_has_an_interval_of_its_own() -> None:
    assert top.rates(BEFORE, AFTER) == {
        place("users"): {"1": 1000.0, "3": 10.0},
        place("rest"): {"2": 200.0},
        place("new"): {"3": 2.0},
    }


def test_counters_that_begin_anew_are_no_negative_rates() -> None:
    assert top.rates(stats(0.0, 0.0, a=(100, 0, 0)), stats(1.0, 1.0, a=(30, 0, 0))) == {place("a"): {"1": 30.0}}


@pytest.mark.parametrize("kernel", [(None, None), (None, 1.0), (1.0, None), (1.0, 1.0)])
def test_what_the_kernel_was_not_asked_for_has_no_rate(kernel: tuple[float | None, float | None]) -> None:
    before, after = stats(0.0, kernel[0], a=(1, 1, 1)), stats(1.0, kernel[1], a=(9, 9, 9))
    assert top.rates(before, after) == {place("a"): {"3": 8.0}}


def test_the_page_shows_what_it_writes(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    found = re.search(r"```text\n\$ rautactl top --once\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    with AdminSocket(tmp_path / "admin", stats=[BEFORE, AFTER]) as admin:
        ended = rautactl("top", "--once", "--socket", admin.path)
    assert (ended.code, ended.out) == (0, found[1])


def test_as_json(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    with AdminSocket(tmp_path / "admin", stats=[BEFORE, AFTER]) as admin:
        ended = rautactl("top", "--json", "--socket", admin.path)
    assert ended.code == 0
    assert ended.document == {
        "version": 1,
        "seconds": 2.0,
        "tiers": {"1": 1000.0, "2": 200.0, "3": 12.0},
        "routes": [
            {"listener": "web", "route": "new", "service": "users", "tiers": {"3": 2.0}},
            {"listener": "web", "route": "rest", "service": "users", "tiers": {"2": 200.0}},
            {"listener": "web", "route": "users", "service": "users", "tiers": {"1": 1000.0, "3": 10.0}},
        ],
    }


def test_without_an_offload_it_says_so_and_shows_tier_3(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    answers = [stats(0.0, None, a=(0, 0, 1)), stats(1.0, None, a=(0, 0, 6))]
    with AdminSocket(tmp_path / "admin", stats=answers) as admin:
        ended = rautactl("top", "--once", "--socket", admin.path)
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "5.0 requests/s",
        "tier 3  5.0/s, 100%",
        "no kernel offload: rautactl offload says why",
        "",
        "LISTENER  ROUTE  SERVICE  TOTAL/S  TIER 3",
        "web       a      users    5.0      5.0",
    ]


def test_a_gateway_that_is_gone_ends_it(rautactl: Callable[..., Any], tmp_path: Path) -> None:
    ended = rautactl("top", "--socket", str(tmp_path / "nobody"))
    assert (ended.code, ended.out) == (1, "")


def _at_a_terminal() -> None:
    """The terminal is that of the session, and Ctrl-C does what it does there, also if whoever runs the tests ignores
    it, as shells have it for what runs in the background."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Screen:
    """`rautactl top` at a terminal."""

    def __init__(self, environment: dict[str, str], admin: AdminSocket, python: str) -> None:
        self._leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [python, *RAUTACTL, "top", "--socket", admin.path],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=_at_a_terminal,  # noqa: PLW1509 - of two system calls
            env=environment | {"TERM": "xterm", "NO_COLOR": "1", "LINES": "11", "COLUMNS": "80"},
        )
        os.close(follower)
        self.written = b""

    def wait_for(self, text: bytes) -> None:
        while text not in self.written:
            self.written += os.read(self._leader, 65536)

    def press(self, key: bytes) -> int:
        """Its exit code."""
        os.write(self._leader, key)
        try:
            while data := os.read(self._leader, 65536):
                self.written += data
        except OSError:  # EIO: the other side is closed
            pass
        os.close(self._leader)
        return self.process.wait(30)


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_a_screen_until_a_key_ends_it(environment: dict[str, str], tmp_path: Path, key: bytes, code: int) -> None:
    answers = [BEFORE, AFTER, stats(13.0, 12.0, users=(2500, 100, 30))]
    with AdminSocket(tmp_path / "admin", stats=answers) as admin:
        screen = Screen(environment, admin, sys.executable)
        screen.wait_for(b"\x1b[H\x1b[J0.0 requests/s")
        assert screen.press(key) == code
    first, second = screen.written.decode().split("\x1b[H\x1b[J")[1:3]
    assert first.startswith("1212.0 requests/s\r\n")
    assert "users" in first
    assert "rest" in first
    assert "and 1 more" not in second
    assert b"Traceback" not in screen.written
    assert b"\x1b[3" not in screen.written  # no colours


def test_a_screen_holds_no_more_than_fits(environment: dict[str, str], tmp_path: Path) -> None:
    routes = {f"r{number:02}": (number, 0, 0) for number in range(1, 41)}
    answers = [stats(0.0, 0.0), stats(1.0, 1.0, **routes)]
    with AdminSocket(tmp_path / "admin", stats=answers) as admin:
        screen = Screen(environment, admin, sys.executable)
        screen.wait_for(b"more\r\n")
        assert screen.press(b"q") == 0
    shown = screen.written.decode().split("\x1b[H\x1b[J")[1].splitlines()
    assert re.findall(r"r\d\d", " ".join(shown)) == ["r40", "r39", "r38"]
    assert shown[-1] == "and 37 more"
    assert len(shown) < 11
