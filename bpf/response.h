/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where responses end (RFC 9112 6.3, 7.1): no byte of one may be delivered inside another, so a flow can leave its
 * backend only when the end is known, was sent, and has been acknowledged.
 *
 *     framing    `response` is                        enters by
 *     WAITING    where the head starts                a request; a head of 1xx
 *     KNOWN      where the response ends              Content-Length; no body (HEAD, 204, 304); the last chunk's end
 *     CHUNKED    the next byte that frames: of a      Transfer-Encoding: chunked. `phase` and `chunk` say what it is
 *                size, an end of line, a trailer
 *     UNKNOWN    nothing; for good                    anything else: to the connection's end, or the walk was lost
 *
 * The walk takes place in every packet that holds the byte at `response`, whatever else is in it. A packet behind that
 * byte, which must have overtaken the one that has it, is dropped while chunks are walked: TCP brings both again. In
 * WAITING it is passed on, since nearly all responses say their length, and losses cost less so.
 */
#ifndef RAUTA_RESPONSE_H
#define RAUTA_RESPONSE_H

#include "flows.h"
#include "head.h"

#define RESPONSE_BYTES HEAD_BYTES
#define WINDOW 64         /* bytes of the payload that are at hand while chunks are walked */
#define WALK_STEPS 8192   /* bytes that frame in one packet; more is no traffic that is worth it */
#define CHUNK_MAX 0x3fffffff

enum phase { SIZE_FIRST = 0, SIZE, EXTENSION, SIZE_LF, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, TRAILER_LF, END_LF };

/* --- heads -------------------------------------------------------------------------------------------------------- */

