/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Tiers 1 and 2 at TC ingress. One program takes every packet (`rauta_tc`) and does the common case itself, translation;
 * the others are entered by tail calls, with what is known of the packet in the scratch:
 *
 *     rauta_tc --+-- SYN to a listener ------------> on_syn
 *                +-- no flow, EST, next request ---> on_request
 *                |                                     +-- for another service --> on_move
 *                +-- from a backend, BINDING ------> on_answer
 *                +-- ... of a parked connection ---> on_parked
 *                +-- the client ends, some parked -> on_leave
 *                +-- the PROXY header once more ---> on_proxied
 *                +-- a packet was too large -------> on_icmp
 *                +-- tier 3's (from any of them) --> on_local
 *
 * docs/kernel-path.md has the table of states and packets that this is.
 */
#include "base.h"
#include "maps.h"
#include "packet.h"
#include "options.h"
#include "flows.h"
#include "numbers.h"
#include "syn.h"
#include "head.h"
#include "lookup.h"
#include "response.h"
#include "translate.h"
#include "proxied.h"
#include "parked.h"
#include "local.h"
#include "bind.h"
#include "answer.h"
#include "move.h"
#include "icmp.h"

/* A packet of the client that goes to the backend. */
INLINE int forward(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u32 next;
	int action;

	if (is_beyond(s, flow)) {
		count(DROP_WINDOW);
		return TC_ACT_SHOT;
	}
	if (((s->flags & FIN) ? !before(s->seq + s->length, flow->backend.acked) :
				(s->flags & RST) && s->seq == flow->client.next) &&
	    has_parked(flow)) {
		programs.call(skb, ON_LEAVE);
		return TC_ACT_SHOT;
	}
	next = note_client(s, flow);
	action = to_backend(skb, s, flow);
	note_end_of_client(s, flow, next);
	return action;
}

/* What the packet is, into the scratch. False: not for us. */
INLINE bool read_packet(struct __sk_buff *skb, struct scratch *s)
{
	void *data, *end;

	if (skb->protocol != htons(ETH_P_IP) || skb->vlan_present)
		return false;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	if (data + OPTIONS > end) {
		if (bpf_skb_pull_data(skb, OPTIONS))
			return false;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		if (data + OPTIONS > end)
			return false;
	}
	return read_headers(s, data, skb->len, skb->gso_size);
}

