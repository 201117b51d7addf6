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
 * WAITING, too, if the service has ever answered in chunks; else it is passed on, since losses cost less so. Should it
 * have been the service's first response in chunks, its end stays unknown.
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

/* A line that may be one of those that frame; false: not certain. */
INLINE bool read_response_line(struct scratch *s, u64 at)
{
	u64 w = word_at(s, at) | EACH(0x20), rest = word_at(s, at + 8) | EACH(0x20);

	if (w == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		if ((rest & FIRST(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0))
			return !s->lengths++ && read_length(s, at + 15);
	} else if (w == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
		if (rest != (WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') | EACH(0x20)) ||
		    ((word_at(s, at + 16) | EACH(0x20)) & FIRST(2)) != WORD('g', ':' | 0x20, 0, 0, 0, 0, 0, 0))
			return false;
		if (s->hosts++ || s->head[7] != '1')
			return false;
		at += byte_at(s, at + 18) == ' ' ? 19 : 18;
		return ((word_at(s, at) | EACH(0x20)) & FIRST(7)) == WORD('c', 'h', 'u', 'n', 'k', 'e', 'd', 0) &&
		       byte_at(s, at + 7) == '\r';
	}
	return true;
}

/* The lines of a response's head behind the first; false: it is not there as a whole, or not understood. */
INLINE bool read_response_lines(struct scratch *s, u64 loaded)
{
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 100 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u32 start = s->cursor;
		u8 first = byte_at(s, start) | 0x20; /* TAB becomes ')' */

		if (!next_line(s, loaded))
			return false;
		if (s->cursor == start + 2)
			return true;
		if (first == ' ' || first == ('\t' | 0x20))
			return false; /* folded */
		if ((first == 'c' || first == 't') && !read_response_line(s, start))
			return false;
	}
	return false;
}

/* The head of a response at `at` in the payload: false if it is not there as a whole, or not understood. Then
 * s->cursor is its length, s->row its status, s->body and s->lengths, s->hosts (chunked) its framing. */
INLINE bool read_response_head(void *ctx, enum hook hook, struct scratch *s, u64 at)
{
	u64 left = s->length - at, loaded = opaque(left > RESPONSE_BYTES ? RESPONSE_BYTES : left);

	if (loaded < 16 || loaded > RESPONSE_BYTES || load_bytes(ctx, hook, s->offset + at, s->head, loaded) < 0)
		return false;
	if ((*(u64 *)s->head & FIRST(7)) != WORD('H', 'T', 'T', 'P', '/', '1', '.', 0))
		return false;
	s->lengths = s->body = s->hosts = 0;
	s->cursor = 12;
	start_lines(s);
	if (!next_line(s, loaded) || !read_response_lines(s, loaded))
		return false;
	if (s->head[8] != ' ' || (~between(word_at(s, 9), '0', '9') & HIGH & FIRST(3)))
		return false;
	s->row = (s->head[9] - '0') * 100 + (s->head[10] - '0') * 10 + (s->head[11] - '0');
	return s->row >= 100 && s->row < 1000;
}

/* Whether the flow's service has been seen to answer in chunks. */
INLINE bool may_be_chunked(struct flow *flow)
{
	u32 service = flow->service;

	return chunking.lookup(&service) != 0;
}

INLINE void note_chunks(struct flow *flow)
{
	u32 service = flow->service, one = 1;

	if (!may_be_chunked(flow))
		chunking.update(&service, &one);
}

/* The packet has the byte at which a response's head starts: what frames the rest. */
INLINE void frame_response(void *ctx, enum hook hook, struct scratch *s, struct flow *flow, u64 at)
{
	struct request *request = &flow->client.request[flow->backend.turn & (ASKED - 1)];

	if (!read_response_head(ctx, hook, s, at) || s->row == 101) {
		flow->backend.framing = UNKNOWN;
		return;
	}
	flow->backend.response += s->cursor;
	if (s->row < 200) { /* another head follows; it may be in what has been passed on */
		if (flow->backend.skipped)
			flow->backend.framing = UNKNOWN;
		return;
	}
	flow->backend.code = s->row;
	count_until(s, flow, 1, request);
	if (s->row == 204 || s->row == 304 || request->method == 1) {
		flow->backend.framing = KNOWN;
	} else if (s->hosts) {
		/* With both, the length counts for nothing (RFC 9112 6.3), or somebody is lying. Not certain. */
		flow->backend.framing = s->lengths ? UNKNOWN : CHUNKED;
		flow->backend.phase = SIZE_FIRST;
		flow->backend.chunk = 0;
		note_chunks(flow);
	} else if (s->lengths) {
		flow->backend.response += s->body;
		flow->backend.framing = KNOWN;
	} else {
		flow->backend.framing = UNKNOWN;
	}
	/* What has overtaken the head is passed on: chunks in it, or the next response's head, are lost to us. */
	if (flow->backend.skipped && (s->hosts || before(flow->backend.response, flow->backend.next)))
		flow->backend.framing = UNKNOWN;
	flow->backend.skipped = 0;
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

	flow->backend.response++;
	switch (flow->backend.phase) {
	case SIZE_FIRST:
	case SIZE:
		digit = hex(c);
		if (digit >= 0 && flow->backend.chunk <= CHUNK_MAX >> 4) {
			flow->backend.chunk = flow->backend.chunk << 4 | digit;
			flow->backend.phase = SIZE;
		} else if (flow->backend.phase == SIZE && c == '\r') {
			flow->backend.phase = SIZE_LF;
		} else if (flow->backend.phase == SIZE && (c == ';' || c == ' ' || c == '\t')) {
			flow->backend.phase = EXTENSION;
		} else {
			flow->backend.framing = UNKNOWN;
		}
		return;
	case EXTENSION:
	case TRAILER_LINE:
		if (c == '\r')
			flow->backend.phase = flow->backend.phase == EXTENSION ? SIZE_LF : TRAILER_LF;
		else if (c == '\n')
			flow->backend.framing = UNKNOWN;
		return;
	case TRAILER:
		flow->backend.phase = c == '\r' ? END_LF : TRAILER_LINE;
		if (c == '\n')
			flow->backend.framing = UNKNOWN;
		return;
	case DATA_CR:
		flow->backend.phase = DATA_LF;
		if (c != '\r')
			flow->backend.framing = UNKNOWN;
		return;
	default: /* SIZE_LF, DATA_LF, TRAILER_LF, END_LF */
		if (c != '\n') {
			flow->backend.framing = UNKNOWN;
		} else if (flow->backend.phase == END_LF) {
			flow->backend.framing = KNOWN;
		} else if (flow->backend.phase == SIZE_LF) {
			flow->backend.response += flow->backend.chunk;
			flow->backend.phase = flow->backend.chunk ? DATA_CR : TRAILER;
		} else {
			flow->backend.phase = flow->backend.phase == DATA_LF ? SIZE_FIRST : TRAILER;
			flow->backend.chunk = 0;
		}
	}
}

/* From the byte at flow->backend.response on, which is in this packet. */
INLINE void walk_chunks(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 start)
{
	s->window_at = s->window_size = 0;
	s->piece = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < WALK_STEPS && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = flow->backend.response - start, here, size;

		if (at >= s->length || flow->backend.framing != CHUNKED) {
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
		flow->backend.framing = UNKNOWN;
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

/* Whether requests wait behind the one whose turn it is. */
INLINE bool is_waited_for(struct flow *flow)
{
	return flow->backend.turn + 1 != flow->client.asked;
}

/* Whether the client has all of the response to the last request, and nobody has ended: the flow may leave its backend. */
INLINE bool is_quiescent(struct flow *flow, u32 ack)
{
	return flow->backend.framing == KNOWN && !is_waited_for(flow) && flow->backend.next == flow->backend.response &&
	       ack == flow->backend.next && !flow->ends;
}

/* The request that has waited longest gets its turn. What has not been counted is of the last one. */
INLINE void next_request(struct scratch *s, struct flow *flow)
{
	u32 turn = flow->backend.turn, asked = turn + 1;
	struct request *last = &flow->client.request[turn & (ASKED - 1)];
	struct request *next = &flow->client.request[asked & (ASKED - 1)];

	if (last->route != next->route || last->method != next->method)
		count_until(s, flow, 0, next);
	flow->backend.turn = asked;
	flow->backend.framing = WAITING;
}

/* Payload of the backend that starts at `start`. False: it is to come again, later. */
INLINE bool walk_response(struct __sk_buff *skb, struct scratch *s, struct flow *flow, u32 start)
{
	if (flow->backend.framing == KNOWN && !before(flow->backend.response, start + s->length))
		return true; /* what a body is mostly made of */
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 16 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u32 at = flow->backend.response - start;

		if (flow->backend.framing == UNKNOWN)
			return true;
		if (before(flow->backend.response, start)) { /* this packet has overtaken another one */
			if (flow->backend.framing == CHUNKED || may_be_chunked(flow))
				return false;
			flow->backend.skipped = 1;
			return true;
		}
		if (at >= s->length)
			return true;
		if (flow->backend.framing == KNOWN) {
			if (is_waited_for(flow))
				next_request(s, flow);
			else
				flow->backend.framing = UNKNOWN; /* bytes that nobody asked for */
		} else if (flow->backend.framing == WAITING) {
			frame_response(skb, TC, s, flow, at);
		} else {
			walk_chunks(skb, s, flow, start);
		}
	}
	flow->backend.framing = UNKNOWN;
	return true;
}

#endif /* RAUTA_RESPONSE_H */
