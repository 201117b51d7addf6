"""On which interfaces `hook: auto` takes XDP."""

from __future__ import annotations

import pytest

from rauta.offload.bcc.links import why_not_xdp
from rauta.offload.bcc.network import Interface

ALL = 7


def interface(**fields: object) -> Interface:
    found: dict[str, object] = {"name": "eth0", "index": 2, "mtu": 1500, "ethernet": True, "up": True}
    return Interface(**{**found, "xdp_features": ALL, **fields})  # type: ignore[arg-type]


def test_a_card_that_can_gets_it() -> None:
    assert why_not_xdp(interface()) == ""
    assert why_not_xdp(interface(xdp_features=ALL | 0x20)) == ""


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"kind": "veth"}, "on veth TC is faster"),
        ({"below": "br0"}, "br0 is on top of it"),
        ({"xdp_features": 0}, "its driver lacks native XDP, XDP redirect"),
        ({"xdp_features": 3}, "its driver lacks sending what is redirected to it"),
    ],
)
def test_others_do_not(fields: dict[str, object], why: str) -> None:
    assert why in why_not_xdp(interface(**fields))
