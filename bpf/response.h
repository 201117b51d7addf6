/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where a response ends (RFC 9112 6.3): no byte of one may be delivered inside another, so the flow can only leave its
 * backend when the end is known, and has been acknowledged.
 */
#ifndef RAUTA_RESPONSE_H
#define RAUTA_RESPONSE_H

#include "head.h"

#define RESPONSE_BYTES 1024

/* The line at the cursor, if it is one of those that frame; the cursor goes to the next. False: not certain. */
INLINE bool read_response_line(struct scratch *s, u64 loaded)
{
	u64 w = word_at(s, s->cursor) | EACH(0x20);

	if (w == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		u64 rest = word_at(s, s->cursor + 8) | EACH(0x20);

		if ((rest & FIRST(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)) {
			if (s->lengths++ || !read_length(s, s->cursor + 15))
				return false;
		}
	} else if (w == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
		return false;
	}
	return read_value(s, loaded);
}

/* The packet at hand starts a response. */
INLINE void frame_response(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 start)
{
	u64 loaded = opaque(s->length > RESPONSE_BYTES ? RESPONSE_BYTES : s->length);
	u32 status;

	flow->framing = UNKNOWN;
	if (loaded < 16 || loaded > RESPONSE_BYTES || bpf_skb_load_bytes(skb, s->offset, s->head, loaded) < 0)
		return;
	if ((*(u64 *)s->head & FIRST(7)) != WORD('H', 'T', 'T', 'P', '/', '1', '.', 0))
		return;
	status = (s->head[9] - '0') * 100 + (s->head[10] - '0') * 10 + (s->head[11] - '0');
	s->lengths = s->body = s->hosts = s->row = 0;
	s->cursor = 12;
	if (!read_value(s, loaded))
		return;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 64 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		if (s->cursor + 2 > loaded)
			return;
		if ((word_at(s, s->cursor) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0)) {
			s->cursor += 2;
			s->row = 1;
			break;
		}
		if (!read_response_line(s, loaded + 1))
			return;
	}
	if (!s->row || s->cursor > loaded)
		return;
	if (status < 200) { /* an interim response: another follows */
		if (status == 101 || s->length != s->cursor)
			return;
		flow->response = start + s->cursor;
		flow->framing = WAITING;
		return;
	}
	if (status == 204 || status == 304 || flow->method == 1)
		s->body = 0;
	else if (!s->lengths)
		return;
	flow->response = start + s->cursor + s->body;
	flow->framing = KNOWN;
}

/* Whether the client has all of the response to its last request. */
INLINE bool is_quiescent(struct flow *flow, u32 ack)
{
	return flow->framing == KNOWN && flow->answered == flow->response && ack == flow->answered && !flow->ended;
}

#endif /* RAUTA_RESPONSE_H */
