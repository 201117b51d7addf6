/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The backend's answer to our SYN. Accepted: the stash is replayed. Refused: the stash goes to tier 3. A challenge, since
 * the port is in TIME_WAIT there: it is reset, and asked again (RFC 9293 3.10.7.3).
 */
#ifndef RAUTA_ANSWER_H
#define RAUTA_ANSWER_H

#include "bind.h"
#include "response.h"

/* Make the packet at hand the segment `made` with `size` bytes of the stash from `at` on; false: it failed. */
INLINE bool write_piece(struct __sk_buff *skb, struct scratch *s, struct stash *stash, struct segment *made, u64 at,
			u64 size, u32 last)
{
	at = opaque(at) & (STASH_BYTES - 1);
	size = opaque(size) & 8191;
	if (size < 1 || at + size > STASH_BYTES)
		return false;
	made->sum = 0;
	if (!s->partial) {
		s->sum = 0;
		add_bytes(s, stash->bytes, STASH_BYTES, at, at + size);
		made->sum = s->sum;
	}
	made->payload = size;
	write_headers(&s->out, made, s->partial);
	if (store_headers(skb, &s->out, made->header))
		return false;
	if (bpf_skb_store_bytes(skb, L4 + made->header, stash->bytes + at, size, 0))
		return false;
	asm volatile("" ::: "memory");
	if (last)
		return __sync_val_compare_and_swap(&stash->stamp, s->stamp, 0) == s->stamp;
	return stash->stamp == s->stamp; /* else it has become another request's meanwhile */
}

/* Send the stash in pieces of at most `s->piece` bytes: clones of this packet, and this packet last. `flags` is 0, or
 * BPF_F_INGRESS for the local stack, which gets no header. */
INLINE int replay(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct stash *stash, struct segment *made,
		  u32 ifindex, u64 flags)
{
	u32 from = flags ? flow->client_delta : 0;

	s->cursor = from; /* what has been sent */
	s->end = 0;       /* the size that the packet has now */
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 32 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u32 at = s->cursor, left = flow->stashed - at, size = left > s->piece ? s->piece : left;
		u32 last = size == left, header = flow->timestamps ? 32 : 20;

		if (size != s->end && bpf_skb_change_tail(skb, L4 + header + size, 0))
			return TC_ACT_SHOT;
		s->end = size;
		made->seq = flow->head_seq + at - from;
		made->flags = last ? ACK | PSH : ACK;
		made->header = header;
		if (!write_piece(skb, s, stash, made, at, size, last))
			return TC_ACT_SHOT;
		count(REPLAYED);
		if (last)
			return bpf_redirect(ifindex, flags);
		bpf_clone_redirect(skb, ifindex, flags);
		s->cursor = at + size;
	}
	return TC_ACT_SHOT;
}

/* Refused: the request, as if it had come from the client just now. */
INLINE int refuse(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct tuple *client, struct stash *stash)
{
	struct segment made = {};

	count(REFUSED);
	nats.delete(&s->key);
	__builtin_memset(&flow->nat, 0, sizeof(flow->nat));
	flow->client.asked = 0; /* tier 3 counts it */
	s->partial = is_partial(skb);
	swap_macs(&s->out.eth, flow->client_macs);
	s->out.options[0] = htonl(TIMESTAMPS_FIRST);
	s->out.options[1] = htonl(flow->client_tsval);
	s->out.options[2] = htonl(flow->our_tsval);
	made.saddr = client->saddr;
	made.daddr = client->daddr;
	made.sport = client->sport;
	made.dport = client->dport;
	made.ack = flow->server_seq;
	made.window = flow->window;
	s->piece = 8000; /* bpf_skb_change_tail refuses 16 KiB */
	return replay(skb, s, flow, stash, &made, flow->client_ifindex, BPF_F_INGRESS);
}

INLINE int challenge(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};

	if (flow->retries >= 3) {
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	flow->retries++;
	count(TIME_WAIT_RESET);
	s->partial = is_partial(skb);
	to_nat(&made, &flow->nat);
	made.seq = s->ack;
	made.flags = RST;
	made.header = 20;
	swap_macs_of(skb, TC, &s->out.eth);
	if (bpf_skb_change_tail(skb, OPTIONS, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, s->partial);
	if (store_headers(skb, &s->out, 20))
		return TC_ACT_SHOT;
	bpf_clone_redirect(skb, flow->backend_ifindex, 0);
	return send_syn(skb, s, flow);
}

/* A packet of the backend to a flow that is BINDING. */
INLINE int backend_answers(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct tuple *client)
{
	struct segment made = {};
	struct stash *stash;
	u32 slot = flow->slot, mss;

	stash = stashes.lookup(&slot);
	if (!stash || stash->stamp != flow->stamp) {
		count(DROP_STASH_LOST);
		return TC_ACT_SHOT;
	}
	s->stamp = flow->stamp;
	if ((s->flags & RST) && s->ack == flow->head_seq)
		return !change_state(flow, BINDING, LOCAL) ? TC_ACT_SHOT : refuse(skb, s, flow, client, stash);
	if ((s->flags & (SYN | ACK | RST)) == ACK && s->ack != flow->head_seq)
		return challenge(skb, s, flow);
	if ((s->flags & (SYN | ACK | RST)) != (SYN | ACK) || s->ack != flow->head_seq) {
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	if (!read_syn_options(skb, TC, s))
		return TC_ACT_SHOT;
	if (flow->timestamps != s->timestamps) {
		/* The client was promised them, and no time stamp can be made up for the backend's. */
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	flow->backend_wscale = flow->client_wscale == NO_WSCALE ? NO_WSCALE : s->wscale;
	flow->backend.limit = flow->head_seq + s->window - flow->client_delta; /* of a SYN-ACK: never scaled */
	flow->delta = s->seq + 1 - flow->server_seq;
	flow->ts_delta = s->tsval - flow->our_tsval;
	mss = s->mss < 1460 ? s->mss : 1460;
	s->piece = (mss - (flow->timestamps ? 12 : 0)) & ~3U;
	if (flow->client.head_end - flow->client.head + flow->client_delta > s->piece) {
		/* The head would be in two segments, and one of them could be sent anew with other bytes. */
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	swap_macs_of(skb, TC, flow->backend_macs);
	if (!change_state(flow, BINDING, BOUND))
		return TC_ACT_SHOT;
	count(BACKEND_ACCEPTED);
	s->partial = is_partial(skb);
	__builtin_memcpy(&s->out.eth, flow->backend_macs, 12);
	s->out.options[0] = htonl(TIMESTAMPS_FIRST);
	s->out.options[1] = htonl(flow->client_tsval);
	s->out.options[2] = htonl(s->tsval);
	to_nat(&made, &flow->nat);
	made.ack = s->seq + 1;
	made.window = flow->backend_wscale == NO_WSCALE ? unscaled(flow) : flow->window;
	return replay(skb, s, flow, stash, &made, flow->backend_ifindex, 0);
}

#endif /* RAUTA_ANSWER_H */
