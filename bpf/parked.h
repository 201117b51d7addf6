/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections to backends that their client has left for another service, and may come back to (see move.h). They end when
 * the client does, when its flow goes to tier 3, when their backend says anything new, or when the map is full; then the
 * backend is reset, at the latest when it speaks.
 */
#ifndef RAUTA_PARKED_H
#define RAUTA_PARKED_H

#include "numbers.h"
#include "options.h"

/* The packet becomes a segment without payload of the connection in s->parked, and a clone of it is sent. With ACK, s->tsval
 * and s->tsecr are what the client would send. */
INLINE void tell_parked(struct __sk_buff *skb, struct scratch *s, u32 flags, u32 partial)
{
	struct parked *parked = &s->parked;
	struct segment made = {};

	to_nat(&made, &parked->nat);
	made.seq = parked->client_at;
	made.flags = flags;
	made.header = 20;
	if (flags & ACK) {
		made.ack = parked->backend_at;
		made.window = parked->window;
		made.header = parked->timestamps ? 32 : 20;
	}
	s->out.options[0] = htonl(TIMESTAMPS_FIRST);
	s->out.options[1] = htonl(s->tsval);
	s->out.options[2] = htonl(s->tsecr + parked->ts_delta);
	__builtin_memcpy(&s->out.eth, parked->macs, 12);
	if (bpf_skb_change_tail(skb, L4 + made.header, 0))
		return;
	write_headers(&s->out, &made, partial);
	if (!store_headers(skb, &s->out, made.header))
		bpf_clone_redirect(skb, parked->ifindex, 0);
}

/* All that s->flow, of the client in s->key, has parked is reset. The packet is spoilt. */
INLINE void reset_parked(struct __sk_buff *skb, struct scratch *s, u32 partial)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PARKED_MOST && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = opaque(s->piece) & (PARKED_MOST - 1);
		struct parked_key key = { .client = s->key, .service = s->flow.parked[at] };
		struct parked *found = parked.lookup(&key);

		s->piece = at + 1;
		if (!found)
			continue;
		s->parked = *found;
		if (!parked.delete(&key) && release_port(&s->key, &s->parked.nat))
			tell_parked(skb, s, RST, partial);
	}
}

/* Which service the parked connection is to whose packet this is, of a flow of `client`; 0: there is none. */
INLINE u32 parked_service(struct scratch *s, struct flow *flow, struct tuple *client)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PARKED_MOST && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = opaque(s->piece) & (PARKED_MOST - 1);
		struct parked_key key = { .client = *client, .service = flow->parked[at] };
		struct parked *found = parked.lookup(&key);

		if (found && found->nat.dport == s->key.dport && found->nat.sport == s->key.sport &&
		    found->nat.saddr == s->key.saddr)
			return key.service;
		s->piece = at + 1;
	}
	return 0;
}

/* A packet of a backend for a connection that its client has left. */
INLINE int parked_speaks(struct __sk_buff *skb, struct scratch *s, struct flow *flow, struct tuple *client)
{
	struct parked_key key = { .client = *client, .service = parked_service(s, flow, client) };
	struct parked *found = parked.lookup(&key);
	u32 now;

	if (!found) {
		if (flow->state == MOVING || is_its_backend(s, flow))
			return TC_ACT_SHOT; /* it is being taken up: to come again */
		count(ORPHAN);
		nats.delete(&s->key);
		return TC_ACT_OK; /* the stack resets it */
	}
	s->parked = *found; /* the client may take it, and the element be another's, any time */
	if ((s->flags & SYN) || ((s->flags & RST) ? s->seq != s->parked.backend_at :
				 s->seq - s->parked.backend_at + WINDOW_MOST >= 2 * WINDOW_MOST ||
					 s->ack != s->parked.client_at)) {
		count(DROP_BACKEND);
		return TC_ACT_SHOT;
	}
	if ((s->flags & (FIN | RST)) || before(s->parked.backend_at, s->seq + s->length)) {
		if (parked.delete(&key))
			return TC_ACT_SHOT; /* its client was faster: to come again */
		count(PARKED_ENDED);
		release_port(client, &s->key);
		return TC_ACT_OK; /* the same */
	}
	if (s->seq == s->parked.backend_at)
		return TC_ACT_SHOT;
	/* What the client has, again, or a keepalive probe: an acknowledgement was lost, or is wanted. */
	read_timestamps(skb, TC, s);
	now = s->tsval - s->parked.ts_delta;
	s->tsval = s->tsecr; /* the last that the client has sent there */
	s->tsecr = now;
	tell_parked(skb, s, ACK, is_partial(skb));
	return TC_ACT_SHOT;
}

#endif /* RAUTA_PARKED_H */
