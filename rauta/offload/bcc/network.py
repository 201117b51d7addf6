"""What the programs must know of the machine's network, asked by netlink (rtnetlink(7)) in this process's namespace."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

_ETHERNET: Final = 1  # ARPHRD_ETHER
_UP: Final = 1  # IFF_UP
_INET: Final = 2
_UNICAST: Final = 1  # RTN_UNICAST


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface of the machine."""

    name: str
    index: int
    mtu: int
    ethernet: bool
    up: bool
    kind: str = ""  # of software interfaces: veth, bridge, ...
    below: str = ""  # the interface that is on top of it (bridge, bond, VLAN), if there is one
    xdp_features: int = 0  # bits of NETDEV_XDP_ACT_*; 0 before Linux 6.3


def _netlink() -> Any:
    # 22 MB and 0.2 s, for those alone that attach programs
    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    return IPRoute()


def interfaces() -> dict[str, Interface]:
    """All, by name."""
    features = _xdp_features()
    with _netlink() as netlink:
        links = list(netlink.get_links())
    names = {int(link["index"]): str(link.get_attr("IFLA_IFNAME")) for link in links}
    above = _above(links, names)
    return {
        names[index]: Interface(
            name=names[index],
            index=index,
            mtu=int(link.get_attr("IFLA_MTU") or 0),
            ethernet=link["ifi_type"] == _ETHERNET,
            up=bool(link["flags"] & _UP),
            kind=_kind(link),
            below=above.get(index, ""),
            xdp_features=features.get(index, 0),
        )
        for link in links
        for index in (int(link["index"]),)
    }


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return str(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _above(links: list[Any], names: Mapping[int, str]) -> dict[int, str]:
    """What is on top of interfaces: the master of a port, and VLANs and the like, which name the one below. (A veth
    names its other end in the same way.)"""
    found: dict[int, str] = {}
    for link in links:
        index, master = int(link["index"]), link.get_attr("IFLA_MASTER")
        if master is not None:
            found[index] = names.get(int(master), str(master))
        lower = link.get_attr("IFLA_LINK")
        if lower is not None and link.get_attr("IFLA_LINK_NETNSID") is None and _kind(link) != "veth":
            found[int(lower)] = names[index]
    return found


def _xdp_features() -> dict[int, int]:
    """What drivers can do at XDP, by interface (netdev(7) of generic netlink, Linux 6.3)."""
    from pyroute2 import NetlinkError
    from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg  # type: ignore[import-untyped]
    from pyroute2.netlink.generic import GenericNetlinkSocket  # type: ignore[import-untyped]

    class Device(genlmsg):  # type: ignore[misc]
        nla_map = ((1, "IFINDEX", "uint32"), (2, "PAD", "none"), (3, "XDP_FEATURES", "uint64"))

    ask = Device()
    ask["cmd"], ask["version"] = 1, 1  # NETDEV_CMD_DEV_GET
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", Device)
            answers = netlink.nlm_request(ask, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP)
            return {int(one.get_attr("IFINDEX")): int(one.get_attr("XDP_FEATURES") or 0) for one in answers}
    except (NetlinkError, OSError):
        return {}


def addresses() -> frozenset[str]:
    """The IPv4 addresses of this host, those of loopback too."""
    with _netlink() as netlink:
        return frozenset(str(item.get_attr("IFA_LOCAL")) for item in netlink.get_addr(family=_INET))


class Unreachable(Mapping[str, str]):
    """Addresses of backends that the kernel path cannot serve, with the reason; looked up when they are asked for.
    `attached` are the indices of the interfaces that have a program."""

    def __init__(self, attached: Collection[int]) -> None:
        self._attached = frozenset(attached)
        self._local = addresses()
        self._known: dict[str, str | None] = {}

    def _why(self, host: str) -> str | None:
        if host in self._local:
            return "it is an address of this host"
        from pyroute2 import NetlinkError

        try:
            with _netlink() as netlink:
                (route, *_) = netlink.route("get", dst=host)
        except NetlinkError as error:
            return f"no route leads to it ({os.strerror(error.code)})"
        if route["type"] != _UNICAST:
            return "no route leads to it"
        return self._through(route)

    def _through(self, route: Any) -> str | None:
        index = int(route.get_attr("RTA_OIF") or 0)
        if index in self._attached:
            return None
        names = {interface.index: interface.name for interface in interfaces().values()}
        return f"it is behind the interface {names.get(index, index)}, which has no program (offload.interfaces)"

    def __getitem__(self, host: str) -> str:
        if host not in self._known:
            self._known[host] = self._why(host)
        found = self._known[host]
        if found is None:
            raise KeyError(host)
        return found

    def __iter__(self) -> Iterator[str]:
        return (host for host, why in self._known.items() if why is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
