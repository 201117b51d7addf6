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
BYTES: Final = "tests/offload/bcc/test_soundness.py::test_each_byte_is_taken_where_tier_3_takes_it"
LENGTHS: Final = "tests/offload/bcc/test_soundness.py::test_names_of_any_length_are_found_by_all_their_bytes"
SOUND: Final = "tests/offload/bcc/test_soundness.py::test_whatever_is_odd_alone_is_decided_as_tier_3_does"
ATTACKS: Final = "tests/net/test_attacks.py"
FAULTS: Final = "tests/net/test_single_faults.py::test_each_packet"
MOVES: Final = "tests/net/test_moves.py"
SUCCESSORS: Final = "tests/net/test_successors.py"

MUTANTS: Final = (
    Mutant(
        "soundness: what says who the client is goes to tier 3",
        "bpf/head.h",
        "w == WORD('x', '-', 'f', 'o', 'r', 'w', 'a', 'r') ||",
        "",
        SOUND,
    ),
    Mutant("soundness: no dot segments", "bpf/head.h", "& (after_dot | after_dots))", "& after_dot)", SOUND),
    Mutant("soundness: one Host", "bpf/head.h", "return !s->hosts++ &&", "return s->hosts++ < 9 &&", SOUND),
    Mutant(
        "soundness: a path has the bytes that tier 3 takes as they are",
        "bpf/head.h",
        "differs(low & EACH(0xfd), '<')",
        "differs(low, '<')",
        f"{BYTES}[path]",
    ),
    Mutant(
        "soundness: a host's name has the bytes that tier 3 takes",
        "bpf/head.h",
        "~(name_bytes(x) | dot | equals(x, '_'))",
        "~(name_bytes(x) | dot | equals(x, '_') | equals(x, '@'))",
        f"{BYTES}[host]",
    ),
    Mutant(
        "soundness: no control character in a value",
        "bpf/words.h",
        "((low + EACH(1)) | ~(low + EACH(0x60)))",
        "~(low + EACH(0x60))",
        f"{BYTES}[value]",
    ),
    Mutant(
        "soundness: behind a tab is looked at as well",
        "bpf/words.h",
        "s->lines = bits & (bits - 1);\n",
        "s->lines = bits & (bits - 1) & ~(2ULL << (end & 63));\n",
        SOUND,
    ),
    Mutant(
        "soundness: a length of ten digits is not taken for a shorter one",
        "bpf/head.h",
        "if (s->body >= (1 << 30) / 10 ||",
        "if (s->body >= 1 << 30 ||",
        "tests/offload/bcc/test_soundness.py::test_a_length_is_what_it_says",
    ),
    Mutant(
        "keys: a wildcard owns all names below it",
        "bpf/lookup.h",
        "(opaque(from + 8) & (2 * HOST_MAX_LEN - 1))",
        "(opaque(from + 8) & (HOST_MAX_LEN / 2 - 1))",
        "tests/offload/bcc/test_soundness.py::test_wildcards_have_names_of_any_length",
    ),
    Mutant(
        "framing: a trailer section has lines that end in CR LF",
        "bpf/response.h",
        "if (c == '\\n')\n\t\t\tflow->backend.framing = UNKNOWN;\n\t\treturn;\n\tcase DATA_CR:",
        "return;\n\tcase DATA_CR:",
        f"{TIERS}::test_a_response_that_has_not_ended_is_not_left[tc-trailer-of-lf]",
    ),
    Mutant(
        "framing: a folded line is not understood",
        "bpf/response.h",
        "if (first == ' ' ||",
        "if (first == 1 ||",
        f"{TIERS}::test_a_response_that_has_not_ended_is_not_left[tc-folded]",
    ),
    Mutant(
        "successors: flows that are adopted keep their ports",
        "bpf/tc.c",
        "client = nats.lookup(&s->key); /* of a predecessor, which had other ports */",
        "client = 0;",
        f"{SUCCESSORS}::test_flows_that_are_adopted_keep_their_ports",
    ),
    Mutant(
        "keys: all of a long path is looked up",
        "bpf/head.h",
        "if (out == ZEROED_PATH)",
        "if (out == ZEROED_PATH + 8)",
        f"{LENGTHS}[path]",
    ),
    Mutant(
        "keys: all of a long host's name is looked up",
        "bpf/head.h",
        "if (out == ZEROED_HOST)",
        "if (out == ZEROED_HOST + 8)",
        f"{LENGTHS}[host]",
    ),
    Mutant(
        "reloads: what is remembered of a listener is of one plan",
        "bpf/lookup.h",
        "if (flow && flow->generation == generation &&",
        "if (flow && flow->generation &&",
        "tests/net/test_reloads.py",
    ),
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
        "if (!is_quiescent(flow, s->ack))",
        "if (flow->state != BOUND)",
        TIERS,
    ),
    Mutant(
        "framing: chunks are walked",
        "bpf/response.h",
        "flow->backend.response += flow->backend.chunk;",
        "",
        TIERS,
    ),
    Mutant(
        "ends: a closed client's reset ends its flow",
        "bpf/numbers.h",
        "(!(s->flags & ACK) || flow->backend.next - s->ack + WINDOW_MOST < 2 * WINDOW_MOST)",
        "flow->backend.next - s->ack + WINDOW_MOST < 2 * WINDOW_MOST",
        f"{TIERS}::test_the_client_has_closed_when_the_response_comes",
    ),
    Mutant(
        "ends: a flow is over when both FINs have been acknowledged",
        "bpf/numbers.h",
        "if ((ends & theirs) && acked)",
        "if (ends & theirs)",
        f"{FAULTS}[tc-half_closed-drop]",
    ),
    Mutant(
        "judged: what follows a request is not stashed with it",
        "bpf/bind.h",
        "if (before(flow->client.next_head, s->seq + s->length)) {",
        "if (!s->length) {",
        f"{ATTACKS}::test_what_follows_a_request_is_not_stashed[tc]",
    ),
    Mutant(
        "judged: a head is judged again until it is acknowledged",
        "bpf/tc.c",
        "|| touches_head(s, flow)) {",
        ") {",
        f"{ATTACKS}::test_beyond_the_acknowledged_it_is_judged_again[tc]",
    ),
    Mutant(
        "judged: nothing that backends do not take",
        "bpf/numbers.h",
        "return !(s->flags & RST) && (s->flags & (ACK | SYN | URG)) != ACK;",
        "return false;",
        f"{ATTACKS}::test_urgent_bytes_are_not_cut_out_of_bodies[tc]",
    ),
    Mutant(
        "order: a later segment that comes first is not reset",
        "bpf/syn.h",
        "own = cookie_for(ip, tcp, end, s->header);",
        "own = raw_gen_syncookie(ip, tcp, 20);",
        f"{FAULTS}[tc-posts-drop two]",
    ),
    Mutant(
        "duplicates: a late one is no request once more",
        "bpf/flows.h",
        "seq - past->first > past->span",
        "seq != past->first",
        f"{FAULTS}[tc-as_much-again]",
    ),
    Mutant(
        "duplicates: nor is one of tier 3's",
        "bpf/local.h",
        "note_past(&s->key, flow->first_seq, SPAN_LOCAL);",
        "",
        f"{FAULTS}[tc-tier_3-again]",
    ),
    Mutant(
        "duplicates: a port out of TIME_WAIT is none",
        "bpf/syn.h",
        "note_syn(s);",
        "",
        "tests/net/test_kinds.py::test_a_port_out_of_time_wait[tc]",
    ),
    Mutant(
        "checksums: a broken packet changes nothing",
        "bpf/packet.h",
        "if (hook == TC && summed(ctx) == CHECKSUM_UNNECESSARY)",
        "if (hook == TC && summed(ctx) != CHECKSUM_PARTIAL)",
        f"{FAULTS}[tc-gets-rst]",
    ),
    Mutant(
        "options: the client's MSS is the backend's",
        "bpf/syn.h",
        "mss_of(s->ack - (u32)own)",
        "536",
        f"{TIERS}::test_backends_send_segments_as_large_as_the_client_takes[tc]",
    ),
    Mutant(
        "failure: a refused request goes to tier 3",
        "bpf/answer.h",
        "? TC_ACT_SHOT : refuse(skb, s, flow, client, stash);",
        "? TC_ACT_SHOT : TC_ACT_SHOT;",
        TIERS,
    ),
    Mutant(
        "moves: the client's numbers have gone on meanwhile",
        "bpf/translate.h",
        "c->seq = htonl(s->seq + flow->client_delta);",
        "c->seq = words[1];",
        f"{MOVES}::test_two_services_to_and_fro[tc]",
    ),
    Mutant(
        "moves: to the client, time does not go back",
        "bpf/translate.h",
        "if (before(tsval - flow->ts_delta, flow->our_tsval))",
        "if (tsval != tsval)",
        f"{MOVES}::test_to_the_client_time_does_not_go_back[tc]",
    ),
    Mutant(
        "moves: what no backend has read is asked again",
        "bpf/tc.c",
        "if (was_gone(s, flow, start))",
        "if (was_gone(s, flow, start) && s->length)",
        f"{MOVES}::test_a_parked_connection_that_had_ended_unheard[tc-GET]",
    ),
    Mutant(
        "moves: the client's end is the end of all that it had",
        "bpf/tc.c",
        "if (((s->flags & FIN) ? !before(s->seq + s->length, flow->backend.acked) :",
        "if (((s->flags & FIN) ? before(s->seq + s->length, flow->backend.acked) :",
        f"{MOVES}::test_the_end_of_the_client_is_the_end_of_all_that_it_had[tc]",
    ),
    Mutant(
        "moves: a port that another client has is left alone",
        "bpf/flows.h",
        "if (!holds_port(client, nat))",
        "if (!nats.lookup(nat))",
        f"{MOVES}::test_a_port_that_another_client_has_now_is_left_alone[tc-False]",
    ),
    Mutant(
        "client's address: the header is sent again",
        "bpf/tc.c",
        "if (wants_header(s, flow))",
        "if (wants_header(s, flow) && !s->length)",
        f"{FAULTS}[tc-told-drop]",
    ),
    Mutant(
        "client's address: no header of the client's own",
        "bpf/numbers.h",
        "if (flow->header_due && flow->backend.acked == flow->head_seq &&",
        "if (flow->header_due && flow->state != BOUND &&",
        "tests/net/test_proxied.py::test_a_client_cannot_write_the_header_itself[tc]",
    ),
    Mutant(
        "ICMP: only about what may be on its way",
        "bpf/icmp.h",
        "flow->backend.next - seq >= WINDOW_MOST :",
        "!flow->backend.next :",
        "tests/net/test_kinds.py::test_backends_hear_of_packets_that_are_too_large[tc-False]",
    ),
    Mutant(
        "moves: requests count for the service that had them",
        "bpf/move.h",
        "if (take_parked(s, service)) {\n\t\tcount_rest(s, flow);",
        "if (take_parked(s, service)) {\n\t\tflow->service = service->id;\n\t\tcount_rest(s, flow);",
        f"{MOVES}::test_requests_are_counted_for_the_service_that_had_them[tc]",
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
        "known = self._adopted() or self._loaded_anew(",
        "known = self._loaded_anew(",
        f"{SUCCESSORS}::test_the_kernel_goes_on_when_rauta_is_killed_and_the_next_one_goes_on_with_it",
    ),
)
