// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * TCP connections that the host's containers begin and accept, counted in the kernel per (container, address).
 *
 * Nothing is sent to user space per connection. The owner of a socket is noted in socket-local storage when connect() or
 * listen() is called, which is always by the task itself; sockets that a listener accepts inherit its storage. on_tcp_state
 * then adds to the edge at each later change of state. fold_live brings the counters of open sockets up to date before
 * user space reads the tables.
 *
 * Each program but on_tcp_state can be left out: user space loads what the kernel and its privileges allow.
 */
#include "kernel.h"
#include "owner.h"
#include "edges.h"
#include "cilium.h"
#include "nat.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum conn_phase {
	CONN_NONE,
	CONN_ATTEMPTED, // connect() was called, the socket has not moved yet
	CONN_CONNECTING,
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

// listened: one bit for each port on which a socket of this host has listened since we are here, in any namespace.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536 / 64);
	__type(key, __u32);
	__type(value, __u64);
} listened SEC(".maps");

// port_key names a listening socket that has no storage.
struct port_key {
	__u32 netns;
	__u16 port;
	__u16 pad;
};

// mptcp_listeners: MPTCP sockets that have listened before us, inserted by adopt, deleted when they are closed. The TCP
// socket below one cannot be reached from its file, so it has no storage to pass on. What finds it full is not counted.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct port_key);
	__type(value, struct edge_key);
} mptcp_listeners SEC(".maps");

// adopted_ports: the ports on which sockets listen that were there before us, inserted by the first pass of adopt for the
// second. What finds it full is missed; the second pass has other signs.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct port_key);
	__type(value, __u8);
} adopted_ports SEC(".maps");

__u32 mptcp_listeners_n = 0;
__u32 adopting_connections = 0; // set by user space: this is the second pass of adopt
__u32 live_rtts_n = 0;
__u32 sampling = 0; // set by user space: this pass of fold_live samples round-trip times

const __u32 rtt_bounds_us[RTT_BUCKETS - 1] = {
	100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,
};

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
	if (__sync_val_compare_and_swap(&c->phase, CONN_OPEN, next) == CONN_OPEN)
		__sync_fetch_and_add(&e->active, -1);
}

static __always_inline bool is_outbound(const struct conn *c)
{
	return c->key.kind == EDGE_OUTBOUND || c->key.kind == EDGE_OUTBOUND_OVERFLOW;
}

// resolve_actual finds out whether the peer is another one than was dialled.
static __always_inline void resolve_actual(struct conn *c, struct sock *sk)
{
	struct endpoint actual = {};
	struct flow flow = {};

	if (c->key.kind != EDGE_OUTBOUND || find_backend(&c->key, sk) || !has_translations)
		return;
	local_addr(flow.source.addr, sk);
	flow.source.port = sk->__sk_common.skc_num;
	__builtin_memcpy(flow.destination.addr, c->key.addr, sizeof(c->key.addr));
	flow.destination.port = c->key.port;
	if (!translate(&actual, &flow, c->began_ns))
		return;
	__builtin_memcpy(c->key.actual, actual.addr, sizeof(actual.addr));
	c->key.actual_port = actual.port;
}

// begin_open counts a connection that has become established.
static __always_inline void begin_open(struct sock *sk, struct conn *c)
{
	struct edge *e;

	resolve_actual(c, sk);
	e = edge_of(&c->key);
	// What is not in active must not be taken out of it later.
	c->phase = e ? CONN_OPEN : CONN_NONE;
	if (!e)
		return;
	__sync_fetch_and_add(&e->connects, 1);
	__sync_fetch_and_add(&e->active, 1);
	if (c->began_ns)
		__sync_fetch_and_add(&e->connect_ns, bpf_ktime_get_ns() - c->began_ns);
	touch(&e->touched_ns);
}

static __always_inline void fail(struct conn *c, enum failure why)
{
	struct edge *e = edge_of(&c->key);

	if (!e || why >= FAILURE_MAX)
		return;
	__sync_fetch_and_add(&e->failed[why], 1);
	touch(&e->touched_ns);
}

