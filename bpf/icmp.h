/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A router says that a packet is too large (ICMP type 3, code 4: RFC 792, RFC 1191). It quotes the packet as it left here,
 * and means who sent it: the backend or the client of a flow. They are told, with the packet quoted as they sent it.
 */
#ifndef RAUTA_ICMP_H
#define RAUTA_ICMP_H

#include "numbers.h"

struct quoting { /* from the outer IP header on; of the packet, what every router quotes (RFC 792) */
	struct iphdr outer;
	u8 type, code;
	u16 check, unused, mtu;
	struct iphdr inner;
	u16 source, dest;
	u32 seq;
};
#define ICMP_CHECK (L4 + 2)
#define QUOTED 28 /* bytes of the inner headers */

/* Read it into s->options. False: it is something else. */
INLINE bool is_too_big(struct __sk_buff *skb, struct scratch *s)
{
	struct quoting *q = (void *)s->options;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + L3;

	if (skb->protocol != htons(ETH_P_IP) || skb->vlan_present || (void *)(ip + 1) > end || ip->protocol != 1 ||
	    skb->len < L3 + sizeof(*q) || bpf_skb_load_bytes(skb, L3, q, sizeof(*q)) < 0)
		return false;
	return q->outer.version == 4 && q->outer.ihl == 5 && q->type == 3 && q->code == 4 &&
	       !(q->outer.frag_off & htons(0x3fff)) && q->inner.version == 4 && q->inner.ihl == 5 &&
	       q->inner.protocol == IPPROTO_TCP;
}

/* The flow whose packet is quoted, and in `client` its key; `sent_by_backend` says who is to be told. */
INLINE struct flow *quoted_flow(struct scratch *s, struct quoting *q, struct tuple *client, bool *sent_by_backend)
{
	struct flow *flow;

	/* The key of packets from where it was sent to. */
	s->key.saddr = q->inner.daddr;
	s->key.daddr = q->inner.saddr;
	s->key.sport = q->dest;
	s->key.dport = q->source;
	*client = s->key;
	*sent_by_backend = true;
	flow = flows.lookup(client);
	if (flow)
		return flow;
	*sent_by_backend = false;
	flow = flow_of_backend(s, client);
	return flow && is_its_backend(s, flow) ? flow : 0;
}

/* Put addresses, ports and the number into the quoted headers, as `from` sent them to `to`. */
INLINE void quote(struct scratch *s, struct quoting *q, u32 from, u32 to, u16 from_port, u16 to_port, u32 seq)
{
	u64 sum = (u16)~q->inner.check;

	sum += (u64)(u32)~q->inner.saddr + (u32)~q->inner.daddr + from + to;
	q->inner.check = ~fold16(sum);
	q->inner.saddr = from;
	q->inner.daddr = to;
	q->source = from_port;
	q->dest = to_port;
	q->seq = htonl(seq);
}

INLINE int tell_who_sent(struct __sk_buff *skb, struct scratch *s)
{
	struct quoting *q = (void *)s->options;
	struct tuple client;
	struct flow *flow;
	bool by_backend;
	u32 seq = ntohl(q->seq), out, sum;
	u64 outer = 0;

	flow = quoted_flow(s, q, &client, &by_backend);
	if (!flow || flow->state != BOUND)
		return TC_ACT_OK;
	/* Only what may be on its way (RFC 5927 4.1). */
	if (by_backend ? flow->backend.next - seq >= WINDOW_MOST :
			 flow->client.next - (seq - flow->client_delta) >= WINDOW_MOST)
		return TC_ACT_OK;
	__builtin_memcpy(s->head, &q->inner, QUOTED);
	if (by_backend) {
		quote(s, q, flow->nat.saddr, flow->nat.daddr, flow->nat.sport, flow->nat.dport, seq + flow->delta);
		q->outer.saddr = flow->nat.daddr;
		q->outer.daddr = flow->nat.saddr;
		out = flow->backend_ifindex;
		__builtin_memcpy(&s->out.eth, flow->backend_macs, 12);
	} else {
		seq -= flow->client_delta;
		if (flow->header_due && before(seq, flow->head_seq))
			seq = flow->head_seq; /* the PROXY header was in front of what the client has sent */
		quote(s, q, client.saddr, client.daddr, client.sport, client.dport, seq);
		q->outer.saddr = client.daddr;
		q->outer.daddr = client.saddr;
		out = flow->client_ifindex;
		__builtin_memcpy(&s->out.eth, flow->client_macs, 12);
	}
	q->outer.ttl = 64;
	q->outer.check = 0;
#pragma clang loop unroll(full)
	for (int n = 0; n < 5; n++)
		outer += ((u32 *)&q->outer)[n];
	q->outer.check = ~fold16(outer);
	sum = bpf_csum_diff((u32 *)s->head, QUOTED, (u32 *)&q->inner, QUOTED, 0);
	if (bpf_skb_store_bytes(skb, L3, q, sizeof(*q), 0) || bpf_skb_store_bytes(skb, 0, &s->out.eth, 12, 0) ||
	    bpf_l4_csum_replace(skb, ICMP_CHECK, 0, sum, 0))
		return TC_ACT_SHOT;
	count(ICMP_TRANSLATED);
	return bpf_redirect(out, 0);
}

#endif /* RAUTA_ICMP_H */
