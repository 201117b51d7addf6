"""One way to break each law of the kernel path, and the test that must notice."""

from __future__ import annotations

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """In `file`, `sound` becomes `broken`; `test` goes red."""

    law: str
    file: str
    sound: str
    broken: str
    test: str


TIERS: Final = "tests/net/test_tiers.py"
SOUND: Final = "tests/offload/bcc/test_soundness.py::test_whatever_is_odd_alone_is_decided_as_tier_3_does"
SUCCESSORS: Final = "tests/net/test_successors.py"

MUTANTS: Final = (
    Mutant(
        "soundness: what says who the client is goes to tier 3",
        "bpf/head.h",
        "w == WORD('x', '-', 'f', 'o', 'r', 'w', 'a', 'r') ||",
        "",
        SOUND,
    ),
    Mutant("soundness: no dot segments", "bpf/head.h", "if (s->dots == 1 || s->dots == 2)", "if (s->dots == 1)", SOUND),
    Mutant("soundness: one Host", "bpf/head.h", "if (s->hosts)\n\t\t\treturn false;", "", SOUND),
    Mutant(
        "completeness: plain requests are the kernel's",
        "bpf/head.h",
        "w == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')",
        "(w & FIRST(7)) == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', 0)",
        "tests/offload/bcc/test_soundness.py::test_requests_of_real_clients_are_decided",
    ),
    Mutant(
        "framing: a flow leaves its backend only behind the end of a response",
        "bpf/tc.c",
        "return is_quiescent(flow, s->ack) ? hand_over_later(skb, s, flow)",
        "return flow->state == BOUND ? hand_over_later(skb, s, flow)",
        TIERS,
    ),
    Mutant(
        "framing: chunks are walked",
        "bpf/response.h",
        "flow->response += flow->chunk;\n\t\t\tflow->phase = flow->chunk ? DATA_CR : TRAILER;",
        "flow->phase = flow->chunk ? DATA_CR : TRAILER;",
        TIERS,
    ),
    Mutant(
        "ends: a closed client's reset ends its flow",
        "bpf/tc.c",
        "(!(s->flags & ACK) || flow->answered - s->ack + WINDOW_MOST < 2 * WINDOW_MOST)",
        "flow->answered - s->ack + WINDOW_MOST < 2 * WINDOW_MOST",
        f"{TIERS}::test_the_client_has_closed_when_the_response_comes",
    ),
    Mutant(
        "failure: a refused request goes to tier 3",
        "bpf/answer.h",
        "return refuse(skb, s, flow, client, stash);",
        "return TC_ACT_SHOT;",
        TIERS,
    ),
    Mutant(
        "successors: a predecessor leaves the programs to them",
        "rauta/offload/bcc/offload.py",
        "if is_elsewhere(self._file) and not anew:",
        "if not anew and is_elsewhere(self._folder):",
        f"{SUCCESSORS}::test_a_takeover_leaves_the_programs_to_the_successor",
    ),
    Mutant(
        "successors: what was killed is gone on with",
        "rauta/offload/bcc/offload.py",
        "known = self._adopted() or self._loaded_anew()",
        "known = self._loaded_anew()",
        f"{SUCCESSORS}::test_the_kernel_goes_on_when_rauta_is_killed_and_the_next_one_goes_on_with_it",
    ),
)
