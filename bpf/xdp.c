/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The part of tiers 1 and 2 that fits into XDP, in front of tc.c on the same interface, with the same maps: SYNs are
 * answered, GETs and HEADs bound, established flows translated, later requests for the same service too. What takes
 * more than this packet, or is not certain, passes unchanged to TC, which decides anew.
 *
 * A packet whose checksum its device is to complete passes as well (veth between hosts on one machine): here nothing
 * tells it from others, and helpers that know are TC's.
 */
#include "base.h"
#include "maps.h"
#include "packet.h"
#include "options.h"
#include "flows.h"
#include "numbers.h"
#include "syn.h"
#include "lookup.h"
#include "bind.h"
#include "response.h"
#include "translate.h"

INLINE int at_xdp(int action)
{
	if (action != XDP_PASS)
		count(AT_XDP);
	return action;
}

/* The checksum is complete. */
INLINE void write_translated(struct ethhdr *eth, struct iphdr *ip, struct tcphdr *tcp, void *end, struct change *c,
			     u8 *macs)
{
	update_checksum(tcp, c);
	write_change(eth, ip, (u32 *)tcp, end, c, macs);
}

INLINE int xdp_to_backend(struct xdp_md *ctx, struct scratch *s, struct flow *flow)
{
	u32 next, out = flow->backend_ifindex;
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};

	LINEAR(ctx, OPTIONS, eth, ip, tcp, end, XDP_PASS);
	next = note_client(s, flow);
	change_for_backend(s, flow, (u32 *)tcp, end, &c);
	write_translated(eth, ip, tcp, end, &c, flow->backend_macs);
	count(TO_BACKEND);
	note_end_of_client(s, flow, next);
	return bpf_redirect(out, 0);
}

INLINE int xdp_to_client(struct xdp_md *ctx, struct scratch *s, struct flow *flow, struct tuple *client, u32 start)
{
	u32 next, out = flow->client_ifindex;
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct change c = {};

	LINEAR(ctx, OPTIONS, eth, ip, tcp, end, XDP_PASS);
	next = note_backend(s, flow, start);
	if (!is_still_bound(flow))
		return XDP_DROP;
	change_for_client(s, flow, client, (u32 *)tcp, end, &c);
	write_translated(eth, ip, tcp, end, &c, flow->client_macs);
	count(TO_CLIENT);
	note_end_of_backend(s, client, flow, start, next);
	return bpf_redirect(out, 0);
}

/* The frame, which has its size already, becomes a SYN or SYN-ACK. */
INLINE int xdp_send(struct xdp_md *ctx, struct scratch *s, struct segment *made, u32 out)
{
	long failed;

	write_headers(&s->out, made, 0);
	failed = made->header == 40 ? xdp_store_bytes(ctx, 0, &s->out.eth, OPTIONS + 20) :
				      xdp_store_bytes(ctx, 0, &s->out.eth, OPTIONS + 4);
	return failed ? XDP_DROP : bpf_redirect(out, 0);
}

INLINE int xdp_syn(struct xdp_md *ctx, struct scratch *s)
{
	u32 header = s->header;
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	struct segment made = {};
	s64 cookie;

	if (is_owned_here(ctx, &s->key) || !read_syn_options(ctx, XDP, s))
		return XDP_PASS;
	LINEAR(ctx, OPTIONS, eth, ip, tcp, end, XDP_PASS);
	cookie = cookie_for(ip, tcp, end, header);
	if (cookie < 0)
		return XDP_PASS;
	describe_syn_ack(s, (u32)cookie, &made);
	note_syn(s);
	swap_macs_of(ctx, XDP, &s->out.eth);
	if (made.header != header && xdp_adjust_tail(ctx, (int)made.header - (int)header))
		return XDP_PASS;
	count(SYN_ANSWERED);
	return xdp_send(ctx, s, &made, ctx->ingress_ifindex);
}

/* The ACK that ends a handshake. */
INLINE int xdp_ack(struct xdp_md *ctx, struct scratch *s)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;

	if (s->length || (s->flags & ~PSH) != ACK)
		return XDP_PASS;
	LINEAR(ctx, OPTIONS, eth, ip, tcp, end, XDP_PASS);
	if (accept_ack(ctx, XDP, s, ip, tcp, end) != MADE)
		return XDP_PASS;
	count(ESTABLISHED);
	flows.insert(&s->key, &s->flow);
	return XDP_DROP;
}

