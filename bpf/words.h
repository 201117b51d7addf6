/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Text eight bytes at a time, as it lies in s->head: what a packet costs is mostly reading it. Marks are words with 0x80 in
 * every byte that has a property. Sums of seven bits never carry from byte to byte, so each is exact.
 *
 * Lines are found by their control characters, of which a line of HTTP has only those of its end, and tabs: a bit for
 * each, 64 bytes at a time (after Langdale and Lemire, "Parsing gigabytes of JSON per second", VLDB 2019).
 *
 * Behind what was loaded is what earlier packets have left. Who reads there must end beyond it, and see that.
 */
#ifndef RAUTA_WORDS_H
#define RAUTA_WORDS_H

#include "maps.h"

#define EACH(byte) (0x0101010101010101ULL * (u8)(byte))
#define HIGH EACH(0x80)
#define LOW7 EACH(0x7f)

#define WORD(a, b, c, d, e, f, g, h)                                                                                   \
	((u64)(u8)(a) | (u64)(u8)(b) << 8 | (u64)(u8)(c) << 16 | (u64)(u8)(d) << 24 | (u64)(u8)(e) << 32 |             \
	 (u64)(u8)(f) << 40 | (u64)(u8)(g) << 48 | (u64)(u8)(h) << 56)
#define FIRST(n) ((1ULL << (8 * (n))) - 1)

INLINE u64 word_at(struct scratch *s, u64 at)
{
	return *(u64 *)(s->head + (opaque(at) & (HEAD_BYTES - 1)));
}

INLINE u8 byte_at(struct scratch *s, u64 at)
{
	return s->head[opaque(at) & (HEAD_BYTES - 1)];
}

/* The high bit of every byte whose low seven bits are not `c`; `low` has only those. */
INLINE u64 differs(u64 low, u8 c)
{
	return (low ^ EACH(c)) + LOW7;
}

/* Marks of the bytes that are `c` (of ASCII). */
INLINE u64 equals(u64 x, u8 c)
{
	return ~(differs(x & LOW7, c) | x) & HIGH;
}

/* Marks of what is from `first` to `last`, of ASCII. */
INLINE u64 between(u64 x, u8 first, u8 last)
{
	u64 low = x & LOW7;

	return (low + EACH(0x80 - first)) & ~(low + EACH(0x7f - last)) & ~x & HIGH;
}

/* Marks of letters, digits and hyphens. */
INLINE u64 name_bytes(u64 x)
{
	return between(x | EACH(0x20), 'a', 'z') | between(x, '0', '9') | equals(x, '-');
}

/* The index of the first mark; there is one. */
INLINE u32 first_marked(u64 marks)
{
	u64 lowest = marks & -marks;

	return (u32)(((((lowest >> 7) - 1) & EACH(1)) * EACH(1)) >> 56);
}

/* What is in front of the first mark, as whole bytes; all, if there is none. */
INLINE u64 bytes_before(u64 marks)
{
	return ((marks & -marks) >> 7) - 1;
}

/* The marks as eight bits, the first byte's the lowest. */
INLINE u64 as_bits(u64 marks)
{
	return (marks * 0x0002040810204081ULL) >> 56;
}

/* The index of the lowest bit; there is one. */
INLINE u32 first_bit(u64 bits)
{
	u64 below = (bits & -bits) - 1;

	below -= (below >> 1) & 0x5555555555555555ULL;
	below = (below & 0x3333333333333333ULL) + ((below >> 2) & 0x3333333333333333ULL);
	return (u32)((((below + (below >> 4)) & EACH(0x0f)) * EACH(1)) >> 56);
}

/* A bit for every control character: below 0x20, or DEL. */
INLINE u64 controls_in(u64 x)
{
	u64 low = x & LOW7;

	return as_bits(((low + EACH(1)) | ~(low + EACH(0x60))) & ~x & HIGH);
}

/* The same of 64 bytes. */
INLINE u64 controls_at(struct scratch *s, u64 at)
{
	u64 *word = (u64 *)(s->head + (opaque(at) & (HEAD_BYTES - 64))), bits = 0;

#pragma clang loop unroll(disable) /* unrolled, it is slower: too many lines of the instruction cache */
	for (int n = 0; n < 8; n++)
		bits = bits >> 8 | controls_in(word[n]) << 56;
	return bits;
}

/* Lines are read from the cursor on. */
INLINE void start_lines(struct scratch *s)
{
	s->lines_at = s->cursor & ~63;
	s->lines = 0;
}

/* The cursor goes from its line to the next one. False: the line's end has not come, or there is a control character
 * in it. */
INLINE bool next_line(struct scratch *s, u64 loaded)
{
#pragma clang loop unroll(disable)
	for (u32 n = FROM_ZERO(s); n < HEAD_BYTES && may_go_on; n++) {
		LOOP_STATE_IN_MAP;
		u64 bits = s->lines, at = s->lines_at, end;

		if (!bits) {
			if (at >= loaded)
				return false;
			s->lines = controls_at(s, at);
			s->lines_at = at + 64;
			continue;
		}
		end = at - 64 + first_bit(bits);
		s->lines = bits & (bits - 1);
		if (end < s->cursor || byte_at(s, end) == '\t')
			continue;
		s->lines &= ~(2ULL << (end & 63)); /* the LF */
		s->cursor = end + 2;
		return (word_at(s, end) & FIRST(2)) == WORD('\r', '\n', 0, 0, 0, 0, 0, 0) && end + 2 <= loaded;
	}
	return false;
}

/* Eight digits, as numbers from 0 to 9, the first byte's the highest. */
INLINE u64 number_of(u64 digits)
{
	digits = digits * 10 + (digits >> 8);
	return (u32)(((digits & 0x000000ff000000ffULL) * 0x000f424000000064ULL +
		      ((digits >> 16) & 0x000000ff000000ffULL) * 0x0000271000000001ULL) >>
		     32);
}

/* A number of one to eight digits at `at`, with CR behind it and no zero in front; negative: there is none. */
INLINE s64 short_number(struct scratch *s, u64 at)
{
	u64 x = word_at(s, at), others = ~between(x, '0', '9') & HIGH;
	u32 size = others ? first_marked(others) : 8;

	if (!size || byte_at(s, at + size) != '\r' || (size > 1 && (u8)x == '0'))
		return -1;
	return number_of(((x ^ EACH('0')) & bytes_before(others)) << (64 - 8 * size));
}

#endif /* RAUTA_WORDS_H */
