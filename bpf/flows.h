/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: made once, ended together with their NAT entry; and what was served by them.
 */
#ifndef RAUTA_FLOWS_H
#define RAUTA_FLOWS_H

#include "packet.h"

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

/* Add `more` requests to those like the one whose turn it is, and traffic that has not been counted yet: of the client
 * up to `packets` and `bytes`, of the backend all. By packets of the backend, and at the end. */
INLINE void count_traffic(struct scratch *s, struct flow *flow, u32 more, u32 packets, u64 bytes)
{
	struct request_key *key = &s->counted;
	struct request *request = &flow->client.request[flow->backend.turn & (ASKED - 1)];
	struct traffic *cell, made = {};

	packets += flow->backend.packets;
	bytes += flow->backend.bytes;
	made.requests = more;
	if (before(flow->backend.counted_packets, packets)) {
		made.packets = packets - flow->backend.counted_packets;
		made.bytes = bytes - flow->backend.counted_bytes;
		flow->backend.counted_packets = packets;
		flow->backend.counted_bytes = bytes;
	}
	key->listener = flow->listener;
	key->route = request->route;
	key->service = flow->service;
	key->code = flow->backend.code;
	key->method = request->method;
	key->tier = request->tier;
	cell = requests.lookup(key);
	if (cell) {
		cell->requests += more;
		cell->packets += made.packets;
		cell->bytes += made.bytes;
		return;
	}
	requests.update(key, &made);
}

/* What there was before a request. */
INLINE void count_until(struct scratch *s, struct flow *flow, u32 more, struct request *next)
{
	u64 bytes = flow->client.bytes;

	count_traffic(s, flow, more, next->packets, bytes - (u32)((u32)bytes - next->bytes));
}

/* All that there was. */
INLINE void count_rest(struct scratch *s, struct flow *flow)
{
	count_traffic(s, flow, 0, flow->client.packets, flow->client.bytes);
}

INLINE void count_packet_of_client(struct scratch *s, struct flow *flow)
{
	flow->client.packets++;
	flow->client.bytes += s->offset - L3 + s->length;
}

INLINE void count_packet_of_backend(struct scratch *s, struct flow *flow)
{
	flow->backend.packets++;
	flow->backend.bytes += s->offset - L3 + s->length;
}

/* A request is passed on. */
INLINE void add_request(struct scratch *s, struct flow *flow, enum hook hook)
{
	u32 number = flow->client.asked;
	struct request *request = &flow->client.request[number & (ASKED - 1)];

	request->route = s->route;
	request->method = s->method;
	request->tier = s->tier | hook << 4;
	request->packets = flow->client.packets;
	request->bytes = flow->client.bytes;
	asm volatile("" ::: "memory");
	flow->client.asked = number + 1;
}

/* From one state to another; false: another CPU has been faster. */
INLINE bool change_state(struct flow *flow, u64 from, u64 to)
{
	return __sync_val_compare_and_swap(&flow->state, from, to) == from;
}

/* From now on segments of the connection are late duplicates. */
INLINE void note_past(struct tuple *client, u32 first, u32 span)
{
	struct past past = { .when = coarse_ns(), .first = first, .span = span > SPAN_MOST ? SPAN_MOST : span };

	closed.update(client, &past);
}

INLINE bool is_past(struct tuple *client, u32 seq)
{
	struct past *past = closed.lookup(client);

	return past && seq - past->first <= past->span && coarse_ns() - past->when < PAST_FOR;
}

/* The flow is over. */
INLINE void forget(struct scratch *s, struct tuple *client, struct flow *flow)
{
	struct tuple nat = flow->nat;
	u32 first = flow->first_seq, span = flow->client.next - first;

	if (flow->client.asked)
		count_rest(s, flow);
	if (nat.dport)
		nats.delete(&nat);
	flows.delete(client);
	note_past(client, first, span);
}

#define WINDOW_MOST (1U << 24) /* no window reaches further (RFC 7323 2.3 allows 2^30; Linux stays below) */

/* Segments that no client of ours sends, and that receivers take differently, or not at all: without ACK, with SYN or
 * urgent data (which is cut out of the stream). */