INLINE int from_client(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	if (is_syn(s)) {
		programs.call(skb, ON_SYN);
		return TC_ACT_OK;
	}
	if (!flow || flow->state == EST) {
		programs.call(skb, ON_REQUEST);
		return TC_ACT_OK;
	}
	if (!is_near(s, flow)) {
		programs.call(skb, ON_REQUEST); /* a new connection, or a stranger */
		return TC_ACT_OK;
	}
	if (flow->state == LOCAL) {
		programs.call(skb, ON_LOCAL);
		return TC_ACT_SHOT;
	}
	if (is_odd(s)) {
		count(DROP_ODD);
		return TC_ACT_SHOT;
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
	if (flow->state != BOUND)
		return TC_ACT_SHOT; /* on its way to another backend */
	if ((s->length && before(flow->client.next_head, s->seq + s->length)) || touches_head(s, flow)) {
		if (!touches_head(s, flow) && stays(skb, TC, s, flow))
			return forward(skb, s, flow);
		programs.call(skb, ON_REQUEST); /* it reaches beyond the request, or is its head again */
		return TC_ACT_OK;
	}
	return forward(skb, s, flow);
}

INLINE int from_backend(struct __sk_buff *skb, struct scratch *s, struct tuple *found)
{
	struct tuple client = *found;
	struct flow *flow = flows.lookup(&client);
	u32 start, next;
	int action;

	if (!flow || !is_its_backend(s, flow)) {
		if (flow && has_parked(flow)) {
			programs.call(skb, ON_PARKED);
			return TC_ACT_SHOT;
		}
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
	as_client_counts(s, flow);
	if ((s->flags & SYN) || !is_near_backend(s, flow, start)) {
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	if (was_gone(s, flow, start))
		return gone_meanwhile(s, flow);
	note_window(s, flow);
	if (s->length && !walk_response(skb, s, flow, start)) {
		count(DROP_OVERTAKEN);
		return TC_ACT_SHOT;
	}
	next = note_backend(s, flow, start);
	if (!is_still_bound(flow))
		return TC_ACT_SHOT;
	action = to_client(skb, s, flow, &client);
	note_end_of_backend(s, &client, flow, start, next);
	return action;
}

int rauta_tc(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct tuple *client;
	struct flow *flow;

	if (!s || !config)
		return TC_ACT_OK;
	if (!read_packet(skb, s)) {
		if (is_too_big(skb, s))
			programs.call(skb, ON_ICMP);
		return TC_ACT_OK;
	}
	client = client_of(s, config);
	flow = client || is_syn(s) ? 0 : flows.lookup(&s->key);
	if (!client && !find_listener(s, config, flow)) {
		client = nats.lookup(&s->key); /* of a predecessor, which had other ports */
		if (!client)
			return TC_ACT_OK;
	}
	s->judged = 0;
	if (!is_sound(skb, TC, s)) {
		count(DROP_CHECKSUM);
		return TC_ACT_SHOT;
	}
	return client ? from_backend(skb, s, client) : from_client(skb, s, flow);
}

int on_syn(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();

	return s ? answer_syn(skb, s) : TC_ACT_OK;
}

INLINE u32 judge_or_count(struct __sk_buff *skb, struct scratch *s)
{
	u32 number = judge(skb, TC, s);

	if (!number)
		count(s->reason);
	return number;
}

/* Neither side can go on: both get a reset, the client from its own packet. */
INLINE int reset_both(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	struct segment made = {};
	u32 out = flow->backend_ifindex;

	to_nat(&made, &flow->nat);
	made.seq = s->seq + flow->client_delta;
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
	count(RESET_BOTH);
	forget(s, &s->key, flow);
	return bpf_redirect(out, 0);
}

#define PATIENCE (2000 * MS) /* with what TCP would bring again for ever */

/* A segment that has to wait: dropped, TCP brings it again. */
INLINE int wait(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u64 now = coarse_ns();

	if (!flow->client.waiting_since)
		flow->client.waiting_since = now;
	return now - flow->client.waiting_since < PATIENCE ? TC_ACT_SHOT : reset_both(skb, s, flow);
}

/* A request that has to leave its backend before the response to the last one is known to be over. Where the end cannot
 * be known, and the connection is kept all the same, that would be for ever. */
INLINE int not_yet(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	count(DROP_NOT_YET);
	if ((flow->ends & BACKEND_ENDED) && s->ack == flow->backend.next)
		return reset_both(skb, s, flow); /* the client has all that there will ever be */
	return flow->backend.framing == UNKNOWN && !flow->ends ? wait(skb, s, flow) : TC_ACT_SHOT;
}

/* A segment that cannot be judged as it is. One that ends one request and starts another comes again with the same
 * bounds; and a head of which the backend has taken a part will never be whole. */
INLINE int spans(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u32 next = flow->client.next_head, acked = flow->backend.acked;
	bool over = before(s->seq, next) && before(next, s->seq + s->length);
	bool apart = before(flow->client.head, acked) && before(acked, flow->client.head_end);

	count(DROP_SPANS);
	return over || apart ? wait(skb, s, flow) : TC_ACT_SHOT;
}

/* The next request of a flow that is bound, and stays where it is. */
INLINE int same_service(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	if (flow->client.asked - flow->backend.turn >= ASKED) {
		count(DROP_QUEUE);
		return flow->backend.framing == UNKNOWN ? wait(skb, s, flow) : TC_ACT_SHOT;
	}
	add_request(s, flow, TC);
	count(HIT_NEXT - 1 + s->tier);
	return forward(skb, s, flow);
}

/* A head again whose first copy may be lost, and for which `number` was decided now: it must be the same request. */
INLINE int same_head(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 number)
{
	struct request *request = &flow->client.request[(flow->client.asked - 1) & (ASKED - 1)];

	if (number && s->route == request->route && s->method == request->method &&
	    s->seq + s->end == flow->client.head_end && s->seq + s->end + s->body == flow->client.next_head) {
		if (wants_header(s, flow))
			programs.call(skb, ON_PROXIED);
		return forward(skb, s, flow);
	}
	count(DROP_SPANS);
	return wait(skb, s, flow); /* perhaps it comes in other pieces now, and so for ever */
}

/* From now on the flow has no backend, if all is still quiet: see is_still_bound. */
INLINE bool leaves_backend(struct scratch *s, struct flow *flow)
{
	if (!change_state(flow, BOUND, MOVING)) {
		count(DROP_RACE);
		return false;
	}
	if (is_quiescent(flow, s->ack))
		return true;
	change_state(flow, MOVING, BOUND);
	return false;
}

/* The request at the end of what the flow has had, for which `number` was decided. */
INLINE int on_next_request(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 number)
{
	if (number && goes_there(s, flow))
		return same_service(skb, s, flow);
	if (!is_quiescent(flow, s->ack))
		return not_yet(skb, s, flow);
	if (number && !(s->flags & FIN)) {
		programs.call(skb, ON_MOVE);
		return TC_ACT_SHOT;
	}
	if (number)
		count(MISS_OTHER_SERVICE);
	return leaves_backend(s, flow) ? hand_over_later(skb, s, flow) : TC_ACT_SHOT;
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
	release_port(&s->key, &flow->nat);
	s->flow = *flow;
	__builtin_memset(&s->flow.nat, 0, sizeof(s->flow.nat));
	s->flow.client.asked = 0; /* tier 3 counts it */
	return hand_over_first(skb, s);
}

/* The first request of a client, whose flow is in the scratch; `known`: and was EST. */
INLINE int first_request(struct __sk_buff *skb, struct scratch *s, struct config *config, bool known, u32 number)
{
	struct service *service = number ? services.lookup(&s->service) : 0;

	if (service && !choose_backend(skb, s, config, service, 0)) {
		count(s->reason);
		service = 0;
	}
	if (!service)
		return hand_over_first(skb, s);
	count(HIT_FIRST - 1 + s->tier);
	return bind(skb, s, known);
}

/* A packet of no flow, or of one that is somewhere else. 0: it has made one, in the scratch; else what becomes of it,
 * plus one. */
INLINE int new_flow(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
	int action;

	LINEAR(skb, OPTIONS, eth, ip, tcp, end, THEN(TC_ACT_SHOT));
	action = accept_ack(skb, TC, s, ip, tcp, end);
	if (action != MADE) { /* of a flow that is somewhere else, only what has a cookie counts */
		count(s->reason);
		return flow ? THEN(TC_ACT_SHOT) : action;
	}
	if (flow) {
		count(REPLACED);
		forget(s, &s->key, flow);
	}
	count(ESTABLISHED);
	if (s->length || (s->flags & FIN))
		return MADE;
	flows.insert(&s->key, &s->flow);
	return THEN(TC_ACT_SHOT);
}

int on_request(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct flow *flow;
	bool bound, again = false, known = false;
	u32 number;
	int action;

	if (!s || !config)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	if (flow && flow->state == BINDING && is_near(s, flow))
		return head_again(skb, s, flow);
	bound = flow && flow->state == BOUND && is_near(s, flow);
	if (bound) {
		again = touches_head(s, flow);
		/* What is not acknowledged can still be replaced: by bytes that end in the middle of a head that was judged. */
		if (s->seq != (again ? flow->client.head : flow->client.next_head) || flow->backend.acked != s->seq)
			return spans(skb, s, flow);
	} else if (flow && flow->state == EST && s->seq - flow->client.next_head - 1 < 3) {
		return TC_ACT_SHOT; /* so near, it would look like the first */
	} else if (flow && flow->state == EST && s->seq - flow->client.next_head + 1 < 2) {
		if ((s->flags & RST) && s->seq == flow->client.next_head) {
			flows.delete(&s->key);
			return TC_ACT_SHOT;
		}
		if (s->seq != flow->client.next_head)
			return acknowledge(skb, s, flow); /* a keepalive probe: one byte back */
		if (is_odd(s) || s->ack != flow->server_seq) {
			count(DROP_ODD);
			return TC_ACT_SHOT;
		}
		if (!s->length && !(s->flags & FIN))
			return TC_ACT_SHOT;
		s->flow = *flow;
		known = true;
	} else {
		action = new_flow(skb, s, flow);
		if (action != MADE)
			return action - 1;
	}
	number = s->length ? judge_or_count(skb, s) : 0;
	if (bound && flow)
		return again ? same_head(skb, s, flow, number) : on_next_request(skb, s, flow, number);
	return first_request(skb, s, config, known, number);
}

/* A packet of a flow that is LOCAL. */
int on_local(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	return flow && flow->state == LOCAL ? to_tier_3(skb, s, flow) : TC_ACT_SHOT;
}

int on_answer(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct tuple client;
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	flow = flow_of_backend(s, &client);
	return flow && flow->state == BINDING ? backend_answers(skb, s, flow, &client) : TC_ACT_SHOT;
}

/* The request that has just been decided goes to another service, or another backend, than the flow has. */
int on_move(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();
	struct service *service;
	struct flow *flow;

	if (!s || !config)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	service = services.lookup(&s->service);
	return flow && service && leaves_backend(s, flow) ? move(skb, s, config, flow, service) : TC_ACT_SHOT;
}

/* The client of a flow that is BOUND ends, and connections of it are parked. */
int on_leave(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	return flow && flow->state == BOUND ? leave(skb, s, flow) : TC_ACT_SHOT;
}

int on_proxied(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	flow = flows.lookup(&s->key);
	return flow && flow->state == BOUND && !is_beyond(s, flow) ? send_with_header(skb, s, flow) : TC_ACT_SHOT;
}

int on_icmp(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();

	return s ? tell_who_sent(skb, s) : TC_ACT_OK;
}

int on_parked(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct tuple client;
	struct flow *flow;

	if (!s)
		return TC_ACT_OK;
	flow = flow_of_backend(s, &client);
	return flow ? parked_speaks(skb, s, flow, &client) : TC_ACT_SHOT;
}

#ifdef TESTING
/* For tests (BPF_PROG_TEST_RUN): what is decided of the request in the packet, whose handshake nobody asks for. Returns
 * the route's id and the tier, or 0. */
int decided(struct __sk_buff *skb)
{
	struct scratch *s = the_scratch();
	struct config *config = the_config();

	if (!s || !config || !read_packet(skb, s) || !find_listener(s, config, 0) || !decide(skb, TC, s))
		return 0;
	return s->route << 2 | s->tier;
}
#endif
