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
	s->flags = ((u8 *)tcp)[13];
	return true;
}

/* Both have ended and the last end is acknowledged, or one has reset: the flow and its port are free. */
INLINE void note_end(struct scratch *s, struct tuple *client, struct flow *flow, u32 whose)
{
	if (s->flags & RST) {
		count(ENDED_BY_RESET);
		forget(client, flow);
	} else if (s->flags & FIN) {
		flow->ended |= whose;
	} else if (flow->ended == (CLIENT_ENDED | BACKEND_ENDED) && !s->length) {
		count(ENDED);
		forget(client, flow);
	}
}

INLINE int from_client(struct __sk_buff *skb, struct scratch *s)
{
	struct flow *flow = flows.lookup(&s->key);
	int action;

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
	if (flow->state == BINDING) {
		if (s->flags & RST) {
			forget(&s->key, flow);
			return TC_ACT_SHOT;
		}
		if (!s->length)
			return TC_ACT_SHOT;
		if (s->seq != flow->head_seq)
			return stash_more(skb, s, flow);
		programs.call(skb, ON_REQUEST);
		return TC_ACT_OK;
	}
	if (s->length && !before(s->seq + s->length, flow->next_head + 1)) {
		programs.call(skb, ON_REQUEST); /* it reaches beyond the request */
		return TC_ACT_OK;
	}
	action = to_backend(skb, s, flow);
	note_end(s, &s->key, flow, CLIENT_ENDED);
	return action;
}

INLINE int from_backend(struct __sk_buff *skb, struct scratch *s, struct tuple *found)
{
	struct tuple client = *found;
	struct flow *flow = flows.lookup(&client);
	u32 start, end;
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
	end = start + s->length + (s->flags & FIN ? 1 : 0);
	if (s->length && flow->framing == WAITING && start == flow->response)
		frame_response(skb, s, flow, start);
	if (before(flow->answered, end))
		flow->answered = end;
	action = to_client(skb, s, flow, &client);
	note_end(s, &client, flow, BACKEND_ENDED);
	return action;
}

int rauta_tc(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct tuple *client;

	if (!s || !config || !read_packet(skb, s))
		return TC_ACT_OK;
	if (listener_of(s, config))
		return from_client(skb, s);
	client = nats.lookup(&s->key);
	return client ? from_backend(skb, s, client) : TC_ACT_OK;
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

/* The next request of a flow that is bound. */
INLINE int on_next_request(struct __sk_buff *skb, struct scratch *s, struct config *config, struct flow *flow)
{
	struct service *service;
	int action;

	if (s->seq != flow->next_head) {
		count(DROP_SPANS);
		return TC_ACT_SHOT;
	}
	if (decide(skb, s, config)) {
		service = services.lookup(&s->service);
		if (service && service->id == flow->service) {
			count(HIT_NEXT - 1 + s->tier);
			flow->next_head = s->seq + s->end + s->body;
			/* One more while a response is under way: ends are not counted further. */
			flow->framing = is_quiescent(flow, s->ack) ? WAITING : UNKNOWN;
			flow->response = flow->answered;
			flow->method = s->method;
			flow->route = s->route;
			action = to_backend(skb, s, flow);
			note_end(s, &s->key, flow, CLIENT_ENDED);
			return action;
		}
		count(MISS_OTHER_SERVICE);
	}
	if (!is_quiescent(flow, s->ack)) {
		count(DROP_NOT_YET);
		return TC_ACT_SHOT;
	}
	return hand_over_later(skb, s, flow);
}

int on_request(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct service *service;
	struct flow *flow;
	int action;

	if (!s || !config)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	if (flow && flow->state == BOUND)
		return on_next_request(skb, s, config, flow);
	if (flow && flow->state == BINDING) { /* the head again */
		if (bpf_ktime_get_ns() - flow->since < RESEND_WITHIN) {
			s->flow = *flow;
			return send_syn(skb, s, &s->flow);
		}
		count(BACKEND_SILENT);
		nats.delete(&flow->nat);
		__builtin_memset(&flow->nat, 0, sizeof(flow->nat));
		return hand_over_first(skb, s, flow);
	}
	if (flow) {
		if (s->flags & RST) {
			flows.delete(&s->key);
			return TC_ACT_SHOT;
		}
		if (s->seq != flow->next_head)
			return TC_ACT_SHOT; /* a keepalive probe, or something from before */
		s->flow = *flow;
	} else {
		action = accept_ack(skb, s);
		if (action != MADE)
			return action - 1;
		count(ESTABLISHED);
		if (!s->length && !(s->flags & FIN)) {
			flows.insert(&s->key, &s->flow);
			return TC_ACT_SHOT;
		}
	}
	if (!s->length && !(s->flags & FIN))
		return TC_ACT_SHOT;
	if (!s->length || !decide(skb, s, config))
		return hand_over_first(skb, s, &s->flow);
	service = services.lookup(&s->service);
	if (!service || !choose_backend(skb, s, config, service))
		return hand_over_first(skb, s, &s->flow);
	count(HIT_FIRST - 1 + s->tier);
	return bind(skb, s, config, service);
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
