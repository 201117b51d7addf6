/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A request for another service on a connection that is quiet. The connection to the backend is parked, and the flow goes
 * to the other service: to a connection that was parked before, or to a backend that is chosen now. A client that goes to
 * and fro between a few services so finds each connection again, without a handshake.
 *
 * The client's numbers have gone on elsewhere meanwhile, so a connection that is taken up again has an offset in both
 * directions (`delta`, `client_delta`), and in time at least that of before (`ts_delta`: see go_on_in_time).
 */
#ifndef RAUTA_MOVE_H
#define RAUTA_MOVE_H

#include "bind.h"
#include "local.h"
#include "numbers.h"
#include "parked.h"
#include "translate.h"

#define BINDS_MOST 100 /* backends that a connection may have chosen in a second; more is cheaper in tier 3 */

/* What the flow leaves, into s->parked; the packet acknowledges all that its backend has sent. */
INLINE void describe_parked(struct scratch *s, struct flow *flow)
{
	struct parked *parked = &s->parked;

	parked->nat = flow->nat;
	parked->client_at = s->seq + flow->client_delta;
	parked->backend_at = s->ack + flow->delta;
	parked->limit = flow->backend.limit + flow->client_delta;
	parked->ts_delta = flow->ts_delta;
	parked->ifindex = flow->backend_ifindex;
	parked->first_seq = flow->first_seq;
	__builtin_memcpy(parked->macs, flow->backend_macs, 12);
	parked->window = flow->backend_wscale == NO_WSCALE ? unscaled(&s->flow) : s->window;
	parked->wscale = flow->backend_wscale;
	parked->timestamps = flow->timestamps;
	parked->proxied = flow->proxied;
}

/* s->flow is as after the handshake, at this packet. */
INLINE void start_again(struct scratch *s)
{
	struct flow *flow = &s->flow;

	__builtin_memset(&flow->client, 0, sizeof(flow->client));
	__builtin_memset(&flow->backend, 0, sizeof(flow->backend));
	__builtin_memset(&flow->nat, 0, sizeof(flow->nat));
	flow->delta = flow->client_delta = flow->ts_delta = 0;
	flow->retries = flow->proxied = flow->header_due = 0;
	flow->ends = 0;
	flow->client.next = flow->client.next_head = s->seq;
	flow->backend.next = flow->backend.response = s->ack;
	flow->our_tsval = s->tsecr;
}

/* The connection to the service that was parked, into s->flow. False: there is none that can be gone on with. */
INLINE bool take_parked(struct scratch *s, struct service *service)
{
	struct parked_key key = { .client = s->key, .service = service->id };
	struct parked *found = parked.lookup(&key);
	struct flow *flow = &s->flow;

	if (!found || found->first_seq != flow->first_seq || found->proxied != service->proxied)
		return false;
	flow->nat = found->nat;
	flow->service = service->id;
	flow->delta = found->backend_at - s->ack;
	flow->client_delta = found->client_at - s->seq;
	flow->ts_delta = found->ts_delta;
	flow->backend_ifindex = found->ifindex;
	__builtin_memcpy(flow->backend_macs, found->macs, 12);
	flow->backend_wscale = found->wscale;
	flow->backend.acked = s->seq;
	flow->backend.limit = found->limit - flow->client_delta;
	flow->backend.fresh = 1;
	flow->proxied = found->proxied;
	if (parked.delete(&key))
		return false; /* it has just ended */
	if (still_serves(s, service, flow) && !is_beyond(s, flow))
		return holds_port(&s->key, &flow->nat);
	release_port(&s->key, &flow->nat);
	return false;
}

/* A place in s->flow for one more; PARKED_MOST: there is none. */
INLINE u32 place_to_park(struct scratch *s)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PARKED_MOST && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = opaque(s->piece) & (PARKED_MOST - 1);
		struct parked_key key = { .client = s->key, .service = s->flow.parked[at] };

		if (!key.service || !parked.lookup(&key))
			return at;
		s->piece = at + 1;
	}
	return PARKED_MOST;
}

/* s->parked, which is to `service`, waits from now on. False: it cannot. */
INLINE bool park(struct scratch *s, u32 service)
{
	struct parked_key key = { .client = s->key, .service = service };
	u64 place;

	if (service == s->flow.service)
		return false; /* its backend has left */
	place = opaque(place_to_park(s));
	if (place >= PARKED_MOST || parked.update(&key, &s->parked))
		return false;
	s->flow.parked[place & (PARKED_MOST - 1)] = service;
	return true;
}