// icmp_error gives the error of the last ICMP message that waits to be read, 0 for none. One that comes while connect() is
// at work, as between namespaces of one host, does not end the attempt; asked for SO_ERROR the kernel tells of it once and
// clears sk_err_soft.
static __always_inline int icmp_error(struct sock *sk)
{
	struct sock_exterr_skb *err;
	struct sk_buff *skb;
	__u8 origin;

	if (!sk->sk_error_queue.qlen)
		return 0;
	skb = sk->sk_error_queue.prev;
	err = (struct sock_exterr_skb *)__builtin_preserve_access_index(&skb->cb[0]);
	origin = BPF_CORE_READ(err, ee.ee_origin);
	if (origin != SO_EE_ORIGIN_ICMP && origin != SO_EE_ORIGIN_ICMP6)
		return 0;
	return BPF_CORE_READ(err, ee.ee_errno);
}

static __always_inline enum failure failure_of(struct sock *sk, struct tcp_sock *tp)
{
	int err = sk->sk_err;

	if (!err)
		err = sk->sk_err_soft;
	if (!err)
		err = icmp_error(sk);
	switch (err) {
	case 0:
		// connect() undoes its own change of state when no packet could be made: no free source port, no memory.
		return tp->segs_out ? FAILURE_ABORTED : FAILURE_OTHER;
	case ECONNREFUSED:
		return FAILURE_REFUSED;
	case ETIMEDOUT:
		return FAILURE_TIMEOUT;
	case ECONNRESET:
		return FAILURE_RESET;
	case EHOSTUNREACH:
	case EHOSTDOWN:
		return FAILURE_HOST_UNREACHABLE;
	case ENETUNREACH:
	case ENETDOWN:
	case ENONET:
		return FAILURE_NETWORK_UNREACHABLE;
	}
	return FAILURE_OTHER;
}

static __always_inline void begin_connect(struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct owner owner;
	struct conn *c;

	if (!tp || !owner_of_current(&owner))
		return;
	c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	// A socket may connect again after it failed or was disconnected: its storage is still there.
	name_edge(&c->key, &owner, sk, EDGE_OUTBOUND);
	name_service(&c->key, sk);
	read_totals(&c->folded, sk, tp, true);
	c->began_ns = bpf_ktime_get_ns();
	c->phase = CONN_CONNECTING;
}

static __always_inline void note_listening(__u16 port)
{
	__u32 i = port / 64;
	__u64 *bits = bpf_map_lookup_elem(&listened, &i);

	if (bits)
		__sync_fetch_and_or(bits, 1ULL << (port % 64));
}

static __always_inline bool is_listening(const struct conn *c)
{
	return c->phase == CONN_LISTENING || c->phase == CONN_LISTENING_UNNAMED;
}

// begin_listen counts a listening socket. tgid is that of the task that has it.
static __always_inline void begin_listen(struct sock *sk, const struct owner *owner, __u32 tgid)
{
	struct listener *l;
	struct conn *c;

	c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	if (c->phase == CONN_LISTENING)
		return;
	name_edge(&c->key, owner, sk, EDGE_LISTENER);
	c->folded_listen.drops = (__u32)sk->sk_drops.counter; // those of an earlier listen(), or of before us
	c->folded_listen.queue = 0;
	c->folded_listen.queue_limit = 0;
	c->began_ns = 0;
	c->listener = (__u64)sk;
	c->tgid = tgid;
	if (!c->key.port) {
		// listen() without bind() gets its port after the change of state: fold_live finds it.
		c->phase = CONN_LISTENING_UNNAMED;
		return;
	}
	l = listener_of(&c->key);
	c->phase = l ? CONN_LISTENING : CONN_NONE;
	if (!l)
		return;
	__sync_fetch_and_add(&l->open, 1);
	touch(&l->touched_ns);
	l->tgid = tgid;
	l->v6only = BPF_CORE_READ_BITFIELD(&sk->__sk_common, skc_ipv6only);
}

