/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the maps hold. Addresses and ports are in network byte order, sequence numbers and time stamps in the host's.
 *
 * What the plan says (listeners to backends) is there for two generations side by side: keys and positions carry the
 * parity of the generation's number, and `config.generation` says which one holds. One store switches.
 */
#ifndef RAUTA_MAPS_H
#define RAUTA_MAPS_H

#include "base.h"

#define METHODS 7 /* GET HEAD POST PUT DELETE PATCH OPTIONS: the columns of a row of verdicts */
#define PATH_MAX_LEN 248
#define SHORT_PATH 60
#define HOST_MAX_LEN 128
#define SHORT_HOST 28
#define MAX_SHARES 16
#define MAX_BACKENDS 32
#define MAGLEV_SLOTS 4099

/* --- the plan ----------------------------------------------------------------------------------------------------- */

struct config {
	u32 generation; /* goes on with each change; never 0 once there is a plan */
	u16 nat_first, nat_count; /* ports towards backends: [first, first + count) */
};

struct listener_key {
	u32 address;
	u16 port;
	u16 parity;
};
struct listener {
	u32 number; /* with the parity: the first part of a host's key */
	u32 other;  /* who owns the hosts that no entry claims; 0: nobody */
	u32 id;     /* as a route's */
	u16 mss;    /* what clients are offered, and the most that backends are */
	u16 claims; /* which maps have entries below it */
};
#define CLAIMS_HOSTS 1
#define CLAIMS_SUFFIXES 2

/* A host's name, and its end reversed for wildcards, below a listener. Most names are short, and a hash of few bytes costs
 * less: those have a map of their own. The same holds for paths. */
struct host_key {
	u32 listener;
	char name[HOST_MAX_LEN];
};
struct short_host_key {
	u32 listener;
	char name[SHORT_HOST];
};
struct suffix_key {
	u32 bits; /* of the trie's prefix */
	u32 listener;
	char reversed[HOST_MAX_LEN];
};
struct suffix_owner {
	u32 one_label, deeper; /* who owns hosts with one label in front of it, and with more */
	u32 length;            /* of the suffix with its dot */
};

struct path_key {
	u32 owner;
	char path[PATH_MAX_LEN];
};
struct short_path_key {
	u32 owner;
	char path[SHORT_PATH];
};
struct prefix_key {
	u32 bits;
	u32 owner; /* from here on also a key for a whole path */
	char path[PATH_MAX_LEN];
};
struct row {
	u16 route[METHODS + 1]; /* 0: tier 3 */
};

struct share {
	u32 cumulative;
	u32 service;
};
struct route {
	u32 id; /* the same for a route of that name in all generations: counters go by it */
	u32 shares;
	u32 by_address;
	u32 total;
	struct share share[MAX_SHARES];
};

struct backend {
	u32 address;
	u16 port;
	u16 pad;
};
struct service {
	u32 id; /* as a route's */
	u32 maglev;
	u32 by_address;
	u32 usable; /* a bit for each backend; 0: tier 3 says so to its clients */
	u32 proxied; /* backends are told the client's address: see proxied.h */
	struct backend backend[MAX_BACKENDS];
};
struct maglev {
	u8 slot[MAGLEV_SLOTS];
	u8 pad;
};

BPF_ARRAY(configs, struct config, 1);
BPF_HASH(listeners, struct listener_key, struct listener, 256);
/* Those that a file may need few or many of take memory as they are filled. */
BPF_F_TABLE("hash", struct host_key, u32, hosts, HOSTS, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct short_host_key, u32, short_hosts, HOSTS, BPF_F_NO_PREALLOC);
BPF_LPM_TRIE(suffixes, struct suffix_key, struct suffix_owner, HOSTS);
BPF_F_TABLE("hash", struct path_key, struct row, paths, PATHS, BPF_F_NO_PREALLOC);
BPF_F_TABLE("hash", struct short_path_key, struct row, short_paths, PATHS, BPF_F_NO_PREALLOC);
BPF_LPM_TRIE(prefixes, struct prefix_key, struct row, PATHS);
BPF_ARRAY(routes, struct route, ROUTES);
BPF_ARRAY(services, struct service, SERVICES);
BPF_ARRAY(maglevs, struct maglev, TABLES);

/* --- flows -------------------------------------------------------------------------------------------------------- */

struct tuple {
	u32 saddr, daddr;
	u16 sport, dport;
};

enum state {
	EST = 1, /* the client has proven the handshake; no request yet */
	BINDING, /* a backend and a port are chosen, a SYN is on its way, the request is stashed */
	BOUND,   /* packets are translated */
	LOCAL,   /* given to tier 3; its socket does not exist yet */
	MOVING,  /* from one backend to another, for as long as a program runs: see move.h */
};

/* Of the response that is under way: see response.h. */
enum framing { WAITING = 0, KNOWN, CHUNKED, UNKNOWN };

