/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tiers 1 and 2 at TC ingress. One program takes every packet (`rauta_tc`) and does the common case itself, translation;
 * the others are entered by tail calls, with what is known of the packet in the scratch:
 *
 *     rauta_tc --+-- SYN to a listener ------------> on_syn
 *                +-- no flow, EST, next request ---> on_request
 *                +-- from a backend, BINDING ------> on_answer
 *
 * docs/kernel-path.md has the table of states and packets that this is.
 */
#include "base.h"
#include "maps.h"
#include "packet.h"
#include "options.h"
#include "flows.h"
#include "syn.h"
#include "head.h"
#include "lookup.h"
#include "response.h"
#include "translate.h"
#include "local.h"
#include "bind.h"
#include "answer.h"

enum program { ON_SYN = 1, ON_REQUEST, ON_ANSWER };
BPF_PROG_ARRAY(programs, 8);

INLINE struct scratch *the_scratch(void)
{
	u32 zero = 0;
	return scratches.lookup(&zero);
}

INLINE struct config *the_config(void)
{
	u32 zero = 0;
	return configs.lookup(&zero);
}

INLINE struct listener *listener_of(struct scratch *s, struct config *config)
{
	struct listener_key key = { .address = s->key.daddr, .port = s->key.dport, .parity = config->parity };
	return listeners.lookup(&key);
}

/* What the packet is, into the scratch. False: not for us. */
INLINE bool read_packet(struct __sk_buff *skb, struct scratch *s)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	u32 total;

	if (skb->protocol != htons(ETH_P_IP) || skb->vlan_present)
		return false;
	if ((void *)(tcp + 1) > end) {
		if (bpf_skb_pull_data(skb, OPTIONS))
			return false;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		eth = data;
		ip = (void *)(eth + 1);
		tcp = (void *)(ip + 1);
		if ((void *)(tcp + 1) > end)
			return false;
	}
	if (ip->protocol != IPPROTO_TCP || ip->ihl != 5 || (ip->frag_off & htons(0x3fff)) || ip->ttl < 2)
		return false;
	s->header = tcp->doff * 4;
	total = ntohs(ip->tot_len);
	if (s->header < 20 || skb->len < L4 + s->header || (total && total < 20 + s->header))
		return false;
	s->offset = L4 + s->header;
	s->length = skb->len - s->offset;
	if (total && !skb->gso_size && s->length > total - 20 - s->header)
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

/* A packet of one side has been passed on: is the flow over? `fin` and `done` are the bits of that side's FIN and of its
 * acknowledgement, `theirs` the other side's; `seq` as the packet's receiver counts, `next` the end of what that sender
 * had sent, `acked` whether the packet acknowledges all of the other side. A reset counts only if its receiver must obey
 * it (RFC 5961 3.2; and behind a FIN that has not arrived everywhere): anybody can send one. */
INLINE void note_end(struct scratch *s, struct tuple *client, struct flow *flow, u64 fin, u64 theirs, u32 seq, u32 next,
		     bool acked)
{
	u64 ends = flow->ends, all = CLIENT_ENDED | BACKEND_ENDED | CLIENT_DONE | BACKEND_DONE, seen = 0;

	if (s->flags & RST) {
		if (seq != next && !((ends & fin) && seq + 1 == next))
			return;
		count(ENDED_BY_RESET);
		forget(s, client, flow);
		return;
	}
	if ((s->flags & FIN) && seq + s->length + 1 == next)
		seen |= fin;
	if ((ends & theirs) && acked)
		seen |= theirs << 2;
	if (!seen || (ends & seen) == seen)
		return;
	ends = __sync_fetch_and_or(&flow->ends, seen) | seen;
	if (ends == all) {
		count(ENDED);
		forget(s, client, flow);
	}
}

#define WINDOW_MOST (1U << 24) /* no window reaches further (RFC 7323 2.3 allows 2^30; Linux stays below) */

/* Whether a packet of the client is one of the connection that the flow is about. A reset for what has come to a closed
 * socket has no ACK (RFC 9293 3.10.7.1). */
