// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * TCP connections that the host's containers begin, counted in the kernel per (container, destination).
 *
 * Nothing is sent to user space per connection. on_tcp_state notes the owner of a socket in socket-local storage when
 * connect() moves it to SYN_SENT, which is always the calling task, and then adds to the edge at each later change of
 * state. fold_live brings the byte counters of open sockets up to date before user space reads the edges.
 */
#include "kernel.h"
#include "owner.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum edge_kind {
	EDGE_OUTBOUND = 1,
	EDGE_OVERFLOW = 2, // all destinations of one owner that found edges full
};

// edge_key names an edge. IPv4 addresses are stored mapped, ::ffff:a.b.c.d.
struct edge_key {
	struct owner owner;
	__u8 addr[16];
	__u32 netns; // inode number of the network namespace
	__u16 port;  // host byte order
	__u8 kind;   // enum edge_kind
	__u8 pad;
};

// edge is what user space reads: totals since the entry was made, and the number of connections now open.
struct edge {
	__u64 connects;
	__u64 failed;
	__u64 connect_ns; // sum over connects
	__s64 active;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 retransmits;
};

enum conn_phase {
	CONN_IDLE,
	CONN_CONNECTING,
	CONN_OPEN,
	CONN_LINGERING, // closed by its owner, the kernel still talks to the peer
};

// tcp_totals are the counters of one socket that are already in its edge.
struct tcp_totals {
	__u64 sent;
	__u64 received;
	__u64 retransmits;
};

struct conn {
	struct edge_key key;
	__u64 began_ns;
	struct tcp_totals folded;
	__u32 phase; // enum conn_phase
	__u32 pad;
};

enum tcp_stat {
	TCP_STAT_FOLDED,      // connections counted in edges_overflow because edges was full
	TCP_STAT_UNACCOUNTED, // changes that found both full, lost
	TCP_STAT_UNTRACKED,   // connects whose socket storage could not be made, lost
	TCP_STAT_MAX,
};

// conns: on_tcp_state inserts at connect(); the kernel deletes with the socket. It has no size: when memory for an entry
// is refused the connection is counted in TCP_STAT_UNTRACKED.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct conn);
} conns SEC(".maps");

// edges: inserted here; deleted by user space when the container is gone and its last totals were given. When it is full
// connections are counted in edges_overflow and TCP_STAT_FOLDED. Preallocated: no allocation can fail on the way.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768); // resized at load
	__type(key, struct edge_key);
	__type(value, struct edge);
} edges SEC(".maps");

// edges_overflow: one entry for each owner that found edges full; deleted as in edges. When it is full changes are
// counted in TCP_STAT_UNACCOUNTED.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct edge_key);
	__type(value, struct edge);
} edges_overflow SEC(".maps");

// tcp_stats: fixed size, indexed by enum tcp_stat.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TCP_STAT_MAX);
	__type(key, enum tcp_stat);
	__type(value, __u64);
} tcp_stats SEC(".maps");

static __always_inline void count(enum tcp_stat stat)
{
	__u64 *n = bpf_map_lookup_elem(&tcp_stats, &stat);

	if (n)
		*n += 1;
}

static __always_inline struct edge *find_or_insert(void *map, const struct edge_key *key)
{
	struct edge *e = bpf_map_lookup_elem(map, key);
	struct edge none = {};

	if (e)
		return e;
	// Another CPU may insert first: then ours is refused and theirs is found.
	bpf_map_update_elem(map, key, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, key);
}

// edge_of finds the edge of a connection. Where it has to be the overflow, the connection stays there for its life, so
// that what was added to active is taken from the same edge.
static __always_inline struct edge *edge_of(struct conn *c)
{
	struct edge *e;

	if (c->key.kind == EDGE_OUTBOUND) {
		e = find_or_insert(&edges, &c->key);
		if (e)
			return e;
		__builtin_memset(c->key.addr, 0, sizeof(c->key.addr));
		c->key.netns = 0;
		c->key.port = 0;
		c->key.kind = EDGE_OVERFLOW;
		count(TCP_STAT_FOLDED);
	}
	e = find_or_insert(&edges_overflow, &c->key);
	if (!e)
		count(TCP_STAT_UNACCOUNTED);
	return e;
}

