"""TLS handshakes that fail. The event loops close such a connection without a word to its protocol, which they connect
only after the handshake; so the TLS object itself has to tell why, and a weak reference that."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final


class Handshake:
    """Held by a connection until its handshake is over, and gone with it if that fails. It is there to be counted, by a
    weak reference: the loop drops such a connection without telling anybody."""

    __slots__ = ("__weakref__",)


PLAIN_HTTP: Final = "HTTP_REQUEST"  # OpenSSL's name for a ClientHello that begins with a method of HTTP


def observe(context: ssl.SSLContext, failed: Callable[[str], None]) -> None:
    """Let `failed` have OpenSSL's reason for each handshake with this context that fails. Once more replaces it."""

    class Observed(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise  # not over yet
            except ssl.SSLError as error:
                failed(error.reason or "")
                raise

    context.sslobject_class = Observed