/* What has become of the two ends: bits of `ends`. */
#define CLIENT_ENDED 1 /* its FIN has been passed on */
#define BACKEND_ENDED 2
#define CLIENT_DONE 4 /* its FIN has been acknowledged */
#define BACKEND_DONE 8

struct request { /* what is counted of it when its response comes */
	u32 route;          /* its id */
	u32 packets, bytes; /* of the client, before it; modulo 2^32 */
	u8 method;          /* its column */
	u8 tier;            /* and where the kernel read it: TIER | hook << 4 */
	u16 pad;
};
#define ASKED 8 /* requests that are known of a flow: one that is being answered, or has been, and those behind it */

/* A flow's two directions are at work on two CPUs at the same time. So each part of it has one writer: packets of the
 * client, packets of the backend, or who stores the flow. Only `state` and `ends` are written by both, atomically. */
struct asking { /* by packets of the client */
	u64 bytes;
	u64 waiting_since;      /* ns; a request has been waiting for its turn; or 0 */
	u32 packets;
	u32 next;               /* the end of what it has sent */
	u32 head, head_end;     /* of the last head that was judged */
	u32 next_head;          /* where the next head may start */
	u32 asked;              /* requests that have been passed on; the next one's place in `request` */
	struct request request[ASKED];
};
struct answering { /* by packets of the backend */
	u64 bytes, counted_bytes; /* both sides' that are in `requests` already */
	u32 packets, counted_packets;
	u32 next;               /* the end of what it has sent, as the client counts */
	u32 acked, limit;       /* what it has acknowledged of the client's, and the end of its window */
	u32 response;           /* how far the response is known, as the client counts: see response.h */
	u32 chunk;              /* CHUNKED: the size that is being read */
	u32 turn;               /* the request that is being answered, or was last */
	u16 code;               /* the status of the last response */
	u8 framing;
	u8 phase;               /* CHUNKED: see response.h */
	u8 skipped;             /* bytes behind `response` have been passed on before it was known */
	u8 fresh;               /* the connection was parked, and its backend has not spoken since */
	u8 pad[2];
};

#define PROXY_BYTES 28
#define PARKED_MOST 4 /* connections that wait while the flow is somewhere else */

struct flow {
	struct tuple nat;       /* the backend's packets: from the backend, to rauta's address and port */
	u32 listener, service;  /* their ids */
	u32 first_seq;          /* the client's first byte: tells a late duplicate from a new connection */
	u64 state, ends;
	u64 since;              /* ns; BINDING: the first SYN went out */
	u32 delta;              /* the backend's sequence numbers less those that the client sees */
	u32 client_delta;       /* the client's, as the backend sees them, less its own */
	u32 ts_delta;           /* the same of time stamps */
	u32 server_seq;         /* the next that the client expects, when the backend was chosen */
	u32 head_seq;           /* where the request's head starts that is being bound or handed over */
	u32 stashed;            /* bytes; BINDING */
	u32 slot, stamp;        /* of the stash */
	u32 client_tsval, our_tsval;
	u32 client_ifindex, backend_ifindex;
	u16 mss, window;        /* the client's, from its last packet before the backend was chosen */
	u8 timestamps, sack;
	u8 client_wscale, backend_wscale; /* NO_WSCALE: none */
	u8 retries;             /* challenges of the backend that were answered */
	u8 proxied;             /* the backend is told the client's address */
	u8 header_due;          /* ... and may not have been yet */
	u8 pad;
	u32 second, binds;      /* backends that were chosen in this second, 2^30 ns */
	u32 parked[PARKED_MOST]; /* services whose connections may be in the map `parked`; 0: none */
	u32 generation;         /* of the plan that had ... */
	struct listener seen;   /* ... this for the flow's listener */
	struct asking client;
	struct answering backend;
	u8 client_macs[12], backend_macs[12];
};
#define NO_WSCALE 255
#define OUR_WSCALE 7

BPF_TABLE("lru_hash", struct tuple, struct flow, flows, FLOWS);
BPF_TABLE("lru_hash", struct tuple, struct tuple, nats, FLOWS + FLOWS / 4 + 16); /* also of what is parked */

/* A connection to a backend that the client has left for another service. All is acknowledged on both sides. Numbers are
 * the backend's own. */
struct parked_key {
	struct tuple client;
	u32 service;
};
struct parked {
	struct tuple nat;
	u32 client_at, backend_at; /* the next number of each side */
	u32 limit;                 /* the end of the backend's window */
	u32 ts_delta, ifindex;
	u32 first_seq;             /* of its flow: tells it from a later one of the same addresses and ports */
	u8 macs[12];
	u16 window;                /* the client's, as the backend was told last */
	u8 wscale, timestamps, proxied, pad[3];
};
BPF_TABLE("lru_hash", struct parked_key, struct parked, parked, FLOWS / 8 + 8);

