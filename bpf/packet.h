/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets at TC: where their headers are, and how one packet becomes another.
 *
 * Payload is never read through packet pointers (it is not in the linear part), the length is skb->len (packets are
 * super-packets), and a helper that changes the packet makes all pointers into it stale.
 */
#ifndef RAUTA_PACKET_H
#define RAUTA_PACKET_H

#include "maps.h"

#define L3 14 /* offsets of Ethernet + IPv4 without options, which is all that is handled */
#define L4 34
#define OPTIONS 54

/* Declares nothing: (re)loads the pointers after a helper. `need` bytes from the start must be linear. */
#define LINEAR(skb, need, eth, ip, tcp, end, failed)                                                                   \
	do {                                                                                                           \
		eth = (void *)(long)(skb)->data;                                                                       \
		end = (void *)(long)(skb)->data_end;                                                                   \
		ip = (void *)(eth + 1);                                                                                \
		tcp = (void *)(ip + 1);                                                                                \
		if ((void *)eth + (need) > end)                                                                        \
			return failed;                                                                                 \
	} while (0)

INLINE u16 fold16(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

INLINE u32 fold32(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	return sum;
}

/* Whether only the pseudo-header is in the checksum, and the device is to complete it. */
INLINE u32 is_partial(struct __sk_buff *skb)
{
	return summed(skb) == CHECKSUM_PARTIAL;
}

/* Add the bytes from `from` (in a map's value; `room` of them are there, a power of 2, and SUM_STEP more) up to `to` to
 * s->sum. Behind them are zeros up to a whole word. */
INLINE void add_bytes(struct scratch *s, u8 *bytes, u64 room, u64 from, u64 to)
{
	s->summed = from;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 64 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->summed, size;

		if (at >= to)
			return;
		size = opaque(to - at > SUM_STEP - 4 ? SUM_STEP - 4 : (to - at + 3) & ~3ULL) & (SUM_STEP - 4);
		if (size < 4)
			return;
		s->summed = at + size;
		s->sum += (u32)bpf_csum_diff(0, 0, (u32 *)(bytes + (opaque(at) & (room - 1))), size, 0);
	}
}

/* Add the packet's payload to s->sum. */
INLINE void add_payload(void *ctx, enum hook hook, struct scratch *s)
{
	s->window_at = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 32 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->window_at, size = s->length - at;

		if (at >= s->length)
			return;
		size = opaque(size > HEAD_BYTES ? HEAD_BYTES : size);
		if (size < 1 || size > HEAD_BYTES || load_bytes(ctx, hook, s->offset + at, s->head, size) < 0)
			return;
		*(u32 *)(s->head + size) = 0;
		add_bytes(s, s->head, HEAD_BYTES, 0, size);
		s->window_at = at + size;
	}
}

INLINE u64 pseudo_sum(struct scratch *s)
{
	u64 size = s->header + s->length;

	return (u64)s->key.saddr + s->key.daddr + htons(IPPROTO_TCP) + htons(size) + htons(size >> 16);
}

/* The same as far as the field tells: by chance it may look so. */
INLINE bool is_to_be_completed(struct scratch *s)
{
	return s->check == fold16(pseudo_sum(s));
}

/* Whether what the device is to complete is the segment's checksum. A guest on this host may ask for any two bytes to be
 * written, behind our back: those of a path, say. */
INLINE bool sums_tcp(struct __sk_buff *skb)
{
	u8 *kernel = kernel_skb(skb);
	u64 start = *(volatile u64 *)(kernel + DATA_AT / 8) - *(volatile u64 *)(kernel + HEAD_AT / 8) + L4;

	return *(volatile u16 *)(kernel + CSUM_START_AT / 8) == start && *(volatile u16 *)(kernel + CSUM_OFFSET_AT / 8) == 16;
}

/* Whether the packet is what was sent. Neither is a broken one to change what is known of a flow, nor may it get a
 * checksum of ours that makes it look whole. Nothing is to be done for packets that a device has verified, that are
 * still to get their checksum, or that GRO has put together (which is the same). */
