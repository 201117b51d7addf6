"""The connections that the kernel has, as its maps hold them: for people who look. Read from pins, so it does not
matter whether any process of rauta lives."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rauta.offload.bcc import syscalls
from rauta.offload.bcc.identities import Known
from rauta.offload.bcc.places import ROOT, folder_of, here, names_of
from rauta.offload.bcc.syscalls import Map
from rauta.offload.capabilities import METHODS
from rauta.offload.protocol import OffloadError

STATES: Final = ("", "est", "binding", "bound", "local", "moving")  # enum state
_ASKED: Final = 8
_PARKED: Final = 4
_TUPLE: Final = struct.Struct("=4s4s2s2s")  # struct tuple: from, to
_REQUEST: Final = struct.Struct("=IIIBBH")  # struct request
# struct flow: nat, listener, service, first_seq; state, ends, since; numbers; options; retries, rate; parked; the part
# of the client with its requests; the part of the backend; Ethernet addresses.
_FLOW: Final = struct.Struct(f"=12s3I 3Q 12I 2H4B 4s2I {_PARKED}I20x 2Q6I{16 * _ASKED}s 2Q8IH4B2x 24s")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEntry:
    """A connection: addresses are host:port, names those of the file ("" if the kernel knows none). `route`, `method`
    and `code` are those of the request that was answered last, or is being; `requests` and `bytes` (of IP packets, both
    directions) count since it came to the service that it has now; `parked` are services whose connections may be
    waiting."""

    client: str
    address: str
    state: str
    listener: str
    service: str
    backend: str
    route: str
    method: str
    code: int
    requests: int
    bytes: int
    parked: tuple[str, ...]


def _check() -> None:
    try:
        is_there = (folder_of(here()) / "flows").exists()
    except PermissionError as error:
        raise OffloadError(f"{ROOT} is root's alone: run this as root") from error
    if not is_there:
        others = [found.name for found in ROOT.iterdir()] if ROOT.is_dir() else []
        hint = f"; there are some of other ones ({', '.join(others)}): see nsenter(1)" if others else ""
        raise OffloadError(f"no kernel programs are pinned for this network namespace{hint}")


def read_flows() -> Iterator[FlowEntry]:
    """All flows of this network namespace, as they are while this goes through the map. Raises OffloadError."""
    _check()
    folder = folder_of(here())
    try:
        known = Known.load(names_of(here()))
        flows = Map(syscalls.pinned(folder / "flows"))
    except (OSError, ValueError) as error:
        raise OffloadError(f"{folder}: {error}") from error
    try:
        if (flows.info.key, flows.info.value) != (_TUPLE.size, _FLOW.size):
            raise OffloadError(f"{folder} was made by another version of rauta, whose flows cannot be read")
        names = (known.listeners.names(), known.routes.names(), known.services.names())
        for key, value in flows.items():
            yield _entry(key, value, *names)
    finally:
        flows.close()


def _address(host: bytes, port: bytes) -> str:
    return f"{socket.inet_ntoa(host)}:{int.from_bytes(port, 'big')}"


def _entry(
    key: bytes, value: bytes, listeners: Mapping[int, str], routes: Mapping[int, str], services: Mapping[int, str]
) -> FlowEntry:
    source, target, source_port, target_port = _TUPLE.unpack(key)
    found = _FLOW.unpack(value)
    nat, listener, service, _, state = found[:5]
    parked = found[28 : 28 + _PARKED]
    client = found[28 + _PARKED : 37 + _PARKED]
    backend = found[37 + _PARKED :]
    asked, turn = client[7], backend[9]
    route, _, _, method, _, _ = _REQUEST.unpack_from(client[8], 16 * (turn % _ASKED))
    host, _, port, _ = _TUPLE.unpack(nat)
    bound = nat != bytes(len(nat))
    return FlowEntry(
        client=_address(source, source_port),
        address=_address(target, target_port),
        state=STATES[state] if state < len(STATES) else str(state),
        listener=listeners.get(listener, ""),
        service=services.get(service, "") if bound else "",
        backend=_address(host, port) if bound else "",
        route=routes.get(route, "") if asked else "",
        method=METHODS[method] if asked else "",
        code=backend[10] if asked else 0,
        requests=asked,
        bytes=client[0] + backend[0],
        parked=tuple(services.get(number, str(number)) for number in parked if number),
    )
