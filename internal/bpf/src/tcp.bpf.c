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
