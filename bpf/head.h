/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The head of an HTTP/1.1 request, strictly: what passes here passes tier 3's grammar (rauta/proxy/http1/grammar.py)
 * with the same meaning. Whatever is not certain is left to tier 3, so a refusal here is no error.
 *
 * Which bytes may stand in a path and a host's name is as in rauta/offload/lookup.py.
 */
#ifndef RAUTA_HEAD_H
#define RAUTA_HEAD_H

#include "words.h"

/* What is zeroed at the start of a path and a host's name: one that ends there is looked up by a short key. */
#define ZEROED_PATH (SHORT_PATH & ~7)
#define ZEROED_HOST (SHORT_HOST & ~7)

/* --- the request line --------------------------------------------------------------------------------------------- */

/* The method's column, and where the target starts; false: not one that is served here. */
INLINE bool read_method(struct scratch *s)
{
	u64 w = *(u64 *)s->head;

	if ((w & FIRST(4)) == WORD('G', 'E', 'T', ' ', 0, 0, 0, 0))
		s->method = 0, s->cursor = 4;
	else if ((w & FIRST(5)) == WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0))
		s->method = 1, s->cursor = 5;
	else if ((w & FIRST(5)) == WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0))
		s->method = 2, s->cursor = 5;
	else if ((w & FIRST(4)) == WORD('P', 'U', 'T', ' ', 0, 0, 0, 0))
		s->method = 3, s->cursor = 4;
	else if ((w & FIRST(7)) == WORD('D', 'E', 'L', 'E', 'T', 'E', ' ', 0))
		s->method = 4, s->cursor = 7;
	else if ((w & FIRST(6)) == WORD('P', 'A', 'T', 'C', 'H', ' ', 0, 0))
		s->method = 5, s->cursor = 6;
	else if (w == WORD('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		s->method = 6, s->cursor = 8;
	else
		return false;
	return true;
}

/* Marks of what stands in no target: not printable, or " # < > \ { }. */
INLINE u64 no_target(u64 x)
{
	u64 low = x & LOW7;
	u64 plain = differs(low & EACH(0xfe), '"') & differs(low & EACH(0xfd), '<') & differs(low, '\\') &
		    differs(low, '{') & differs(low, '}');

	return (~plain | ~(low + EACH(0x80 - '!')) | (low + EACH(1)) | x) & HIGH;
}

/* The path, checked (lookup.is_plain), into s->prefix.path, with zeros behind it; the cursor ends at the space or question
 * mark. */
INLINE bool read_path(struct scratch *s)
{
	u64 after_slash = 0, after_dot = 0, after_dots = 0; /* of the byte before the word */

	if (byte_at(s, s->cursor) != '/')
		return false;
	__builtin_memset(s->prefix.path, 0, ZEROED_PATH + 8);
	s->path_length = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PATH_MAX_LEN / 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 out = s->path_length, x = word_at(s, s->cursor + out);
		u64 slash = equals(x, '/'), dot = equals(x, '.'), end = equals(x, ' ') | equals(x, '?');
		u64 odd, one, two;

		/* A dot behind a slash, and two: a slash or the end behind them make a segment of them. */
		after_slash |= slash << 8;
		one = dot & after_slash;
		after_dot |= one << 8;
		two = dot & after_dot;
		after_dots |= two << 8;
		odd = (slash & after_slash) | ((slash | end) & (after_dot | after_dots));
		if (((no_target(x) | equals(x, '%')) & ((end & -end) - 1)) | (odd & (((end & -end) << 1) - 1)))
			return false;
		if (out == ZEROED_PATH)
			__builtin_memset(s->prefix.path + ZEROED_PATH, 0, sizeof(s->prefix.path) - ZEROED_PATH);
		*(u64 *)(s->prefix.path + (opaque(out) & 0xf8)) = x & bytes_before(end);
		if (end) {
			s->path_length = out + first_marked(end);
			s->cursor += s->path_length;
			return s->path_length < PATH_MAX_LEN;
		}
		s->path_length = out + 8;
		after_slash = slash >> 56;
		after_dot = one >> 56;
		after_dots = two >> 56;
	}
	return false;
}

/* A query, if there is one: the cursor ends at the space behind it. */
INLINE bool read_query(struct scratch *s, u64 loaded)
{
	if (byte_at(s, s->cursor) == ' ')
		return true;
	s->cursor++;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HEAD_BYTES / 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor, x = word_at(s, at), end = equals(x, ' ');

		if (at >= loaded || (no_target(x) & ((end & -end) - 1)))
			return false;
		s->cursor = at + (end ? first_marked(end) : 8);
		if (end)
			return true;
	}
	return false;
}

