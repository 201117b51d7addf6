/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The client's hash: the twin of rauta/routing/hashing.py, bit for bit, so that every tier picks the same backend.
 *
 * mix() is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Only 64-bit xor, shift, or and multiply:
 * no loop, no branch on data but the family, nothing that a verifier has to prove. Compiles as BPF and in userspace.
 *
 * Addresses are numbers in host byte order: 192.0.2.1 is 0xc0000201 (bpf_ntohl of the header's field). IPv6 is two
 * words, the high one first. An IPv4-mapped IPv6 address (::ffff:a.b.c.d) counts as IPv4: the caller unwraps it.
 */
#ifndef RAUTA_HASH_H
#define RAUTA_HASH_H

#include <linux/types.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* Independent: the choice of a weighted service must not correlate with the choice of backend. */
#define RAUTA_BACKEND_SEED 0x9E3779B97F4A7C15ULL
#define RAUTA_SERVICE_SEED 0xD1B54A32D192ED03ULL

/* 64 bits in, 64 well-mixed bits out; a bijection. */
static __always_inline __u64 rauta_mix(__u64 value)
{
	value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
	value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
	return value ^ (value >> 31);
}

/* Hash of an IPv4 client; port 0 gives affinity by address alone. */
static __always_inline __u64 rauta_hash_v4(__u32 address, __u16 port, __u64 seed)
{
	return rauta_mix((((__u64)address << 16) | port) ^ seed);
}

/* Hash of an IPv6 client; port 0 gives affinity by address alone. */
static __always_inline __u64 rauta_hash_v6(__u64 high, __u64 low, __u16 port, __u64 seed)
{
	/* ::/64 (loopback, translated IPv4) has nothing in its high word: it is hashed as one number, like IPv4. */
	if (!high)
		return rauta_mix(((low << 16) | port) ^ seed);
	return rauta_mix(rauta_mix(rauta_mix(high ^ seed) ^ low) ^ port);
}

#endif /* RAUTA_HASH_H */
