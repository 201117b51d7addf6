"""The second part of the demo: the kernel tiers between network namespaces, also when processes die."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import tiers
from lab import EXAMPLE, URL, Gateway, Lab, NoLabError, lab
from load import Load, rush
from peers import CHECKOUT, DemoError
from rauta.offload.bcc import BccOffload
from rauta.routing.settings import OffloadSettings
from screen import BOLD, DIM, Screen
from tiers import Row, read_counts

_ADDRESS = ("10.203.1.1", 8080)
_MANY, _FEW, _CONNECTIONS = 20_000, 2_000, 8
_WITHOUT = 2.0  # seconds that the kernel goes on alone
# What rauta's processes may use meanwhile for what they do without any request: beating hearts, writing down counters.
_IDLE = 0.05  # of one CPU
BLUE, GREEN, BOTH, NONE = frozenset({"blue"}), frozenset({"green"}), frozenset({"blue", "green"}), frozenset[str]()
ONE, TWO, THREE = frozenset({1}), frozenset({2}), frozenset({3})

_REGEX_DEAD = "is reset: nobody listens for what the kernel does not answer"

Complaints = list[str]

# Each list is one connection, or one for each request of a row.
_EXACT = Row(shows="exact path", path="/api/users", route="users", tiers=ONE, event="hit_first", backends=BLUE)
_POST = Row(
    shows="... POST below a prefix",
    method="POST",
    path="/api/orders/7",
    route="orders",
    kept=True,
    tiers=TWO,
    event="hit_next_2",
    backends=BLUE,
)
_REGEX = Row(
    shows="... regex",
    path="/users/42",
    route="user-by-id",
    kept=True,
    tiers=THREE,
    event="handed_over_later",
    backends=GREEN,
)
_ALL_TIERS = [_EXACT, _POST, _REGEX]
_SHOWN = [
    [
        *_ALL_TIERS,
        Row(
            shows="... and stays there",
            path="/api/users",
            route="users",
            kept=True,
            tiers=THREE,
            event="",
            backends=BLUE,
        ),
    ],
    [
        _EXACT,
        Row(
            shows="... another service",
            path="/shop/cart",
            route="cart",
            kept=True,
            tiers=ONE,
            event="moved",
            backends=GREEN,
        ),
        Row(
            shows="... and back",
            path="/api/users",
            route="users",
            kept=True,
            tiers=ONE,
            event="moved_back",
            backends=BLUE,
        ),
    ],
    [
        Row(
            shows="regex at first",
            path="/users/7",
            route="user-by-id",
            tiers=THREE,
            event="local_assigned",
            backends=GREEN,
        )
    ],
    [
        Row(
            shows="two backends",
            path="/shared/7",
            route="shared",
            times=40,
            tiers=TWO,
            event="hit_first_2",
            backends=BOTH,
        )
    ],
]
_WITHOUT_GREEN = [
    [
        Row(
            shows="another takes over",
            path="/shared/7",
            route="shared",
            times=40,
            tiers=TWO | THREE,
            event="refused",
            backends=BLUE,
        )
    ],
    [
        Row(
            shows="no other",
            path="/shop/cart",
            route="cart",
            tiers=THREE,
            event="refused",
            backends=NONE,
            status=502,
            reason="upstream_refused",
        )
    ],
]


def missing() -> str | None:
    """What this machine lacks for this part, as a clause; None: nothing."""
    lacks = BccOffload().missing(OffloadSettings())
    if lacks is None:
        lacks = next((f"{name} is not installed" for name in ("ip", "nsenter") if shutil.which(name) is None), None)
    return lacks


class _Story:
    """What is done one after the other, and how many rows of it were right."""

    def __init__(self, screen: Screen, lab: Lab) -> None:
        self.rows = self.wrong = 0
        self._screen = screen
        self._lab = lab

    def requests(self, gateway: Gateway, connections: list[list[Row]]) -> None:
        """A table of requests."""
        results = [result for rows in connections for result in tiers.run(self._lab, gateway, rows)]
        self._screen.table(tiers.HEADINGS, [result.cells for result in results], [result.wrong for result in results])
        self.rows += len(results)
        self.wrong += sum(1 for result in results if result.wrong)

    def headline(self, text: str) -> None:
        """What comes next."""
        self._screen.say()
        self._screen.say("  " + self._screen.paint(text, BOLD))

    def tell(self, what: str, complaints: Complaints) -> None:
        """A line about something that was done."""
        self._screen.verdict(what, complaints)
        self.rows += 1
        self.wrong += bool(complaints)

    # --- acts -------------------------------------------------------------------------------------------

    def idle(self, gateway: Gateway) -> None:
        """rauta's processes do nothing while the kernel answers."""
        self.headline(f"CPU time that rauta's {gateway.processes} processes used")
        self._cpu(gateway, "/api/users", _MANY, kernel=True)
        self._cpu(gateway, "/users/42", _FEW, kernel=False)

    def _cpu(self, gateway: Gateway, path: str, requests: int, *, kernel: bool) -> None:
        before, used = read_counts(self._lab), gateway.cpu()
        tally, seconds = rush(self._lab.client, _ADDRESS, path, requests, _CONNECTIONS)
        used, counts = gateway.cpu() - used, read_counts(self._lab) - before
        counted = counts.requests["users", "GET", 200, 1]
        wrong = [] if tally.answered == requests else [f"{requests:,} should be answered: {tally}"]
        if counted != (requests if kernel else 0):
            wrong.append(f"the kernel has counted {counted:,} requests")
        if kernel and used > _IDLE * max(seconds, 1.0):
            wrong.append("they should have had nothing to do")
        if not kernel and not used:
            wrong.append("they should have had something to do")
        where = "that the kernel answered" if kernel else "that tier 3 answered"
        self.tell(f"{used:.2f} s  for {requests:6,} requests {where}, in {seconds:.1f} s", wrong)

    def without_userspace(self, gateway: Gateway, load: Load) -> None:
        """The kernel goes on when rauta is dead."""
        self.headline(
            f"Under load: all {gateway.processes} processes of rauta are killed (kill -9), then it is started again"
        )
        load.lap()
        time.sleep(1.0)
        self._lap("rauta is there", load)
        gateway.kill()
        load.lap()
        before = read_counts(self._lab)
        time.sleep(_WITHOUT)
        self._lap(f"it is dead, {_WITHOUT:.1f} s", load)
        counts = read_counts(self._lab) - before
        first, following = counts.events["hit_first"], counts.events["hit_next"]
        wrong = [] if first and following else ["both should have gone on"]
        told = f"{first:,} first requests of connections, {following:,} later ones, in the kernel"
        self.tell(f"{'... and the counters say':26}{told}", wrong)
        status = tiers.status(self._lab, "/users/42")
        self.tell(f"{'... but a regex':26}{_REGEX_DEAD}", [f"it was answered {status}"] if status else [])

    def restart(self, load: Load, start: Callable[[], Gateway]) -> Gateway:
        """rauta comes back, and takes over what is in the kernel as it is."""
        load.lap()
        started = time.monotonic()
        gateway = start()
        self._lap(f"it starts, {time.monotonic() - started:.1f} s", load)
        time.sleep(1.0)
        self._lap("it is there again", load)
        return gateway

    def without_backend(self, gateway: Gateway) -> None:
        """What was green's is answered by tier 3."""
        self.headline("green is killed (kill -9): its host refuses, and the kernel gives those requests to tier 3")
        self._lab.kill_backend(self._lab.green)
        self.requests(gateway, _WITHOUT_GREEN)
        self._lab.start_backend(self._lab.green)

    def after(self, gateway: Gateway) -> None:
        """All tiers, once more."""
        self.headline("All tiers again, on one connection")
        self.requests(gateway, [_ALL_TIERS])

    def at_xdp(self, gateway: Gateway) -> None:
        """The same tiers where a network card would hand packets over."""
        self.headline("With `hook: xdp`, and packets as they are on a wire: the same tiers, in front of TC")
        before = read_counts(self._lab)
        self.requests(gateway, [_ALL_TIERS])
        packets = (read_counts(self._lab) - before).events["at_xdp"]
        self.tell(f"{packets} packets never came to TC", [] if packets else ["some should have been done with at XDP"])

    def left(self) -> None:
        """What there is when rauta has been stopped."""
        self.headline("rauta is stopped")
        pins = self._lab.pins
        self.tell("no program and no map is left in the kernel", [f"{pins} is there"] if pins.exists() else [])

    def _lap(self, when: str, load: Load) -> None:
        for kind, tally in load.lap().items():
            wrong = [] if tally.answered else ["requests should be answered"]
            if tally.failed:
                wrong.append("none should fail")
            self.tell(f"{when:26}{kind + ' connections':18}{tally}", wrong)