/* " HTTP/1.1\r\n" */
INLINE bool read_version(struct scratch *s)
{
	u64 at = s->cursor;

	if (word_at(s, at) != WORD(' ', 'H', 'T', 'T', 'P', '/', '1', '.'))
		return false;
	if ((word_at(s, at + 8) & FIRST(3)) != WORD('1', '\r', '\n', 0, 0, 0, 0, 0))
		return false;
	s->cursor = at + 11;
	return true;
}

/* --- fields ------------------------------------------------------------------------------------------------------- */

/* Whether a field's meaning is beyond the kernel: framing, this connection alone, or who the client is. `w` are the
 * first eight bytes of the line in lower case. A prefix too many costs speed, one too few soundness. */
INLINE bool is_forbidden(u64 w)
{
	return w == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') || w == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':') ||
	       (w & FIRST(7)) == WORD('e', 'x', 'p', 'e', 'c', 't', ':', 0) ||
	       (w & FIRST(3)) == WORD('t', 'e', ':', 0, 0, 0, 0, 0) || w == WORD('t', 'r', 'a', 'i', 'l', 'e', 'r', ':') ||
	       w == WORD('k', 'e', 'e', 'p', '-', 'a', 'l', 'i') || w == WORD('h', 't', 't', 'p', '2', '-', 's', 'e') ||
	       (w & FIRST(6)) == WORD('p', 'r', 'o', 'x', 'y', '-', 0, 0) ||
	       w == WORD('f', 'o', 'r', 'w', 'a', 'r', 'd', 'e') || w == WORD('x', '-', 'f', 'o', 'r', 'w', 'a', 'r') ||
	       w == WORD('x', '-', 'r', 'e', 'a', 'l', '-', 'i') || w == WORD('m', 'a', 'x', '-', 'f', 'o', 'r', 'w') ||
	       w == WORD('c', 'l', 'i', 'e', 'n', 't', '-', 'c');
}

/* A port behind a host's colon, of no meaning here; but it must be one, with the line's end behind it. */
INLINE bool is_port(struct scratch *s, u64 at)
{
	u64 x = word_at(s, at), others = ~between(x, '0', '9') & HIGH;
	u64 digits = (x ^ EACH('0')) & bytes_before(others);
	u32 size = others ? first_marked(others) : 8;

	if (size > 5 || byte_at(s, at + size) != '\r')
		return false;
	return !size || (digits && (size < 5 || number_of(digits << 24) < 65536));
}

/* The host's name (lookup.plain_host) into s->host, in lower case, with zeros behind it. `at` is behind the colon. */
INLINE bool read_host(struct scratch *s, u64 at)
{
	u64 after_dot = 0x80, after_hyphen = 0; /* of the byte before the word */

	if (byte_at(s, at) == ' ')
		at++;
	s->end = at; /* a cursor of its own */
	__builtin_memset(s->host.name, 0, ZEROED_HOST + 8);
	s->host_length = s->first_dot = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HOST_MAX_LEN / 8 + 1 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 out = s->host_length, x = word_at(s, s->end + out);
		u64 dot = equals(x, '.'), hyphen = equals(x, '-'), end = equals(x, '\r') | equals(x, ':');
		u64 odd = ~(name_bytes(x) | dot | equals(x, '_')) & HIGH & ((end & -end) - 1);

		after_dot |= dot << 8;
		after_hyphen |= hyphen << 8;
		/* No label is empty, or has a hyphen at an end; the root's dot is looked at below. */
		odd |= ((dot & (after_dot | after_hyphen)) | (hyphen & after_dot) | (end & after_hyphen)) &
		       (((end & -end) << 1) - 1);
		if (odd || (out >= HOST_MAX_LEN && !(end & 0x80)))
			return false;
		x = (x | between(x, 'A', 'Z') >> 2) & bytes_before(end);
		if (out == ZEROED_HOST)
			__builtin_memset(s->host.name + ZEROED_HOST, 0, sizeof(s->host.name) - ZEROED_HOST);
		*(u64 *)(s->host.name + (opaque(out) & 0xf8)) = x;
		if (!s->first_dot && (dot & ((end & -end) - 1)))
			s->first_dot = out + first_marked(dot);
		if (end) {
			out += first_marked(end);
			s->end += out;
			if (end & -end & after_dot)
				out--; /* the root's; or there is no name at all */
			if (!out || out >= HOST_MAX_LEN)
				return false;
			s->host.name[opaque(out) & 255] = 0;
			s->host_length = out;
			return byte_at(s, s->end) == '\r' || is_port(s, s->end + 1);
		}
		s->host_length = out + 8;
		after_dot = dot >> 56;
		after_hyphen = hyphen >> 56;
	}
	return false;
}

