"""The offload as its callers see it (`rauta.offload.protocol`): load and attach, plan after plan, counters, detach.

What outlives this process is pinned in a folder of the network namespace below ROOT: the maps, the programs, and one
link for each interface.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Final

from rauta.offload.bcc import btf, compiler, loader, network, programs, syscalls
from rauta.offload.bcc.counting import FLOWS, map_use, read_events, read_requests
from rauta.offload.bcc.events import EVENTS
from rauta.offload.bcc.identities import Known, is_elsewhere
from rauta.offload.bcc.links import Links, wants_xdp
from rauta.offload.bcc.places import ROOT, folder_of, here, names_of
from rauta.offload.bcc.tables import MSS, Tables
from rauta.offload.capabilities import Capabilities
from rauta.offload.plans import Plan
from rauta.offload.protocol import Counters, Gauges, LifeCycle, OffloadError, Prepared
from rauta.routing.settings import Address, OffloadSettings

_HEADERS: Final = 40  # bytes of IPv4 and TCP without options


class BccOffload:
    """Tiers 1 and 2, at XDP as far as they fit there, else at TC ingress."""

    name: ClassVar[str] = "bcc"

    def __init__(self) -> None:
        self._life = LifeCycle()
        self._tables: Tables | None = None
        self._pending: Prepared | None = None
        self._links = Links(ROOT / "none")
        self._folder = ROOT / "none"
        self._file = ROOT / "none"

    def missing(self, settings: OffloadSettings) -> str | None:
        """What this machine lacks."""
        if os.geteuid() != 0:
            return "root is needed (or CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN for mounting a BPF file system)"
        try:
            kfuncs = btf.function_ids(loader.KFUNCS.values())
        except (OSError, ValueError) as error:
            return f"the kernel tells nothing of its types: {error}"
        if len(kfuncs) < len(loader.KFUNCS):
            return f"the kernel is {os.uname().release}, 6.9 is needed (bpf_sk_assign_tcp_reqsk)"
        if not any((Path(folder) / "bcc").is_dir() for folder in compiler.BCC_PATHS):
            return "bcc is not installed: apt-get install python3-bpfcc"
        if not compiler.HEADERS.is_dir():
            return f"{compiler.HEADERS} is missing: apt-get install linux-libc-dev"
        try:
            cookies = Path("/proc/sys/net/ipv4/tcp_syncookies").read_text().strip()
        except OSError as error:
            return f"the kernel makes no SYN cookies: {error}"
        if cookies == "0":
            return "net.ipv4.tcp_syncookies is 0: the kernel takes no connection that it has not answered itself"
        return None

    def start(self, settings: OffloadSettings) -> None:
        """Compile, load and attach; nothing is answered yet."""
        self._life.check("start")
        try:
            number = here()
            self._folder, self._file = folder_of(number), names_of(number)
            wanted = _wanted(settings, network.interfaces())
            _check_forwarding(wanted)
            ports = _nat_ports()
            known = self._adopted() or self._loaded_anew(xdp=wants_xdp(wanted, settings.hook))
            self._links = Links(self._folder)
            # A client's segment goes to any backend as it is, so it must fit through all.
            mss = min([MSS, *(interface.mtu - _HEADERS for interface in wanted)])
            self._tables = Tables(self._folder, ports, known, mss)
            self._links.attach(wanted, settings.hook)
        except (OSError, OffloadError) as error:
            self._remove()
            raise OffloadError(str(error)) from error
        self._life.done("start")

    @property
    def capabilities(self) -> Capabilities:
        """What the maps hold."""
        return Capabilities(
            listeners=128,
            hosts=programs.SIZES["HOSTS"] // 2,
            exact=programs.SIZES["PATHS"] // 2,
            prefix=programs.SIZES["PATHS"] // 2,
            routes=programs.SIZES["ROUTES"] // 2 - 1,
            services=programs.SIZES["SERVICES"] // 2,
            # Before the start nobody knows: nothing is attached yet.
            unreachable=network.Unreachable(self._links.indices) if self._links.indices else {},
        )

    def prepare(self, plan: Plan, settings: OffloadSettings, generation: int) -> Prepared:
        """Write the plan beside the live one."""
        self._life.check("prepare")
        tables = self._loaded()
        try:
            tables.write(plan, network.addresses())
        except (OSError, OffloadError) as error:
            tables.drop()
            raise OffloadError(f"the plan cannot be written: {error}") from error
        self._life.done("prepare")
        self._pending = Prepared(generation, plan, settings)
        return self._pending

    def commit(self, prepared: Prepared) -> None:
        """One store changes over."""
        self._is_pending("commit", prepared)
        try:
            # More interfaces first: what goes to backends must come back through a program.
            self._links.attach(_wanted(prepared.settings, network.interfaces()), prepared.settings.hook)
            self._loaded().switch()
        except OSError as error:
            raise OffloadError(f"the plan cannot go live: {error}") from error
        self._life.done("commit")
        self._pending = None

    def abort(self, prepared: Prepared) -> None:
        """Forget what was written."""
        self._is_pending("abort", prepared)
        self._loaded().drop()
        self._life.done("abort")
        self._pending = None

    def usable(self, service: str, addresses: Collection[Address] | None) -> None:
        """Write the service's table anew."""
        self._life.check("usable")
        try:
            self._loaded().set_usable(service, addresses)
        except OSError as error:
            raise OffloadError(f"service {service!r}: {error}") from error
        self._life.done("usable")

    def counters(self) -> Counters:
        """Sums over all CPUs since the programs were loaded."""
        self._life.check("counters")
        tables = self._loaded()
        try:
            events = read_events(self._folder, EVENTS)
            requests = read_requests(self._folder, tables.known)
            counts = tables.used()
            maps = map_use(self._folder, counts, [*counts, *FLOWS])
        except OSError as error:
            raise OffloadError(f"the counters cannot be read: {error}") from error
        gauges = Gauges(flows=maps["flows"].used, maps=maps, interfaces=self._links.interfaces)
        return Counters(requests=requests, events=events, gauges=gauges)

    def stop(self, *, detach: bool) -> None:
        """With `detach` nothing is left."""
        self._life.done("stop")
        self._pending = None
        if self._tables is not None:
            self._tables.close()
            self._tables = None
        self._links.close()
        if detach:
            self._remove()

    # --- pieces ---

    def _loaded(self) -> Tables:
        if self._tables is None:
            raise OffloadError("nothing is loaded")
        return self._tables

    def _is_pending(self, call: str, prepared: Prepared) -> None:
        self._life.check(call)
        if prepared is not self._pending:
            raise OffloadError(f"{call} of generation {prepared.generation}, which is not the one that was prepared")

    def _adopted(self) -> Known | None:
        """What a predecessor left that was killed, or hands over: programs go on as they are, and bound flows notice
        nothing. None: there is nothing, or it was made by another version."""
        if not (self._folder / loader.mark(programs.sizes())).exists():
            return None
        try:
            return Known.load(self._file)
        except (OSError, ValueError):
            return None

    def _loaded_anew(self, *, xdp: bool) -> Known:
        self._remove(anew=True)  # of a predecessor that could not, or of another version
        syscalls.mount_bpffs(ROOT)
        self._folder.mkdir(mode=0o700)
        programs.load(self._folder, xdp=xdp)
        return Known(self._file)

    def _remove(self, *, anew: bool = False) -> None:
        """Whatever is pinned, and the file system itself if nobody else uses it; but, unless all is made `anew`, not
        what another process owns. Raises OffloadError."""
        self._links.close()
        if is_elsewhere(self._file) and not anew:
            return
        try:
            syscalls.remove(self._folder)
            self._file.unlink(missing_ok=True)
            syscalls.unmount_if_empty(ROOT)
        except OSError as error:
            raise OffloadError(f"{self._folder} cannot be removed: {error}") from error
        with contextlib.suppress(OSError):
            ROOT.rmdir()


