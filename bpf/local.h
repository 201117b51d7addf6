/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Hand-over to tier 3: the packet gets a request socket with the options that our SYN-ACK promised, and the local socket
 * continues the client's own numbers (bpf_sk_assign_tcp_reqsk, kernel 6.9). Only the segment that holds a request's head
 * may make it: a later one would give the listener the middle of a body.
 */
#ifndef RAUTA_LOCAL_H
#define RAUTA_LOCAL_H

#include "parked.h"

/* The socket has the connection: the flow goes. */
INLINE int leave_to_tier_3(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	if (!has_parked(flow)) {
		flows.delete(&s->key);
		return TC_ACT_OK;
	}
	s->flow = *flow;
	flows.delete(&s->key);
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS); /* the packet, again: now a socket's */
	reset_parked(skb, s, is_partial(skb));
	return TC_ACT_SHOT;
}

/* The packet of a flow that is LOCAL. */
INLINE int to_tier_3(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct bpf_sock_tuple tuple = {};
	struct reqsk_attrs attrs = {};
	struct bpf_sock *sk;
	void *listener;
	long failed = -1;

	tuple.ipv4.saddr = s->key.saddr;
	tuple.ipv4.daddr = s->key.daddr;
	tuple.ipv4.sport = s->key.sport;
	tuple.ipv4.dport = s->key.dport;
	read_timestamps(skb, TC, s);
	sk = skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), -1, 0);
	if (!sk) {
		count(LOCAL_NO_LISTENER);
		forget(s, &s->key, flow);
		return TC_ACT_OK; /* the stack resets it */
	}
	if (sk->state != 10) { /* not TCP_LISTEN: the socket is there */
		sk_release(sk);
		note_past(&s->key, flow->first_seq, SPAN_LOCAL);
		return leave_to_tier_3(skb, s, flow);
	}
	if (s->seq != flow->head_seq) {
		sk_release(sk);
		count(DROP_NOT_HEAD);
		return TC_ACT_SHOT;
	}
	attrs.mss = flow->mss;
	attrs.rcv_wscale = OUR_WSCALE;
	attrs.snd_wscale = flow->client_wscale == NO_WSCALE ? 0 : flow->client_wscale;
	attrs.wscale_ok = flow->client_wscale != NO_WSCALE;
	attrs.sack_ok = flow->sack;
	attrs.tstamp_ok = flow->timestamps && s->timestamps;
	attrs.rcv_tsval = s->tsval;
	attrs.rcv_tsecr = s->tsecr;
	listener = skc_to_tcp_sock(sk);
	if (listener)
		failed = sk_assign_tcp_reqsk(skb, listener, &attrs, sizeof(attrs));
	sk_release(sk);
	count(failed ? LOCAL_FAILED : LOCAL_ASSIGNED);
	return TC_ACT_OK;
}

/* The request in this packet is tier 3's, and no backend has been chosen yet. The flow is in the scratch. */
INLINE int hand_over_first(struct __sk_buff *skb, struct scratch *s)
{
	s->flow.state = LOCAL;
	s->flow.head_seq = s->seq;
	flows.update(&s->key, &s->flow);
	programs.call(skb, ON_LOCAL);
	return TC_ACT_SHOT;
}

/* The same of a flow that has a backend: the packet goes to the local stack as a clone, and becomes the RST for the
 * backend. */
INLINE int hand_over_later(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};
	u32 partial, out;

	s->flow = *flow;
	to_nat(&made, &flow->nat);
	made.seq = s->seq + flow->client_delta;
	made.flags = RST;
	made.header = 20;
	out = flow->backend_ifindex;
	__builtin_memcpy(&s->out.eth, flow->backend_macs, 12);
	count_rest(s, &s->flow);
	__builtin_memset(&s->flow.nat, 0, sizeof(s->flow.nat));
	s->flow.state = LOCAL;
	s->flow.head_seq = s->seq;
	release_port(&s->key, &flow->nat);
	if (flows.update(&s->key, &s->flow)) {
		forget(s, &s->key, flow);
		return TC_ACT_SHOT;
	}
	count(HANDED_OVER_LATER);
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	partial = is_partial(skb);
	if (bpf_skb_change_tail(skb, OPTIONS, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, partial);
	if (store_headers(skb, &s->out, 20))
		return TC_ACT_SHOT;
	if (!has_parked(&s->flow))
		return bpf_redirect(out, 0);
	bpf_clone_redirect(skb, out, 0);
	reset_parked(skb, s, partial);
	return TC_ACT_SHOT;
}

#endif /* RAUTA_LOCAL_H */
