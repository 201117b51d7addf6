"""What the kernel programs count: the one enumeration for C, Python and metrics. The names are public.

`pass_`: left to the local stack. `drop_`: TCP will send it again. `miss_`: the request goes to tier 3.
"""

from __future__ import annotations

from typing import Final

EVENTS: Final = (
    # the handshake with the client
    "syn_answered",
    "established",
    "pass_owned",  # a local socket has the connection
    "pass_options",
    "pass_cookie",
    "pass_unknown",  # no flow, no cookie: the stack resets it
    "drop_early",  # a later segment came before the first
    # requests: each pair is tier 1, tier 2
    "hit_first",
    "hit_first_2",
    "hit_next",
    "hit_next_2",
    "miss_head",  # not complete in its first segment, or not plain
    "miss_method",
    "miss_path",
    "miss_host",
    "miss_unknown_host",
    "miss_route",
    "miss_other_service",  # of a connection that is bound already
    "miss_no_route",  # no way to the backend is known
    "miss_no_port",
    "drop_spans",  # a segment that reaches from one request into the next
    "drop_not_yet",  # the response before is not complete
    # the backend's handshake
    "bound_to_backend",
    "backend_accepted",
    "backend_silent",
    "refused",
    "time_wait_reset",
    "stashed",
    "replayed",
    "drop_stash",
    "drop_stash_lost",
    "drop_backend",
    # hand-over to tier 3
    "local_assigned",
    "local_failed",
    "local_no_listener",
    "handed_over_later",
    "drop_not_head",
    # translation
    "to_backend",
    "to_client",
    "orphan",
    "ended",
    "ended_by_reset",
)


def as_enum() -> str:
    """The enumeration in C."""
    return f"enum event {{ {', '.join(name.upper() for name in EVENTS)}, EVENTS }};\n"