/* The backend that is left: an acknowledgement of all that it has sent, since the client's own goes elsewhere; or a reset. */
INLINE void say_goodbye(struct __sk_buff *skb, struct scratch *s, bool kept)
{
	if (!kept)
		release_port(&s->key, &s->parked.nat);
	tell_parked(skb, s, kept ? ACK : RST, is_partial(skb));
}

/* It was in vain: the flow is where it was. TCP brings the request again. */
INLINE int stay(struct scratch *s, struct flow *flow, u32 left, bool kept)
{
	struct parked_key key = { .client = s->key, .service = left };

	if (kept)
		parked.delete(&key);
	change_state(flow, MOVING, BOUND);
	return TC_ACT_SHOT;
}

/* The request goes to the connection in s->flow, which was parked. */
INLINE int go_back(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 left)
{
	bool kept = park(s, left), sound;

	s->flow.state = BOUND;
	s->flow.head_seq = s->seq;
	add_request(s, &s->flow, TC);
	note_client(s, &s->flow);
	if (s->wire)
		s->flow.client.packets++; /* several: see was_gone */
	if (flows.update(&s->key, &s->flow))
		return stay(s, flow, left, kept);
	sound = translate(skb, s, &s->flow);
	count(HIT_NEXT - 1 + s->tier);
	count(MOVED_BACK);
	if (sound)
		bpf_clone_redirect(skb, s->flow.backend_ifindex, 0);
	say_goodbye(skb, s, kept);
	return TC_ACT_SHOT;
}

/* The same, to a backend that has been chosen. */
INLINE int bind_again(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 left)
{
	bool kept = park(s, left);

	if (!start_binding(skb, TC, s, KNOWN_MOVING))
		return stay(s, flow, left, kept);
	count(HIT_NEXT - 1 + s->tier);
	count(MOVED);
	say_goodbye(skb, s, kept);
	return send_syn(skb, s, &s->flow);
}

/* Whether the connection chooses backends too often. */
INLINE bool is_restless(struct flow *flow)
{
	u32 now = coarse_ns() >> 30;

	if (flow->second != now) {
		flow->second = now;
		flow->binds = 0;
	}
	return ++flow->binds > BINDS_MOST;
}

/* The request in the scratch, of a flow that is MOVING by this CPU, and quiet. */
INLINE int move(struct __sk_buff *skb, struct scratch *s, struct config *config, struct flow *flow,
		struct service *service)
{
	u32 left = flow->service;

	read_timestamps(skb, TC, s);
	s->flow = *flow;
	s->flow.window = s->window;
	describe_parked(s, flow);
	start_again(s);
	if (take_parked(s, service)) {
		count_rest(s, flow);
		return go_back(skb, s, flow, left);
	}
	start_again(s);
	s->reason = MISS_OTHER_SERVICE;
	if (is_restless(&s->flow) || !choose_backend(skb, s, config, service, 0)) {
		count(s->reason);
		return hand_over_later(skb, s, flow);
	}
	count_rest(s, flow);
	return bind_again(skb, s, flow, left);
}

/* The client ends: so do the connections that it has left. */
INLINE int leave(struct __sk_buff *skb, struct scratch *s, struct flow *flow)
{
	u32 next = note_client(s, flow);

	s->flow = *flow;
	if (translate(skb, s, flow))
		bpf_clone_redirect(skb, s->flow.backend_ifindex, 0);
	reset_parked(skb, s, is_partial(skb));
	note_end_of_client(s, flow, next);
	return TC_ACT_SHOT;
}

/* A backend had ended a parked connection before the request came there: nobody has it, so it is tier 3's, which gets it
 * when TCP brings it again. */
INLINE int gone_meanwhile(struct scratch *s, struct flow *flow)
{
	if (!change_state(flow, BOUND, LOCAL))
		return TC_ACT_SHOT;
	count(PARKED_GONE);
	nats.delete(&s->key);
	__builtin_memset(&flow->nat, 0, sizeof(flow->nat));
	return TC_ACT_OK; /* the stack resets what is left of it */
}

#endif /* RAUTA_MOVE_H */
