"""What a gateway does with a header field, by its name.

Names are compared without case, and with all that is neither letter nor digit read as `-`: many servers hand
`X_Forwarded_For`, some also `X.Forwarded.For`, to applications under the same variable as `X-Forwarded-For` (CGI, RFC
3875 4.1.18), so a look-alike would bypass every rule here.
"""

from __future__ import annotations

from typing import Final

DATE: Final = -1  # end to end too, but it is asked for whether it is there
KEEP: Final = 0  # end to end: passed on as it is
HOST: Final = 1
CONNECTION: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
EXPECT: Final = 5
HOP: Final = 6  # hop by hop: never passed on
UPGRADE: Final = 7  # hop by hop too, and an offer that a route may take
KEEP_ALIVE: Final = 8  # hop by hop too, and may say how long the sender keeps an idle connection
FORWARDED: Final = 9  # says who the client is: believed only from trusted proxies
LOOK_ALIKE: Final = 10  # one of the above, spelled with other signs than "-"

_TO_DASH: Final = str.maketrans(dict.fromkeys("!#$%&'*+.^_`|~", "-"))  # RFC 9110 5.6.2: all else that a name may hold

_NAMED: Final = {
    "host": HOST,
    "connection": CONNECTION,
    "content-length": CONTENT_LENGTH,
    "transfer-encoding": TRANSFER_ENCODING,
    "expect": EXPECT,
    "date": DATE,
    # RFC 9110 7.6.1: "Intermediaries SHOULD remove or replace fields that are known to require removal before
    # forwarding, whether or not they appear as a connection-option": Proxy-Connection, Keep-Alive, TE,
    # Transfer-Encoding, Upgrade.
    "proxy-connection": HOP,
    "keep-alive": KEEP_ALIVE,
    "te": HOP,
    "upgrade": UPGRADE,
    "http2-settings": HOP,  # RFC 7540 3.2.1, part of the h2c upgrade
    "forwarded": FORWARDED,
    "x-real-ip": FORWARDED,
    # RFC 9440 4: a reverse proxy "MUST sanitize" them; on each listener, since the backend cannot tell them apart.
    "client-cert": FORWARDED,
    "client-cert-chain": FORWARDED,
}

# RFC 9110 6.5.1: trailers must not hold what is needed for "message framing, routing, authentication, request
# modifiers, response controls, or content format".
# fmt: off
NOT_IN_TRAILERS: Final = frozenset(
    {
        "age", "authorization", "cache-control", "content-encoding", "content-range", "content-type", "cookie",
        "date", "expires", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
        "location", "max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "retry-after",
        "set-cookie", "trailer", "vary", "warning", "www-authenticate",
    }
)
# fmt: on


def plain_name(name: str) -> str:
    """A name without regard to case and to signs: what some servers take for the same is the same."""
    return name.lower().translate(_TO_DASH)


def kind_of(name: str) -> int:
    """The kind of a field by its name, as spelled."""
    lower = name.lower()
    plain = plain_name(name)
    kind = FORWARDED if plain.startswith("x-forwarded-") else _NAMED.get(plain, KEEP)
    return LOOK_ALIKE if kind and plain != lower else kind


def may_trail(name: str) -> bool:
    """Whether a trailer field is passed on (RFC 9110 6.5.1)."""
    return kind_of(name) == KEEP and plain_name(name) not in NOT_IN_TRAILERS
