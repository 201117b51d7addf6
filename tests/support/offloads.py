"""An offload and an event log that write down what happens to them; and how the real offload is hidden from tests."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path

import rauta
from rauta.offload import Capabilities, Counters, Plan, Prepared
from rauta.routing.settings import Address, OffloadSettings
from rauta.runtime.log import EventLog, Level
from support.process import PATIENCE, ROOT


def hide_shipped(folder: Path) -> Path:
    """Make the folder hide the offload that rauta ships, which must not be started in the network of this machine.

    It must come early in sys.path, or in PYTHONPATH: of the packages of one name, the first one's metadata count. What
    a build left in the checkout would come first, since gateways run there."""
    left = [path.name for path in ROOT.glob("*.egg-info")]
    if left:
        raise RuntimeError(f"remove {left} from the checkout: with it, tests cannot hide the kernel offload")
    about = folder / "rauta-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rauta\nVersion: {rauta.__version__}\n")
    return folder


class Recording:
    """Writes its calls down, with the threads they came in; fails where it is told to."""

    name = "recording"

    def __init__(self, fails: Mapping[str, Exception] | None = None) -> None:
        self.calls: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.given: list[tuple[Plan, OffloadSettings, int]] = []
        self.tables: dict[str, Collection[Address] | None] = {}
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.lacks: str | None = None
        self.fails = dict(fails or {})
        self.counted = Counters(events={"binds": 7})  # what it says it has counted
        self.readings = 0  # how often it was asked; these calls are not among `calls`

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.threads.add(threading.current_thread())
        if name in self.fails:
            raise self.fails[name]

    def missing(self, settings: OffloadSettings) -> str | None:
        return self.lacks

    def start(self, settings: OffloadSettings) -> None:
        self._call("start")

    @property
    def capabilities(self) -> Capabilities:
        if "capabilities" in self.fails:
            raise self.fails["capabilities"]
        return Capabilities()

    def prepare(self, plan: Plan, settings: OffloadSettings, generation: int) -> Prepared:
        self._call("prepare")
        self.entered.set()
        self.go_on.wait(PATIENCE)
        self.given.append((plan, settings, generation))
        return Prepared(generation, plan, settings)

    def commit(self, prepared: Prepared) -> None:
        self._call("commit")

    def abort(self, prepared: Prepared) -> None:
        self._call("abort")

    def usable(self, service: str, addresses: Collection[Address] | None) -> None:
        self._call("usable")
        self.tables[service] = addresses

    def counters(self) -> Counters:
        self.readings += 1
        self.threads.add(threading.current_thread())
        if "counters" in self.fails:
            raise self.fails["counters"]
        return self.counted

    def stop(self, *, detach: bool) -> None:
        self._call("stop")


class Events(EventLog):
    """Keeps what is told: name, message and fields."""

    __slots__ = ("levels", "told")

    def __init__(self) -> None:
        super().__init__(terminal=False)
        self.told: list[tuple[str, str, dict[str, object]]] = []
        self.levels: list[Level] = []

    def write(self, level: Level, event: str, message: str, **fields: object) -> None:
        self.told.append((event, message, fields))
        self.levels.append(level)
