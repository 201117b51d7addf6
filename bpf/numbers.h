/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sequence numbers: which packets belong to a flow, how far each side has got, and when both have ended.
 */
#ifndef RAUTA_NUMBERS_H
#define RAUTA_NUMBERS_H

#include "flows.h"

/* Segments that no client of ours sends, and that receivers take differently, or not at all: without ACK, with SYN or
 * urgent data (which is cut out of the stream). */
INLINE bool is_odd(struct scratch *s)
{
	return !(s->flags & RST) && (s->flags & (ACK | SYN | URG)) != ACK;
}

/* Whether a client's segment has bytes of the last judged head that its backend may still take: as long as they are not
 * acknowledged, others at the same place could win. */
INLINE bool touches_head(struct scratch *s, struct flow *flow)
{
	/* What a client sent before is, as the backend counts, where the PROXY header is that may not have come yet. */
	if (flow->header_due && flow->backend.acked == flow->head_seq && before(s->seq, flow->head_seq) &&
	    (s->length || (s->flags & FIN)))
		return true;
	return s->length && before(s->seq, flow->client.head_end) && before(flow->backend.acked, flow->client.head_end) &&
	       before(flow->backend.acked, s->seq + s->length);
}

/* Whether it has bytes, or an end, that the backend does not take; but one for probes of a closed window. */
INLINE bool is_beyond(struct scratch *s, struct flow *flow)
{
	return (s->length || (s->flags & FIN)) && before(flow->backend.limit + 1, s->seq + s->length);
}

/* Whether a packet of a backend is of the connection that the flow has now. */
INLINE bool is_its_backend(struct scratch *s, struct flow *flow)
{
	return flow->nat.dport == s->key.dport && flow->nat.sport == s->key.sport && flow->nat.saddr == s->key.saddr;
}

/* What a packet of the backend has changed is written; is the client still there? Who leaves a backend sets the state first
 * and then looks whether all is quiet, so one of the two sees the other. */
INLINE bool is_still_bound(struct flow *flow)
{
	return __sync_fetch_and_add(&flow->state, 0) == BOUND;
}

/* What a packet of the backend acknowledges, from now on as the client counts. */
INLINE void as_client_counts(struct scratch *s, struct flow *flow)
{
	if (s->flags & ACK)
		s->ack -= flow->client_delta;
}

/* Whether the first packet of a backend whose connection was parked says that it was over before the request came there:
 * nothing of it is acknowledged. A reset without ACK is for a connection that there is not (RFC 9293 3.10.7.1); if only
 * one packet was sent there, nobody can have read it. */
INLINE bool was_gone(struct scratch *s, struct flow *flow, u32 start)
{
	if (!flow->backend.fresh || !(s->flags & (FIN | RST)) || s->length || start != flow->backend.next)
		return false;
	return s->flags & ACK ? s->ack == flow->head_seq : flow->client.packets == 1;
}

/* A packet of the backend: how far it has got, and how far it goes. */
INLINE void note_window(struct scratch *s, struct flow *flow)
{
	u32 scale = flow->backend_wscale == NO_WSCALE ? 0 : flow->backend_wscale, limit = s->ack + (s->window << scale);

	if (!(s->flags & ACK))
		return;
	if (before(flow->backend.acked, s->ack))
		flow->backend.acked = s->ack;
	if (before(flow->backend.limit, limit))
		flow->backend.limit = limit;
}

/* Whether a packet of the backend is one of the connection. `start` is its number as the client counts. */
INLINE bool is_near_backend(struct scratch *s, struct flow *flow, u32 start)
{
	return start - flow->backend.next + WINDOW_MOST < 2 * WINDOW_MOST &&
	       (!(s->flags & ACK) || s->ack - flow->client.next + WINDOW_MOST < 2 * WINDOW_MOST);
}

/* A packet of the client is passed on: the end of what it has sent, from now on. */
INLINE u32 note_client(struct scratch *s, struct flow *flow)
{
	u32 end = s->seq + s->length + (s->flags & FIN ? 1 : 0);

	count_packet_of_client(s, flow);
	if (end != s->seq && before(flow->client.next, end) && !(s->flags & RST))
		flow->client.next = end;
	return flow->client.next;
}

/* The same of the backend; `start` is the packet's number as the client counts. */
INLINE u32 note_backend(struct scratch *s, struct flow *flow, u32 start)
{
	u32 end = start + s->length + (s->flags & FIN ? 1 : 0);

	count_packet_of_backend(s, flow);
	if (end != start && before(flow->backend.next, end) && !(s->flags & RST))
		flow->backend.next = end;
	return flow->backend.next;
}

/* A packet of one side has been passed on: is the flow over? `fin` is the bit of that side's FIN, `theirs` of the other's;
 * `seq` as the packet's receiver counts, `next` the end of what that sender
 * had sent, `acked` whether the packet acknowledges all of the other side. A reset counts only if its receiver must obey
 * it (RFC 5961 3.2; and behind a FIN that has not arrived everywhere): anybody can send one. */
INLINE void note_end(struct scratch *s, struct tuple *client, struct flow *flow, u64 fin, u64 theirs, u32 seq, u32 next,
		     bool acked)
{
	u64 ends = flow->ends, all = CLIENT_ENDED | BACKEND_ENDED | CLIENT_DONE | BACKEND_DONE, seen = 0;
	u32 over = 0;

	if (s->flags & RST) {
		if (seq == next || ((ends & fin) && seq + 1 == next))
			over = ENDED_BY_RESET;
	} else {
		if ((s->flags & FIN) && seq + s->length + 1 == next)
			seen |= fin;
		if ((ends & theirs) && acked)
			seen |= theirs << 2;
		if (seen && (ends & seen) != seen && (__sync_fetch_and_or(&flow->ends, seen) | seen) == all)
			over = ENDED;
	}
	if (over) {
		count(over);
		forget(s, client, flow);
	}
}

/* Whether a packet of the client is one of the connection that the flow is about. A reset for what has come to a closed
 * socket has no ACK (RFC 9293 3.10.7.1). */
INLINE bool is_near(struct scratch *s, struct flow *flow)
{
	return s->seq - flow->client.next + WINDOW_MOST < 2 * WINDOW_MOST &&
	       (!(s->flags & ACK) || flow->backend.next - s->ack + WINDOW_MOST < 2 * WINDOW_MOST);
}

INLINE void note_end_of_client(struct scratch *s, struct flow *flow, u32 next)
{
	note_end(s, &s->key, flow, CLIENT_ENDED, BACKEND_ENDED, s->seq, next, s->ack == flow->backend.next);
}

INLINE void note_end_of_backend(struct scratch *s, struct tuple *client, struct flow *flow, u32 start, u32 next)
{
	note_end(s, client, flow, BACKEND_ENDED, CLIENT_ENDED, start, next, s->ack == flow->client.next);
}

#endif /* RAUTA_NUMBERS_H */