static __always_inline void fold_listener(struct listener *l, struct conn *c, __u32 queue, __u32 limit, __u64 drops)
{
	__u32 was;
	__u64 n;

	was = __sync_lock_test_and_set(&c->folded_listen.queue, queue);
	if (was != queue)
		__sync_fetch_and_add(&l->queue, (__s64)queue - (__s64)was);
	was = __sync_lock_test_and_set(&c->folded_listen.queue_limit, limit);
	if (was != limit)
		__sync_fetch_and_add(&l->queue_limit, (__s64)limit - (__s64)was);
	n = advance(&c->folded_listen.drops, drops);
	if (n)
		__sync_fetch_and_add(&l->drops, n);
}

static __always_inline void end_listen(struct sock *sk, struct conn *c)
{
	struct listener *l;

	if (c->phase == CONN_LISTENING_UNNAMED) {
		c->phase = CONN_NONE;
		return;
	}
	l = listener_of(&c->key);
	if (!l || __sync_val_compare_and_swap(&c->phase, CONN_LISTENING, CONN_NONE) != CONN_LISTENING)
		return;
	__sync_fetch_and_add(&l->open, -1);
	touch(&l->touched_ns);
	fold_listener(l, c, 0, 0, (__u32)sk->sk_drops.counter);
}

// on_listening_state is on_tcp_state for listening sockets and those that they have just made.
static __always_inline void on_listening_state(struct sock *sk, struct conn *c, int new_state)
{
	if (new_state == TCP_SYN_RECV) {
		c->phase = CONN_ACCEPTING; // sk is the new socket
		__builtin_memset(&c->folded, 0, sizeof(c->folded));
		return;
	}
	if (new_state == TCP_CLOSE)
		end_listen(sk, c);
}

// is_own_reset tells whether the kernel may have reset the connection by itself, because data came after close(). A reset
// by the peer looks the same then, and hits nobody any more.
static __always_inline bool is_own_reset(struct sock *sk, int old_state)
{
	return (old_state == TCP_FIN_WAIT1 || old_state == TCP_FIN_WAIT2) && (sk->sk_shutdown & RCV_SHUTDOWN);
}

// on_open_state is on_tcp_state for established connections and what comes after.
static __always_inline void on_open_state(struct sock *sk, struct conn *c, int old_state, int new_state)
{
	struct tcp_sock *tp;
	struct edge *e;
	__u32 srtt;
	int err;

	// After shutdown(SHUT_WR) the connection is still in use; close() has shut down both ways.
	if (new_state != TCP_CLOSE && sk->sk_shutdown != SHUTDOWN_MASK)
		return;
	e = edge_of(&c->key);
	if (!e)
		return;
	leave_open(e, c, CONN_LINGERING);
	if (new_state != TCP_CLOSE)
		return;
	c->phase = CONN_OVER;
	err = sk->sk_err;
	if ((err == ECONNRESET || err == EPIPE) && !is_own_reset(sk, old_state)) // by tcp_reset() alone before the state changes
		__sync_fetch_and_add(&e->resets_received, 1);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	fold(e, c, sk, tp, true);
	srtt = tp->srtt_us >> 3;
	if (srtt && is_outbound(c))
		sample_rtt(e, srtt);
}

