/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of a flow that is bound, from one connection to the other: the checksum changes by
 * the differences of contents and of addresses, whatever its kind.
 */
#ifndef RAUTA_TRANSLATE_H
#define RAUTA_TRANSLATE_H

#include "flows.h"
#include "options.h"

struct change {
	u64 content, addresses; /* the differences, for the checksums */
	u32 saddr, daddr;
	u32 ports, seq, ack, window; /* the TCP header's words */
	u32 has_ts, tsval, tsecr, edges, edge[6];
};

INLINE void differ(u64 *sum, u32 was, u32 is)
{
	*sum += (u32)~was;
	*sum += is;
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

#define SACK_EDGES(n, offset)                                                                                          \
	if (s->header >= 44 + 8 * (n) && (void *)(option + 6 + 2 * (n)) <= end) {                                      \
		u32 left = htonl(ntohl(option[4 + 2 * (n)]) + (offset));                                               \
		u32 right = htonl(ntohl(option[5 + 2 * (n)]) + (offset));                                              \
		differ(&c->content, option[4 + 2 * (n)], left);                                                        \
		differ(&c->content, option[5 + 2 * (n)], right);                                                       \
		c->edge[2 * (n)] = left;                                                                               \
		c->edge[2 * (n) + 1] = right;                                                                          \
		c->edges = (n) + 1;                                                                                    \
	}
#define STORE_EDGES(n)                                                                                                 \
	if (c->edges > (n) && (void *)(option + 6 + 2 * (n)) <= end) {                                                 \
		option[4 + 2 * (n)] = c->edge[2 * (n)];                                                                \
		option[5 + 2 * (n)] = c->edge[2 * (n) + 1];                                                            \
	}

/* What changes in the words of the TCP header, but for options. */
INLINE void differ_words(struct scratch *s, u32 *words, struct change *c)
{
	differ(&c->content, words[0], c->ports);
	differ(&c->content, words[1], c->seq);
	differ(&c->content, words[2], c->ack);
	differ(&c->content, words[3], c->window);
	differ(&c->addresses, s->key.saddr, c->saddr);
	differ(&c->addresses, s->key.daddr, c->daddr);
}

/* What a packet of the client becomes; `words` is its TCP header. */
INLINE void change_for_backend(struct scratch *s, struct flow *flow, u32 *words, void *end, struct change *c)
{
	u32 *option = words + 5;

	c->saddr = flow->nat.daddr;
	c->daddr = flow->nat.saddr;
	c->ports = (u32)flow->nat.dport | ((u32)flow->nat.sport << 16);
	c->seq = htonl(s->seq + flow->client_delta);
	c->ack = htonl(s->ack + flow->delta);
	c->window = words[3];
	if (flow->client_wscale != NO_WSCALE && flow->backend_wscale == NO_WSCALE) {
		u32 window = s->window << flow->client_wscale;

		c->window = (words[3] & htonl(0xffff0000)) | htonl(window > 65535 ? 65535 : window);
	}
	differ_words(s, words, c);
	if (flow->timestamps && s->header >= 32 && (void *)(option + 3) <= end && option[0] == htonl(TIMESTAMPS_FIRST)) {
		c->has_ts = 1;
		c->tsval = option[1];
		c->tsecr = htonl(ntohl(option[2]) + flow->ts_delta);
		differ(&c->content, option[2], c->tsecr);
		if (s->header >= 44 && (void *)(option + 6) <= end &&
		    (option[3] & htonl(0xffffff00)) == htonl(0x01010500)) {
			SACK_EDGES(0, flow->delta)
			SACK_EDGES(1, flow->delta)
			SACK_EDGES(2, flow->delta)
		}
	}
}

/* A connection that was parked has not seen what the client was told since: to the client, time does not go back. */
INLINE void go_on_in_time(struct flow *flow, u32 tsval)
{
	if (before(tsval - flow->ts_delta, flow->our_tsval))
		flow->ts_delta = tsval - flow->our_tsval;
}

/* What a packet of the backend becomes, for the client whose tuple is `client`. */
INLINE void change_for_client(struct scratch *s, struct flow *flow, struct tuple *client, u32 *words, void *end,
			      struct change *c)
{
	u32 *option = words + 5;

	c->saddr = client->daddr;
	c->daddr = client->saddr;
	c->ports = (u32)client->dport | ((u32)client->sport << 16);
	c->seq = htonl(s->seq - flow->delta);
	c->ack = htonl(s->ack);
	c->window = words[3];
	if (flow->client_wscale != NO_WSCALE) {
		u32 scale = flow->backend_wscale == NO_WSCALE ? 0 : flow->backend_wscale;
		u32 window = (s->window << scale) >> OUR_WSCALE;

		c->window = (words[3] & htonl(0xffff0000)) | htonl(window > 65535 ? 65535 : window);
	}
	differ_words(s, words, c);
	if (flow->timestamps && s->header >= 32 && (void *)(option + 3) <= end && option[0] == htonl(TIMESTAMPS_FIRST)) {
		if (flow->backend.fresh)
			go_on_in_time(flow, ntohl(option[1]));
		c->has_ts = 1;
		c->tsval = htonl(ntohl(option[1]) - flow->ts_delta);
		c->tsecr = option[2];
		differ(&c->content, option[1], c->tsval);
		if (flow->client_delta && s->header >= 44 && (void *)(option + 6) <= end &&
		    (option[3] & htonl(0xffffff00)) == htonl(0x01010500)) {
			SACK_EDGES(0, -flow->client_delta)
			SACK_EDGES(1, -flow->client_delta)
			SACK_EDGES(2, -flow->client_delta)
		}
	}
	flow->backend.fresh = 0;
}

/* All but the checksum of the segment. */
INLINE void write_change(struct ethhdr *eth, struct iphdr *ip, u32 *words, void *end, struct change *c, u8 *macs)
{
	u32 *option = words + 5;

	write_ip(ip, c);
	words[0] = c->ports;
	words[1] = c->seq;
	words[2] = c->ack;
	words[3] = c->window;
	if (c->has_ts && (void *)(option + 3) <= end) {
		option[1] = c->tsval;
		option[2] = c->tsecr;
	}
	STORE_EDGES(0)
	STORE_EDGES(1)
	STORE_EDGES(2)
	__builtin_memcpy(eth, macs, 12);
}

/* The checksum of the segment, if it is complete. */
INLINE void update_checksum(struct tcphdr *tcp, struct change *c)
{
	u64 sum = (u16)~tcp->check;

	sum += fold32(c->content);
	sum += fold32(c->addresses);
	tcp->check = ~fold16(sum);
}

/* The same at TC, whatever it is now. What a device has summed itself (CHECKSUM_COMPLETE) covers the field too: it changes
 * by the addresses alone, which are not in it. */
INLINE void update_any_checksum(struct __sk_buff *skb, struct tcphdr *tcp, struct change *c)
{
	enum summed kind = summed(skb);

	if (kind == CHECKSUM_PARTIAL) {
		tcp->check = fold16((u64)tcp->check + fold32(c->addresses));
		return;
	}
	update_checksum(tcp, c);
	if (kind == CHECKSUM_COMPLETE)
		csum_update(skb, ~fold32(c->addresses));
}

/* The packet becomes one from the client to the backend; false: it cannot be read. */
INLINE bool translate(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};

	LINEAR(skb, OPTIONS, eth, ip, tcp, end, false);
	change_for_backend(s, flow, (u32 *)tcp, end, &c);
	update_any_checksum(skb, tcp, &c);
	write_change(eth, ip, (u32 *)tcp, end, &c, flow->backend_macs);
	count(TO_BACKEND);
	return true;
}

/* From the client to the backend. */
INLINE int to_backend(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	return translate(skb, s, flow) ? bpf_redirect(flow->backend_ifindex, 0) : TC_ACT_SHOT;
}

/* From the backend to the client, whose tuple is `client`. */
INLINE int to_client(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct tuple *client)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};

	LINEAR(skb, OPTIONS, eth, ip, tcp, end, TC_ACT_SHOT);
	change_for_client(s, flow, client, (u32 *)tcp, end, &c);
	update_any_checksum(skb, tcp, &c);
	write_change(eth, ip, (u32 *)tcp, end, &c, flow->client_macs);
	count(TO_CLIENT);
	return bpf_redirect(flow->client_ifindex, 0);
}

#endif /* RAUTA_TRANSLATE_H */
