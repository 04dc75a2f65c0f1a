// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * TCP connections that the host's containers begin and accept, counted in the kernel per (container, address).
 *
 * Nothing is sent to user space per connection. The owner of a socket is noted in socket-local storage when connect() or
 * listen() is called, which is always by the task itself; sockets that a listener accepts inherit its storage. on_tcp_state
 * then adds to the edge at each later change of state. fold_live brings the counters of open sockets up to date before
 * user space reads the tables.
 *
 * Each program but on_tcp_state and its understudy can be left out: user space loads what the kernel and its privileges allow.
 */
#include "kernel.h"
#include "owner.h"
#include "edges.h"
#include "nat.h"
#include "cilium.h"
#include "conns.h"
#include "connect.h"
#include "listen.h"
#include "adopt.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

static __always_inline bool was_handshake(int old_state)
{
	return old_state == TCP_SYN_SENT || old_state == TCP_SYN_RECV;
}

// open_accepted counts a connection that was accepted, and is established or more. With Fast Open it may be closed by its
// owner before it is established.
static __always_inline void open_accepted(struct sock *sk, struct conn *c)
{
	struct owner owner = c->key.owner;

	if (!move(c, CONN_ACCEPTING, CONN_OPENING))
		return;
	name_edge(&c->key, &owner, sk, EDGE_INBOUND);
	begin_open(sk, c, false);
}

static __always_inline void open_connected(struct sock *sk, struct conn *c, bool missed)
{
	if (move(c, CONN_CONNECTING, CONN_OPENING))
		begin_open(sk, c, missed);
}

// on_state follows one socket. What it has missed of it before it makes up for: see on_missed_tcp_state.
static __always_inline void on_state(struct sock *sk, int old_state, int new_state)
{
	struct owner owner;
	struct conn *c;

	if (new_state == TCP_SYN_SENT) {
		begin_connect(sk);
		return;
	}
	if (new_state == TCP_LISTEN) {
		note_listening(sk->__sk_common.skc_num);
		if (owner_of_current(&owner))
			begin_listen(sk, &owner, bpf_get_current_pid_tgid() >> 32);
		return;
	}
	c = bpf_sk_storage_get(&conns, sk, 0, 0);
	if (!c) {
		if (old_state == TCP_LISTEN && mptcp_listeners_n)
			on_mptcp_listener_state(sk, new_state);
		return;
	}
	if (is_listening(c)) {
		if (new_state == TCP_CLOSE && old_state == TCP_LISTEN) {
			end_listen(sk, c);
			return;
		}
		begin_accept(c); // sk is a new socket
	}
	if (c->phase == CONN_CONNECTING || c->phase == CONN_ACCEPTING) {
		// SYN_RECV of a simultaneous open is on the way to what follows, and where accepted sockets begin.
		if (new_state == TCP_SYN_RECV)
			return;
		if (new_state == TCP_CLOSE && was_handshake(old_state)) {
			if (move(c, CONN_CONNECTING, CONN_NONE))
				end_attempt(sk, c, false);
			else
				c->phase = CONN_NONE;
			return;
		}
		open_accepted(sk, c);
		open_connected(sk, c, new_state != TCP_ESTABLISHED);
		if (new_state == TCP_ESTABLISHED)
			return;
	}
	if (c->phase == CONN_OPEN || c->phase == CONN_LINGERING)
		on_open_state(sk, c, old_state, new_state);
}

struct state_change {
	__u64 sk;
	__s32 old_state;
	__s32 new_state;
};

// last_seen: of each CPU, the last change that on_tcp_state ran for; cleared by on_missed_tcp_state.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state_change);
} last_seen SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_tcp_state, struct sock *sk, int old_state, int new_state)
{
	struct state_change *last;
	__u32 zero = 0;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	last = bpf_map_lookup_elem(&last_seen, &zero);
	if (!last)
		return 0;
	last->sk = (__u64)sk;
	last->old_state = old_state;
	last->new_state = new_state;
	on_state(sk, old_state, new_state);
	return 0;
}

/*
 * on_missed_tcp_state does what on_tcp_state has missed: since Linux 6.1 a program that is interrupted while it runs is not
 * run again on that CPU before it is done, so that what a timer or a packet does to other sockets meanwhile would go by
 * unseen. It runs after on_tcp_state and sees in last_seen if that has run. If an interrupt comes between the two a change
 * is handled twice, which on_state bears.
 *
 * Changes that both have missed are made up for by the next one of the socket, by fold_live, and by on_tcp_destroy.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_missed_tcp_state, struct sock *sk, int old_state, int new_state)
{
	struct state_change *last;
	__u32 zero = 0;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	last = bpf_map_lookup_elem(&last_seen, &zero);
	if (!last)
		return 0;
	if (last->sk == (__u64)sk && last->old_state == old_state && last->new_state == new_state) {
		last->sk = 0;
		return 0;
	}
	on_state(sk, old_state, new_state);
	return 0;
}

// on_tcp_destroy is the last that is seen of a socket.
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(on_tcp_destroy, struct sock *sk)
{
	struct conn *c = bpf_sk_storage_get(&conns, sk, 0, 0);

	if (!c)
		return 0;
	switch (c->phase) {
	case CONN_ATTEMPTED:
		c->phase = CONN_NONE;
		fail(c, FAILURE_UNROUTED);
		return 0;
	case CONN_CONNECTING:
		if (move(c, CONN_CONNECTING, CONN_NONE))
			end_attempt(sk, c, true);
		return 0;
	case CONN_OPEN:
	case CONN_LINGERING:
		on_open_state(sk, c, TCP_ESTABLISHED, TCP_CLOSE);
		return 0;
	case CONN_LISTENING:
		if (c->listener == (__u64)sk)
			end_listen(sk, c);
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

SEC("tp_btf/net_dev_queue")
int BPF_PROG(on_net_dev_queue, struct sk_buff *skb)
{
	see_packet(skb->_nfct);
	return 0;
}

// catch_up handles changes of state that were missed. It does not hold the socket's lock; who moves c first handles it.
static __always_inline void catch_up(struct sock *sk, struct conn *c)
{
	unsigned char state;

	if (c->phase != CONN_CONNECTING && c->phase != CONN_ACCEPTING && !is_made_by_listener(c, sk))
		return;
	// The programs run before the socket gets its new state: whoever has that and not the phase was missed. CLOSE is also
	// the state before connect(), while that holds the socket.
	state = *(volatile unsigned char *)&sk->__sk_common.skc_state;
	switch (state) {
	case TCP_CLOSE:
		if (c->phase == CONN_CONNECTING && is_settled(sk) &&
		    move(c, CONN_CONNECTING, CONN_CONNECTING) && // a barrier
		    *(volatile unsigned char *)&sk->__sk_common.skc_state == TCP_CLOSE && move(c, CONN_CONNECTING, CONN_NONE))
			end_attempt(sk, c, true);
		return;
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
	case TCP_LISTEN:
		return;
	}
	if (is_made_by_listener(c, sk))
		begin_accept(c);
	open_accepted(sk, c);
	open_connected(sk, c, true);
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
	if (is_listening(c) && !is_made_by_listener(c, sk)) {
		fold_live_listener(sk, c);
		return 0;
	}
	catch_up(sk, c);
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
