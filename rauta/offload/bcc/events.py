"""What the kernel programs count: the one enumeration for C, Python and metrics. The names are public.

`pass_`: left to the local stack. `drop_`: TCP will send it again. `miss_`: the request goes to tier 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TOLD: Final[Mapping[str, str]] = {
    # the handshake with the client
    "syn_answered": "a SYN was answered by a cookie",
    "established": "a client brought the cookie back",
    "probe_answered": "a keepalive probe of a client that has sent no request yet",
    "pass_owned": "a local socket has the connection",
    "pass_options": "the options of a SYN could not be read",
    "pass_cookie": "the kernel made no cookie",
    "pass_unknown": "no flow and no cookie: the stack resets it",
    "drop_early": "a later segment came before the first",
    "drop_late": "a segment of a connection that is over, which looks like a first one",
    "drop_odd": "a segment without ACK, or with SYN or urgent data, on a flow",
    "drop_window": "data beyond what the backend takes",
    "replaced": "a client that has forgotten its connection made a new one",
    "at_xdp": "a packet was done with at XDP",
    # requests: each pair is tier 1, tier 2
    "hit_first": "the first request of a connection, tier 1",
    "hit_first_2": "the same, tier 2",
    "hit_next": "a later request, tier 1",
    "hit_next_2": "the same, tier 2",
    "miss_head": "the head was not complete in its first segment, or not plain",
    "miss_method": "a method that is always tier 3's",
    "miss_path": "a path or query that is always tier 3's",
    "miss_host": "a host that is always tier 3's, or none",
    "miss_unknown_host": "a host without routes",
    "miss_route": "the plan leaves the request to tier 3",
    "miss_other_service": "a later request for another service, which another connection of the kernel's cannot take",
    "miss_no_backend": "no backend of the service may get requests",
    "miss_no_route": "no route to the backend",
    "miss_no_port": "no port was free towards the backend",
    "moved": "a later request for another service, for which a backend was chosen",
    "moved_back": "the same, and a connection to one was parked",
    "parked_ended": "a backend has ended a parked connection",
    "parked_gone": "the same, when the request was on its way: tier 3 asks again",
    "drop_spans": "a segment that reaches from one request into the next",
    "drop_not_yet": "the response before is not known to be over",
    "drop_queue": "too many requests are waiting for their responses",
    "reset_both": "a request could neither be answered nor wait: both sides were reset",
    # the backend's handshake
    "bound_to_backend": "a backend was chosen, and asked",
    "backend_accepted": "it took the connection",
    "backend_silent": "it did not answer: tier 3 asks again",
    "refused": "it refused: tier 3 asks again",
    "time_wait_reset": "it still had the port's last connection, which was reset",
    "stashed": "a segment was kept until the backend is there",
    "replayed": "one that was kept has been sent",
    "drop_stash": "a segment that could not be kept",
    "drop_stash_lost": "what was kept has been overwritten",
    "drop_checksum": "a segment whose checksum is wrong",
    "drop_race": "another CPU has bound the connection meanwhile",
    "drop_backend": "an answer of a backend that fits to nothing",
    # hand-over to tier 3
    "local_assigned": "tier 3 got a connection",
    "local_failed": "the kernel did not take it",
    "local_no_listener": "nobody listens",
    "handed_over_later": "of these, connections that had a backend",
    "drop_not_head": "a segment of a connection that tier 3 does not have yet",
    # translation
    "to_backend": "packets to backends",
    "to_client": "packets to clients",
    "drop_overtaken": "a segment that has overtaken the one that frames it",
    "icmp_translated": "a router found a packet too large, and who has sent it was told",
    "orphan": "a packet of a backend to a connection that is gone",
    "ended": "both sides have ended",
    "ended_by_reset": "one side has reset",
}
EVENTS: Final = tuple(TOLD)


def as_enum() -> str:
    """The enumeration in C."""
    return f"enum event {{ {', '.join(name.upper() for name in EVENTS)}, EVENTS }};\n"
