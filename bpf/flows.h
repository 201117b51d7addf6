/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: made once, ended together with their NAT entry.
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

INLINE void forget(struct tuple *client, struct flow *flow)
{
	struct tuple nat = flow->nat;

	if (nat.dport)
		nats.delete(&nat);
	flows.delete(client);
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
		s->out.options[0] = 0;
		other = flows.lookup(holder);
		if (!other || other->nat.dport != nat->dport || other->nat.saddr != nat->saddr) {
			nats.update(nat, client); /* of a flow that is gone */
			return true;
		}
	}
	return false;
}

#endif /* RAUTA_FLOWS_H */
