/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The requests of a flow, and what is counted of them.
 */
#ifndef RAUTA_REQUESTS_H
#define RAUTA_REQUESTS_H

#include "packet.h"

/* Add `more` requests to those like the one whose turn it is, and traffic that has not been counted yet: of the client
 * up to `packets` and `bytes`, of the backend all. By packets of the backend, and at the end. */
INLINE void count_traffic(struct scratch *s, struct flow *flow, u32 more, u32 packets, u64 bytes)
{
	struct request_key *key = &s->counted;
	struct request *request = &flow->client.request[flow->backend.turn & (ASKED - 1)];
	struct traffic *cell, made = {};

	packets += flow->backend.packets;
	bytes += flow->backend.bytes;
	made.requests = more;
	if (before(flow->backend.counted_packets, packets)) {
		made.packets = packets - flow->backend.counted_packets;
		made.bytes = bytes - flow->backend.counted_bytes;
		flow->backend.counted_packets = packets;
		flow->backend.counted_bytes = bytes;
	}
	key->listener = flow->listener;
	key->route = request->route;
	key->service = flow->service;
	key->code = flow->backend.code;
	key->method = request->method;
	key->tier = request->tier;
	cell = requests.lookup(key);
	if (cell) {
		cell->requests += more;
		cell->packets += made.packets;
		cell->bytes += made.bytes;
		return;
	}
	requests.update(key, &made);
}

/* What there was before a request. */
INLINE void count_until(struct scratch *s, struct flow *flow, u32 more, struct request *next)
{
	u64 bytes = flow->client.bytes;

	count_traffic(s, flow, more, next->packets, bytes - (u32)((u32)bytes - next->bytes));
}

/* All that there was. */
INLINE void count_rest(struct scratch *s, struct flow *flow)
{
	count_traffic(s, flow, 0, flow->client.packets, flow->client.bytes);
}

INLINE void count_packet_of_client(struct scratch *s, struct flow *flow)
{
	flow->client.packets++;
	flow->client.bytes += s->offset - L3 + s->length;
}

INLINE void count_packet_of_backend(struct scratch *s, struct flow *flow)
{
	flow->backend.packets++;
	flow->backend.bytes += s->offset - L3 + s->length;
}

/* The request in the scratch is passed on: its head was judged. */
INLINE void add_request(struct scratch *s, struct flow *flow, enum hook hook)
{
	u32 number = flow->client.asked;
	struct request *request = &flow->client.request[number & (ASKED - 1)];

	request->route = s->route;
	request->method = s->method;
	request->tier = s->tier | hook << 4;
	request->packets = flow->client.packets;
	request->bytes = flow->client.bytes;
	flow->client.head = s->seq;
	flow->client.head_end = s->seq + s->end;
	flow->client.next_head = s->seq + s->end + s->body;
	flow->client.waiting_since = 0;
	asm volatile("" ::: "memory"); /* whoever sees that it was asked sees what */
	flow->client.asked = number + 1;
}

#endif /* RAUTA_REQUESTS_H */
