/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a parsed head to a route and its service: Plan.look (rauta/offload/plans.py) line by line, with the keys compared
 * in full by the maps themselves.
 */
#ifndef RAUTA_LOOKUP_H
#define RAUTA_LOOKUP_H

#include "head.h"
#include "hash.h"

/* Who owns the host; 0: nobody here. */
INLINE u32 owner_of(struct scratch *s, struct listener *listener)
{
	struct suffix_owner *suffix;
	u32 *exact;

	s->host.listener = listener->number;
	exact = hosts.lookup(&s->host);
	if (exact)
		return *exact;
	/* The trie's keys are suffixes reversed, with the dot in front of them at the end: "moc.elpmaxe.". */
	__builtin_memset(&s->suffix, 0, sizeof(s->suffix));
	s->suffix.listener = listener->number;
	s->suffix.bits = 32 + 8 * s->host_length;
	s->dots = 0; /* where the first label ends */
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HOST_MAX_LEN && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->piece, from;
		u8 c;

		if (at >= s->host_length)
			break;
		from = s->host_length - 1 - at;
		c = s->host.name[opaque(from) & (HOST_MAX_LEN - 1)];
		s->suffix.reversed[opaque(at) & (HOST_MAX_LEN - 1)] = c;
		if (c == '.')
			s->dots = from;
		s->piece = at + 1;
	}
	suffix = suffixes.lookup(&s->suffix);
	if (suffix)
		return s->dots == s->host_length - suffix->length ? suffix->one_label : suffix->deeper;
	return listener->other;
}

/* The route's number in this generation for the request in the scratch; 0: tier 3. s->tier becomes 1 or 2. */
INLINE u32 route_of(struct scratch *s, u32 owner)
{
	struct row *row;
	u32 column = s->method;
	u16 route;

	s->path.owner = owner;
	row = paths.lookup(&s->path);
	s->tier = 1;
	if (!row) {
		u64 length = s->path_length;

		s->prefix.owner = owner;
		s->prefix.bits = 32 + 8 * (length + 1);
		__builtin_memcpy(s->prefix.path, s->path.path, sizeof(s->path.path));
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

INLINE struct listener *listener_of(struct scratch *s, struct config *config)
{
	struct listener_key key = { .address = s->key.daddr, .port = s->key.dport, .parity = config->parity };
	return listeners.lookup(&key);
}

/* The route of the request in the packet; s->service is where it goes. 0: tier 3, for s->reason. */
INLINE u32 decide(void *ctx, enum hook hook, struct scratch *s, struct config *config)
{
	struct listener *listener = listener_of(s, config);
	struct route *route;
	u32 odd, number, owner;

	s->reason = MISS_ROUTE;
	if (!listener)
		return 0;
	odd = parse_head(ctx, hook, s, config);
	if (odd) {
		s->reason = MISS_HEAD - 1 + odd;
		return 0;
	}
	owner = owner_of(s, listener);
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

#endif /* RAUTA_LOOKUP_H */