INLINE bool is_odd(struct scratch *s)
{
	return !(s->flags & RST) && (s->flags & (ACK | SYN | URG)) != ACK;
}

/* Whether a client's segment has bytes of the last judged head that its backend may still take: as long as they are not
 * acknowledged, others at the same place could win. */
INLINE bool touches_head(struct scratch *s, struct flow *flow)
{
	return s->length && before(s->seq, flow->client.head_end) && before(flow->backend.acked, flow->client.head_end) &&
	       before(flow->backend.acked, s->seq + s->length);
}

/* Whether it is within what the backend takes; one more for probes of a closed window. */
INLINE bool is_beyond(struct flow *flow, u32 end)
{
	return before(flow->backend.limit + 1, end);
}

/* A packet of the backend: how far it has got, and how far it goes. */
INLINE void note_window(struct scratch *s, struct flow *flow)
{
	u32 scale = flow->backend_wscale == NO_WSCALE ? 0 : flow->backend_wscale, limit = s->ack + (s->window << scale);

	if (!(s->flags & ACK))
		return;
	if (before(flow->backend.acked, s->ack))
		flow->backend.acked = s->ack;
	if (before(flow->backend.limit, limit))
		flow->backend.limit = limit;
}

/* Whether a packet of the backend is one of the connection. `start` is its number as the client counts. */
INLINE bool is_near_backend(struct scratch *s, struct flow *flow, u32 start)
{
	return start - flow->backend.next + WINDOW_MOST < 2 * WINDOW_MOST &&
	       (!(s->flags & ACK) || s->ack - flow->client.next + WINDOW_MOST < 2 * WINDOW_MOST);
}

/* A packet of one side has been passed on: is the flow over? `fin` and `done` are the bits of that side's FIN and of its
 * acknowledgement, `theirs` the other side's; `seq` as the packet's receiver counts, `next` the end of what that sender
 * had sent, `acked` whether the packet acknowledges all of the other side. A reset counts only if its receiver must obey
 * it (RFC 5961 3.2; and behind a FIN that has not arrived everywhere): anybody can send one. */
INLINE void note_end(struct scratch *s, struct tuple *client, struct flow *flow, u64 fin, u64 theirs, u32 seq, u32 next,
		     bool acked)
{
	u64 ends = flow->ends, all = CLIENT_ENDED | BACKEND_ENDED | CLIENT_DONE | BACKEND_DONE, seen = 0;
	u32 over = 0;

	if (s->flags & RST) {
		if (seq == next || ((ends & fin) && seq + 1 == next))
			over = ENDED_BY_RESET;
	} else {
		if ((s->flags & FIN) && seq + s->length + 1 == next)
			seen |= fin;
		if ((ends & theirs) && acked)
			seen |= theirs << 2;
		if (seen && (ends & seen) != seen && (__sync_fetch_and_or(&flow->ends, seen) | seen) == all)
			over = ENDED;
	}
	if (over) {
		count(over);
		forget(s, client, flow);
	}
}


/* Whether a packet of the client is one of the connection that the flow is about. A reset for what has come to a closed
 * socket has no ACK (RFC 9293 3.10.7.1). */
INLINE bool is_near(struct scratch *s, struct flow *flow)
{
	return s->seq - flow->client.next + WINDOW_MOST < 2 * WINDOW_MOST &&
	       (!(s->flags & ACK) || flow->backend.next - s->ack + WINDOW_MOST < 2 * WINDOW_MOST);
}

/* A port of this host towards the flow's backend (flow->nat but for dport is there): claimed, or false. */
INLINE bool claim_port(struct scratch *s, struct config *config, struct tuple *client)
{
	struct tuple *nat = &s->flow.nat;
	u32 zero = 0, *turn = turns.lookup(&zero);

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
		if (!other || other->nat.dport != nat->dport || other->nat.saddr != nat->saddr) {
			nats.update(nat, client); /* of a flow that is gone */
			return true;
		}
	}
	return false;
}

#endif /* RAUTA_FLOWS_H */