INLINE bool is_sound(void *ctx, enum hook hook, struct scratch *s)
{
	u64 header = opaque(s->header);

	if (hook == TC && summed(ctx) == CHECKSUM_PARTIAL)
		return sums_tcp(ctx);
	if (hook == TC && summed(ctx) == CHECKSUM_UNNECESSARY)
		return true;
	if (header < 20 || header > 60)
		return false;
	__builtin_memset(s->options, 0, sizeof(s->options));
	if (load_bytes(ctx, hook, L4, s->options, header) < 0)
		return false;
	s->sum = pseudo_sum(s) + (u32)bpf_csum_diff(0, 0, (u32 *)s->options, 60, 0);
	add_payload(ctx, hook, s);
	return fold16(s->sum) == 0xffff;
}

/* What the packet is, into the scratch; OPTIONS bytes of it are at `data`, `size` there are in all. False: not for us.
 * A super-packet's total length need not be right. */
INLINE bool read_headers(struct scratch *s, void *data, u32 size, u32 is_super)
{
	struct iphdr *ip = data + L3;
	struct tcphdr *tcp = (void *)(ip + 1);
	u32 total;

	if (ip->protocol != IPPROTO_TCP || ip->version != 4 || ip->ihl != 5 || (ip->frag_off & htons(0x3fff)) || ip->ttl < 2)
		return false;
	s->header = tcp->doff * 4;
	total = ntohs(ip->tot_len);
	if (s->header < 20 || size < L4 + s->header || (total && total < 20 + s->header))
		return false;
	s->offset = L4 + s->header;
	s->length = size - s->offset;
	s->wire = is_super;
	if (total && !is_super && s->length > total - 20 - s->header)
		s->length = total - 20 - s->header; /* the rest is Ethernet's padding */
	s->key.saddr = ip->saddr;
	s->key.daddr = ip->daddr;
	s->key.sport = tcp->source;
	s->key.dport = tcp->dest;
	s->seq = ntohl(tcp->seq);
	s->ack = ntohl(tcp->ack_seq);
	s->window = ntohs(tcp->window);
	s->check = tcp->check;
	s->flags = ((u8 *)tcp)[13];
	return true;
}

/* Whether it opens a connection. */
INLINE bool is_syn(struct scratch *s)
{
	return (s->flags & (SYN | ACK | RST | FIN)) == SYN;
}

struct segment { /* what `write_headers` needs to know of a packet that is made */
	u32 saddr, daddr;
	u16 sport, dport;
	u32 seq, ack;
	u16 flags, window;
	u32 header;  /* of TCP, with options: 20, 24, 32 or 40 */
	u32 payload; /* bytes */
	u64 sum;     /* of the payload, where the packet is not partial */
};

/* Its addresses and ports: from this host to a backend, whose packets have the key `nat`. */
INLINE void to_nat(struct segment *s, struct tuple *nat)
{
	s->saddr = nat->daddr;
	s->daddr = nat->saddr;
	s->sport = nat->dport;
	s->dport = nat->sport;
}

/* The headers of a segment, options (already in `out`) included; Ethernet addresses are the caller's. */
INLINE void write_headers(struct headers *out, struct segment *s, u32 partial)
{
	u32 *ip = (u32 *)&out->ip, *tcp = (u32 *)&out->tcp;
	u64 sum = 0;

	out->eth.h_proto = htons(ETH_P_IP);
	ip[0] = htonl(0x45000000 | (20 + s->header + s->payload));
	ip[1] = htonl(0x4000); /* DF */
	ip[2] = htonl(0x40060000);
	ip[3] = s->saddr;
	ip[4] = s->daddr;
	sum += (u64)ip[0] + ip[1] + ip[2] + ip[3] + ip[4];
	out->ip.check = ~fold16(sum);

	tcp[0] = (u32)s->sport | ((u32)s->dport << 16);
	tcp[1] = htonl(s->seq);
	tcp[2] = htonl(s->ack);
	tcp[3] = htonl(((s->header / 4) << 28) | ((u32)s->flags << 16) | s->window);
	tcp[4] = 0;
	sum = (u64)s->saddr + s->daddr + htons(IPPROTO_TCP) + htons(s->header + s->payload);
	if (partial) {
		out->tcp.check = fold16(sum);
		return;
	}
	sum += (u64)tcp[0] + tcp[1] + tcp[2] + tcp[3] + s->sum;
	if (s->header >= 24)
		sum += out->options[0];
	if (s->header >= 32)
		sum += (u64)out->options[1] + out->options[2];
	if (s->header >= 40)
		sum += (u64)out->options[3] + out->options[4];
	out->tcp.check = ~fold16(sum);
}

