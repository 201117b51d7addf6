/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a parsed head to a route and its service: Plan.look (rauta/offload/plans.py) line by line, with the keys compared
 * in full by the maps themselves.
 */
#ifndef RAUTA_LOOKUP_H
#define RAUTA_LOOKUP_H

#include "head.h"
#include "hash.h"
#include "requests.h"

/* The host's name from its end on, as the trie's keys are: suffixes reversed, with the dot in front of them at the end:
 * "moc.elpmaxe.". What is behind its last byte is of no meaning. */
INLINE void reverse_host(struct scratch *s)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HOST_MAX_LEN / 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->piece, from = s->host_length - 8 - at; /* negative, in the last word */

		if (at >= s->host_length)
			return;
		*(u64 *)(s->suffix.reversed + (opaque(at) & (HOST_MAX_LEN - 8))) =
			__builtin_bswap64(*(u64 *)(s->host.name - 8 + (opaque(from + 8) & (2 * HOST_MAX_LEN - 1))));
		s->piece = at + 8;
	}
}

/* Who owns the host; 0: nobody here. */
INLINE u32 owner_of(struct scratch *s, struct listener *listener)
{
	struct suffix_owner *suffix;
	u32 *exact;

	s->host.listener = listener->number;
	if (listener->claims & CLAIMS_HOSTS) {
		if (s->host_length <= SHORT_HOST)
			exact = short_hosts.lookup((struct short_host_key *)&s->host);
		else
			exact = hosts.lookup(&s->host);
		if (exact)
			return *exact;
	}
	if (listener->claims & CLAIMS_SUFFIXES) {
		reverse_host(s);
		s->suffix.listener = listener->number;
		s->suffix.bits = 32 + 8 * s->host_length;
		suffix = suffixes.lookup(&s->suffix);
		if (suffix)
			return s->first_dot == s->host_length - suffix->length ? suffix->one_label : suffix->deeper;
	}
	return listener->other;
}

/* The route's number in this generation for the request in the scratch; 0: tier 3. s->tier becomes 1 or 2. */
INLINE u32 route_of(struct scratch *s, u32 owner)
{
	struct row *row;
	u32 column = s->method;
	u16 route;

	s->prefix.owner = owner;
	if (s->path_length <= SHORT_PATH)
		row = short_paths.lookup((struct short_path_key *)&s->prefix.owner);
	else
		row = paths.lookup((struct path_key *)&s->prefix.owner);
	s->tier = 1;
	if (!row) {
		u64 length = s->path_length;

		s->prefix.bits = 32 + 8 * (length + 1);
		s->prefix.path[opaque(length) & 255] = '/';
		row = prefixes.lookup(&s->prefix);
		s->tier = 2;
	}
	if (!row || column >= METHODS)
		return 0;
	route = row->route[opaque(column) & 7];
	if (column > 1)
		s->tier = 2;
	return route;
}

/* The service of a connection, by weight; its position in this generation. */
INLINE u32 service_of(struct scratch *s, struct route *route)
{
	u64 hash;
	u32 key;

	if (route->shares == 1)
		return route->share[0].service;
	hash = rauta_hash_v4(ntohl(s->key.saddr), route->by_address ? 0 : ntohs(s->key.sport), RAUTA_SERVICE_SEED);
	key = hash % (route->total ? route->total : 1);
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < MAX_SHARES && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->piece;

		if (at + 1 >= route->shares || key < route->share[opaque(at) & (MAX_SHARES - 1)].cumulative)
			break;
		s->piece = at + 1;
	}
	return route->share[opaque(s->piece) & (MAX_SHARES - 1)].service;
}

