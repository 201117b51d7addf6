/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The head of an HTTP/1.1 request, strictly: what passes here passes tier 3's grammar (rauta/proxy/http1/grammar.py)
 * with the same meaning. Whatever is not certain is left to tier 3, so a refusal here is no error.
 *
 * The target and the host are read byte by byte with the table config.class (lookup.py has the same sets); all other
 * bytes eight at a time: in a line that is allowed, the first control character but tab is the CR of its end.
 */
#ifndef RAUTA_HEAD_H
#define RAUTA_HEAD_H

#include "maps.h"

#define CLASS_PATH 1  /* lookup.is_plain: may stand in a path */
#define CLASS_QUERY 2 /* may stand in a query as it is */
#define CLASS_HOST 4  /* lookup.plain_host */

/* --- eight bytes at a time ---------------------------------------------------------------------------------------- */

#define EACH(byte) (0x0101010101010101ULL * (u8)(byte))
#define HIGH EACH(0x80)
#define LOW7 EACH(0x7f)

/* 0x80 in every byte that is 0; exact, no borrow goes from byte to byte. */
INLINE u64 zero_bytes(u64 x)
{
	return ~(((x & LOW7) + LOW7) | x | LOW7);
}

/* 0x80 in every byte that is a control character (below 0x20, or DEL) other than tab. */
INLINE u64 control_bytes(u64 x)
{
	u64 below = ~(((x & LOW7) + EACH(0x60)) | x) & HIGH;

	return (below | zero_bytes(x ^ EACH(0x7f))) & ~zero_bytes(x ^ EACH('\t'));
}

/* 0x80 in every byte that is a letter, a digit or a hyphen. */
INLINE u64 name_bytes(u64 x)
{
	u64 lower = (x | EACH(0x20)) & LOW7, low = x & LOW7;
	u64 letter = (lower + EACH(0x80 - 'a')) & ~(lower + EACH(0x7f - 'z'));
	u64 digit = (low + EACH(0x80 - '0')) & ~(low + EACH(0x7f - '9'));

	return ((letter | digit) & ~x & HIGH) | zero_bytes(x ^ EACH('-'));
}

/* The index of the first marked byte; `marks` is not 0. */
INLINE u32 first_marked(u64 marks)
{
	u64 lowest = marks & -marks;

	return (u32)(((((lowest >> 7) - 1) & EACH(1)) * EACH(1)) >> 56);
}

INLINE u64 word_at(struct scratch *s, u64 at)
{
	return *(u64 *)(s->head + (opaque(at) & (HEAD_BYTES - 1)));
}

INLINE u8 byte_at(struct scratch *s, u64 at)
{
	return s->head[opaque(at) & (HEAD_BYTES - 1)];
}

/* --- the request line --------------------------------------------------------------------------------------------- */

#define WORD(a, b, c, d, e, f, g, h)                                                                                   \
	((u64)(u8)(a) | (u64)(u8)(b) << 8 | (u64)(u8)(c) << 16 | (u64)(u8)(d) << 24 | (u64)(u8)(e) << 32 |             \
	 (u64)(u8)(f) << 40 | (u64)(u8)(g) << 48 | (u64)(u8)(h) << 56)
#define FIRST(n) ((1ULL << (8 * (n))) - 1)

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

/* The path, checked (lookup.is_plain), into s->path; the cursor ends at the space or question mark behind it. */
INLINE bool read_path(struct scratch *s, struct config *config, u64 loaded)
{
	__builtin_memset(&s->path, 0, sizeof(s->path));
	s->path_length = 0;
	s->dots = 1000; /* no segment yet */
	s->last = 0;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < PATH_MAX_LEN + 1 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor, out = s->path_length;
		u8 c;

		if (at >= loaded)
			return false;
		c = byte_at(s, at);
		if (c == '/' || c == ' ' || c == '?') {
			if (s->dots == 1 || s->dots == 2) /* "." or ".." */
				return false;
			if (c != '/')
				break;
			if (s->last == '/')
				return false;
			s->dots = 0;
		} else if (!(config->class[c] & CLASS_PATH)) {
			return false;
		} else {
			s->dots = c == '.' && s->dots < 1000 ? s->dots + 1 : 1000;
		}
		if (out >= PATH_MAX_LEN)
			return false;
		s->path.path[opaque(out) & 255] = c;
		s->last = c;
		s->path_length = out + 1;
		s->cursor = at + 1;
	}
	return s->path_length && s->path.path[0] == '/' && s->path_length < PATH_MAX_LEN;
}