/* Store the headers: the length must be a constant for the verifier. */
INLINE long store_headers(struct __sk_buff *skb, struct headers *out, u32 header)
{
	if (header == 20)
		return bpf_skb_store_bytes(skb, 0, &out->eth, OPTIONS, 0);
	if (header == 24)
		return bpf_skb_store_bytes(skb, 0, &out->eth, OPTIONS + 4, 0);
	if (header == 32)
		return bpf_skb_store_bytes(skb, 0, &out->eth, OPTIONS + 12, 0);
	return bpf_skb_store_bytes(skb, 0, &out->eth, OPTIONS + 20, 0);
}

INLINE void swap_macs(void *to, const void *from)
{
	u8 both[12];

	__builtin_memcpy(both, from, 12);
	__builtin_memcpy(to, both + 6, 6);
	__builtin_memcpy(to + 6, both, 6);
}

/* The packet's own Ethernet addresses, swapped: the way back. */
INLINE void swap_macs_of(void *ctx, enum hook hook, void *to)
{
	u8 both[12] = {};

	load_bytes(ctx, hook, 0, both, 12);
	swap_macs(to, both);
}

/* The interface that the packet has come by. */
INLINE u32 came_by(void *ctx, enum hook hook)
{
	struct __sk_buff *skb = ctx;
	struct xdp_md *frame = ctx;

	return hook == XDP ? frame->ingress_ifindex : skb->ingress_ifindex;
}

#define FIB_SKIP_NEIGH 4
#define FIB_SRC 16

struct hop {
	u8 macs[12]; /* of the next one, and of our interface to it */
};

/* The interface that leads to a destination (0: there is none now), and the address that this host speaks from there.
 * Without `hop`, who the next one is redirect_neigh finds out, which also resolves it; with it, 0 if it is not known. What
 * was found is used for a tick or two: a lookup costs more than all the rest of binding a flow but the parse. */
INLINE u32 route_to(void *ctx, u32 daddr, u32 *saddr, struct hop *hop)
{
	u32 place = (daddr >> 24 ^ daddr >> 16) & (FIB_CACHE - 1);
	struct fib_result *known = fib_cache.lookup(&place);
	struct bpf_fib_lookup fib = {};
	u64 now = coarse_ns();

	if (known && !hop && known->daddr == daddr && known->came_by == came_by(ctx, TC) &&
	    now - known->when < FIB_CACHE_FOR) {
		*saddr = known->saddr;
		return known->ifindex;
	}
	fib.family = 2; /* AF_INET */
	fib.l4_protocol = IPPROTO_TCP;
	fib.ipv4_dst = daddr;
	fib.ifindex = came_by(ctx, hop ? XDP : TC);
	/* tot_len stays 0: of a super-packet it would be over every MTU. */
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), hop ? FIB_SRC : FIB_SRC | FIB_SKIP_NEIGH))
		return 0;
	if (hop) {
		__builtin_memcpy(hop->macs, fib.dmac, 6);
		__builtin_memcpy(hop->macs + 6, fib.smac, 6);
	}
	*saddr = fib.ipv4_src;
	if (known && !hop) {
		known->when = now;
		known->daddr = daddr;
		known->saddr = fib.ipv4_src;
		known->ifindex = fib.ifindex;
		known->came_by = came_by(ctx, TC);
	}
	return fib.ifindex;
}

#endif /* RAUTA_PACKET_H */
