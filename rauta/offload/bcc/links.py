"""Which program is on which interface: one at TC on each, one at XDP in front of it where that is wanted and can be.

A link keeps its program attached for as long as it lives, and is pinned as `tc-INDEX` or `xdp-INDEX`, so that the
programs outlive the process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from rauta.offload.bcc import programs, syscalls
from rauta.offload.bcc.network import Interface
from rauta.offload.protocol import Attachment, OffloadError
from rauta.routing.settings import Hook

_TC: Final = "tc-"
_XDP: Final = "xdp-"
# NETDEV_XDP_ACT_BASIC, _REDIRECT, _NDO_XMIT: run, send elsewhere, take what others send (include/uapi/linux/netdev.h)
_FEATURES: Final = {1: "native XDP", 2: "XDP redirect", 4: "sending what is redirected to it"}


def why_not_xdp(interface: Interface) -> str:
    """Why `hook: auto` leaves an interface to TC; empty: it does not."""
    if interface.kind == "veth":
        return "on veth TC is faster: XDP would switch off segmentation offloads"
    if interface.below:
        return f"{interface.below} is on top of it, and expects its packets"
    missing = [text for bit, text in _FEATURES.items() if not interface.xdp_features & bit]
    return f"its driver lacks {', '.join(missing)}" if missing else ""


def wants_xdp(interfaces: Iterable[Interface], hook: Hook) -> bool:
    """Whether the program at XDP will be needed."""
    return hook is Hook.XDP or (hook is Hook.AUTO and not any(map(why_not_xdp, interfaces)))


class Links:
    """What is attached, in the folder of the pins. Methods raise OSError or OffloadError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._links: dict[str, int] = {}  # descriptors by the pin's name
        self.interfaces: Mapping[str, Attachment] = {}
        self.indices: frozenset[int] = frozenset()

    def attach(self, interfaces: Iterable[Interface], hook: Hook) -> None:
        """To these and to no others; where a program is already, it stays."""
        found: dict[str, Attachment] = {}
        names, indices = set(), set()
        interfaces = list(interfaces)
        # XDP sends to any of them, and what one cannot take is lost.
        against = next((f"{one.name}: {why}" for one in interfaces if (why := why_not_xdp(one))), "")
        for interface in interfaces:
            indices.add(interface.index)
            names.add(self._link(_TC, "rauta_tc", interface.index, syscalls.attach))
            why = "" if hook is Hook.XDP else "offload.hook is tc" if hook is Hook.TC else against
            if not why:
                try:
                    if not (self._folder / "rauta_xdp").exists():
                        programs.load_xdp(self._folder)
                    names.add(self._link(_XDP, "rauta_xdp", interface.index, syscalls.attach_xdp))
                    found[interface.name] = Attachment("xdp", "native")
                    continue
                except (OSError, OffloadError) as error:
                    why = _told(error)
                    if hook is Hook.XDP:
                        raise OffloadError(f"offload.hook is xdp, but on {interface.name} {why}") from error
            found[interface.name] = Attachment("tc", "tcx", why)
        self._drop_others(names)
        self.interfaces, self.indices = found, frozenset(indices)

    def _link(self, kind: str, program: str, index: int, attach: Callable[[int, int], int]) -> str:
        name = f"{kind}{index}"
        if name in self._links:
            return name
        place = self._folder / name
        if place.exists():
            self._links[name] = syscalls.pinned(place)
            return name
        descriptor = syscalls.pinned(self._folder / program)
        try:
            link = self._links[name] = attach(descriptor, index)
        finally:
            os.close(descriptor)
        syscalls.pin(link, place)
        return name

    def _drop_others(self, names: set[str]) -> None:
        for name in self._links.keys() - names:
            os.close(self._links.pop(name))
        for place in self._folder.iterdir():
            if place.name.startswith((_TC, _XDP)) and place.name not in names:
                place.unlink()

    def close(self) -> None:
        """Let go of the descriptors; what is pinned stays attached."""
        for link in self._links.values():
            os.close(link)
        self._links.clear()


def _told(error: OSError | OffloadError) -> str:
    if isinstance(error, OffloadError):
        return str(error)
    if error.errno == errno.EBUSY:
        return "another XDP program is attached"
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
        return "the driver has no native XDP, or not with this MTU"
    return f"XDP cannot be attached: {error.strerror}"
