"""What exceptions say to people."""

from __future__ import annotations

import ssl

import pytest

from rauta.routing.errors import words_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), "wrong version number"),
        (ssl.SSLError(1, "[SSL] PEM lib (_ssl.c:3926)"), "PEM lib"),
        (ssl.SSLError(1, "[X509: CERT_ALREADY_IN_HASH_TABLE] already there (_ssl.c:4)"), "already there"),
        (ConnectionResetError(104, "Connection reset by peer"), "[Errno 104] Connection reset by peer"),
        (ConnectionResetError(), "ConnectionResetError"),
        (ValueError("[A] b (_ssl.c:1) c"), "b (_ssl.c:1) c"),
    ],
)
def test_words(error: Exception, words: str) -> None:
    assert words_of(error) == words
