from __future__ import annotations

import ipaddress

import pytest
from rauta.api import Matcher, ModelError, RequestView

from rauta_example_plugins.networks import ClientNetwork, NetworkSettings


def member(settings: NetworkSettings, address: str) -> bool:
    matcher = ClientNetwork(settings)
    return matcher.match(RequestView(method="GET", host="", path="/", client=(address, 40000)))


SETTINGS = NetworkSettings(
    networks=("10.0.0.0/8", "192.0.2.7/32", "fd00::/8", "fe80::/10"), exclude=("10.9.0.0/16", "fd00:1::/32")
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", True),
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("9.255.255.255", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("10.8.255.255", True),
        ("10.9.0.0", False),
        ("10.9.255.255", False),
        ("10.10.0.0", True),
        ("fd00::1", True),
        ("fd00:1::1", False),
        ("fd00:2::1", True),
        ("fc00::1", False),
        ("::ffff:10.1.2.3", True),  # an IPv4 client of an IPv6 socket
        ("::ffff:11.1.2.3", False),
        ("fe80::1%eth0", True),  # with a zone
        ("::10.1.2.3", False),  # not mapped: another address
        ("", False),  # a unix peer
    ],
)
def test_membership(address: str, *, expected: bool) -> None:
    assert member(SETTINGS, address) is expected


def test_the_answer_is_that_of_the_standard_library() -> None:
    networks = ("10.0.0.0/8", "10.128.0.0/9", "172.16.0.0/12", "0.0.0.0/1", "203.0.113.128/25")
    parsed = [ipaddress.ip_network(text) for text in networks]
    settings = NetworkSettings(networks=networks)
    for number in range(0, 1 << 32, 0x01F3_5A77):
        address = ipaddress.ip_address(number)
        assert member(settings, str(address)) is any(address in network for network in parsed)


def test_everybody_is_a_network_too() -> None:
    assert member(NetworkSettings(networks=("0.0.0.0/0",)), "203.0.113.9")
    assert not member(NetworkSettings(networks=("0.0.0.0/0",)), "::1")


@pytest.mark.parametrize(
    ("networks", "exclude", "where", "text"),
    [
        ((), (), ("networks",), "the list is empty"),
        (("10.0.0.0/8", "10.0.0.1/8"), (), ("networks", 1), "has host bits set"),
        (("10.0.0.0/8",), ("nonsense",), ("exclude", 0), "'nonsense' is not a network"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(
    networks: tuple[str, ...], exclude: tuple[str, ...], where: tuple[str | int, ...], text: str
) -> None:
    with pytest.raises(ModelError) as caught:
        NetworkSettings(networks=networks, exclude=exclude)
    assert caught.value.problems[0].where == where
    assert text in caught.value.problems[0].message


def test_closing_forgets() -> None:
    matcher = ClientNetwork(SETTINGS)
    request = RequestView(method="GET", host="", path="/", client=("10.0.0.1", 1))
    assert matcher.match(request)
    matcher.close()
    assert matcher.match(request)  # still right: a request may be on its way


def test_it_keeps_the_protocol() -> None:
    matcher: Matcher = ClientNetwork(SETTINGS)  # for the type checker
    assert isinstance(matcher, Matcher)
