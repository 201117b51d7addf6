/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Backends that are told the client's address: the header of the PROXY protocol, version 2, is the first that they get
 * (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, 2.2). It goes in front of the request that is stashed; the
 * client's own bytes follow, so what the backend counts is PROXY_BYTES ahead.
 */
#ifndef RAUTA_PROXIED_H
#define RAUTA_PROXIED_H

#include "numbers.h"
#include "translate.h"

struct proxy_header {
	u8 signature[12], version, family;
	u16 length;
	u32 from, to;
	u16 from_port, to_port;
};

INLINE void write_proxy_header(struct proxy_header *header, struct tuple *client)
{
	const u8 signature[12] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

	__builtin_memcpy(header->signature, signature, 12);
	header->version = 0x21; /* version 2, PROXY */
	header->family = 0x11;  /* TCP over IPv4 */
	header->length = htons(12);
	header->from = client->saddr;
	header->to = client->daddr;
	header->from_port = client->sport;
	header->to_port = client->dport;
}

/* Whether the segment, which has the head of the first request, may bring what got lost together with the header. */
INLINE bool wants_header(struct scratch *s, struct flow *flow)
{
	return flow->header_due && s->seq == flow->head_seq && flow->backend.acked == s->seq;
}

/* The segment goes to the backend once more, and the header in front of it: that is what the packet becomes. */
INLINE int send_with_header(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct proxy_header *header = (void *)s->head;
	struct segment made = {};
	u32 partial, next = note_client(s, flow), out = flow->backend_ifindex;
	u64 sum = 0;

	read_timestamps(skb, TC, s);
	to_nat(&made, &flow->nat);
	made.seq = flow->client.head;
	made.ack = s->ack + flow->delta;
	made.flags = ACK;
	made.window = s->window;
	made.header = flow->timestamps ? 32 : 20;
	made.payload = PROXY_BYTES;
	write_proxy_header(header, &s->key);
	s->out.options[0] = htonl(TIMESTAMPS_FIRST);
	s->out.options[1] = htonl(s->tsval);
	s->out.options[2] = htonl(s->tsecr + flow->ts_delta);
	__builtin_memcpy(&s->out.eth, flow->backend_macs, 12);
	if (!translate(skb, s, flow))
		return TC_ACT_SHOT;
	note_end_of_client(s, flow, next);
	bpf_clone_redirect(skb, out, 0);
	partial = is_partial(skb);
	if (!partial)
		made.sum = (u32)bpf_csum_diff(0, 0, (u32 *)header, PROXY_BYTES, 0);
	if (bpf_skb_change_tail(skb, L4 + made.header + PROXY_BYTES, 0))
		return TC_ACT_SHOT;
	write_headers(&s->out, &made, partial);
	if (store_headers(skb, &s->out, made.header) ||
	    bpf_skb_store_bytes(skb, L4 + made.header, header, PROXY_BYTES, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(out, 0);
}

#endif /* RAUTA_PROXIED_H */