static __always_inline void fill_destination(struct edge_key *key, struct sock *sk)
{
	key->kind = EDGE_OUTBOUND;
	key->port = bpf_ntohs(sk->__sk_common.skc_dport);
	key->netns = sk->__sk_common.skc_net.net->ns.inum;
	if (sk->__sk_common.skc_family == AF_INET) {
		__be32 addr = sk->__sk_common.skc_daddr;

		key->addr[10] = 0xff;
		key->addr[11] = 0xff;
		__builtin_memcpy(&key->addr[12], &addr, sizeof(addr));
		return;
	}
	BPF_CORE_READ_INTO(&key->addr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
}

// read_totals gives the payload that the socket has sent and received, and its retransmitted segments.
static __always_inline void read_totals(struct tcp_totals *t, struct sock *sk, struct tcp_sock *tp)
{
	__u64 sent = tp->bytes_sent, retrans = tp->bytes_retrans;

	// tcp_disconnect() clears one after the other, and the iterator does not hold the socket's lock.
	t->sent = sent > retrans ? sent - retrans : 0;
	t->received = tp->bytes_received;
	// A FIN takes one sequence number and is counted as a byte.
	if (t->received && (sk->__sk_common.skc_flags & (1UL << SOCK_DONE)))
		t->received--;
	t->retransmits = tp->total_retrans;
}

// advance moves *folded up to total and returns by how much. The iterator and a change of state may be here at the same
// time for one socket: each step is taken by one of them only. The loser tries again as its total may be the larger one.
static __always_inline __u64 advance(__u64 *folded, __u64 total)
{
	for (int i = 0; i < 4; i++) {
		__u64 was = *(volatile __u64 *)folded;

		if (total <= was)
			return 0;
		if (__sync_val_compare_and_swap(folded, was, total) == was)
			return total - was;
	}
	return 0;
}

static __always_inline void fold(struct edge *e, struct conn *c, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct tcp_totals t;
	__u64 n;

	if (!tp)
		return;
	read_totals(&t, sk, tp);
	n = advance(&c->folded.sent, t.sent);
	if (n)
		__sync_fetch_and_add(&e->bytes_sent, n);
	n = advance(&c->folded.received, t.received);
	if (n)
		__sync_fetch_and_add(&e->bytes_received, n);
	n = advance(&c->folded.retransmits, t.retransmits);
	if (n)
		__sync_fetch_and_add(&e->retransmits, n);
}

// leave_open takes the connection out of active, once.
static __always_inline void leave_open(struct edge *e, struct conn *c, __u32 next)
{
	if (__sync_val_compare_and_swap(&c->phase, CONN_OPEN, next) == CONN_OPEN)
		__sync_fetch_and_add(&e->active, -1);
}

static __always_inline void begin_connect(struct sock *sk)
{
	struct tcp_sock *tp;
	struct owner owner;
	struct conn *c;

	if (!owner_of_current(&owner))
		return;
	c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	// A socket may connect again after it failed or was disconnected: its storage is still there.
	__builtin_memset(&c->key, 0, sizeof(c->key));
	c->key.owner = owner;
	fill_destination(&c->key, sk);
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		read_totals(&c->folded, sk, tp);
	c->began_ns = bpf_ktime_get_ns();
	c->phase = CONN_CONNECTING;
}

static __always_inline void end_connect(struct sock *sk, struct conn *c, bool established)
{
	struct edge *e = edge_of(c);

	// What is not in active must not be taken out of it later.
	c->phase = established && e ? CONN_OPEN : CONN_IDLE;
	if (!e)
		return;
	if (!established) {
		__sync_fetch_and_add(&e->failed, 1);
		fold(e, c, sk); // its SYNs may have been retransmitted
		return;
	}
	__sync_fetch_and_add(&e->connects, 1);
	__sync_fetch_and_add(&e->active, 1);
	__sync_fetch_and_add(&e->connect_ns, bpf_ktime_get_ns() - c->began_ns);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_tcp_state, struct sock *sk, int old_state, int new_state)
{
	struct conn *c;
	struct edge *e;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new_state == TCP_SYN_SENT) {
		begin_connect(sk);
		return 0;
	}
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c || c->phase == CONN_IDLE)
		return 0;
	if (c->phase == CONN_CONNECTING) {
		// SYN_RECV of a simultaneous open is on the way to either of these.
		if (new_state == TCP_ESTABLISHED || new_state == TCP_CLOSE)
			end_connect(sk, c, new_state == TCP_ESTABLISHED);
		return 0;
	}
	// After shutdown(SHUT_WR) the connection is still in use; close() has shut down both ways.
	if (new_state != TCP_CLOSE && sk->sk_shutdown != SHUTDOWN_MASK)
		return 0;
	e = edge_of(c);
	if (!e)
		return 0;
	leave_open(e, c, CONN_LINGERING);
	if (new_state == TCP_CLOSE) {
		fold(e, c, sk);
		c->phase = CONN_IDLE;
	}
	return 0;
}

SEC("iter/bpf_sk_storage_map")
int fold_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct conn *c;
	struct edge *e;

	if (!sk)
		return 0;
	// Up to Linux 6.1 at least, ctx->value cannot be given to helpers as the key of another map.
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c)
		return 0;
	if (c->phase != CONN_OPEN && c->phase != CONN_LINGERING)
		return 0;
	e = edge_of(c);
	if (!e)
		return 0;
	// A close() in FIN_WAIT1 makes no change of state.
	if (sk->sk_shutdown == SHUTDOWN_MASK)
		leave_open(e, c, CONN_LINGERING);
	fold(e, c, sk);
	return 0;
}
