"""A plan in the maps: each generation is written beside the one that is live, and one store changes over."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from rauta.offload.bcc import layouts, syscalls
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.syscalls import Map
from rauta.offload.plans import HostPlan, ListenerPlan, Plan, PlannedService
from rauta.offload.protocol import OffloadError
from rauta.routing import maglev
from rauta.routing.settings import Address

_HASHES: Final = ("listeners", "hosts", "short_hosts", "suffixes", "paths", "short_paths", "prefixes")
MSS: Final = 1460  # bytes of a segment's payload on Ethernet, less options (RFC 879)
_GRACE: Final = 0.01  # seconds in which programs that have begun with the last generation end


class Tables:
    """The maps that hold plans."""

    def __init__(self, folder: Path, nat_ports: range, known: Known, mss: int = MSS) -> None:
        self._maps: dict[str, Map] = {}
        self._nat_ports = nat_ports
        self._mss = mss  # what clients are offered
        self._live: dict[str, set[bytes]] = {name: set() for name in _HASHES}
        self._written: dict[str, set[bytes]] = {name: set() for name in _HASHES}
        self._generation = 0
        self._services: dict[str, tuple[PlannedService, int]] = {}  # of the live plan: and its number
        self._next_services: dict[str, tuple[PlannedService, int]] = {}
        self._usable: dict[str, frozenset[Address]] = {}
        self.known = known
        for name, sizes in layouts.SIZES.items():
            found = self._maps[name] = Map(syscalls.pinned(folder / name))
            if (found.info.key, found.info.value) != sizes:
                raise OffloadError(f"the map {name} has {found.info}, not {sizes}: programs of another version?")
        self._adopt()

    def _adopt(self) -> None:
        """Go on with what a predecessor left: its live generation, and nothing of one that it only prepared."""
        (self._generation,) = struct.unpack_from("=I", self._maps["configs"].get(layouts.INDEX.pack(0)) or bytes(4))
        self._sweep()

    def _sweep(self) -> None:
        """Nothing is left of generations that were prepared, by whomever; what is live is known."""
        for name in _HASHES:
            for key in [*self._maps[name].keys()]:
                if layouts.parity_of(name, key) == self._parity:
                    self._live[name].add(key)
                else:
                    self._maps[name].delete(key)

    # --- one generation after the other ---

    def write(self, plan: Plan, local: Collection[str]) -> None:
        """Write the plan beside the live one; `local` are the addresses that a wildcard stands for. Raises OSError or
        OffloadError; then `drop` removes what is there."""
        parity = 1 - self._parity
        self._clear(self._written)
        self._sweep()
        self._next_services = {}
        for service in plan.services.values():
            number = self._half("services", parity) + service.number
            self._next_services[service.name] = (service, number)
            self._write_service(service, number)
        for route in plan.routes.values():
            number = self._half("routes", parity) + route.number + 1
            shares = [
                (cumulative, self._next_services[service.name][1])
                for service, cumulative in zip(route.services, route.cumulative, strict=True)
            ]
            value = layouts.route(self.known.routes.of(route.name), shares, by_address=route.by_address)
            self._maps["routes"].set(layouts.INDEX.pack(number), value)
        routes = {name: self._half("routes", parity) + route.number + 1 for name, route in plan.routes.items()}
        owners = iter(range((parity << 24) + 1, (parity + 1) << 24))
        # A wildcard takes over no address that another listener has, also if that one stays in tier 3.
        taken = {listener.address for listener in plan.listeners.values()}
        for place, listener in enumerate(plan.listeners.values()):
            if listener.included:
                value = self._write_hosts(listener, (parity << 24) + place + 1, owners, routes)
                for address in _meant(listener.address, local, taken):
                    self._set("listeners", layouts.listener_key(address, parity), value)

    def switch(self) -> None:
        """The plan that was written is live. Raises OSError; then it is not."""
        self.known.save()
        self._generation = (self._generation + 1) % 2**32 or 2  # never 0, and its parity changes each time
        self._store_config()
        self._live, self._written = self._written, self._live
        self._services, self._next_services = self._next_services, {}
        time.sleep(_GRACE)
        self._clear(self._written)

    def drop(self) -> None:
        """The plan that was written is not wanted."""
        self._clear(self._written)
        self._next_services = {}

    def used(self) -> dict[str, int]:
        """Entries of both generations, by map."""
        return {name: len(self._live[name]) + len(self._written[name]) for name in _HASHES}

    def set_usable(self, service: str, addresses: Collection[Address] | None) -> None:
        """Only these backends get requests; None: all."""
        if addresses is None:
            self._usable.pop(service, None)
        else:
            self._usable[service] = frozenset(addresses)
        found = self._services.get(service)
        if found is not None:
            self._write_service(*found)

    def close(self) -> None:
        """Close the descriptors; the maps stay while they are pinned."""
        for found in self._maps.values():
            found.close()

    # --- pieces ---

    @property
    def _parity(self) -> int:
        return self._generation & 1

    def _half(self, name: str, parity: int) -> int:
        return parity * (self._maps[name].info.entries // 2)

    def _store_config(self) -> None:
        ports = self._nat_ports
        value = layouts.config(self._generation, ports.start, len(ports))
        self._maps["configs"].set(layouts.INDEX.pack(0), value)

    def _set(self, name: str, key: bytes, value: bytes) -> None:
        self._maps[name].set(key, value)
        self._written[name].add(key)

    def _clear(self, entries: dict[str, set[bytes]]) -> None:
        for name, keys in entries.items():
            for key in keys:
                self._maps[name].delete(key)
            keys.clear()

    def _write_hosts(
        self, listener: ListenerPlan, number: int, owners: Iterator[int], routes: Mapping[str, int]
    ) -> bytes:
        """All below a listener; what its own entries hold."""
        numbers: dict[int, int] = {}

        def owner(host: HostPlan | None) -> int:
            if host is None:
                return 0
            if id(host) not in numbers:
                numbers[id(host)] = next(owners)
                self._write_host(host, numbers[id(host)], routes)
            return numbers[id(host)]

        for name, host in listener.hosts.items():
            self._set(*layouts.host_key(number, name), layouts.INDEX.pack(owner(host)))
        for suffix, pair in listener.suffixes.items():
            value = layouts.suffix_owner(owner(pair.one_label), owner(pair.deeper), suffix)
            self._set("suffixes", layouts.suffix_key(number, suffix), value)
        identity = self.known.listeners.of(listener.name)
        hosts, suffixes = bool(listener.hosts), bool(listener.suffixes)
        return layouts.listener(number, owner(listener.other), identity, self._mss, hosts=hosts, suffixes=suffixes)

    def _write_host(self, host: HostPlan, owner: int, routes: Mapping[str, int]) -> None:
        for path, verdicts in host.exact.items():
            row = layouts.row([0 if name is None else routes[name] for name in verdicts])
            self._set(*layouts.path_key(owner, path), row)
        for prefix, verdicts in host.prefix.items():
            row = layouts.row([0 if name is None else routes[name] for name in verdicts])
            self._set("prefixes", layouts.prefix_key(owner, prefix), row)

    def _write_service(self, service: PlannedService, number: int) -> None:
        backends = service.table.backends
        usable = self._usable.get(service.name)
        kept = [backend for backend in backends if usable is None or backend.address in usable]
        slots = bytes(service.table.slots)
        if kept and len(kept) < len(backends):
            # The table of those that are left, by the places of all: bound flows keep their backend's place.
            places = {backend.address: place for place, backend in enumerate(backends)}
            left = maglev.build(kept)
            slots = bytes(places[left.backends[slot].address] for slot in left.slots)
        # Its own table, also where another service has the same backends: health is the service's.
        self._maps["maglevs"].set(layouts.INDEX.pack(number), layouts.maglev(slots))
        value = layouts.service(
            self.known.services.of(service.name),
            number,
            [backend.address for backend in backends],
            by_address=service.by_address,
            proxied=service.proxied,
            usable=sum(1 << place for place, backend in enumerate(backends) if backend in kept),
        )
        self._maps["services"].set(layouts.INDEX.pack(number), value)


def _meant(address: Address, local: Collection[str], taken: Collection[Address]) -> Iterator[Address]:
    """The addresses that a listener's stands for."""
    if address.ip is None or not address.ip.is_unspecified:
        yield address
        return
    for host in local:
        one = Address(host, address.port)
        if one not in taken and one.ip is not None and not one.ip.is_loopback:
            yield one


def possible_cpus() -> int:
    """For how many CPUs per-CPU maps have values."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    last = text.split(",")[-1].split("-")[-1]
    return int(last) + 1 if last.isdigit() else os.cpu_count() or 1
