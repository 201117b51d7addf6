/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every file here stands on: types, byte order, helpers that bcc does not declare, and what keeps LLVM and the
 * verifier of one mind.
 *
 * bcc compiles one text: the files are joined in front of it (rauta/offload/bcc/source.py), since it rewrites
 * map.lookup() only there. LLVM 14 and instruction set v1 are what it brings: no calls between BPF functions, no
 * 32-bit compares, atomics of 64 bits alone.
 */
#ifndef RAUTA_BASE_H
#define RAUTA_BASE_H

#include <uapi/linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>

#define INLINE static inline __attribute__((always_inline))

#undef htons
#undef ntohs
#undef htonl
#undef ntohl
#define htons(x) ((u16)__builtin_bswap16(x))
#define ntohs(x) ((u16)__builtin_bswap16(x))
#define htonl(x) ((u32)__builtin_bswap32(x))
#define ntohl(x) ((u32)__builtin_bswap32(x))

#ifndef TC_ACT_OK
#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#endif

#define MS 1000000ULL /* in ns */

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10
#define URG 0x20

/* Helpers by number (include/uapi/linux/bpf.h). */
static long (*const raw_gen_syncookie)(struct iphdr *, struct tcphdr *, u32) = (void *)204;
static long (*const raw_check_syncookie)(struct iphdr *, struct tcphdr *) = (void *)206;
static void *(*const skc_lookup_tcp)(void *, void *, u32, u64, u64) = (void *)99;
static void *(*const skc_to_tcp_sock)(void *) = (void *)137;
static long (*const sk_release)(void *) = (void *)86;
static long (*const redirect_neigh)(u32, void *, int, u64) = (void *)152;
static long (*const xdp_load_bytes)(void *, u32, void *, u32) = (void *)189;
static long (*const xdp_store_bytes)(void *, u32, void *, u32) = (void *)190;
static long (*const xdp_adjust_tail)(void *, int) = (void *)65;
static long (*const csum_update)(void *, u32) = (void *)40;
static u64 (*const coarse_ns)(void) = (void *)160; /* as ktime, by ticks: a tenth of the cost */

/* Not a helper but a kfunc: the loader finds the call by this number and makes it one. */
struct reqsk_attrs {
	u32 rcv_tsval, rcv_tsecr;
	u16 mss;
	u8 rcv_wscale, snd_wscale, ecn_ok, wscale_ok, sack_ok, tstamp_ok, usec_ts_ok, reserved[3];
};
static long (*const sk_assign_tcp_reqsk)(void *, void *, struct reqsk_attrs *, u32) = (void *)0x7f000001;

/* The kernel's own view of the packet (bpf_cast_to_kern_ctx, Linux 6.2): nothing else tells what is in its checksum. The
 * loader knows from BTF where its fields are. */
static void *(*const kernel_skb)(void *) = (void *)0x7f000002;
enum summed { CHECKSUM_NONE = 0, CHECKSUM_UNNECESSARY, CHECKSUM_COMPLETE, CHECKSUM_PARTIAL };
INLINE enum summed summed(void *skb)
{
	u8 *kernel = kernel_skb(skb);

	return *(volatile u8 *)(kernel + IP_SUMMED_AT / 8) >> (IP_SUMMED_AT % 8) & 3;
}

/* The value, but LLVM does not know it any more: it would drop a mask that it can prove to be redundant, and the
 * verifier, which cannot prove that, would reject the access. */
INLINE u64 opaque(u64 value)
{
	asm volatile("" : "+r"(value));
	return value;
}

/* At the top of a loop's body whose cursor is in a map: LLVM keeps it there, the verifier sees an unknown number each
 * time round, and the states of all rounds are one. */
#define LOOP_STATE_IN_MAP asm volatile("" ::: "memory")

/* The may_goto instruction (kernel 6.9), which LLVM 14 does not know: leaves the loop after 8 M rounds, so that the
 * verifier need not count them. The jump's offset is relative to the next instruction. */
#define may_go_on                                                                                                      \
	({                                                                                                             \
		__label__ stop, go;                                                                                    \
		bool on = true;                                                                                        \
		asm volatile goto("1:.byte 0xe5; .byte 0; .long ((%l[stop] - 1b - 8) / 8) & 0xffff; .short 0" ::::stop);\
		goto go;                                                                                               \
	stop:                                                                                                          \
		on = false;                                                                                            \
	go:;                                                                                                           \
		on;                                                                                                    \
	})

/* 0, from a field that nobody writes: a loop that may_go_on must count from what the verifier does not know, or it
 * tells the rounds apart. */
#define FROM_ZERO(s)                                                                                                   \
	({                                                                                                             \
		asm volatile("" ::: "memory");                                                                         \
		(s)->zero;                                                                                             \
	})

/* Where a program runs: constants, so that what is for the other one vanishes when functions are inlined. */
enum hook { TC = 0, XDP = 1 };

INLINE long load_bytes(void *ctx, enum hook hook, u32 offset, void *to, u32 size)
{
	return hook == XDP ? xdp_load_bytes(ctx, offset, to, size) : bpf_skb_load_bytes(ctx, offset, to, size);
}

INLINE bool before(u32 a, u32 b)
{
	return (s32)(a - b) < 0;
}

#endif /* RAUTA_BASE_H */
