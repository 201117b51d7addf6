"""The forwarded fields as text; over the wire they are tested in test_http."""

from __future__ import annotations

import pytest

from rauta.proxy.forwarded import builder_of
from rauta.routing.settings import X_FORWARDED, Forwarded


def lines(wanted: set[Forwarded] | frozenset[Forwarded], *arguments: str) -> str:
    builder = builder_of(wanted)
    assert builder is not None
    return builder(*arguments, "1.1", ":QUJD:")


def test_none_wanted() -> None:
    assert builder_of(frozenset()) is None


@pytest.mark.parametrize(
    ("address", "authority", "expected"),
    [
        ("192.0.2.1", "a:8080", 'Forwarded: for=192.0.2.1;host="a:8080";proto=https\r\n'),
        ("2001:db8::1", "[::1]:80", 'Forwarded: for="[2001:db8::1]";host="[::1]:80";proto=https\r\n'),
        ("", "", "Forwarded: for=unknown;proto=https\r\n"),
    ],
)
def test_rfc7239(address: str, authority: str, expected: str) -> None:
    assert lines({Forwarded.FORWARDED}, address, "https", authority) == expected


def test_via_tells_the_version_of_the_client() -> None:
    builder = builder_of({Forwarded.VIA})
    assert builder is not None
    assert builder("192.0.2.1", "http", "test", "1.0", "") == "Via: 1.0 rauta\r\n"


def test_the_default_in_one_string_is_the_sum_of_its_parts() -> None:
    arguments = ("2001:db8::1", "http", "test")
    parts = [lines({field}, *arguments) for field in Forwarded if field in X_FORWARDED]
    assert lines(X_FORWARDED, *arguments) == "".join(parts)
    assert lines(frozenset(Forwarded), *arguments).startswith("".join(parts))


def test_a_client_that_has_shown_no_certificate_is_told_of_as_such() -> None:
    builder = builder_of({Forwarded.CLIENT_CERT})
    assert builder is not None
    assert builder("192.0.2.1", "https", "test", "1.1", "") == ""
    assert lines({Forwarded.CLIENT_CERT}, "192.0.2.1", "https", "test") == "Client-Cert: :QUJD:\r\n"
