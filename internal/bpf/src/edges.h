/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The tables that user space reads: what the containers' TCP connections and listening sockets have come to.
 */
#ifndef EBPF_CONTAINER_EDGES_H
#define EBPF_CONTAINER_EDGES_H

#include "kernel.h"
#include "owner.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum edge_kind {
	EDGE_OUTBOUND = 1,
	EDGE_OUTBOUND_OVERFLOW = 2, // all destinations of one owner that found edges full
	EDGE_INBOUND = 3,
	EDGE_INBOUND_OVERFLOW = 4,
	EDGE_LISTENER = 5, // in listeners
	EDGE_LISTENER_OVERFLOW = 6,
};

// edge_key names an edge or a listener. IPv4 addresses are stored mapped, ::ffff:a.b.c.d.
struct edge_key {
	struct owner owner;
	__u8 addr[16];   // outbound: as dialled; inbound and listener: the local one
	__u8 actual[16]; // outbound: after address translation; zero for the same as addr
	__u32 netns;     // inode number of the network namespace
	__u16 port;      // host byte order
	__u16 actual_port;
	enum edge_kind kind;
	__u32 pad;
};

// enum failure is why a connect failed; edges.go has it again.
enum failure {
	FAILURE_REFUSED,
	FAILURE_TIMEOUT,
	FAILURE_RESET,
	FAILURE_HOST_UNREACHABLE,
	FAILURE_NETWORK_UNREACHABLE,
	FAILURE_ABORTED, // closed or disconnected before there was an answer
	FAILURE_OTHER,
	FAILURE_UNROUTED, // never left CLOSE: refused by routing or by another cgroup program
	FAILURE_MAX,
};

enum {
	RTT_BUCKETS = 14,
};

// edge is what user space reads: totals since the entry was made, and the number of connections now open.
struct edge {
	__u64 connects;   // inbound: accepted by the kernel
	__u64 connect_ns; // sum over connects
	__s64 active;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 retransmits;
	__u64 rtt_us;           // sum over the samples in rtt
	__u64 touched_ns;       // pass_ns when it last changed
	__u64 rtt[RTT_BUCKETS]; // samples by rtt_bounds_us
	__u64 failed[FAILURE_MAX];
	__u64 resets_sent;
	__u64 resets_received;
};

// listener is all sockets that listen on one address for one owner.
struct listener {
	__s64 open; // how many
	__s64 queue;
	__s64 queue_limit;
	__u64 drops;
	__u64 touched_ns; // as in edge
	__u32 tgid; // of the task that called listen() last
	__u32 v6only;
};

enum tcp_stat {
	TCP_STAT_FOLDED,           // connections counted in edges_overflow because edges was full
	TCP_STAT_UNACCOUNTED,      // changes that found both full, lost
	TCP_STAT_UNTRACKED,        // sockets whose storage could not be made, lost
	TCP_STAT_LISTENERS_FOLDED, // listening sockets counted in listeners_overflow because listeners was full
	TCP_STAT_ADOPTED,          // sockets taken in that were there before us
	TCP_STAT_MAX,
};

// edges: inserted here; deleted by user space when it is idle and its last totals were given. When it is full connections
// are counted in edges_overflow and TCP_STAT_FOLDED. Preallocated: no allocation can fail on the way.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768); // resized at load
	__type(key, struct edge_key);
	__type(value, struct edge);
} edges SEC(".maps");

// edges_overflow: one entry for each owner and direction that found edges full; deleted as in edges. When it is full
// changes are counted in TCP_STAT_UNACCOUNTED.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct edge_key);
	__type(value, struct edge);
} edges_overflow SEC(".maps");

// listeners: inserted at listen(); deleted by user space when nobody listens any more. When it is full listening sockets
// are counted in listeners_overflow and TCP_STAT_LISTENERS_FOLDED.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct edge_key);
	__type(value, struct listener);
} listeners SEC(".maps");

// listeners_overflow: as edges_overflow.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct edge_key);
	__type(value, struct listener);
} listeners_overflow SEC(".maps");

// tcp_stats: fixed size, indexed by enum tcp_stat.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TCP_STAT_MAX);
	__type(key, enum tcp_stat);
	__type(value, __u64);
} tcp_stats SEC(".maps");