/* Client's tuple -> its last connection, which is over, or tier 3's. A late duplicate of its first segment still has a
 * valid cookie, and must not be a request once more. The same is true of any segment that is as far from the client's
 * first number as its acknowledgement is from ours, since a cookie adds the client's number to what it hashes. */
struct past {
	u64 when;        /* ns */
	u32 first, span; /* the client's first byte, and how many followed */
	u32 syn, pad;    /* the number of the last SYN since */
};
#define SPAN_LOCAL (1U << 20) /* when nobody knows how many */
#define SPAN_MOST (1U << 24)  /* first numbers go on by as much in a second (RFC 6528): that may be a new connection */
#define PAST_FOR (240000 * MS) /* twice as long as a cookie is valid */
BPF_TABLE("lru_hash", struct tuple, struct past, closed, FLOWS / 2 + 8);

/* Services, by id, that have been seen to answer in chunks. */
BPF_TABLE("lru_hash", u32, u32, chunking, SERVICES);

/* What was served. Ids, not numbers, so that counters go on over generations. Written by programs, read by rauta. */
struct request_key {
	u32 listener, route, service;
	u16 code;
	u8 method, tier; /* as a request's */
};
struct traffic {
	u64 requests, packets, bytes;
};
BPF_TABLE("lru_percpu_hash", struct request_key, struct traffic, requests, REQUESTS);

/* The stash is a ring of slots per CPU: nothing is freed, nothing leaks; a slot that has been taken over meanwhile has
 * another stamp. One that was sent is taken again at once, since it is still in the cache. */
#define SUM_STEP 512 /* bytes at a time: bpf_csum_diff takes no more before kernel 6.13 */
#define STASH_BYTES 16384
struct stash {
	u64 stamp; /* 0: nobody's */
	u8 bytes[2 * STASH_BYTES + SUM_STEP]; /* the verifier sees any masked position and any masked size */
};
BPF_ARRAY(stashes, struct stash, SLOTS *CPUS);

/* Programs at TC that others call. */
enum program { ON_SYN = 1, ON_REQUEST, ON_ANSWER, ON_LOCAL, ON_MOVE, ON_LEAVE, ON_PARKED, ON_ICMP, ON_PROXIED };
BPF_PROG_ARRAY(programs, 16);

/* --- at work ------------------------------------------------------------------------------------------------------ */

#define HEAD_BYTES 2048

struct headers { /* as they are stored into a packet, from the Ethernet header on */
	u8 pad[2];
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
	u32 options[10];
};

struct scratch { /* of the packet at work; programs that are tail-called find it there */
	struct headers out;
	struct flow flow; /* one that is being made */
	struct parked parked;
	struct tuple key;
	u32 seq, ack, length, offset, header; /* of payload: its length, where it starts; of TCP: the header's length */
	u32 window, flags, check, tsval, tsecr, timestamps;
	u32 mss, wscale, sack; /* options of a SYN */
	/* a head, parsed */
	u32 cursor, end, method, hosts, lengths, body, path_length, host_length, first_dot, row, lines_at;
	u64 lines; /* of the 64 bytes in front of lines_at: see words.h */
	u32 route, service, tier, piece, partial, slot, stamp;
	u32 window_at, window_size; /* of s->head: the part of the payload that is there */
	u32 wire;   /* payload of each segment on the wire, of a super-packet; else 0 */
	u32 reason; /* why it is tier 3's: an event */
	u32 zero, summed;
	u64 sum;
	struct request_key counted;
	struct listener listener; /* that the packet is for */
	u32 number, judged;       /* the request's route, once it has been decided; whether it has */
	u8 options[64];
	struct prefix_key prefix;
	u64 behind_path, before_host; /* words that are taken whole reach there */
	struct host_key host;
	struct suffix_key suffix;
	u64 behind_suffix;
	u8 head[HEAD_BYTES + SUM_STEP];
};
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
struct fib_result { /* where routes have led to of late: see route_to */
	u64 when; /* ns */
	u32 daddr, saddr, ifindex;
	u32 came_by; /* rules may tell interfaces apart */
};
#define FIB_CACHE 64 /* results */
#define FIB_CACHE_FOR (10 * MS)
BPF_PERCPU_ARRAY(fib_cache, struct fib_result, FIB_CACHE);
BPF_PERCPU_ARRAY(turns, u32, 3); /* whose turn it is */
enum turn { TURN_PORT, TURN_SLOT, TURN_STAMP };
BPF_PERCPU_ARRAY(events, u64, EVENTS);

INLINE void count(u32 event)
{
	u64 *cell = events.lookup(&event);
	if (cell)
		(*cell)++;
}

INLINE struct scratch *the_scratch(void)
{
	u32 zero = 0;
	return scratches.lookup(&zero);
}

INLINE struct config *the_config(void)
{
	u32 zero = 0;
	return configs.lookup(&zero);
}

#endif /* RAUTA_MAPS_H */