/* The line at the cursor, if it is one of those that frame; the cursor goes to the next. False: not certain. */
INLINE bool read_response_line(struct scratch *s, u64 loaded)
{
	u64 w = word_at(s, s->cursor) | EACH(0x20), rest = word_at(s, s->cursor + 8) | EACH(0x20);

	if (w == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		if ((rest & FIRST(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)) {
			if (s->lengths++ || !read_length(s, s->cursor + 15))
				return false;
		}
	} else if (w == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
		u64 at = s->cursor + 18, value;

		if (rest != (WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') | EACH(0x20)) || s->hosts++)
			return false;
		if (byte_at(s, at) == ' ')
			at++;
		value = word_at(s, at) | EACH(0x20);
		if ((value & FIRST(7)) != WORD('c', 'h', 'u', 'n', 'k', 'e', 'd', 0) || byte_at(s, at + 7) != '\r')
			return false;
	}
	return read_value(s, loaded);
}

/* The head of a response at `at` in the payload: false if it is not there as a whole, or not understood. Then
 * s->cursor is its length, s->row its status, s->body and s->lengths, s->hosts (chunked) its framing. */
INLINE bool read_response_head(struct __sk_buff *skb, struct scratch *s, u64 at)
{
	u64 left = s->length - at, loaded = opaque(left > RESPONSE_BYTES ? RESPONSE_BYTES : left);
	u32 done = 0;

	if (loaded < 16 || loaded > RESPONSE_BYTES || bpf_skb_load_bytes(skb, s->offset + at, s->head, loaded) < 0)
		return false;
	if ((*(u64 *)s->head & FIRST(7)) != WORD('H', 'T', 'T', 'P', '/', '1', '.', 0))
		return false;
	s->lengths = s->body = s->hosts = 0;
	s->cursor = 12;
	s->row = 0;
	if (!read_value(s, loaded))
		return false;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 100 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		if (s->cursor + 2 > loaded)
			return false;
		if ((word_at(s, s->cursor) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0)) {
			s->cursor += 2;
			s->row = 1;
			break;
		}
		if (!read_response_line(s, loaded + 1))
			return false;
	}
	if (!s->row || s->cursor > loaded)
		return false;
	s->row = (s->head[9] - '0') * 100 + (s->head[10] - '0') * 10 + (s->head[11] - '0');
	return s->row >= 100 && s->row < 1000;
}

/* The packet has the byte at which a response's head starts: what frames the rest. */
INLINE void frame_response(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u64 at)
{
	if (!read_response_head(skb, s, at) || s->row == 101) {
		flow->framing = UNKNOWN;
		return;
	}
	flow->response += s->cursor;
	if (s->row < 200)
		return; /* another head follows */
	flow->code = s->row;
	count_request(s, flow);
	if (s->row == 204 || s->row == 304 || flow->request.method == 1) {
		flow->framing = KNOWN;
	} else if (s->hosts) {
		/* With both, the length counts for nothing (RFC 9112 6.3), or somebody is lying. Not certain. */
		flow->framing = s->lengths || flow->skipped ? UNKNOWN : CHUNKED;
		flow->phase = SIZE_FIRST;
		flow->chunk = 0;
	} else if (s->lengths) {
		flow->response += s->body;
		flow->framing = KNOWN;
	} else {
		flow->framing = UNKNOWN;
	}
}

/* --- chunks ------------------------------------------------------------------------------------------------------- */

INLINE s32 hex(u8 c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte that frames. */
INLINE void walk_byte(struct flow *flow, u8 c)
{
	s32 digit;

	flow->response++;
	switch (flow->phase) {
	case SIZE_FIRST:
	case SIZE:
		digit = hex(c);
		if (digit >= 0 && flow->chunk <= CHUNK_MAX >> 4) {
			flow->chunk = flow->chunk << 4 | digit;
			flow->phase = SIZE;
		} else if (flow->phase == SIZE && c == '\r') {
			flow->phase = SIZE_LF;
		} else if (flow->phase == SIZE && (c == ';' || c == ' ' || c == '\t')) {
			flow->phase = EXTENSION;
		} else {
			flow->framing = UNKNOWN;
		}
		return;
	case EXTENSION:
	case TRAILER_LINE:
		if (c == '\r')
			flow->phase = flow->phase == EXTENSION ? SIZE_LF : TRAILER_LF;
		else if (c == '\n')
			flow->framing = UNKNOWN;
		return;
	case TRAILER:
		flow->phase = c == '\r' ? END_LF : TRAILER_LINE;
		return;
	case DATA_CR:
		flow->phase = DATA_LF;
		if (c != '\r')
			flow->framing = UNKNOWN;
		return;
	default: /* SIZE_LF, DATA_LF, TRAILER_LF, END_LF */
		if (c != '\n') {
			flow->framing = UNKNOWN;
		} else if (flow->phase == END_LF) {
			flow->framing = KNOWN;
		} else if (flow->phase == SIZE_LF) {
			flow->response += flow->chunk;
			flow->phase = flow->chunk ? DATA_CR : TRAILER;
		} else {
			flow->phase = flow->phase == DATA_LF ? SIZE_FIRST : TRAILER;
			flow->chunk = 0;
		}
	}
}

/* From the byte at flow->response on, which is in this packet. */
INLINE void walk_chunks(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 start)
{
	s->window_at = s->window_size = 0;
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < WALK_STEPS && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = flow->response - start, here, size;

		if (at >= s->length || flow->framing != CHUNKED) {
			s->piece = 1;
			break;
		}
		if (at < s->window_at || at >= s->window_at + s->window_size) {
			size = s->length - at;
			size = opaque(size > WINDOW ? WINDOW : size);
			if (size < 1 || size > WINDOW || bpf_skb_load_bytes(skb, s->offset + at, s->head, size) < 0)
				break;
			s->window_at = at;
			s->window_size = size;
		}
		here = opaque(at - s->window_at) & (WINDOW - 1);
		walk_byte(flow, s->head[here]);
	}
	if (!s->piece)
		flow->framing = UNKNOWN;
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

/* Whether all of the response to the last request has been sent. */
INLINE bool is_complete(struct flow *flow)
{
	return flow->framing == KNOWN && !flow->queued && !before(flow->answered, flow->response);
}

/* Whether the client has all of it, too, and nobody has ended: the flow may leave its backend. */
INLINE bool is_quiescent(struct flow *flow, u32 ack)
{
	return flow->framing == KNOWN && !flow->queued && flow->answered == flow->response && ack == flow->answered &&
	       !flow->ended;
}

/* Another request is answered from now on. */
INLINE void start_request(struct scratch *s, struct flow *flow, struct request *request)
{
	/* What has not been counted is of the last one. */
	if (flow->request.route != request->route || flow->request.method != request->method)
		count_traffic(s, flow, 0);
	flow->request = *request;
	flow->framing = WAITING;
	flow->skipped = 0;
}

/* The request that has waited longest gets its turn. */
INLINE void next_request(struct scratch *s, struct flow *flow)
{
	start_request(s, flow, &flow->queue[0]);
	flow->queue[0] = flow->queue[1];
	flow->queue[1] = flow->queue[2];
	flow->queue[2] = flow->queue[3];
	flow->queued--;
}

/* Payload of the backend that starts at `start`. False: it is to come again, later. */
INLINE bool walk_response(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 start)
{
	if (flow->framing == KNOWN && !before(flow->response, start + s->length))
		return true; /* what a body is mostly made of */
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 16 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u32 at = flow->response - start;

		if (flow->framing == UNKNOWN)
			return true;
		if (before(flow->response, start)) { /* this packet has overtaken another one */
			flow->skipped = 1;
			return flow->framing != CHUNKED;
		}
		if (at >= s->length)
			return true;
		if (flow->framing == KNOWN) {
			if (flow->queued)
				next_request(s, flow);
			else
				flow->framing = UNKNOWN; /* bytes that nobody asked for */
		} else if (flow->framing == WAITING) {
			frame_response(skb, s, flow, at);
		} else {
			walk_chunks(skb, s, flow, start);
		}
	}
	flow->framing = UNKNOWN;
	return true;
}

#endif /* RAUTA_RESPONSE_H */
