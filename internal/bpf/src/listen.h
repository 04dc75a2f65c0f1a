/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that listen, and what they pass on to those that they make.
 */
#ifndef EBPF_CONTAINER_LISTEN_H
#define EBPF_CONTAINER_LISTEN_H

#include "kernel.h"
#include "owner.h"
#include "edges.h"
#include "conns.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

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

__u32 mptcp_listeners_n = 0;

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

// is_made_by_listener tells that c is still the copy of what the listener has.
static __always_inline bool is_made_by_listener(const struct conn *c, struct sock *sk)
{
	return is_listening(c) && c->listener != (__u64)sk;
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

// begin_accept makes what a listener has passed on to a new socket that socket's own.
static __always_inline void begin_accept(struct conn *c)
{
	c->phase = CONN_ACCEPTING;
	__builtin_memset(&c->folded, 0, sizeof(c->folded));
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

static __always_inline void fold_live_listener(struct sock *sk, struct conn *c)
{
	struct owner owner = c->key.owner;
	struct listener *l;

	if (sk->__sk_common.skc_state != TCP_LISTEN)
		return; // it was closed
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

#endif