INLINE bool is_near(struct scratch *s, struct flow *flow)
{
	return s->seq - flow->client.next + WINDOW_MOST < 2 * WINDOW_MOST &&
	       (!(s->flags & ACK) || flow->backend.next - s->ack + WINDOW_MOST < 2 * WINDOW_MOST);
}

/* A packet of the client that goes to the backend. */
INLINE int forward(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u32 end = s->seq + s->length + (s->flags & FIN ? 1 : 0), next = flow->client.next;
	int action;

	if (before(next, end) && !(s->flags & RST))
		flow->client.next = next = end;
	count_packet_of_client(s, flow);
	action = to_backend(skb, s, flow);
	note_end(s, &s->key, flow, CLIENT_ENDED, BACKEND_ENDED, s->seq, next, s->ack == flow->backend.next);
	return action;
}

INLINE int from_client(struct __sk_buff *skb, struct scratch *s)
{
	struct flow *flow = flows.lookup(&s->key);

	if ((s->flags & (SYN | ACK)) == SYN) {
		programs.call(skb, ON_SYN);
		return TC_ACT_OK;
	}
	if (!flow || flow->state == EST) {
		programs.call(skb, ON_REQUEST);
		return TC_ACT_OK;
	}
	if (flow->state == LOCAL)
		return to_tier_3(skb, s, flow);
	if (!is_near(s, flow)) {
		programs.call(skb, ON_REQUEST); /* a new connection, or a stranger */
		return TC_ACT_OK;
	}
	if (flow->state == BINDING) {
		if ((s->flags & RST) && s->seq == flow->client.next) {
			if (!change_state(flow, BINDING, LOCAL))
				return TC_ACT_SHOT; /* the backend has just accepted: to be sent again */
			count(ENDED_BY_RESET);
			forget(s, &s->key, flow);
			return TC_ACT_SHOT;
		}
		if ((s->flags & RST) || !(s->length || (s->flags & FIN)))
			return TC_ACT_SHOT;
		if (s->length && s->seq != flow->head_seq)
			return stash_more(skb, s, flow);
		programs.call(skb, ON_REQUEST);
		return TC_ACT_OK;
	}
	if (s->length && before(flow->client.next_head, s->seq + s->length)) {
		programs.call(skb, ON_REQUEST); /* it reaches beyond the request */
		return TC_ACT_OK;
	}
	return forward(skb, s, flow);
}

INLINE int from_backend(struct __sk_buff *skb, struct scratch *s, struct tuple *found)
{
	struct tuple client = *found;
	struct flow *flow = flows.lookup(&client);
	u32 start, end, next;
	int action;

	if (!flow || flow->nat.dport != s->key.dport || flow->nat.saddr != s->key.saddr) {
		count(ORPHAN);
		nats.delete(&s->key);
		return TC_ACT_OK; /* the stack resets it: the port is nobody's */
	}
	if (flow->state == BINDING) {
		programs.call(skb, ON_ANSWER);
		return TC_ACT_OK;
	}
	if (flow->state != BOUND)
		return TC_ACT_SHOT;
	start = s->seq - flow->delta;
	if (s->length && !walk_response(skb, s, flow, start)) {
		count(DROP_OVERTAKEN);
		return TC_ACT_SHOT;
	}
	end = start + s->length + (s->flags & FIN ? 1 : 0);
	next = flow->backend.next;
	if (before(next, end) && !(s->flags & RST))
		flow->backend.next = next = end;
	count_packet_of_backend(s, flow);
	action = to_client(skb, s, flow, &client);
	note_end(s, &client, flow, BACKEND_ENDED, CLIENT_ENDED, start, next, s->ack == flow->client.next);
	return action;
}

