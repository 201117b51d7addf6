/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The handshake with the client: a SYN is answered by a cookie and leaves no state (RFC 4987 3.6); the ACK that brings
 * the cookie back makes the flow.
 */
#ifndef RAUTA_SYN_H
#define RAUTA_SYN_H

#include "flows.h"
#include "options.h"

#define OUR_WINDOW 16000 /* no more than a stash holds: the client cannot overrun it */

/* The cookie for a segment's number, as for a SYN; negative: there is none. The helper wants to be told the header's
 * length, and the verifier wants that to be a constant. */
INLINE s64 cookie_for(struct iphdr *ip, struct tcphdr *tcp, void *end, u32 header)
{
#define WITH(size)                                                                                                     \
	if (header == (size) && (void *)tcp + (size) <= end)                                                           \
		return raw_gen_syncookie(ip, tcp, (size));
	WITH(40) WITH(32) WITH(20) WITH(24) WITH(28) WITH(36) WITH(44) WITH(48) WITH(52) WITH(56) WITH(60)
#undef WITH
	return -1;
}

/* Our SYN-ACK: into `made`, its options into s->out. */
INLINE void describe_syn_ack(struct scratch *s, u32 cookie, struct segment *made)
{
	made->saddr = s->key.daddr;
	made->daddr = s->key.saddr;
	made->sport = s->key.dport;
	made->dport = s->key.sport;
	made->seq = cookie;
	made->ack = s->seq + 1;
	made->flags = SYN | ACK;
	made->window = OUR_WINDOW;
	made->header = s->timestamps ? 40 : 24;
	s->out.options[0] = htonl(0x02040000 | s->listener.mss);
	if (s->timestamps) {
		s->out.options[1] = htonl((s->sack ? 0x04020000 : 0x01010000) | 0x080a);
		s->out.options[2] = htonl(timestamp_with(s->wscale, s->sack));
		s->out.options[3] = htonl(s->tsval);
		s->out.options[4] = s->wscale == NO_WSCALE ? htonl(0x01010101) : htonl(0x01030300 | OUR_WSCALE);
	}
}

INLINE int answer_syn(struct __sk_buff *skb, struct scratch *s)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct segment made = {};
	u32 partial;
	s64 cookie;

	if (is_owned_here(skb, &s->key)) {
		count(PASS_OWNED);
		return TC_ACT_OK;
	}
	note_syn(s);
	if (!read_syn_options(skb, TC, s)) {
		count(PASS_OPTIONS);
		return TC_ACT_OK;
	}
	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	cookie = cookie_for(ip, tcp, end, s->header);
	if (cookie < 0) {
		count(PASS_COOKIE);
		return TC_ACT_OK;
	}
	partial = is_partial(skb);
	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	swap_macs(&s->out.eth, eth);
	describe_syn_ack(s, (u32)cookie, &made);
	if (bpf_skb_change_tail(skb, L4 + made.header, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, partial);
	if (store_headers(skb, &s->out, made.header))
		return TC_ACT_SHOT;
	count(SYN_ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}

/* The MSS whose number is in a cookie (msstab of net/ipv4/syncookies.c): what it is more than one without. */
INLINE u32 mss_of(u32 number)
{
	return number == 3 ? 1460 : number == 2 ? 1440 : number == 1 ? 1300 : 536;
}

/* A packet of no flow, for s->listener: an ACK that brings a cookie back makes one, in s->flow. 0: made; else what becomes of the
 * packet, plus one, for s->reason. */
#define MADE 0
#define THEN(action) ((action) + 1)

INLINE int accept_ack(void *ctx, enum hook hook, struct scratch *s, struct iphdr *ip, struct tcphdr *tcp, void *end)
{
	struct flow *flow = &s->flow;
	s64 own;
	u32 mss;

	if ((s->flags & (ACK | SYN | RST)) != ACK || is_owned_here(ctx, &s->key)) {
		s->reason = PASS_OWNED;
		return THEN(TC_ACT_OK);
	}
	own = cookie_for(ip, tcp, end, s->header);
	if (raw_check_syncookie(ip, tcp) < 0) {
		/* Perhaps the first segment is still to come. A cookie is the client's number plus what depends on the rest
		 * alone, so one for this segment's number is ahead of ours by as much as this segment is of the first. */
		if (own >= 0 && (u32)own - s->ack + 4 < 65536) {
			s->reason = DROP_EARLY;
			return THEN(TC_ACT_SHOT);
		}
		s->reason = PASS_UNKNOWN;
		return THEN(TC_ACT_OK); /* the stack resets it */
	}
	if (is_past(&s->key, s->seq)) {
		s->reason = DROP_LATE;
		return THEN(TC_ACT_SHOT);
	}
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->state = EST;
	flow->listener = s->listener.id;
	mss = own < 0 ? 536 : mss_of(s->ack - (u32)own);
	flow->mss = mss > s->listener.mss ? s->listener.mss : mss;
	flow->client_wscale = NO_WSCALE;
	flow->server_seq = flow->backend.next = s->ack;
	flow->first_seq = flow->client.next_head = flow->client.next = s->seq;
	read_timestamps(ctx, hook, s);
	if (s->timestamps) {
		u32 bits = s->tsecr & ((1 << TS_BITS) - 1);

		flow->timestamps = 1;
		flow->sack = bits & TS_SACK ? 1 : 0;
		flow->client_wscale = (bits & 15) == TS_NO_WSCALE ? NO_WSCALE : bits & 15;
	}
	flow->client_ifindex = came_by(ctx, hook);
	swap_macs_of(ctx, hook, flow->client_macs);
	return MADE;
}

/* An ACK for the client of a flow that is EST: its keepalive probe wants one. */
INLINE int acknowledge(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};
	u32 partial;

	read_timestamps(skb, TC, s);
	partial = is_partial(skb);
	made.saddr = s->key.daddr;
	made.daddr = s->key.saddr;
	made.sport = s->key.dport;
	made.dport = s->key.sport;
	made.seq = flow->server_seq;
	made.ack = flow->client.next_head;
	made.flags = ACK;
	made.window = flow->client_wscale == NO_WSCALE ? OUR_WINDOW : OUR_WINDOW >> OUR_WSCALE;
	made.header = flow->timestamps ? 32 : 20;
	s->out.options[0] = htonl(TIMESTAMPS_FIRST);
	s->out.options[1] = htonl(timestamp_with(flow->client_wscale, flow->sack));
	s->out.options[2] = htonl(s->tsval);
	swap_macs_of(skb, TC, &s->out.eth);
	if (bpf_skb_change_tail(skb, L4 + made.header, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, partial);
	if (store_headers(skb, &s->out, made.header))
		return TC_ACT_SHOT;
	count(PROBE_ANSWERED);
	return bpf_redirect(skb->ifindex, 0);
}

#endif /* RAUTA_SYN_H */