def _wanted(settings: OffloadSettings, known: Mapping[str, network.Interface]) -> list[network.Interface]:
    """The interfaces that get a program: those that the file names, or all that are Ethernet and up."""
    if not settings.interfaces:
        return [interface for interface in known.values() if interface.ethernet and interface.up]
    missing = [name for name in settings.interfaces if name not in known]
    if missing:
        raise OffloadError(f"offload.interfaces: there is no {', '.join(missing)}; there are {', '.join(known)}")
    return [known[name] for name in settings.interfaces]


def _check_forwarding(interfaces: list[network.Interface]) -> None:
    """The kernel looks up ways to backends only where it forwards (bpf_fib_lookup)."""
    for interface in interfaces:
        if Path(f"/proc/sys/net/ipv4/conf/{interface.name}/forwarding").read_text().strip() == "0":
            raise OffloadError(f"{interface.name} does not forward: net.ipv4.ip_forward must be 1 for the kernel tiers")


def _nat_ports() -> range:
    """Ports towards backends: not those that the host's own connections take."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    below, above = range(10_000, low), range(high + 1, 65_536)
    found = below if len(below) >= len(above) else above
    if len(found) < 1_000:
        raise OffloadError(
            f"net.ipv4.ip_local_port_range is {low} to {high}: that leaves less than 1000 ports for backends' sides"
        )
    return found
