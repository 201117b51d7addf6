from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rauta.routing.settings import Address, Listener
from rauta.runtime import sockets
from rauta.runtime.errors import StartError
from support.process import free_port


def listener(host: str, port: int, name: str = "web") -> Listener:
    return Listener(name=name, address=Address(host, port))


@contextlib.contextmanager
def bound(listeners: Sequence[Listener], slots: int) -> Iterator[list[sockets.SlotSockets]]:
    groups = sockets.bind(listeners, slots)
    try:
        yield groups
    finally:
        sockets.close(groups)


def can_connect(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_each_slot_has_its_own_socket_and_nothing_listens_before_it_is_told() -> None:
    port = free_port()
    with bound([listener("127.0.0.1", port)], 3) as groups:
        assert len({group[Address("127.0.0.1", port)][0].fileno() for group in groups}) == 3
        assert {group[Address("127.0.0.1", port)][0].getsockname() for group in groups} == {("127.0.0.1", port)}
        assert not can_connect(port)
        sockets.listen(groups)
        assert can_connect(port)
    assert not can_connect(port)


def test_an_address_in_use_is_told_although_the_other_shares_its_port() -> None:
    port = free_port()
    with bound([listener("127.0.0.1", port)], 1) as groups:
        sockets.listen(groups)
        with pytest.raises(StartError, match=rf"conf:3: listener 'web': 127.0.0.1:{port} is in use: stop") as caught:
            sockets.bind([listener("127.0.0.1", port)], 1, place=lambda _: "conf:3: ")
    assert caught.value.code == 2


def test_a_wildcard_and_one_of_its_addresses_may_share_a_port() -> None:
    port = free_port()
    with bound([listener("0.0.0.0", port, "all"), listener("127.0.0.1", port, "one")], 2) as groups:
        sockets.listen(groups)
        assert can_connect(port)


def test_a_port_with_connections_in_time_wait_is_free() -> None:
    port = free_port()
    with bound([listener("127.0.0.1", port)], 1) as groups:
        sockets.listen(groups)
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = groups[0][Address("127.0.0.1", port)][0].accept()
            accepted.close()  # this side closes first: it keeps the TIME_WAIT
            assert client.recv(1) == b""
    with bound([listener("127.0.0.1", port)], 1) as groups:
        sockets.listen(groups)


def test_ipv6_any_leaves_ipv4_alone() -> None:
    port = free_port("::1")
    with bound([listener("::", port, "six"), listener("0.0.0.0", port, "four")], 1) as groups:
        assert groups[0][Address("::", port)][0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        sockets.listen([{Address("::", port): groups[0][Address("::", port)]}])
        assert can_connect(port, "::1")
        assert not can_connect(port)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(StartError, match=r"listener 'web': 10\.255\.255\.1:80 is not an address of this machine"):
        sockets.bind([listener("10.255.255.1", 80)], 2)


def test_nothing_stays_open_when_a_later_listener_fails() -> None:
    port = free_port()
    with pytest.raises(StartError):
        sockets.bind([listener("127.0.0.1", port), listener("10.255.255.1", port, "far")], 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize(("before", "after"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_a_wildcard_and_one_of_its_addresses_may_replace_each_other(before: str, after: str) -> None:
    port = free_port()
    with bound([listener(before, port)], 2) as old:
        sockets.listen(old)
        groups = sockets.bind([listener(after, port)], 2, held=old[0])
        sockets.listen(groups)
        sockets.close(old)
        assert can_connect(port)
        sockets.close(groups)


def test_the_folder_of_a_unix_socket_is_missed(tmp_path: Path) -> None:
    web = Listener(name="web", address=Address.unix(str(tmp_path / "no" / "socket")))
    with pytest.raises(StartError, match=r"listener 'web': unix:.* cannot be made: its folder does not exist"):
        sockets.bind([web], 1)