// on_mptcp_listener_state is on_tcp_state for the TCP socket below a listening MPTCP socket that was there before us, and
// for those that it has just made.
static __always_inline void on_mptcp_listener_state(struct sock *sk, int new_state)
{
	struct port_key port = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num};
	struct edge_key *key = bpf_map_lookup_elem(&mptcp_listeners, &port);
	struct listener *l;
	struct conn *c;

	if (!key)
		return;
	if (new_state == TCP_SYN_RECV) {
		c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (!c) {
			count(TCP_STAT_UNTRACKED);
			return;
		}
		c->key = *key;
		c->phase = CONN_ACCEPTING;
		return;
	}
	if (new_state != TCP_CLOSE)
		return;
	l = listener_of(key);
	if (l && !bpf_map_delete_elem(&mptcp_listeners, &port)) {
		__sync_fetch_and_add(&mptcp_listeners_n, -1);
		__sync_fetch_and_add(&l->open, -1);
		touch(&l->touched_ns);
	}
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_tcp_state, struct sock *sk, int old_state, int new_state)
{
	struct tcp_sock *tp;
	struct owner owner;
	struct edge *e;
	struct conn *c;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (new_state == TCP_SYN_SENT) {
		begin_connect(sk);
		return 0;
	}
	if (new_state == TCP_LISTEN) {
		note_listening(sk->__sk_common.skc_num);
		if (owner_of_current(&owner))
			begin_listen(sk, &owner, bpf_get_current_pid_tgid() >> 32);
		return 0;
	}
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c) {
		if (old_state == TCP_LISTEN && mptcp_listeners_n)
			on_mptcp_listener_state(sk, new_state);
		return 0;
	}
	switch (c->phase) {
	case CONN_CONNECTING:
		// SYN_RECV of a simultaneous open is on the way to either of these.
		if (new_state == TCP_ESTABLISHED) {
			begin_open(sk, c);
			return 0;
		}
		if (new_state != TCP_CLOSE)
			return 0;
		c->phase = CONN_NONE;
		tp = bpf_skc_to_tcp_sock(sk);
		e = edge_of(&c->key);
		if (!tp || !e)
			return 0;
		fail(c, failure_of(sk, tp));
		fold_retransmits(e, c, tp->total_retrans); // of its SYNs; data that went with one was not received
		return 0;
	case CONN_OPEN:
	case CONN_LINGERING:
		on_open_state(sk, c, old_state, new_state);
		return 0;
	case CONN_LISTENING:
	case CONN_LISTENING_UNNAMED:
		on_listening_state(sk, c, new_state);
		return 0;
	case CONN_ACCEPTING:
		if (new_state == TCP_CLOSE) {
			c->phase = CONN_NONE;
			return 0;
		}
		// With Fast Open it may be closed by its owner before it is established.
		owner = c->key.owner;
		name_edge(&c->key, &owner, sk, EDGE_INBOUND);
		begin_open(sk, c);
	}
	return 0;
}

// on_send_reset sees resets of connections; those in answer to stray packets have no socket of ours.
SEC("tp_btf/tcp_send_reset")
int BPF_PROG(on_send_reset, struct sock *sk)
{
	struct edge *e;
	struct conn *c;

	if (!sk)
		return 0;
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c || (c->phase != CONN_OPEN && c->phase != CONN_LINGERING && c->phase != CONN_OVER))
		return 0;
	e = edge_of(&c->key);
	if (!e)
		return 0;
	__sync_fetch_and_add(&e->resets_sent, 1);
	touch(&e->touched_ns);
	return 0;
}

// begin_attempt notes a call of connect(). If the kernel finds no route the socket never changes its state: the next call
// or the end of the socket tells that this one has failed.
static __always_inline void begin_attempt(struct bpf_sock_addr *ctx, const __u8 addr[16])
{
	struct tcp_sock *tp;
	struct owner owner;
	struct conn *c;
	struct sock *sk;

	if (ctx->protocol != IPPROTO_TCP || !ctx->sk)
		return;
	tp = bpf_skc_to_tcp_sock(ctx->sk);
	if (!tp || !owner_of_current(&owner))
		return;
	sk = (struct sock *)tp;
	c = bpf_sk_storage_get(&conns, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	if (c->phase == CONN_ATTEMPTED)
		fail(c, FAILURE_UNROUTED);
	else if (c->phase != CONN_NONE && c->phase != CONN_OVER)
		return;
	name_edge(&c->key, &owner, sk, EDGE_OUTBOUND);
	__builtin_memcpy(c->key.addr, addr, sizeof(c->key.addr));
	c->key.port = bpf_ntohs(ctx->user_port);
	c->phase = CONN_ATTEMPTED;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	__u8 addr[16] = {};

	map_ipv4(addr, ctx->user_ip4);
	begin_attempt(ctx, addr);
	return 1;
}

SEC("cgroup/connect6")
int on_connect6(struct bpf_sock_addr *ctx)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	begin_attempt(ctx, (const __u8 *)addr);
	return 1;
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_tcp_destroy, struct sock *sk)
{
	struct conn *c = bpf_sk_storage_get(&conns, sk, 0, 0);

	if (c && c->phase == CONN_ATTEMPTED) {
		c->phase = CONN_NONE;
		fail(c, FAILURE_UNROUTED);
	}
	return 0;
}

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_net_dev_queue, struct sk_buff *skb)
{
	see_packet(skb->_nfct);
	return 0;
}

