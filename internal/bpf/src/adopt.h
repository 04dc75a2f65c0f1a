/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sockets that were there before us, found by the files of all tasks.
 */
#ifndef EBPF_CONTAINER_ADOPT_H
#define EBPF_CONTAINER_ADOPT_H

#include "kernel.h"
#include "owner.h"
#include "edges.h"
#include "conns.h"
#include "connect.h"
#include "listen.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

// adopted_ports: the ports on which sockets listen that were there before us, inserted by the first pass of adopt for the
// second. What finds it full is missed; the second pass has other signs.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct port_key);
	__type(value, __u8);
} adopted_ports SEC(".maps");

__u32 adopting_connections = 0; // set by user space: this is the second pass of adopt

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

#endif
