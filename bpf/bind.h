/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Binding a flow to a backend: the request is stashed, and the packet that brought it becomes the SYN to the backend,
 * with the client's own sequence number, so that only one direction needs an offset.
 */
#ifndef RAUTA_BIND_H
#define RAUTA_BIND_H

#include "flows.h"
#include "lookup.h"
#include "options.h"
#include "proxied.h"

#define RESEND_WITHIN (150 * MS) /* a retransmission in this time resends the SYN, a later one hands over */

/* The client's window, as it is told where nothing is scaled: in a SYN, and to a backend that does not scale. */
INLINE u16 unscaled(struct flow *flow)
{
	u32 window = flow->window;

	if (flow->client_wscale != NO_WSCALE)
		window <<= flow->client_wscale;
	return window > 65535 ? 65535 : window;
}

/* The SYN of a flow that is BINDING: into `made`, its options into s->out. */
INLINE void describe_syn(struct scratch *s, struct flow *flow, struct segment *made)
{
	to_nat(made, &flow->nat);
	made->seq = flow->head_seq - 1;
	made->flags = SYN;
	made->window = unscaled(flow);
	made->header = flow->timestamps ? 40 : 24;
	s->out.options[0] = htonl(0x02040000 | flow->mss);
	if (flow->timestamps) {
		s->out.options[1] = htonl((flow->sack ? 0x04020000 : 0x01010000) | 0x080a);
		s->out.options[2] = htonl(flow->client_tsval);
		s->out.options[3] = 0;
		s->out.options[4] = flow->client_wscale == NO_WSCALE ? htonl(0x01010101) :
								       htonl(0x01030300 | flow->client_wscale);
	}
}

/* Send it. The packet is rebuilt from whatever it was. */
INLINE int send_syn(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};
	u32 partial = is_partial(skb);

	describe_syn(s, flow, &made);
	if (bpf_skb_change_tail(skb, L4 + made.header, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, partial);
	if (store_headers(skb, &s->out, made.header))
		return TC_ACT_SHOT;
	return redirect_neigh(flow->backend_ifindex, 0, 0, 0);
}

/* A slot of the stash for this packet's payload, and the header in front of it. */
INLINE bool stash_request(void *ctx, enum hook hook, struct scratch *s)
{
	u64 size = opaque(s->length), at = opaque(s->flow.client_delta) & 31;
	u32 which = TURN_SLOT, *turn = turns.lookup(&which), *stamps;
	u32 first = bpf_get_smp_processor_id() % CPUS * SLOTS;
	struct stash *stash;

	which = TURN_STAMP;
	stamps = turns.lookup(&which);
	if (!turn || !stamps || size < 1 || size > STASH_BYTES - PROXY_BYTES)
		return false;
	s->stamp = ++(*stamps) | 1U << 31; /* never 0 */
	s->slot = first + *turn % SLOTS;
	stash = stashes.lookup(&s->slot);
	if (stash && stash->stamp) {
		s->slot = first + ++(*turn) % SLOTS;
		stash = stashes.lookup(&s->slot);
	}
	if (stash)
		stash->stamp = 0; /* whoever reads it on another CPU has to see that it is not theirs any more */
	if (!stash || load_bytes(ctx, hook, s->offset, stash->bytes + at, size) < 0)
		return false;
	*(u32 *)(stash->bytes + at + size) = 0; /* sums are of whole words */
	if (at)
		write_proxy_header((void *)stash->bytes, &s->key);
	stash->stamp = s->stamp;
	return true;
}

/* The flow in s->flow (EST) gets a backend of `service`. False: tier 3 has to do it, for s->reason. Then
 * nothing is left behind. `hop`: as route_to's. */
INLINE bool choose_backend(void *ctx, struct scratch *s, struct config *config, struct service *service,
			   struct hop *hop)
{
	struct flow *flow = &s->flow;
	struct backend *backend;
	s32 place = backend_of(s, service);
	u64 at;

