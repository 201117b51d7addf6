/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: made once, ended together with their NAT entry; and what was served by them.
 */
#ifndef RAUTA_FLOWS_H
#define RAUTA_FLOWS_H

#include "packet.h"

/* Whether a socket of this host owns the packet's connection: anything but a listener. */
INLINE bool is_owned_here(struct __sk_buff *skb, struct tuple *key)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	bool owned;

	tuple.ipv4.saddr = key->saddr;
	tuple.ipv4.daddr = key->daddr;
	tuple.ipv4.sport = key->sport;
	tuple.ipv4.dport = key->dport;
	sk = skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), -1, 0);
	if (!sk)
		return false;
	owned = sk->state != 10; /* TCP_LISTEN */
	sk_release(sk);
	return owned;
}

/* Add `more` requests, and the traffic that has not been counted yet, to those like the last one. */
INLINE void count_traffic(struct scratch *s, struct flow *flow, u32 more)
{
	struct request_key *key = &s->counted;
	struct traffic *cell, made = {};
	u32 packets = flow->packets[0] + flow->packets[1];
	u64 bytes = (u64)flow->bytes[0] + flow->bytes[1];

	flow->packets[0] = flow->packets[1] = flow->bytes[0] = flow->bytes[1] = 0;
	key->listener = flow->listener;
	key->route = flow->request.route;
	key->service = flow->service;
	key->code = flow->code;
	key->method = flow->request.method;
	key->tier = flow->request.tier;
	cell = requests.lookup(key);
	if (cell) {
		cell->requests += more;
		cell->packets += packets;
		cell->bytes += bytes;
		return;
	}
	made.requests = more;
	made.packets = packets;
	made.bytes = bytes;
	requests.update(key, &made);
}

/* The response to the flow's request has come: its status is in flow->code. */
INLINE void count_request(struct scratch *s, struct flow *flow)
{
	count_traffic(s, flow, 1);
}

/* A packet of a flow; `whose` is 0 for the client's, 1 for the backend's. */
INLINE void count_packet(struct scratch *s, struct flow *flow, u32 whose)
{
	flow->packets[whose & 1]++;
	flow->bytes[whose & 1] += s->offset - L3 + s->length;
}

/* The flow is over. */
INLINE void forget(struct scratch *s, struct tuple *client, struct flow *flow)
{
	struct tuple nat = flow->nat;
	u32 first = flow->first_seq;

	if (flow->packets[0] | flow->packets[1])
		count_traffic(s, flow, 0);
	if (nat.dport)
		nats.delete(&nat);
	flows.delete(client);
	closed.update(client, &first);
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
