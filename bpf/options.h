/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP options (RFC 9293 3.1, RFC 7323, RFC 2018). Those of a SYN are walked; of other segments only the usual order is
 * read (NOP NOP timestamps), which is what all stacks send; another order means "no time stamp here".
 */
#ifndef RAUTA_OPTIONS_H
#define RAUTA_OPTIONS_H

#include "packet.h"

/* The options of a SYN into the scratch. False: they cannot be read. */
INLINE bool read_syn_options(void *ctx, enum hook hook, struct scratch *s)
{
	u64 size = opaque(s->header - 20);

	s->mss = 536;
	s->wscale = NO_WSCALE;
	s->sack = 0;
	s->timestamps = 0;
	s->tsval = s->tsecr = 0;
	if (size < 1)
		return true;
	if (size > 40)
		return false;
	__builtin_memset(s->options, 0, sizeof(s->options));
	if (load_bytes(ctx, hook, OPTIONS, s->options, size) < 0)
		return false;
	s->cursor = 0;
#define AT(i) (s->options[opaque(i) & 63])
#pragma clang loop unroll(disable)
	for (int n = 0; n < 20; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor;
		u8 kind, length;

		if (at >= size || at > 38)
			break;
		kind = AT(at);
		if (kind == 0)
			break;
		if (kind == 1) {
			s->cursor = at + 1;
			continue;
		}
		length = AT(at + 1);
		if (length < 2)
			break;
		if (kind == 2) {
			s->mss = (u32)AT(at + 2) << 8 | AT(at + 3);
		} else if (kind == 3) {
			s->wscale = AT(at + 2) > 14 ? 14 : AT(at + 2); /* RFC 7323 2.3 */
		} else if (kind == 4) {
			s->sack = 1;
		} else if (kind == 8) {
			s->timestamps = 1;
			s->tsval = (u32)AT(at + 2) << 24 | (u32)AT(at + 3) << 16 | (u32)AT(at + 4) << 8 | AT(at + 5);
			s->tsecr = (u32)AT(at + 6) << 24 | (u32)AT(at + 7) << 16 | (u32)AT(at + 8) << 8 | AT(at + 9);
		}
		s->cursor = at + length;
	}
#undef AT
	return true;
}

#define TIMESTAMPS_FIRST 0x0101080a

/* The time stamps of any other segment into the scratch. */
INLINE void read_timestamps(void *ctx, enum hook hook, struct scratch *s)
{
	u32 option[3];

	s->timestamps = 0;
	s->tsval = s->tsecr = 0;
	if (s->header < 32 || load_bytes(ctx, hook, OPTIONS, option, 12) < 0)
		return;
	if (option[0] != htonl(TIMESTAMPS_FIRST))
		return;
	s->timestamps = 1;
	s->tsval = ntohl(option[1]);
	s->tsecr = ntohl(option[2]);
}

/* Our time stamps carry what a SYN cookie has no room for: the client's window scale and whether it takes SACK. */
#define TS_BITS 6
#define TS_SACK 16
#define TS_NO_WSCALE 15

INLINE u32 timestamp_with(u32 wscale, u32 sack)
{
	u32 now = (u32)(bpf_ktime_get_ns() / 1000000);
	u32 made = (now >> TS_BITS) << TS_BITS;

	made |= (wscale == NO_WSCALE ? TS_NO_WSCALE : wscale) | (sack ? TS_SACK : 0);
	return before(now, made) ? made - (1 << TS_BITS) : made;
}

#endif /* RAUTA_OPTIONS_H */
