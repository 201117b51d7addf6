/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: made once, ended together with their NAT entry. What is known of their requests is in requests.h, of their
 * sequence numbers in numbers.h.
 */
#ifndef RAUTA_FLOWS_H
#define RAUTA_FLOWS_H

#include "packet.h"
#include "requests.h"

#define WINDOW_MOST (1U << 24) /* no window reaches further (RFC 7323 2.3 allows 2^30; Linux stays below) */

/* Whether a socket of this host owns the packet's connection: anything but a listener. */
INLINE bool is_owned_here(void *ctx, struct tuple *key)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	bool owned;

	tuple.ipv4.saddr = key->saddr;
	tuple.ipv4.daddr = key->daddr;
	tuple.ipv4.sport = key->sport;
	tuple.ipv4.dport = key->dport;
	sk = skc_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), -1, 0);
	if (!sk)
		return false;
	owned = sk->state != 10; /* TCP_LISTEN */
	sk_release(sk);
	return owned;
}

/* The flow of the client whom the backend's packet in the scratch is for, and its key; 0: there is none. */
INLINE struct flow *flow_of_backend(struct scratch *s, struct tuple *client)
{
	struct tuple *found = nats.lookup(&s->key);

	if (!found)
		return 0;
	*client = *found;
	return flows.lookup(client);
}

/* From one state to another; false: another CPU has been faster. */
INLINE bool change_state(struct flow *flow, u64 from, u64 to)
{
	return __sync_val_compare_and_swap(&flow->state, from, to) == from;
}

/* Whether connections of the flow may be parked. */
INLINE bool has_parked(struct flow *flow)
{
	return flow->parked[0] | flow->parked[1] | flow->parked[2] | flow->parked[3];
}

/* From now on segments of the connection are late duplicates. */
INLINE void note_past(struct tuple *client, u32 first, u32 span)
{
	struct past past = { .when = coarse_ns(), .first = first }, *before = closed.lookup(client);

	past.syn = before ? before->syn : first - 1;
	past.span = span > SPAN_MOST ? SPAN_MOST : span;
	closed.update(client, &past);
}

/* A SYN: the segment behind it is a new connection's, however near its number is to those of the last one. (Linux takes a
 * port out of TIME_WAIT with the last number + 65537.) */
INLINE void note_syn(struct scratch *s)
{
	struct past *past = closed.lookup(&s->key);

	if (past && s->seq + 1 - past->first <= past->span) /* of others nobody asks: a stranger's must not take its place */
		past->syn = s->seq;
}

INLINE bool is_past(struct tuple *client, u32 seq)
{
	struct past *past = closed.lookup(client);

	if (!past || seq - past->first > past->span || coarse_ns() - past->when >= PAST_FOR)
		return false;
	return seq == past->first || seq != past->syn + 1;
}

/* Whether the port towards a backend is (still) this client's. */
INLINE bool holds_port(struct tuple *client, struct tuple *nat)
{
	struct tuple *holder = nats.lookup(nat);

	return holder && holder->saddr == client->saddr && holder->sport == client->sport &&
	       holder->daddr == client->daddr && holder->dport == client->dport;
}

/* The port towards a backend is nobody's any more, if it is still this client's. */
INLINE bool release_port(struct tuple *client, struct tuple *nat)
{
	if (!holds_port(client, nat))
		return false;
	nats.delete(nat);
	return true;
}

/* Nothing is parked for the flow any more; backends are reset when they speak. */
INLINE void drop_parked(struct scratch *s, struct tuple *client, struct flow *flow)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PARKED_MOST && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = opaque(s->piece) & (PARKED_MOST - 1);
		struct parked_key key = { .client = *client, .service = flow->parked[at] };
		struct parked *found = parked.lookup(&key);

		s->piece = at + 1;
		if (!found)
			continue;
		release_port(client, &found->nat);
		parked.delete(&key);
	}
}

/* The flow is over. */
INLINE void forget(struct scratch *s, struct tuple *client, struct flow *flow)
{
	struct tuple nat = flow->nat;
	u32 first = flow->first_seq, span = flow->client.next - first;

	if (flow->client.asked)
		count_rest(s, flow);
	if (nat.dport)
		release_port(client, &nat);
	if (has_parked(flow))
		drop_parked(s, client, flow);
	flows.delete(client);
	note_past(client, first, span);
}

/* A port of this host towards the flow's backend (flow->nat but for dport is there): claimed, or false. */
INLINE bool claim_port(struct scratch *s, struct config *config, struct tuple *client)
{
	struct tuple *nat = &s->flow.nat;
	u32 which = TURN_PORT, *turn = turns.lookup(&which);

	s->piece = 0;
	if (!turn || !config->nat_count)
		return false;
#pragma clang loop unroll(disable)
	for (int n = 0; n < 8; n++) {
		LOOP_STATE_IN_MAP;
		struct tuple *holder;
		struct flow *other;
		/* Oldest first; CPUs take turns, so they seldom ask for one port at the same time. */
		u32 next = (*turn)++ * CPUS + bpf_get_smp_processor_id();

		nat->dport = htons(config->nat_first + next % config->nat_count);
		if (nats.insert(nat, client) == 0)
			return true;
		holder = nats.lookup(nat);
		if (!holder)
			continue;
		other = flows.lookup(holder);
		if (!other || (!has_parked(other) &&
			       (other->nat.dport != nat->dport || other->nat.saddr != nat->saddr))) {
			nats.update(nat, client); /* of a flow that is gone */
			return true;
		}
	}
	return false;
}

#endif /* RAUTA_FLOWS_H */