static __always_inline void fold_live_listener(struct sock *sk, struct conn *c)
{
	struct owner owner = c->key.owner;
	struct listener *l;

	if (c->listener != (__u64)sk || sk->__sk_common.skc_state != TCP_LISTEN)
		return; // made by a listener an instant ago, or closed
	if (c->phase == CONN_LISTENING_UNNAMED && sk->__sk_common.skc_num) {
		note_listening(sk->__sk_common.skc_num);
		begin_listen(sk, &owner, c->tgid);
	}
	if (c->phase != CONN_LISTENING)
		return;
	l = listener_of(&c->key);
	if (!l)
		return;
	fold_listener(l, c, sk->sk_ack_backlog, sk->sk_max_ack_backlog, (__u32)sk->sk_drops.counter);
	// It may have been closed meanwhile.
	if (sk->__sk_common.skc_state != TCP_LISTEN)
		fold_listener(l, c, 0, 0, 0);
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

SEC("iter/bpf_sk_storage_map")
int fold_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct tcp_sock *tp;
	struct edge *e;
	struct conn *c;
	__u32 srtt;

	if (!sk)
		return 0;
	// Up to Linux 6.1 at least, ctx->value cannot be given to helpers as the key of another map.
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c)
		return 0;
	if (is_listening(c)) {
		fold_live_listener(sk, c);
		return 0;
	}
	if (c->phase != CONN_OPEN && c->phase != CONN_LINGERING)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	e = edge_of(&c->key);
	if (!tp || !e)
		return 0;
	// A close() in FIN_WAIT1 makes no change of state, that of an MPTCP socket does not shut down what is below it. CLOSE is
	// left over if adopt came too late.
	if (sk->sk_shutdown == SHUTDOWN_MASK || (is_outbound(c) && !sk->sk_socket) || sk->__sk_common.skc_state == TCP_CLOSE)
		leave_open(e, c, CONN_LINGERING);
	fold(e, c, sk, tp, false);
	srtt = tp->srtt_us >> 3;
	if (sampling && srtt && c->phase == CONN_OPEN && is_outbound(c)) {
		sample_rtt(e, srtt);
		note_live_rtt(c, srtt);
	}
	return 0;
}

// was_accepted tells whether the connection was made by a listener: mostly one that is still there. Else, connect() on a port
// of the kernel's choice marks the port as one that can be shared, and a port or an address of the application's choice
// is marked in the socket.
static __always_inline bool was_accepted(struct sock *sk, struct tcp_sock *tp)
{
	struct port_key port = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num};
	struct inet_bind_bucket *bucket = tp->inet_conn.icsk_bind_hash;

	if (bpf_map_lookup_elem(&adopted_ports, &port))
		return true;
	if (BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & (SOCK_BINDPORT_LOCK | SOCK_BINDADDR_LOCK))
		return false;
	return bucket && BPF_CORE_READ(bucket, fastreuse) >= 0;
}