/* A query, if there is one: the cursor ends at the space behind it. */
INLINE bool read_query(struct scratch *s, struct config *config, u64 loaded)
{
	if (byte_at(s, s->cursor) == ' ')
		return true;
	s->cursor++;
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HEAD_BYTES && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor;
		u8 c;

		if (at >= loaded)
			return false;
		c = byte_at(s, at);
		if (c == ' ')
			return true;
		if (!(config->class[c] & CLASS_QUERY))
			return false;
		s->cursor = at + 1;
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
	       w == WORD('x', '-', 'r', 'e', 'a', 'l', '-', 'i') || w == WORD('m', 'a', 'x', '-', 'f', 'o', 'r', 'w');
}

/* The host's name (lookup.plain_host) into s->host and, reversed, into s->suffix. `at` is behind the colon. */
INLINE bool read_host(struct scratch *s, struct config *config, u64 at)
{
	u64 length;

	__builtin_memset(s->host.name, 0, sizeof(s->host.name));
	s->host_length = 0;
	s->last = '.';
	s->end = at; /* a cursor of its own */
#pragma clang loop unroll(disable)
	for (u32 round = FROM_ZERO(s); round < HOST_MAX_LEN + 16 && may_go_on; round++) {
		LOOP_STATE_IN_MAP;
		u64 here = s->end, out = s->host_length;
		u8 c = byte_at(s, here);

		if (!out && (c == ' ' || c == '\t')) {
			s->end = here + 1;
			continue;
		}
		if (c == '\r' || c == ':' || c == ' ' || c == '\t')
			break;
		if (!(config->class[c] & CLASS_HOST) || out >= HOST_MAX_LEN)
			return false;
		if (c >= 'A' && c <= 'Z')
			c += 'a' - 'A';
		if ((c == '.' || s->last == '.') && (c == s->last || c == '-' || s->last == '-'))
			return false; /* an empty label, or one with a hyphen at an end */
		s->host.name[opaque(out) & (HOST_MAX_LEN - 1)] = c;
		s->last = c;
		s->host_length = out + 1;
		s->end = here + 1;
	}
	if (s->last == '-')
		return false;
	length = s->host_length;
	if (s->last == '.') { /* of the root; or there is no name at all */
		if (length < 2)
			return false;
		length--;
		s->host.name[opaque(length) & (HOST_MAX_LEN - 1)] = 0;
		s->host_length = length;
	}
	/* The port is of no meaning here but must be one. White space behind it nobody sends. */
	s->piece = 0;
	s->dots = 0;
#pragma clang loop unroll(disable)
	for (u32 round = FROM_ZERO(s); round < 8 && may_go_on; round++) {
		LOOP_STATE_IN_MAP;
		u8 c = byte_at(s, s->end);

		if (c == '\r')
			break;
		if (c == ':' && !s->piece)
			s->piece = 1;
		else if (c >= '0' && c <= '9' && s->piece >= 1 && s->piece < 6)
			s->dots = s->dots * 10 + (c - '0'), s->piece++;
		else
			return false;
		s->end++;
	}
	return byte_at(s, s->end) == '\r' && (s->piece < 2 || (s->dots && s->dots < 65536));
}

