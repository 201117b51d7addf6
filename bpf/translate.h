/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of a flow that is bound, from one connection to the other: two checksum updates for the whole packet, one of
 * contents and one of addresses, whatever the kind of its checksum.
 */
#ifndef RAUTA_TRANSLATE_H
#define RAUTA_TRANSLATE_H

#include "flows.h"

struct change { /* what a packet becomes; `content` and `addresses` collect differences for the checksums */
	u64 content, addresses;
	u32 saddr, daddr, ports, window; /* `window`: the header's fourth word */
};

INLINE void differ(u64 *sum, u32 was, u32 is)
{
	*sum += (u32)~was;
	*sum += is;
}

INLINE void update_checksums(struct __sk_buff *skb, struct change *c)
{
	bpf_l4_csum_replace(skb, TCP_CHECK, 0, fold32(c->content), 0);
	bpf_l4_csum_replace(skb, TCP_CHECK, 0, fold32(c->addresses), BPF_F_PSEUDO_HDR);
}

INLINE void write_ip(struct iphdr *ip, struct change *c)
{
	u16 ttl = *(u16 *)&ip->ttl; /* with the protocol */
	u16 less = ttl - 1;         /* the TTL is the low byte of the pair, as it lies in memory */
	u64 sum = (u16)~ip->check;

	sum += fold32(c->addresses);
	sum += (u16)~ttl;
	sum += less;
	*(u16 *)&ip->ttl = less;
	ip->check = ~fold16(sum);
	ip->saddr = c->saddr;
	ip->daddr = c->daddr;
}

#define SACK_EDGES(n)                                                                                                  \
	if (s->header >= 44 + 8 * (n) && (void *)(option + 6 + 2 * (n)) <= end) {                                      \
		u32 left = htonl(ntohl(option[4 + 2 * (n)]) + flow->delta);                                            \
		u32 right = htonl(ntohl(option[5 + 2 * (n)]) + flow->delta);                                           \
		differ(&c.content, option[4 + 2 * (n)], left);                                                         \
		differ(&c.content, option[5 + 2 * (n)], right);                                                        \
		edge[2 * (n)] = left;                                                                                  \
		edge[2 * (n) + 1] = right;                                                                             \
		edges = (n) + 1;                                                                                       \
	}
#define STORE_EDGES(n)                                                                                                 \
	if (edges > (n) && (void *)(option + 6 + 2 * (n)) <= end) {                                                    \
		option[4 + 2 * (n)] = edge[2 * (n)];                                                                   \
		option[5 + 2 * (n)] = edge[2 * (n) + 1];                                                               \
	}

/* From the client to the backend. */
INLINE int to_backend(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};
	u32 *option, *words, ack = htonl(s->ack + flow->delta), tsecr = 0, has_ts = 0, edges = 0, edge[6];

	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	words = (u32 *)tcp;
	c.saddr = flow->nat.daddr;
	c.daddr = flow->nat.saddr;
	c.ports = (u32)flow->nat.dport | ((u32)flow->nat.sport << 16);
	c.window = words[3];
	if (flow->client_wscale != NO_WSCALE && flow->backend_wscale == NO_WSCALE) {
		u32 window = s->window << flow->client_wscale;

		c.window = (words[3] & htonl(0xffff0000)) | htonl(window > 65535 ? 65535 : window);
	}
	differ(&c.content, words[0], c.ports);
	differ(&c.content, words[2], ack);
	differ(&c.content, words[3], c.window);
	differ(&c.addresses, s->key.saddr, c.saddr);
	differ(&c.addresses, s->key.daddr, c.daddr);
	option = words + 5;
	if (flow->timestamps && s->header >= 32 && (void *)(option + 3) <= end && option[0] == htonl(TIMESTAMPS_FIRST)) {
		has_ts = 1;
		tsecr = htonl(ntohl(option[2]) + flow->ts_delta);
		differ(&c.content, option[2], tsecr);
		if (s->header >= 44 && (void *)(option + 6) <= end &&
		    (option[3] & htonl(0xffffff00)) == htonl(0x01010500)) {
			SACK_EDGES(0)
			SACK_EDGES(1)
			SACK_EDGES(2)
		}
	}
	update_checksums(skb, &c);
	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	write_ip(ip, &c);
	words = (u32 *)tcp;
	words[0] = c.ports;
	words[2] = ack;
	words[3] = c.window;
	option = words + 5;
	if (has_ts && (void *)(option + 3) <= end)
		option[2] = tsecr;
	STORE_EDGES(0)
	STORE_EDGES(1)
	STORE_EDGES(2)
	__builtin_memcpy(eth, flow->backend_macs, 12);
	count(TO_BACKEND);
	return bpf_redirect(flow->backend_ifindex, 0);
}

/* From the backend to the client, whose tuple is `client`. */
INLINE int to_client(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct tuple *client)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};
	u32 *option, *words, seq = htonl(s->seq - flow->delta), tsval = 0, has_ts = 0;

	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	words = (u32 *)tcp;
	c.saddr = client->daddr;
	c.daddr = client->saddr;
	c.ports = (u32)client->dport | ((u32)client->sport << 16);
	c.window = words[3];
	if (flow->backend_wscale != NO_WSCALE) {
		u32 window = (s->window << flow->backend_wscale) >> OUR_WSCALE;

		c.window = (words[3] & htonl(0xffff0000)) | htonl(window > 65535 ? 65535 : window);
	}
	differ(&c.content, words[0], c.ports);
	differ(&c.content, words[1], seq);
	differ(&c.content, words[3], c.window);
	differ(&c.addresses, s->key.saddr, c.saddr);
	differ(&c.addresses, s->key.daddr, c.daddr);
	option = words + 5;
	if (flow->timestamps && s->header >= 32 && (void *)(option + 3) <= end && option[0] == htonl(TIMESTAMPS_FIRST)) {
		has_ts = 1;
		tsval = htonl(ntohl(option[1]) - flow->ts_delta);
		differ(&c.content, option[1], tsval);
	}
	update_checksums(skb, &c);
	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	write_ip(ip, &c);
	words = (u32 *)tcp;
	words[0] = c.ports;
	words[1] = seq;
	words[3] = c.window;
	option = words + 5;
	if (has_ts && (void *)(option + 3) <= end)
		option[1] = tsval;
	__builtin_memcpy(eth, flow->client_macs, 12);
	count(TO_CLIENT);
	return bpf_redirect(flow->client_ifindex, 0);
}

#endif /* RAUTA_TRANSLATE_H */