	if (place < 0) {
		s->reason = MISS_NO_BACKEND;
		return false;
	}
	at = opaque(place) & (MAX_BACKENDS - 1);
	backend = &service->backend[at];
	flow->nat.saddr = backend->address;
	flow->nat.sport = backend->port;
	flow->service = service->id;
	flow->proxied = flow->header_due = service->proxied;
	flow->backend_ifindex = route_to(ctx, flow->nat.saddr, &flow->nat.daddr, hop);
	if (!flow->backend_ifindex) {
		s->reason = MISS_NO_ROUTE;
		return false;
	}
	if (!claim_port(s, config, &s->key)) {
		s->reason = MISS_NO_PORT;
		return false;
	}
	return true;
}

/* What is known of the connection before: nothing, that it is EST, or that it is MOVING by this CPU. */
enum known { NEW, KNOWN_EST, KNOWN_MOVING };

/* Put s->flow, which is BINDING, in the place of what is known of the connection, if this CPU is the first to do it. */
INLINE bool store_binding(struct scratch *s, enum known known)
{
	if (known == KNOWN_MOVING)
		return !flows.update(&s->key, &s->flow);
	if (known == KNOWN_EST && flows.delete(&s->key))
		return false;
	return !flows.insert(&s->key, &s->flow);
}

/* The flow becomes BINDING, and the request is stashed. False: dropped, with nothing left behind. */
INLINE bool start_binding(void *ctx, enum hook hook, struct scratch *s, enum known known)
{
	struct flow *flow = &s->flow;

	flow->state = BINDING;
	flow->head_seq = s->seq;
	flow->client.next = s->seq + s->length;
	flow->backend.acked = flow->backend.limit = s->seq;
	flow->server_seq = flow->backend.next = flow->backend.response = s->ack;
	flow->backend.framing = WAITING;
	flow->client_delta = flow->proxied ? PROXY_BYTES : 0;
	add_request(s, flow, hook);
	flow->window = s->window;
	read_timestamps(ctx, hook, s);
	flow->client_tsval = s->tsval;
	flow->our_tsval = s->tsecr;
	flow->since = bpf_ktime_get_ns();
	flow->stashed = s->length + flow->client_delta;
	count_packet_of_client(s, flow);
	if (!stash_request(ctx, hook, s)) {
		nats.delete(&flow->nat);
		return false;
	}
	flow->slot = s->slot;
	flow->stamp = s->stamp;
	if (!store_binding(s, known)) {
		nats.delete(&flow->nat);
		count(DROP_RACE);
		return false;
	}
	count(BOUND_TO_BACKEND);
	return true;
}

/* A request that the kernel answers, of a flow that is new or EST (`known`). */
INLINE int bind(struct __sk_buff *skb, struct scratch *s, bool known)
{
	return start_binding(skb, TC, s, known ? KNOWN_EST : NEW) ? send_syn(skb, s, &s->flow) : TC_ACT_SHOT;
}

/* More of the request's body while the backend's handshake is under way. */
INLINE int stash_more(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct stash *stash;
	u64 at = opaque(flow->stashed), size = opaque(s->length);
	u32 slot = flow->slot;

	if (before(flow->client.next_head, s->seq + s->length)) {
		count(DROP_STASH);
		return TC_ACT_SHOT; /* behind the request: nobody has judged it */
	}
	/* A slot is written by its own CPU alone. */
	if (slot / SLOTS != bpf_get_smp_processor_id() % CPUS || s->seq != flow->head_seq + flow->stashed - flow->client_delta ||
	    at + size > STASH_BYTES || size < 1 || size > STASH_BYTES) {
		count(DROP_STASH);
		return TC_ACT_SHOT; /* TCP will send it again */
	}
	stash = stashes.lookup(&slot);
	if (!stash || stash->stamp != flow->stamp)
		return TC_ACT_SHOT;
	at = opaque(at) & (STASH_BYTES - 1);
	size = opaque(size) & (STASH_BYTES - 1);
	if (size < 1 || at + size > STASH_BYTES)
		return TC_ACT_SHOT;
	if (bpf_skb_load_bytes(skb, s->offset, stash->bytes + at, size) < 0)
		return TC_ACT_SHOT;
	*(u32 *)(stash->bytes + at + size) = 0;
	count_packet_of_client(s, flow);
	flow->stashed += size;
	flow->client.next = s->seq + size;
	count(STASHED);
	return TC_ACT_SHOT;
}

#endif /* RAUTA_BIND_H */