INLINE bool read_length(struct scratch *s, u64 at)
{
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
			s->body = s->body * 10 + (c - '0');
			s->piece++;
			if (s->body >= 1 << 30)
				return false;
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

/* One line's name; false: not certain. The cursor ends behind the colon. */
INLINE bool read_name(struct scratch *s, struct config *config)
{
	u64 start = s->cursor, w = word_at(s, start) | EACH(0x20), colon, x;
	u32 n;

	x = word_at(s, start);
	colon = zero_bytes(x ^ EACH(':'));
	if (colon & 0x80)
		return false; /* no name */
#pragma clang loop unroll(disable)
	for (n = FROM_ZERO(s); n < 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor, below;

		x = word_at(s, at);
		colon = zero_bytes(x ^ EACH(':'));
		below = colon ? (colon & -colon) - 1 : ~0ULL;
		if (~name_bytes(x) & HIGH & below)
			return false;
		if (colon) {
			s->cursor = at + first_marked(colon) + 1;
			break;
		}
		s->cursor = at + 8;
	}
	if (byte_at(s, s->cursor - 1) != ':' || is_forbidden(w))
		return false;
	if ((w & FIRST(5)) == WORD('h', 'o', 's', 't', ':', 0, 0, 0)) {
		if (s->hosts)
			return false;
		s->hosts = 1;
		return read_host(s, config, s->cursor);
	}
	if (w == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		u64 rest = word_at(s, start + 8) | EACH(0x20);

		if ((rest & FIRST(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)) {
			if (s->lengths || s->method < 2)
				return false;
			s->lengths = 1;
			return read_length(s, s->cursor);
		}
	}
	if (w == WORD('c', 'o', 'n', 'n', 'e', 'c', 't', 'i') &&
	    ((word_at(s, start + 8) | EACH(0x20)) & FIRST(3)) == WORD('o', 'n', ':', 0, 0, 0, 0, 0))
		return is_known_connection(s, s->cursor);
	return true;
}

/* To the end of the line; false: it has not come, or the line is not plain. */
INLINE bool read_value(struct scratch *s, u64 loaded)
{
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HEAD_BYTES / 8 && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 at = s->cursor, marks;

		if (at >= loaded)
			return false;
		marks = control_bytes(word_at(s, at));
		if (!marks) {
			s->cursor = at + 8;
			continue;
		}
		at += first_marked(marks);
		if ((word_at(s, at) & FIRST(2)) != WORD('\r', '\n', 0, 0, 0, 0, 0, 0))
			return false;
		s->cursor = at + 2;
		return s->cursor < loaded;
	}
	return false;
}

enum parsed { PLAIN = 0, NOT_COMPLETE_OR_ODD, ODD_METHOD, ODD_PATH, ODD_HOST };

/* The head at the start of the payload. 0: understood; s->end is its length, s->body the declared body's, s->method,
 * s->path, s->host what routes go by. */
INLINE u32 parse_head(void *ctx, enum hook hook, struct scratch *s, struct config *config)
{
	u64 loaded = opaque(s->length > HEAD_BYTES ? HEAD_BYTES : s->length);
	u32 lines;

	if (loaded < 16 || loaded > HEAD_BYTES)
		return NOT_COMPLETE_OR_ODD;
	if (load_bytes(ctx, hook, s->offset, s->head, loaded) < 0)
		return NOT_COMPLETE_OR_ODD;
	s->hosts = s->lengths = s->body = s->host_length = 0;
	if (!read_method(s))
		return ODD_METHOD;
	if (!read_path(s, config, loaded) || !read_query(s, config, loaded))
		return ODD_PATH;
	if (!read_version(s))
		return NOT_COMPLETE_OR_ODD;
#pragma clang loop unroll(disable)
	for (lines = FROM_ZERO(s); lines < 100 && may_go_on; lines++) {
		LOOP_STATE_IN_MAP;
		if (s->cursor + 2 > loaded)
			return NOT_COMPLETE_OR_ODD;
		if ((word_at(s, s->cursor) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0)) {
			s->cursor += 2;
			s->row = 1; /* the end */
			break;
		}
		s->row = 0;
		if (!read_name(s, config) || !read_value(s, loaded))
			return NOT_COMPLETE_OR_ODD;
	}
	if (!s->row)
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
