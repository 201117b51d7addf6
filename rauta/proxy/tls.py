"""TLS towards clients: which certificate a handshake gets, by the name that the client asks for (SNI, RFC 6066 3)."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence

from rauta.proxy.handshake import Observed, choose


class ServerContexts:
    """The contexts of a listener.

    An exact name wins over a wildcard (`*.example.com`: one label, RFC 6125 6.4.3), the first certificate that has it
    over others, and the first of all serves who asks for no name, or for an unknown one. `rule` says how clients'
    certificates are verified, by the first for all (None: nobody is asked): equal ones do it equally."""

    __slots__ = ("_exact", "_wildcard", "default", "rule")

    def __init__(self, contexts: Sequence[tuple[Iterable[str], ssl.SSLContext]], rule: str | None = None) -> None:
        """Each with the names that its certificate covers, in lower case. Raises ValueError if there is none."""
        if not contexts:
            raise ValueError("TLS needs a certificate")
        self.rule = rule
        self.default = contexts[0][1]
        # No closures: workers freeze what they have built, and a cycle would stay for ever.
        self.default.sslobject_class = Observed
        self.default.sni_callback = choose
        self._exact: dict[str, ssl.SSLContext] = {}
        self._wildcard: dict[str, ssl.SSLContext] = {}
        for names, context in contexts:
            for name in names:
                if name.startswith("*."):
                    self._wildcard.setdefault(name[2:], context)
                else:
                    self._exact.setdefault(name, context)

    def of(self, name: str | None) -> ssl.SSLContext:
        """The context for the name that a client asks for."""
        if name is None:
            return self.default
        name = name.lower().rstrip(".")
        found = self._exact.get(name)
        if found is None:
            found = self._wildcard.get(name.partition(".")[2])
        return self.default if found is None else found