# --- the whole of it ------------------------------------------------------------------------------------


def _introduce(screen: Screen) -> None:
    file = EXAMPLE.relative_to(CHECKOUT)
    screen.say()
    screen.say(f"  {screen.paint('The kernel tiers', BOLD)}  {URL}  with {file}, on Linux {os.uname().release}")
    screen.say(
        "  network namespaces: client 10.203.1.2 --- rauta 10.203.1.1 --- nginx blue 10.203.2.2, green 10.203.3.2"
    )
    screen.say(
        "  " + screen.paint("tiers 1 and 2 are what the kernel's counters say, tier 3 is what rauta's access log", DIM)
    )
    screen.say(
        "  "
        + screen.paint('says. Rows with ... go on with the connection above; "counted" are the kernel\'s events', DIM)
    )
    screen.say()


def show(screen: Screen, folder: Path, stack: ExitStack, *, keep: bool) -> tuple[bool, list[str]]:
    """Show it all. Whether every row is right; and with `keep`, where all of it runs on until the stack is closed,
    commands to try. Raises DemoError."""
    nginx = shutil.which("nginx")
    if nginx is None:
        raise DemoError("nginx is needed; ./scripts/demo.sh installs it")
    try:
        scene = stack.enter_context(lab(folder, nginx))
    except NoLabError as error:
        not_shown(screen, str(error))
        return True, []
    _introduce(screen)
    story = _Story(screen, scene)
    with ExitStack() as killed:
        gateway = killed.enter_context(scene.rauta())
        story.requests(gateway, _SHOWN)
        story.idle(gateway)
        story.without_backend(gateway)
        with Load(scene.client, _ADDRESS, "/api/users").going() as load:
            story.without_userspace(gateway, load)
            last = stack.enter_context(ExitStack())
            gateway = story.restart(load, lambda: last.enter_context(scene.rauta()))
    story.after(gateway)
    if not keep:
        last.close()
        scene.as_on_a_wire()
        with scene.rauta(hook="xdp") as gateway:
            story.at_xdp(gateway)
        story.left()
    screen.summary(story.wrong, story.rows)
    return not story.wrong, _commands(scene) if keep else []


def not_shown(screen: Screen, why: str) -> None:
    """One line about what this machine lacks."""
    screen.say()
    screen.say(f"  Tiers 1 and 2, in the kernel, are not shown: {why}.")


def _commands(scene: Lab) -> list[str]:
    client, gateway = (f"nsenter --net={host.path}" for host in (scene.client, scene.gateway))
    rautactl = Path(sys.executable).with_name("rautactl")
    return [
        f"{client} curl {URL}/api/users",
        f"{client} curl {URL}/api/users --next {URL}/users/42",
        f"{gateway} {rautactl} routes {shlex.quote(str(scene.config))}",
        f"{rautactl} status --socket {shlex.quote(str(scene.admin))}",
    ]