int rauta_tc(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct tuple *client = 0;

	if (!s || !config || !read_packet(skb, s))
		return TC_ACT_OK;
	if (!listener_of(s, config)) {
		client = nats.lookup(&s->key);
		if (!client)
			return TC_ACT_OK;
	}
	if (!is_sound(skb, s)) {
		count(DROP_CHECKSUM);
		return TC_ACT_SHOT;
	}
	return client ? from_backend(skb, s, client) : from_client(skb, s);
}

int on_syn(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct listener *listener;

	if (!s || !config)
		return TC_ACT_OK;
	listener = listener_of(s, config);
	return listener ? answer_syn(skb, s, listener) : TC_ACT_OK;
}

/* The route of the request in the packet; s->service is where it goes. 0: tier 3. */
INLINE u32 decide(struct __sk_buff *skb, struct scratch *s, struct config *config)
{
	struct listener *listener = listener_of(s, config);
	struct route *route;
	u32 odd, number, owner;

	if (!listener)
		return 0;
	odd = parse_head(skb, s, config);
	if (odd) {
		count(MISS_HEAD - 1 + odd);
		return 0;
	}
	owner = owner_of(s, listener);
	if (!owner) {
		count(MISS_UNKNOWN_HOST);
		return 0;
	}
	number = route_of(s, owner);
	if (!number) {
		count(MISS_ROUTE);
		return 0;
	}
	route = routes.lookup(&number);
	if (!route)
		return 0;
	s->route = route->id;
	s->service = service_of(s, route);
	return number;
}

/* Neither side can go on: both get a reset, the client from its own packet. */
INLINE int reset_both(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};
	u32 out = flow->backend_ifindex;

	made.saddr = flow->nat.daddr;
	made.daddr = flow->nat.saddr;
	made.sport = flow->nat.dport;
	made.dport = flow->nat.sport;
	made.seq = s->seq;
	made.flags = RST;
	made.header = 20;
	s->partial = is_partial(skb);
	if (bpf_skb_change_tail(skb, OPTIONS, 0))
		return TC_ACT_SHOT;
	__builtin_memcpy(&s->out.eth, flow->backend_macs, 12);
	write_headers(&s->out, &made, s->partial);
	if (store_headers(skb, &s->out, 20))
		return TC_ACT_SHOT;
	bpf_clone_redirect(skb, out, 0);
	made.saddr = s->key.daddr;
	made.daddr = s->key.saddr;
	made.sport = s->key.dport;
	made.dport = s->key.sport;
	made.seq = s->ack;
	__builtin_memcpy(&s->out.eth, flow->client_macs, 12);
	write_headers(&s->out, &made, s->partial);
	if (store_headers(skb, &s->out, 20))
		return TC_ACT_SHOT;
	out = flow->client_ifindex;
	count(RESET_UNKNOWN_END);
	forget(s, &s->key, flow);
	return bpf_redirect(out, 0);
}

#define PATIENCE (2000 * MS) /* that a request waits for the end of a response which nobody can tell */

/* A request that has to leave its backend before the response to the last one is known to be over: dropped, TCP brings
 * it again. Where the end cannot be known, and the connection is kept all the same, that would be for ever. */
INLINE int not_yet(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u64 now = coarse_ns();

	count(DROP_NOT_YET);
	if (flow->backend.framing != UNKNOWN || flow->ends)
		return TC_ACT_SHOT;
	if (!flow->client.waiting_since)
		flow->client.waiting_since = now;
	return now - flow->client.waiting_since < PATIENCE ? TC_ACT_SHOT : reset_both(skb, s, flow);
}

/* The next request of a flow that is bound, and stays where it is. */
INLINE int same_service(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	if (flow->client.asked - flow->backend.turn >= ASKED) {
		count(DROP_QUEUE);
		return TC_ACT_SHOT;
	}
	add_request(s, flow);
	count(HIT_NEXT - 1 + s->tier);
	flow->client.next_head = s->seq + s->end + s->body;
	flow->client.waiting_since = 0;
	return forward(skb, s, flow);
}