/* The first request of a connection, a GET or HEAD: the frame becomes the SYN to the backend. */
INLINE int xdp_bind(struct xdp_md *ctx, struct scratch *s, struct config *config, struct flow *flow)
{
	struct segment made = {};
	struct service *service;
	struct hop hop = {};
	u32 size = s->header + s->length;

	if (s->seq != flow->client.next_head || s->ack != flow->server_seq || (s->flags & ~PSH) != ACK)
		return XDP_PASS;
	if (!judge(ctx, XDP, s) || s->method > 1)
		return XDP_PASS;
	s->flow = *flow;
	service = services.lookup(&s->service);
	if (!service || service->proxied || !choose_backend(ctx, s, config, service, &hop))
		return XDP_PASS;
	count(HIT_FIRST - 1 + s->tier);
	if (!start_binding(ctx, XDP, s, KNOWN_EST))
		return XDP_DROP;
	describe_syn(s, &s->flow, &made);
	__builtin_memcpy(&s->out.eth, hop.macs, 12);
	if (made.header != size && xdp_adjust_tail(ctx, (int)made.header - (int)size))
		return XDP_DROP; /* the client sends it again, and TC the SYN */
	return xdp_send(ctx, s, &made, s->flow.backend_ifindex);
}

INLINE int xdp_from_client(struct xdp_md *ctx, struct scratch *s, struct config *config, struct flow *flow)
{
	if (is_syn(s))
		return xdp_syn(ctx, s);
	if (!flow)
		return xdp_ack(ctx, s);
	if (flow->state == EST && s->length)
		return xdp_bind(ctx, s, config, flow);
	if (flow->state != BOUND || !is_near(s, flow) || is_odd(s) || touches_head(s, flow) ||
	    is_beyond(s, flow) || ((s->flags & (FIN | RST)) && has_parked(flow)))
		return XDP_PASS;
	if (s->length && before(flow->client.next_head, s->seq + s->length) && !stays(ctx, XDP, s, flow))
		return XDP_PASS; /* for TC to judge */
	return xdp_to_backend(ctx, s, flow);
}

/* Follow the response, as far as a packet that starts with a head, or is inside of a body, allows. False: TC goes on
 * from where this has come to. */
INLINE bool xdp_walk(struct xdp_md *ctx, struct scratch *s, struct flow *flow, u32 start)
{
	if (!s->length || flow->backend.framing == UNKNOWN)
		return true;
	if (flow->backend.framing == KNOWN && !before(flow->backend.response, start + s->length))
		return true;
	if (flow->backend.response != start)
		return false;
	if (flow->backend.framing == KNOWN && is_waited_for(flow))
		next_request(s, flow);
	if (flow->backend.framing == WAITING)
		frame_response(ctx, XDP, s, flow, 0);
	return flow->backend.framing == UNKNOWN ||
	       (flow->backend.framing == KNOWN && !before(flow->backend.response, start + s->length));
}

INLINE int xdp_from_backend(struct xdp_md *ctx, struct scratch *s, struct tuple *found)
{
	struct tuple client = *found;
	struct flow *flow = flows.lookup(&client);
	u32 start;

	if (!flow || !is_its_backend(s, flow) || flow->state != BOUND)
		return XDP_PASS;
	start = s->seq - flow->delta;
	as_client_counts(s, flow);
	if ((s->flags & SYN) || !is_near_backend(s, flow, start) || was_gone(s, flow, start))
		return XDP_PASS;
	note_window(s, flow);
	if (!xdp_walk(ctx, s, flow, start))
		return XDP_PASS;
	return xdp_to_client(ctx, s, flow, &client, start);
}

int rauta_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct ethhdr *eth = data;
	struct tuple *client;
	struct flow *flow;

	if (!s || !config || data + OPTIONS > end || eth->h_proto != htons(ETH_P_IP))
		return XDP_PASS;
	if (!read_headers(s, data, (u32)(end - data), 0))
		return XDP_PASS;
	client = client_of(s, config);
	flow = client || is_syn(s) ? 0 : flows.lookup(&s->key);
	if (!client && !find_listener(s, config, flow)) {
		client = nats.lookup(&s->key); /* of a predecessor, which had other ports */
		if (!client)
			return XDP_PASS;
	}
	s->judged = 0;
	if (is_to_be_completed(s) || !is_sound(ctx, XDP, s))
		return XDP_PASS; /* TC counts what is broken */
	return at_xdp(client ? xdp_from_backend(ctx, s, client) : xdp_from_client(ctx, s, config, flow));
}
