/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is kept with each socket, and how its own counters get into the tables.
 */
#ifndef EBPF_CONTAINER_CONNS_H
#define EBPF_CONTAINER_CONNS_H

#include "kernel.h"
#include "edges.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

enum conn_phase {
	CONN_NONE,
	CONN_ATTEMPTED, // connect() was called, the socket has not moved yet
	CONN_CONNECTING,
	CONN_OPENING, // on its way to the next, for an instant
	CONN_OPEN,
	CONN_LINGERING, // closed by its owner, the kernel still talks to the peer
	CONN_OVER,      // was open
	CONN_LISTENING,
	CONN_LISTENING_UNNAMED, // its port is not known yet
	CONN_ACCEPTING, // made by a listener, the handshake is not over
};

// tcp_totals are the counters of one socket that are already in its edge.
struct tcp_totals {
	__u64 sent;
	__u64 received;
	__u64 retransmits;
};

// listen_totals are what of one listening socket is already in its listener.
struct listen_totals {
	__u64 drops;
	__u32 queue;
	__u32 queue_limit;
};

struct conn {
	struct edge_key key;
	__u64 began_ns;
	union {
		struct tcp_totals folded;
		struct listen_totals folded_listen;
	};
	__u64 listener; // address of the socket that called listen(), by which it is told from those that it makes
	__u32 phase;    // enum conn_phase
	__u32 tgid;     // of the task that called listen()
};

// conns: inserted at connect(), at listen(), by the kernel for sockets that a listener accepts, and by adopt; the kernel
// deletes with the socket. It has no size: when memory for an entry is refused the socket is counted in TCP_STAT_UNTRACKED.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct conn);
} conns SEC(".maps");

// live_rtt is the round-trip time of one open connection.
struct live_rtt {
	struct owner owner;
	__u8 addr[16]; // the actual destination
	__u32 netns;
	__u32 rtt_us;
};

enum {
	LIVE_RTTS = 65536,
};

// live_rtts: filled anew at each sampling pass, live_rtts_n of them. Sockets come in no order, so that the first ones are
// as good as any when there are more than fit in.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LIVE_RTTS);
	__type(key, __u32);
	__type(value, struct live_rtt);
} live_rtts SEC(".maps");

__u32 live_rtts_n = 0;
__u32 sampling = 0; // set by user space: this pass of fold_live samples round-trip times

const __u32 rtt_bounds_us[RTT_BUCKETS - 1] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,
};

// move takes c from one phase to another, for one of those who would at the same time.
static __always_inline bool move(struct conn *c, __u32 from, __u32 to)
{
	return __sync_val_compare_and_swap(&c->phase, from, to) == from;
}

// is_settled tells that nobody is at work on the socket. It is false on PREEMPT_RT kernels, which have another lock.
static __always_inline bool is_settled(struct sock *sk)
{
	if (!bpf_core_field_exists(sk->sk_lock.slock.rlock.raw_lock.val))
		return false;
	return !*(volatile int *)&sk->sk_lock.slock.rlock.raw_lock.val.counter && !*(volatile int *)&sk->sk_lock.owned;
}

// read_totals gives the payload that the socket has sent and received, and its retransmitted segments. locked means that
// the caller runs under the socket's lock; without it a number may be a little too low, never too high.
static __always_inline void read_totals(struct tcp_totals *t, struct sock *sk, struct tcp_sock *tp, bool locked)
{
	// A retransmission counts in bytes_retrans first.
	__u64 sent = *(volatile __u64 *)&tp->bytes_sent, retrans = *(volatile __u64 *)&tp->bytes_retrans;
	__u64 received = *(volatile __u64 *)&tp->bytes_received;
	bool settled = locked || is_settled(sk);
	bool fin = *(volatile unsigned long *)&sk->__sk_common.skc_flags & (1UL << SOCK_DONE);

	// tcp_disconnect() clears one after the other.
	t->sent = sent > retrans ? sent - retrans : 0;
	// A FIN takes one sequence number and is counted as a byte, an instant before SOCK_DONE is set.
	if (received && (fin || !settled))
		received--;
	t->received = received;
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

static __always_inline void fold_retransmits(struct edge *e, struct conn *c, __u64 total)
{
	__u64 n = advance(&c->folded.retransmits, total);

	if (n)
		__sync_fetch_and_add(&e->retransmits, n);
}

static __always_inline void fold(struct edge *e, struct conn *c, struct sock *sk, struct tcp_sock *tp, bool locked)
{
	struct tcp_totals t;
	__u64 n;

	read_totals(&t, sk, tp, locked);
	n = advance(&c->folded.sent, t.sent);
	if (n)
		__sync_fetch_and_add(&e->bytes_sent, n);
	n = advance(&c->folded.received, t.received);
	if (n)
		__sync_fetch_and_add(&e->bytes_received, n);
	fold_retransmits(e, c, t.retransmits);
	touch(&e->touched_ns);
}

static __always_inline void sample_rtt(struct edge *e, __u32 rtt_us)
{
	__u32 i;

	for (i = 0; i < RTT_BUCKETS - 1; i++)
		if (rtt_us <= rtt_bounds_us[i])
			break;
	__sync_fetch_and_add(&e->rtt[i], 1);
	__sync_fetch_and_add(&e->rtt_us, rtt_us);
}

// leave_open takes the connection out of active, once.
static __always_inline void leave_open(struct edge *e, struct conn *c, __u32 next)
{
	if (move(c, CONN_OPEN, next))
		__sync_fetch_and_add(&e->active, -1);
}

static __always_inline bool is_outbound(const struct conn *c)
{
	return c->key.kind == EDGE_OUTBOUND || c->key.kind == EDGE_OUTBOUND_OVERFLOW;
}

static __always_inline void note_live_rtt(const struct conn *c, __u32 rtt_us)
{
	__u32 i = live_rtts_n;
	struct live_rtt *r;

	if (i >= LIVE_RTTS || c->key.kind != EDGE_OUTBOUND)
		return;
	r = bpf_map_lookup_elem(&live_rtts, &i);
	if (!r)
		return;
	live_rtts_n = i + 1;
	r->owner = c->key.owner;
	r->netns = c->key.netns;
	r->rtt_us = rtt_us;
	__builtin_memcpy(r->addr, c->key.actual_port ? c->key.actual : c->key.addr, sizeof(r->addr));
}

#endif