static __always_inline void adopt_connection(struct sock *sk, struct tcp_sock *tp, const struct owner *owner)
{
	bool accepted = was_accepted(sk, tp);
	struct edge *e;
	struct conn *c;

	c = bpf_sk_storage_get(&conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count(TCP_STAT_UNTRACKED);
		return;
	}
	if (c->phase != CONN_NONE)
		return; // known, or had by several tasks
	name_edge(&c->key, owner, sk, accepted ? EDGE_INBOUND : EDGE_OUTBOUND);
	if (!accepted)
		name_service(&c->key, sk);
	read_totals(&c->folded, sk, tp, false);
	c->began_ns = 0;
	count(TCP_STAT_ADOPTED);
	if (sk->__sk_common.skc_state == TCP_SYN_SENT) {
		c->began_ns = bpf_ktime_get_ns();
		c->phase = CONN_CONNECTING;
		// A change of state before this line was not for us.
		if (*(volatile unsigned char *)&sk->__sk_common.skc_state == TCP_SYN_SENT ||
		    __sync_val_compare_and_swap(&c->phase, CONN_CONNECTING, CONN_NONE) != CONN_CONNECTING)
			return;
		if (sk->__sk_common.skc_state == TCP_CLOSE)
			return;
	}
	resolve_actual(c, sk);
	e = edge_of(&c->key);
	if (!e)
		return;
	__sync_fetch_and_add(&e->active, 1);
	c->phase = CONN_OPEN;
	if (sk->sk_shutdown == SHUTDOWN_MASK || sk->__sk_common.skc_state == TCP_CLOSE)
		leave_open(e, c, CONN_LINGERING);
}

// adopt_mptcp_listener notes a listening MPTCP socket.
static __always_inline void adopt_mptcp_listener(struct sock *sk, const struct owner *owner, __u32 tgid)
{
	struct port_key port = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num};
	struct listener *l;
	struct edge_key key;

	name_edge(&key, owner, sk, EDGE_LISTENER);
	l = bpf_map_lookup_elem(&listeners, &key);
	if (l && l->open > 0)
		return; // it was made since we are here, or is had by several tasks
	if (bpf_map_update_elem(&mptcp_listeners, &port, &key, BPF_NOEXIST))
		return;
	l = listener_of(&key);
	if (!l)
		return;
	mptcp_listeners_n++;
	__sync_fetch_and_add(&l->open, 1);
	touch(&l->touched_ns);
	l->tgid = tgid;
	l->v6only = BPF_CORE_READ_BITFIELD(&sk->__sk_common, skc_ipv6only);
	count(TCP_STAT_ADOPTED);
}

static __always_inline void adopt_listener(struct sock *sk, struct task_struct *task)
{
	struct port_key port = {.netns = sk->__sk_common.skc_net.net->ns.inum, .port = sk->__sk_common.skc_num};
	struct owner owner;
	__u8 yes = 1;

	note_listening(port.port);
	bpf_map_update_elem(&adopted_ports, &port, &yes, BPF_ANY);
	if (!owner_of(&owner, task))
		return;
	if (sk->sk_protocol == IPPROTO_MPTCP) {
		adopt_mptcp_listener(sk, &owner, task->tgid);
		return;
	}
	begin_listen(sk, &owner, task->tgid);
	count(TCP_STAT_ADOPTED);
}

// adopt takes in the sockets that were there before us: in one pass those that listen, in the next the others.
SEC("iter/task_file")
int adopt(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct tcp_sock *tp;
	struct owner owner;
	struct sock *sk;
	int state;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || (sk->sk_protocol != IPPROTO_TCP && sk->sk_protocol != IPPROTO_MPTCP))
		return 0;
	state = sk->__sk_common.skc_state;
	if (!adopting_connections) {
		if (state == TCP_LISTEN)
			adopt_listener(sk, task);
		return 0;
	}
	if (state == TCP_LISTEN || state == TCP_CLOSE || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp && owner_of(&owner, task))
		adopt_connection(sk, tp, &owner);
	return 0;
}