/* The backend of a connection: its position in the service; negative: there is none. */
INLINE s32 backend_of(struct scratch *s, struct service *service)
{
	struct maglev *table;
	u64 hash;

	if (!service->usable)
		return -1;
	table = maglevs.lookup(&service->maglev);
	if (!table)
		return -1;
	hash = rauta_hash_v4(ntohl(s->key.saddr), service->by_address ? 0 : ntohs(s->key.sport), RAUTA_BACKEND_SEED);
	hash = opaque(hash % MAGLEV_SLOTS);
	return hash < MAGLEV_SLOTS ? table->slot[hash] & (MAX_BACKENDS - 1) : -1;
}

/* Whether a service still has the flow's backend, and it may get requests. */
INLINE bool still_serves(struct scratch *s, struct service *service, struct flow *flow)
{
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < MAX_BACKENDS && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = opaque(s->piece) & (MAX_BACKENDS - 1);
		struct backend *backend = &service->backend[at];

		if (service->usable >> at & 1 && backend->address == flow->nat.saddr && backend->port == flow->nat.sport)
			return true;
		s->piece = at + 1;
	}
	return false;
}

/* Whether the request that was decided goes to the flow's backend. */
INLINE bool goes_there(struct scratch *s, struct flow *flow)
{
	struct service *service = services.lookup(&s->service);

	return service && service->id == flow->service && service->proxied == flow->proxied && still_serves(s, service, flow);
}

/* Whose packet it is, of one that comes from a backend, as far as its port tells; 0: it does not, or the port is of other
 * times. */
INLINE struct tuple *client_of(struct scratch *s, struct config *config)
{
	return (u16)(ntohs(s->key.dport) - config->nat_first) < config->nat_count ? nats.lookup(&s->key) : 0;
}

/* The listener that the packet is for, into the scratch; false: there is none. A flow remembers it, for as long as the plan
 * is the same. */
INLINE bool find_listener(struct scratch *s, struct config *config, struct flow *flow)
{
	u32 generation = *(volatile u32 *)&config->generation;
	struct listener_key key = { .address = s->key.daddr, .port = s->key.dport, .parity = generation & 1 };
	struct listener *found;

	if (flow && flow->generation == generation && flow->seen.id == flow->listener) {
		s->listener = flow->seen;
		return true;
	}
	found = listeners.lookup(&key);
	if (!found)
		return false;
	s->listener = *found;
	if (flow) {
		flow->seen = s->listener;
		asm volatile("" ::: "memory");
		flow->generation = generation;
	}
	return true;
}

/* The route of the request in the packet, which is for s->listener; s->service is where it goes. 0: tier 3, for
 * s->reason. */
INLINE u32 decide(void *ctx, enum hook hook, struct scratch *s)
{
	struct route *route;
	u32 odd, number, owner;

	s->reason = MISS_ROUTE;
	odd = parse_head(ctx, hook, s);
	if (odd) {
		s->reason = MISS_HEAD - 1 + odd;
		return 0;
	}
	owner = owner_of(s, &s->listener);
	if (!owner) {
		s->reason = MISS_UNKNOWN_HOST;
		return 0;
	}
	number = route_of(s, owner);
	if (!number)
		return 0;
	route = routes.lookup(&number);
	if (!route)
		return 0;
	s->route = route->id;
	s->service = service_of(s, route);
	return number;
}

/* The same, once for a packet: programs that are tail-called find it in the scratch. */
INLINE u32 judge(void *ctx, enum hook hook, struct scratch *s)
{
	if (!s->judged) {
		s->number = decide(ctx, hook, s);
		s->judged = 1;
	}
	return s->number;
}

/* Whether the packet has the next request of a flow that is BOUND, and it stays where the flow is: then it is noted. */
INLINE bool stays(void *ctx, enum hook hook, struct scratch *s, struct flow *flow)
{
	if (s->seq != flow->client.next_head || s->seq != flow->backend.acked ||
	    flow->client.asked - flow->backend.turn >= ASKED)
		return false;
	if (!judge(ctx, hook, s) || !goes_there(s, flow))
		return false;
	add_request(s, flow, hook);
	count(HIT_NEXT - 1 + s->tier);
	return true;
}

#endif /* RAUTA_LOOKUP_H */