INLINE int on_next_request(struct __sk_buff *skb, struct scratch *s, struct config *config, struct flow *flow)
{
	struct service *service;

	if (s->seq != flow->client.next_head) {
		count(DROP_SPANS);
		return TC_ACT_SHOT;
	}
	if (decide(skb, s, config)) {
		service = services.lookup(&s->service);
		if (service && service->id == flow->service && still_serves(s, service, flow))
			return same_service(skb, s, flow);
		count(MISS_OTHER_SERVICE);
	}
	return is_quiescent(flow, s->ack) ? hand_over_later(skb, s, flow) : not_yet(skb, s, flow);
}

/* The head of a flow that is BINDING, again, or a FIN behind it: the backend has not answered yet. */
INLINE int head_again(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u64 waited = bpf_ktime_get_ns() - flow->since;

	if (waited < MS && !s->length)
		return TC_ACT_SHOT; /* it came with the request; TCP brings it again */
	if (waited < RESEND_WITHIN)
		return send_syn(skb, s, flow);
	if (!s->length || !change_state(flow, BINDING, LOCAL))
		return TC_ACT_SHOT; /* it has just answered */
	count(BACKEND_SILENT);
	nats.delete(&flow->nat);
	s->flow = *flow;
	__builtin_memset(&s->flow.nat, 0, sizeof(s->flow.nat));
	s->flow.client.asked = 0; /* tier 3 counts it */
	return hand_over_first(skb, s);
}

/* A packet of a client without a flow, or with one that is EST. */
INLINE int first_request(struct __sk_buff *skb, struct scratch *s, struct config *config, bool known)
{
	struct service *service;

	if (!s->length || !decide(skb, s, config))
		return hand_over_first(skb, s);
	service = services.lookup(&s->service);
	if (!service || !choose_backend(skb, s, config, service))
		return hand_over_first(skb, s);
	count(HIT_FIRST - 1 + s->tier);
	return bind(skb, s, known);
}

int on_request(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct listener *listener;
	struct flow *flow;
	int action;

	if (!s || !config)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	if (flow && flow->state == BOUND && is_near(s, flow))
		return on_next_request(skb, s, config, flow);
	if (flow && flow->state == BINDING && is_near(s, flow))
		return head_again(skb, s, flow);
	if (flow && flow->state == EST && s->seq - flow->client.next_head + 1 < 2) {
		if ((s->flags & RST) && s->seq == flow->client.next_head) {
			flows.delete(&s->key);
			return TC_ACT_SHOT;
		}
		if (s->seq != flow->client.next_head)
			return acknowledge(skb, s, flow); /* a keepalive probe: one byte back */
		if (!s->length && !(s->flags & FIN))
			return TC_ACT_SHOT;
		s->flow = *flow;
		return first_request(skb, s, config, true);
	}
	listener = listener_of(s, config);
	if (!listener)
		return TC_ACT_OK;
	action = accept_ack(skb, s, listener);
	if (action != MADE) /* of a flow that is somewhere else, only what has a cookie counts */
		return flow ? TC_ACT_SHOT : action - 1;
	if (flow) {
		count(REPLACED);
		nats.delete(&flow->nat);
		flows.delete(&s->key);
	}
	count(ESTABLISHED);
	if (!s->length && !(s->flags & FIN)) {
		flows.insert(&s->key, &s->flow);
		return TC_ACT_SHOT;
	}
	return first_request(skb, s, config, false);
}

int on_answer(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct tuple *found, client;
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	found = nats.lookup(&s->key);
	if (!found)
		return TC_ACT_OK;
	client = *found;
	flow = flows.lookup(&client);
	if (!flow || flow->state != BINDING)
		return TC_ACT_SHOT;
	return backend_answers(skb, s, flow, &client);
}

#ifdef TESTING
/* For tests (BPF_PROG_TEST_RUN): what is decided of the request in the packet, whose handshake nobody asks for. Returns
 * the route's id and the tier, or 0. */
int decided(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();

	if (!s || !config || !read_packet(skb, s) || !decide(skb, s, config))
		return 0;
	return s->route << 2 | s->tier;
}
#endif