INLINE bool read_length(struct scratch *s, u64 at)
{
	s64 number;

	if (byte_at(s, at) == ' ')
		at++;
	number = short_number(s, at);
	if (number >= 0) {
		s->body = number;
		return true;
	}
	s->end = at;
	s->body = 0;
	s->piece = 0; /* digits */
#pragma clang loop unroll(disable)
	for (u32 round = FROM_ZERO(s); round < 24 && may_go_on; round++) {
		LOOP_STATE_IN_MAP;
		u8 c = byte_at(s, s->end);

		if (c == '\r')
			break;
		if (c >= '0' && c <= '9' && s->piece < 10) {
			if (s->body >= (1 << 30) / 10 || (s->piece && !s->body))
				return false; /* too long, and ten digits must not wrap; or a zero in front, which may mean octal */
			s->body = s->body * 10 + (c - '0');
			s->piece++;
		} else if (c != ' ' && c != '\t') {
			return false;
		} else if (s->piece) {
			s->piece = 10; /* white space ends it */
		}
		s->end++;
	}
	return s->piece && byte_at(s, s->end) == '\r';
}

/* "keep-alive" or "close" alone, whatever the case. */
INLINE bool is_known_connection(struct scratch *s, u64 at)
{
	u64 w;

	if (byte_at(s, at) == ' ')
		at++;
	w = word_at(s, at) | EACH(0x20);
	if (w == WORD('k', 'e', 'e', 'p', '-', 'a', 'l', 'i'))
		return (word_at(s, at + 8) & FIRST(4)) == WORD('v', 'e', '\r', '\n', 0, 0, 0, 0);
	return (w & FIRST(5)) == WORD('c', 'l', 'o', 's', 'e', 0, 0, 0) &&
	       (word_at(s, at + 5) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0);
}

/* One line's name, and the value where it has a meaning; false: not certain. */
INLINE bool read_field(struct scratch *s)
{
	u64 start = s->cursor, x = word_at(s, start), w = x | EACH(0x20), value, rest;

	s->end = start;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->end, name = word_at(s, at), colon = equals(name, ':');

		if (~name_bytes(name) & HIGH & ((colon & -colon) - 1))
			return false;
		s->end = at + (colon ? first_marked(colon) + 1 : 8);
		if (colon)
			break;
	}
	value = s->end;
	if (byte_at(s, value - 1) != ':' || value == start + 1 || is_forbidden(w))
		return false;
	if ((w & FIRST(5)) == WORD('h', 'o', 's', 't', ':', 0, 0, 0))
		return !s->hosts++ && read_host(s, value);
	if (w == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		rest = word_at(s, start + 8) | EACH(0x20);
		if ((rest & FIRST(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0))
			return !s->lengths++ && s->method >= 2 && read_length(s, value);
	}
	if (w == WORD('c', 'o', 'n', 'n', 'e', 'c', 't', 'i')) {
		rest = word_at(s, start + 8) | EACH(0x20);
		if ((rest & FIRST(3)) == WORD('o', 'n', ':', 0, 0, 0, 0, 0))
			return is_known_connection(s, value);
	}
	return true;
}

enum parsed { PLAIN = 0, NOT_COMPLETE_OR_ODD, ODD_METHOD, ODD_PATH, ODD_HOST };

/* The lines of fields; false: not certain. The cursor ends behind the empty line. */
INLINE bool read_fields(struct scratch *s, u64 loaded)
{
	start_lines(s);
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < 100 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		if (s->cursor + 2 > loaded)
			return false;
		if ((word_at(s, s->cursor) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0)) {
			s->cursor += 2;
			return true;
		}
		if (!read_field(s) || !next_line(s, loaded))
			return false;
	}
	return false;
}

/* The head at the start of the payload. 0: understood; s->end is its length, s->body the declared body's, s->method,
 * the path in s->prefix, and s->host what routes go by. */
INLINE u32 parse_head(void *ctx, enum hook hook, struct scratch *s)
{
	u64 loaded = opaque(s->length > HEAD_BYTES ? HEAD_BYTES : s->length);

	if (loaded < 16 || loaded > HEAD_BYTES)
		return NOT_COMPLETE_OR_ODD;
	if (load_bytes(ctx, hook, s->offset, s->head, loaded) < 0)
		return NOT_COMPLETE_OR_ODD;
	s->hosts = s->lengths = s->body = s->host_length = 0;
	if (!read_method(s))
		return ODD_METHOD;
	if (!read_path(s) || !read_query(s, loaded))
		return ODD_PATH;
	if (!read_version(s) || !read_fields(s, loaded))
		return NOT_COMPLETE_OR_ODD;
	if (!s->hosts)
		return ODD_HOST;
	s->end = s->cursor;
	/* In one segment on the wire: then the backend gets all of it or nothing, and it is sent again as a whole. */
	if (s->wire && s->end > s->wire)
		return NOT_COMPLETE_OR_ODD;
	if (s->end > loaded || s->length > s->end + s->body)
		return NOT_COMPLETE_OR_ODD; /* a second request behind it, or bytes behind a GET */
	return PLAIN;
}

#endif /* RAUTA_HEAD_H */