static const struct edge new_edge = {};
static const struct listener new_listener = {};

// the time of the last pass of user space, which keeps it: tracing programs have no cheap clock
__u64 pass_ns = 0;

// touch says that something has just changed.
static __always_inline void touch(__u64 *touched_ns)
{
	if (*(volatile __u64 *)touched_ns != pass_ns) // most often it is: the line stays shared between CPUs
		*(volatile __u64 *)touched_ns = pass_ns;
}

static __always_inline void count(enum tcp_stat stat)
{
	__u64 *n = bpf_map_lookup_elem(&tcp_stats, &stat);

	if (n)
		*n += 1;
}

static __always_inline void *find_or_insert(void *map, const struct edge_key *key, const void *initial)
{
	void *e = bpf_map_lookup_elem(map, key);

	// Another CPU may insert first: then ours is refused and theirs is found. Up to Linux 6.6 an interrupt at the wrong moment
	// is refused as well, as EBUSY.
	for (int i = 0; !e && i < 3; i++) {
		long err = bpf_map_update_elem(map, key, initial, BPF_NOEXIST);

		e = bpf_map_lookup_elem(map, key);
		if (err != -EBUSY)
			break;
	}
	return e;
}

static __always_inline void become_overflow(struct edge_key *key, enum edge_kind kind)
{
	__builtin_memset(key->addr, 0, sizeof(key->addr));
	__builtin_memset(key->actual, 0, sizeof(key->actual));
	key->netns = 0;
	key->port = 0;
	key->actual_port = 0;
	key->kind = kind;
}

// edge_of finds the edge of a connection. Where it has to be the overflow, the key becomes that and stays it for the life
// of the connection, so that what was added to active is taken from the same edge.
static __always_inline struct edge *edge_of(struct edge_key *key)
{
	struct edge *e;

	if (key->kind == EDGE_OUTBOUND || key->kind == EDGE_INBOUND) {
		e = find_or_insert(&edges, key, &new_edge);
		if (e)
			return e;
		become_overflow(key, key->kind == EDGE_OUTBOUND ? EDGE_OUTBOUND_OVERFLOW : EDGE_INBOUND_OVERFLOW);
		count(TCP_STAT_FOLDED);
	}
	e = find_or_insert(&edges_overflow, key, &new_edge);
	if (!e)
		count(TCP_STAT_UNACCOUNTED);
	return e;
}

// listener_of does the same for a listening socket.
static __always_inline struct listener *listener_of(struct edge_key *key)
{
	struct listener *l;

	if (key->kind == EDGE_LISTENER) {
		l = find_or_insert(&listeners, key, &new_listener);
		if (l)
			return l;
		become_overflow(key, EDGE_LISTENER_OVERFLOW);
		count(TCP_STAT_LISTENERS_FOLDED);
	}
	l = find_or_insert(&listeners_overflow, key, &new_listener);
	if (!l)
		count(TCP_STAT_UNACCOUNTED);
	return l;
}

static __always_inline void map_ipv4(__u8 to[16], __be32 addr)
{
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(&to[12], &addr, sizeof(addr));
}

// remote_addr and local_addr fill what is all zero.
static __always_inline void remote_addr(__u8 to[16], struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET)
		map_ipv4(to, sk->__sk_common.skc_daddr);
	else
		BPF_CORE_READ_INTO((__u8(*)[16])to, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
}

static __always_inline void local_addr(__u8 to[16], struct sock *sk)
{
	if (sk->__sk_common.skc_family == AF_INET)
		map_ipv4(to, sk->__sk_common.skc_rcv_saddr);
	else
		BPF_CORE_READ_INTO((__u8(*)[16])to, sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr8);
}

static __always_inline void name_edge(struct edge_key *key, const struct owner *owner, struct sock *sk, enum edge_kind kind)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->owner = *owner;
	key->kind = kind;
	key->netns = sk->__sk_common.skc_net.net->ns.inum;
	if (kind == EDGE_OUTBOUND) {
		remote_addr(key->addr, sk);
		key->port = bpf_ntohs(sk->__sk_common.skc_dport);
		return;
	}
	local_addr(key->addr, sk);
	key->port = sk->__sk_common.skc_num;
}

#endif
